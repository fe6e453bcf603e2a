"""What will be sent and what it will cost, before anything is."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smoothapi.certify import Top1, queries_needed, required_p, share_deduction
from smoothapi.errors import UsageError
from smoothapi.plan import count_stored
from smoothapi.study.collect import Collector, Rules
from smoothapi.study.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.certify import Target
    from smoothapi.image import WorkingImage
    from smoothapi.provider import Price
    from smoothapi.session import Session

_ENOUGH_MEASURED = 8  # decided cells from which a plan is made
_SIMULATED = 150  # photos drawn where nothing was measured
_SEED = 20_261_101


@dataclass(frozen=True, slots=True)
class Expected:
    """What certifying photos takes, by planning alone.

    Attributes:
        radius: L2 radius wanted.
        sigma: noise level.
        max_votes: most votes of a photo.
        photos: how many.
        certified: share of photos that get a certificate.
        at_least: queries if every photo's votes were unanimous; hopeless photos take fewer.
        queries: queries expected.
        at_most: queries if each photo took the cap.
        dollars_at_least: price of `at_least`, on one month's bill.
        dollars: price of `queries`.
        dollars_at_most: price of `at_most`.
        decided: (n, share of photos that take at most n queries on average).
    """

    radius: float
    sigma: float
    max_votes: int
    photos: int
    certified: float
    at_least: int
    queries: int
    at_most: int
    dollars_at_least: float
    dollars: float
    dollars_at_most: float
    decided: tuple[tuple[int, float], ...]

    @property
    def per_photo(self) -> float:
        """Queries expected for a photo."""
        return self.queries / self.photos


def expect(
    radius: float,
    sigma: float,
    *,
    alpha: float,
    max_votes: int,
    photos: int,
    price: Price,
    shares: Shares,
    pixels: int = 224 * 224 * 3,
    final: bool = False,
) -> Expected:
    """Work out what certifying so many photos takes; exact for each p (no simulation).

    Args:
        radius: L2 radius wanted.
        sigma: noise level.
        alpha: chance of a wrong certificate.
        max_votes: most votes of a photo.
        photos: how many, at least 1.
        price: the price list.
        shares: how the top label's share of votes is distributed.
        pixels: numbers in a working image, for what arithmetic takes off.
        final: whether photos are asked about neither with more votes nor at another radius.

    Raises:
        UnreachableRadiusError: no run within the cap reaches the radius.
        UsageError: a value is out of range, or `shares` says nothing of this sigma.
    """
    if photos < 1:
        raise UsageError(f"photos={photos}: plan for at least one photo.")
    delta = share_deduction(pixels, sigma)
    values = shares.at(sigma)
    # Costs are smooth in p, so a grid will do: finest where certificates begin.
    grid = np.unique(
        np.concatenate(
            [
                np.linspace(0.0, 1.0, 21),
                1.0 - np.geomspace(1e-5, 0.5, 40),
                np.clip(required_p(radius, sigma) + np.linspace(-0.06, 0.06, 25), 0.0, 1.0),
            ]
        )
    )
    if len(values) < len(grid):
        grid = np.unique(values)
    counts = [
        queries_needed(
            radius, sigma, alpha, float(p), max_votes=max_votes, delta=delta, final=final
        )
        for p in grid
    ]
    means = np.interp(values, grid, [count.mean for count in counts])
    mean = float(means.mean())
    certified = float(np.interp(values, grid, [count.certified for count in counts]).mean())
    at_least, at_most = photos * counts[0].at_least, photos * max_votes
    queries = math.ceil(photos * mean)
    marks = [n for n in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000) if n < max_votes] + [
        max_votes
    ]
    return Expected(
        radius=radius,
        sigma=sigma,
        max_votes=max_votes,
        photos=photos,
        certified=certified,
        at_least=at_least,
        queries=queries,
        at_most=at_most,
        dollars_at_least=float(price.of(at_least)),
        dollars=float(price.of(queries)),
        dollars_at_most=float(price.of(at_most)),
        decided=tuple((n, float(np.mean(means <= n))) for n in marks),
    )


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What one sigma with one provider and denoiser would still send.

    Attributes:
        provider: who is asked.
        denoiser: what is put in front.
        sigma: noise level.
        photos: how many.
        decided: photos whose stored answers suffice.
        stored: answers that are stored and will be used.
        expected: queries expected, None where nothing is known about this sigma.
        at_most: queries if every photo took the largest cap.
        basis: what `expected` rests on, in words.
        dollars: price of `expected`.
        dollars_at_most: price of `at_most`.
    """

    provider: str
    denoiser: str
    sigma: float
    photos: int
    decided: int
    stored: int
    expected: int | None
    at_most: int
    basis: str
    dollars: float | None
    dollars_at_most: float


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What a study would still send, part by part; nothing was sent."""

    rows: tuple[CellPlan, ...]

    @property
    def expected(self) -> int | None:
        """Queries expected of all; None where a part has no expectation."""
        known = [row.expected for row in self.rows if row.expected is not None]
        return sum(known) if len(known) == len(self.rows) else None

    @property
    def at_most(self) -> int:
        """Queries if every photo took the largest cap."""
        return sum(row.at_most for row in self.rows)

    @property
    def dollars(self) -> float | None:
        """Price of `expected`."""
        known = [row.dollars for row in self.rows if row.dollars is not None]
        return sum(known) if len(known) == len(self.rows) else None

    @property
    def dollars_at_most(self) -> float:
        """Price of `at_most`."""
        return sum(row.dollars_at_most for row in self.rows)


def plan_cells(
    cells: Sequence[tuple[str, str, float, Callable[[], WorkingImage]]],
    sessions: Mapping[tuple[str, str, float], Session],
    rules: Rules,
    target: Target,
    *,
    shares: Shares | None = None,
) -> StudyPlan:
    """Return what filling the cells would send, given the answers that are stored."""
    groups: dict[tuple[str, str, float], list[tuple[int, bool, int]]] = {}
    delta = 0.0
    for provider, denoiser, sigma, load in cells:
        key = (provider, denoiser, sigma)
        image = load()
        delta = share_deduction(image.pixels.size, sigma)
        groups.setdefault(key, []).append(_stored(sessions[key], image, rules, target, delta))
    most = max(rules.max_votes[-1], rules.complete)
    rows: list[CellPlan] = []
    for (provider, denoiser, sigma), found in groups.items():
        totals = [votes for votes, decided, _ in found if decided]
        open_ones = [(votes, plain) for votes, decided, plain in found if not decided]
        plain = sum(missing for _, _, missing in found)
        known, basis = _known_votes(totals, rules, target, shares, sigma=sigma, delta=delta)
        expected = None
        if known or not open_ones:
            left = votes_left(known, [votes for votes, _ in open_ones], most)
            expected = math.ceil(sum(left)) + plain
        at_most = sum(most - votes for votes, _ in open_ones) + plain
        price = sessions[provider, denoiser, sigma].price
        rows.append(
            CellPlan(
                provider=provider,
                denoiser=denoiser,
                sigma=sigma,
                photos=len(found),
                decided=len(totals),
                stored=sum(votes for votes, _, _ in found),
                expected=expected,
                at_most=at_most,
                basis=basis,
                dollars=None if expected is None else float(price.of(expected)),
                dollars_at_most=float(price.of(at_most)),
            )
        )
    return StudyPlan(tuple(rows))


def _stored(
    session: Session, image: WorkingImage, rules: Rules, target: Target, delta: float
) -> tuple[int, bool, int]:
    """Return how many answers are stored, whether they decide, and plain queries missing."""
    stop = threading.Event()
    collector = Collector(
        rules, target, sigma=session.sigma, delta=delta, stop=stop, futility=session.futility
    )
    stored = session.stored(image)
    votes = count_stored(stored, collector, target)
    return votes, collector.decided, int(stored(None) is None)


def votes_left(decided: Sequence[int], undecided: Sequence[int], most: int) -> list[float]:
    """Return how many more votes each undecided photo will take, on average.

    The undecided ones of a study that was cut short are the expensive ones, so the mean of the
    decided ones would be too low. This is Kaplan and Meier's estimate (1958): who is undecided
    after so many votes counts among those that took as many.

    Args:
        decided: votes of photos whose tests have decided.
        undecided: votes so far of the others.
        most: votes at which each ends.
    """
    ended, still = (
        np.bincount(np.minimum(np.array(votes, dtype=int), most), minlength=most + 1)
        for votes in (decided, undecided)
    )
    reached = np.cumsum((ended + still)[::-1])[::-1]
    open_after = np.cumprod(1.0 - ended / np.maximum(reached, 1))
    return [
        max(1.0, float(open_after[votes:most].sum() / open_after[votes]))
        if open_after[votes] > 0.0  # else longer than any that is known
        else 1.0
        for votes in undecided
    ]


def _known_votes(
    totals: Sequence[int],
    rules: Rules,
    target: Target,
    shares: Shares | None,
    *,
    sigma: float,
    delta: float,
) -> tuple[Sequence[int], str]:
    if len(totals) >= _ENOUGH_MEASURED:
        return totals, f"measured on {len(totals)} photos of this study"
    given = shares or Shares.shipped()
    try:
        values = given.at(sigma)
    except UsageError:
        return (), "nothing is known of this sigma: run a pilot"
    if not isinstance(target, Top1):
        return (), "nothing is assumed of such targets: run a pilot"
    random = np.random.default_rng(_SEED)
    needed: list[int] = []
    for p in random.choice(values, size=_SIMULATED):
        collector = Collector(rules, target, sigma=sigma, delta=delta, stop=threading.Event())
        while collector.needed() > 0:
            for top in random.random(64) < p:
                if collector.needed() == 0:
                    break
                collector.add("top" if top else None)
        needed.append(len(collector.votes))
    return needed, f"assumed from: {given.source}"
