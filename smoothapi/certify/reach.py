"""Whether a radius is within reach of the votes allowed, and which is the largest that is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from smoothapi.certify.arithmetic import floor_to
from smoothapi.errors import UnreachableRadiusError

if TYPE_CHECKING:
    from collections.abc import Callable

_FARTHEST = 8.0  # sigmas: float64 cannot tell the share of votes needed there from 1
_STEPS = 8000


def check_reachable(
    radius: float,
    least: Callable[[float], int | None],
    *,
    sigma: float,
    alpha: float,
    max_votes: int,
    named: str = "",
) -> None:
    """Check that an unbroken run of the votes allowed can certify a radius.

    Args:
        radius: the L2 radius wanted.
        least: radius -> the votes of the shortest run that certifies it, None where none within
            `max_votes` does; or raises UnreachableRadiusError where none at all does. Larger radii
            need more.
        sigma: noise level.
        alpha: chance of a wrong certificate.
        max_votes: most votes.
        named: what the radius is called in the message; by default its value.

    Raises:
        UnreachableRadiusError: it cannot; says which radius is the largest that can be certified.
        UsageError: from `least`.
    """

    def needed(wanted: float) -> float:
        try:
            votes = least(wanted)
        except UnreachableRadiusError:
            return math.inf
        return max_votes + 1 if votes is None else votes

    needs = needed(radius)
    if needs <= max_votes:
        return
    within = _largest(lambda step: needed(_radius(step, sigma)) <= max_votes)
    border = _radius(within, sigma)
    said = f"{named or f'radius {radius:g}'} at sigma {sigma:g} and alpha {alpha:g}"
    if needs == math.inf:
        said += " is out of reach: no number of votes certifies it."
    elif least(radius) is None:
        said += f" is out of reach of {max_votes:,} votes, even if every one is for the same label."
    else:
        said += (
            f" needs at least {needs:,} votes even if every one is for the same label, and only "
            f"{max_votes:,} are allowed."
        )
    largest = 0.0
    if named or not within:
        said += " Allow more votes, or a larger alpha."
    else:
        largest = floor_to(border, 2 - math.floor(math.log10(border)))
        said += (
            f" The largest radius that {max_votes:,} votes can certify here is "
            f"{largest:g}: ask for that or less, or use a larger sigma"
            + (" or more votes." if needs < math.inf else ".")
        )
    raise UnreachableRadiusError(said, largest=largest)


def _radius(step: int, sigma: float) -> float:
    return sigma * _FARTHEST * step / _STEPS


def _largest(holds: Callable[[int], bool]) -> int:
    """Return the last of the steps from 0 up that holds, 0 if none does."""
    low, high = 0, _STEPS
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
