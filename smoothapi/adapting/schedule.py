"""How a budget is spread: over photos of the race, its halvings, and photos that are held out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smoothapi.errors import UsageError

FEWEST = 20
"""Photos of a race; on fewer a difference could not be told from chance."""

_HELD_OUT, _OF_PHOTOS, _OF_QUERIES = 50, 0.2, 0.15


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is asked, before anything is known.

    Attributes:
        tuning: photos of the race, at most.
        held_out: photos that only measure what was chosen.
        halvings: numbers of photos after which the worse half of the field is dropped.
        queries: what all of it takes at most.
    """

    tuning: int
    held_out: int
    halvings: tuple[int, ...]
    queries: int


def spread(photos: int, settings: int, queries: int | None, *, plain: bool) -> Schedule:
    """Return how many photos a budget is enough for.

    Args:
        photos: how many there are.
        settings: that are tried beside the neutral one.
        queries: most queries, None for no limit.
        plain: whether each photo costs a query for its own label, too.

    Raises:
        UsageError: photos or queries are too few for a race.
    """
    if settings < 1:
        raise UsageError("Nothing can be tried: name at least one setting beside the neutral one.")
    each_held_out = 2 + plain
    held_out = min(_HELD_OUT, int(photos * _OF_PHOTOS))
    if queries is not None:
        held_out = min(held_out, int(queries * _OF_QUERIES / each_held_out))
    tuning = photos - held_out
    left = math.inf if queries is None else queries - held_out * each_held_out
    while tuning >= FEWEST and _cost(tuning, settings, plain=plain) > left:
        tuning -= 1
    if tuning < FEWEST:
        least = _cost(FEWEST, settings, plain=plain)
        raise UsageError(
            f"{photos} photos and a budget of "
            f"{'any number of' if queries is None else f'{queries:,}'} queries are not enough to "
            f"compare {settings} settings: it takes at least {math.ceil(FEWEST / 0.8)} photos and "
            f"{math.ceil(least / (1 - _OF_QUERIES)):,} queries. Give more photos, a larger budget, "
            "or fewer settings."
        )
    cost = _cost(tuning, settings, plain=plain) + held_out * each_held_out
    return Schedule(tuning, held_out, _halvings(tuning, settings), cost)


def _halvings(photos: int, settings: int) -> tuple[int, ...]:
    rounds = math.ceil(math.log2(settings))
    part = photos // (rounds + 1)
    return tuple(part * (number + 1) for number in range(rounds))


def _cost(photos: int, settings: int, *, plain: bool) -> int:
    cost = before = 0
    live = settings
    for until in (*_halvings(photos, settings), photos):
        cost += (until - before) * (live + 1 + plain)
        before, live = until, math.ceil(live / 2)
    return cost
