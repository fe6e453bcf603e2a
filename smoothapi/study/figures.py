"""From what a study found to figures with bands.

*Bands.* Photos are a sample of the photos that one could have taken, so a share of them has an
exact binomial (Clopper-Pearson) interval. Photos whose test was cut short (by the end of the
study, a provider that failed, a model that changed) count as failures for the share and the lower
end, and as successes for the upper one: they are the expensive ones, and leaving them out would
flatter.

*Queries* of such photos are what they took and what is still to come, by Kaplan and Meier's
estimate: as they stand they would pass for cheap.

*HighProb.* Each certificate is wrong with a chance of at most alpha, whatever the photo, and the
noise of different photos is independent, so the number of wrong ones among m photos is at most a
Binomial(m, alpha) variable. Its (1 - rho) quantile is taken off: with probability 1 - rho at least
so many of *these* photos are rightly certified. (Cohen, Rosenfeld and Kolter, ICML 2019, bound the
same variable by Bernstein's inequality, which takes off more.)

*Sigma*, provider and denoiser are chosen on one half of the photos and judged on the other: the
best of several on the same photos looks better than it is. Where there is one of each, nothing is
chosen, and all photos judge it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from smoothapi._special import special
from smoothapi.certify import clopper_pearson_lower, clopper_pearson_upper, required_p
from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.certificate import rounded_down
from smoothapi.certify.radii import native_radius, rms_radius, rounding_of
from smoothapi.study.collect import OPEN, Outcome
from smoothapi.study.folder import is_right
from smoothapi.study.plans import votes_left
from smoothapi.study.success import Measure, Success

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from smoothapi.provider import Price
    from smoothapi.study.findings import Cell, Findings, Photo

CONFIDENCE = 0.95
"""Of bands and intervals."""

RHO = 0.001
"""Chance that a HighProb bound is wrong."""

RESAMPLES = 4000
_FEWEST_TO_PROJECT = 8
_FEWEST_SUCCESSES = 0.5  # of an estimate, for queries per success to mean anything


@dataclass(frozen=True, slots=True)
class AroundPhotos:
    """What a radius around the working image comes to around the photos of a study.

    Attributes:
        radius: L2, around the working image.
        native: around the photo before its resize: least, median and most, rounded down.
        rms: the same as a root mean square over a photo's channel values.
    """

    radius: float
    native: tuple[float, float, float]
    rms: tuple[float, float, float]

    @property
    def text(self) -> str:
        """In words."""
        least, median, most = (rounded_down(floor_to(value, 3)) for value in self.native)
        steps = [f"{floor_to(255.0 * value, 3):g}/255" for value in self.rms]
        return (
            f"Radius {self.radius:g} is {median} around the median photo before its resize "
            f"({least} to {most}), as rms {steps[1]} ({steps[0]} to {steps[2]})."
        )


def around_photos(result: Findings) -> tuple[AroundPhotos, ...]:
    """Return what each radius of a study comes to around its photos; empty if it has none."""
    found = []
    for radius in result.rules.radii if result.photos else ():
        native = [
            native_radius(radius, photo.gain, rounding_of(3 * math.prod(photo.size)))
            for photo in result.photos
        ]
        rms = [
            rms_radius(value, photo.native_size)
            for value, photo in zip(native, result.photos, strict=True)
        ]
        found.append(AroundPhotos(radius, _spread(native), _spread(rms)))
    return tuple(found)


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]


@dataclass(frozen=True, slots=True)
class Band:
    """A share with an interval; both ends are None where it is only an estimate."""

    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Figure:
    """What one way to certify makes of the photos.

    Attributes:
        provider: who was asked.
        denoiser: what was put in front.
        sigma: noise level.
        radius: L2 radius wanted.
        max_votes: most votes of a certificate.
        method: "sequential" or "fixed".
        estimated: whether it was worked out from photos' shares of votes, not from votes; so are
            fixed samples that were not bought.
        photos: how many.
        measure: which of the three shares counts first, in the whole study.
        certified: share of photos with a certificate.
        agreeing: share with a certificate of the label that the plain answer has.
        agreeing_highprob: HighProb lower bound of it.
        accuracy: of the photos with a known label, share with a certificate of a right one.
        accuracy_highprob: HighProb lower bound of it.
        undecided: photos whose test was cut short. They count as not certified.
        abstained: how many photos by reason.
        mean_queries: votes used for a photo, on average; estimated where photos are undecided.
        median_queries: by half of the photos at most.
        queries_per_success: votes of all photos for each certificate of the share that counts
            first (`success`); None without one.
        dollars_per_success: their price.
        dollars_per_thousand: price of the votes for 1,000 photos.
    """

    provider: str
    denoiser: str
    sigma: float
    radius: float
    max_votes: int
    method: str
    estimated: bool
    photos: int
    measure: Measure
    certified: Band
    agreeing: Band
    agreeing_highprob: float | None
    accuracy: Band | None
    accuracy_highprob: float | None
    undecided: int
    abstained: dict[str, int]
    mean_queries: float
    median_queries: float
    queries_per_success: float | None
    dollars_per_success: float | None
    dollars_per_thousand: float

    def share(self, measure: Measure) -> Band | None:
        """Return one of the three shares; None where no photo has a known label."""
        return {
            Measure.RIGHT: self.accuracy,
            Measure.AGREEING: self.agreeing,
            Measure.CERTIFIED: self.certified,
        }[measure]

    def highprob(self, measure: Measure) -> float | None:
        """Return the HighProb lower bound of a share; None where there is none."""
        return {
            Measure.RIGHT: self.accuracy_highprob,
            Measure.AGREEING: self.agreeing_highprob,
            Measure.CERTIFIED: None,
        }[measure]

    @property
    def success(self) -> Band:
        """The share that counts first."""
        found = self.share(self.measure)
        assert found is not None  # noqa: S101  it is first only where all photos have labels
        return found

    @property
    def counts(self) -> dict[str, int]:
        """How many photos are certified in which way, the ones that count first before others.

        Of an estimate, rounded.
        """
        certified, agreeing = (
            round(band.share * self.photos) for band in (self.certified, self.agreeing)
        )
        if self.measure is Measure.CERTIFIED:
            return {"certified": certified}
        if self.measure is Measure.AGREEING:
            return {
                "certified, as the plain call": agreeing,
                "certified, another label": certified - agreeing,
            }
        right = round(self.success.share * self.photos)
        return {"certified, right": right, "certified, wrong": certified - right}

    def to_row(self) -> dict[str, Any]:
        """Return the figure as one flat row."""
        row: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Band):
                row |= {name: value.share, f"{name}_low": value.low, f"{name}_high": value.high}
            elif name == "measure":
                row[name] = str(value)
            elif name == "abstained":
                row[name] = " ".join(f"{reason}={n}" for reason, n in sorted(value.items()))
            else:
                row[name] = value
        if self.accuracy is None:
            row |= {"accuracy_low": None, "accuracy_high": None}
        return row


def band(count: int, total: int, *, unknown: int = 0) -> Band:
    """Return the share of `count` in `total` with its exact binomial interval.

    `unknown` more may belong to them: the upper end counts these, the lower does not.
    """
    if total == 0:
        return Band(0.0, 0.0, 1.0)
    half = (1.0 - CONFIDENCE) / 2.0
    return Band(
        count / total,
        clopper_pearson_lower(count, total, half),
        clopper_pearson_upper(count + unknown, total, half),
    )


def highprob(count: int, total: int, alpha: float, rho: float = RHO) -> float:
    """Return a lower bound of the share that is *rightly* certified, sure to 1 - rho.

    Args:
        count: certificates that are of the kind asked about.
        total: photos that were tried.
        alpha: chance that a photo's certificate is wrong.
        rho: chance that the bound is wrong.
    """
    if total == 0:
        return 0.0
    wrong = 0
    while wrong < count and special.bdtr(wrong, total, alpha) < 1.0 - rho:
        wrong += 1
    return (count - wrong) / total


def measure_of(result: Findings) -> Measure:
    """Return by which certificates a study is judged: the strictest that can be told of all.

    Those that are right if the truth of every photo is known; else those that agree; where no
    certificate can be compared with the plain answer, each counts.
    """
    if result.photos and all(photo.truth for photo in result.photos):
        return Measure.RIGHT
    certified = [o for cell in result.cells for o in cell.outcomes if o.certified]
    if certified and all(outcome.agrees is None for outcome in certified):
        return Measure.CERTIFIED
    return Measure.AGREEING


def measures_of(result: Findings) -> tuple[Measure, ...]:
    """Return what can be told of a study, what counts first in front."""
    first = measure_of(result)
    told = {
        Measure.RIGHT: any(photo.truth for photo in result.photos),
        Measure.AGREEING: first is not Measure.CERTIFIED,
        Measure.CERTIFIED: True,
    }
    return (first, *(m for m in Measure if told[m] and m is not first))


def figures(result: Findings, photos: Iterable[Photo] | None = None) -> list[Figure]:
    """Return a figure for each provider, denoiser, sigma, radius, cap and method.

    Args:
        result: what a study found.
        photos: only of these.
    """
    chosen = {photo.name: photo for photo in (result.photos if photos is None else photos)}
    measure = measure_of(result)
    found: list[Figure] = []
    for provider in result.providers:
        for denoiser in result.denoisers:
            for sigma in result.sigmas:
                cells = [
                    cell
                    for cell in result.cells
                    if (cell.provider, cell.denoiser, cell.sigma)
                    == (provider.name, denoiser.name, sigma)
                    and cell.photo in chosen
                ]
                if cells:
                    found += _of_cells(result, cells, chosen, provider.price, measure)
    return found


def _of_cells(
    result: Findings, cells: list[Cell], photos: dict[str, Photo], price: Price, measure: Measure
) -> Iterable[Figure]:
    indexed = [{(o.radius, o.max_votes, o.method): o for o in cell.outcomes} for cell in cells]
    for radius in result.rules.radii:
        for cap in result.rules.max_votes:
            for method in ("sequential", "fixed"):
                outcomes = [index.get((radius, cap, method)) for index in indexed]
                complete = [outcome for outcome in outcomes if outcome is not None]
                if len(complete) == len(cells):
                    yield _measured(result, cells, complete, photos, price, measure)
                elif method == "fixed" and result.target.get("target") == "top1":
                    yield _estimated(result, cells, radius, cap, photos, price, measure)


def _measured(  # noqa: PLR0917  private, and called above alone
    result: Findings,
    cells: list[Cell],
    outcomes: list[Outcome],
    photos: dict[str, Photo],
    price: Price,
    measure: Measure,
) -> Figure:
    first, total, alpha = cells[0], len(cells), result.rules.alpha
    ends = [
        Success.of(outcome, photos[cell.photo].truth)
        for cell, outcome in zip(cells, outcomes, strict=True)
    ]
    certified = sum(end.certified for end in ends)
    agreeing = sum(end.agreeing is True for end in ends)
    unknown = [o.reason in OPEN for o in outcomes]
    abstained: dict[str, int] = {}
    for outcome in outcomes:
        if not outcome.certified:
            abstained[outcome.reason] = abstained.get(outcome.reason, 0) + 1
    told = [(end.right, open_) for end, open_ in zip(ends, unknown, strict=True)]
    labelled = [(right, open_) for right, open_ in told if right is not None]
    right = sum(right for right, _ in labelled)
    accuracy = accuracy_bound = None
    if labelled:
        accuracy = band(right, len(labelled), unknown=sum(open_ for _, open_ in labelled))
        accuracy_bound = highprob(right, len(labelled), alpha)
    votes = np.array(votes_to_the_end(outcomes))
    successes = {
        Measure.RIGHT: right, Measure.AGREEING: agreeing, Measure.CERTIFIED: certified,
    }  # fmt: skip
    return Figure(
        provider=first.provider,
        denoiser=first.denoiser,
        sigma=first.sigma,
        radius=outcomes[0].radius,
        max_votes=outcomes[0].max_votes,
        method=outcomes[0].method,
        estimated=False,
        photos=total,
        measure=measure,
        certified=band(certified, total, unknown=sum(unknown)),
        agreeing=band(agreeing, total, unknown=sum(unknown)),
        agreeing_highprob=highprob(agreeing, total, alpha),
        accuracy=accuracy,
        accuracy_highprob=accuracy_bound,
        undecided=sum(unknown),
        abstained=abstained,
        mean_queries=float(votes.mean()),
        median_queries=float(np.median(votes)),
        **_costs(float(votes.sum()), successes[measure], total, price),
    )


def votes_to_the_end(outcomes: Sequence[Outcome]) -> list[float]:
    """Return the votes of each photo, with what those cut short would have taken further.

    Args:
        outcomes: of one cap, radius and method.
    """
    if not outcomes:
        return []
    cap = outcomes[0].max_votes
    if outcomes[0].method == "fixed":
        return [float(cap)] * len(outcomes)
    ended = [o.votes for o in outcomes if o.reason not in OPEN]
    left = iter(votes_left(ended, [o.votes for o in outcomes if o.reason in OPEN], cap))
    return [float(o.votes) + (next(left) if o.reason in OPEN else 0.0) for o in outcomes]


def _costs(votes: float, successes: float, photos: int, price: Price) -> dict[str, Any]:
    each = float(price.per_thousand) / 1000.0
    per_success = votes / successes if successes >= _FEWEST_SUCCESSES else None
    return {
        "queries_per_success": per_success,
        "dollars_per_success": None if per_success is None else per_success * each,
        "dollars_per_thousand": 1000.0 * votes / photos * each,
    }


def _estimated(  # noqa: PLR0917  private, and called above alone
    result: Findings,
    cells: list[Cell],
    radius: float,
    max_votes: int,
    photos: dict[str, Photo],
    price: Price,
    measure: Measure,
) -> Figure:
    """Return what a fixed sample of `max_votes` would be expected to certify.

    A photo's share of votes p is not known, so the chance is averaged over its Beta(1/2, 1/2)
    posterior. Votes were bought until a test had decided, which leans p a little to the sure side.
    """
    n = max_votes - result.rules.selection_of(max_votes)
    enough = fewest_wins(n, required_p(radius, cells[0].sigma), result.rules.alpha)
    grid = (np.arange(64) + 0.5) / 64.0
    certified = agreeing = right = 0.0
    labelled = 0
    for cell in cells:
        k, votes = cell.share
        shares = special.betaincinv(k + 0.5, votes - k + 0.5, grid)
        chance = float(np.mean(special.bdtrc(enough - 1, n, shares))) if enough <= n else 0.0
        certified += chance
        agreeing += chance * (cell.leader is not None and cell.leader == cell.plain)
        if truth := photos[cell.photo].truth:
            labelled += 1
            right += chance * (cell.leader is not None and is_right(cell.leader, truth))
    total = len(cells)
    successes = {
        Measure.RIGHT: right, Measure.AGREEING: agreeing, Measure.CERTIFIED: certified,
    }  # fmt: skip
    return Figure(
        provider=cells[0].provider,
        denoiser=cells[0].denoiser,
        sigma=cells[0].sigma,
        radius=radius,
        max_votes=max_votes,
        method="fixed",
        estimated=True,
        photos=total,
        measure=measure,
        certified=Band(certified / total, None, None),
        agreeing=Band(agreeing / total, None, None),
        agreeing_highprob=None,
        accuracy=Band(right / labelled, None, None) if labelled else None,
        accuracy_highprob=None,
        undecided=0,
        abstained={},
        mean_queries=float(max_votes),
        median_queries=float(max_votes),
        **_costs(float(max_votes) * total, successes[measure], total, price),
    )


def fewest_wins(n: int, share: float, alpha: float) -> int:
    """Return the fewest of n votes whose Clopper-Pearson bound exceeds `share`; n + 1 if none."""
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        if clopper_pearson_lower(middle, n, alpha) > share:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sigma is cheapest for a radius, and how it does on photos that had no say in it.

    Attributes:
        chosen: on the calibration half, the figure with the fewest queries per success; None if no
            sigma has one.
        judged: the same sigma on the other half; None where it has no figure. Where nothing is
            chosen (`is_split`), both are of all photos.
        others: the other sigmas on the calibration half.
    """

    chosen: Figure | None
    judged: Figure | None
    others: tuple[Figure, ...]


def is_split(result: Findings) -> bool:
    """Whether one half of the photos chooses among sigmas, providers and denoisers."""
    return len(result.sigmas) * len(result.providers) * len(result.denoisers) > 1


def choices(result: Findings, max_votes: int) -> dict[tuple[str, str, float], Choice]:
    """Return the choice of sigma for each provider, denoiser and radius, at a cap."""
    keys = product(
        [provider.name for provider in result.providers],
        [denoiser.name for denoiser in result.denoisers],
        result.rules.radii,
    )
    if not is_split(result):
        whole = _sequential(result, max_votes, result.photos)
        return {key: _without_choice(whole[key]) for key in keys}
    calibration, rest = (
        _sequential(result, max_votes, [p for p in result.photos if p.calibration is side])
        for side in (True, False)
    )
    return {key: _choice(calibration[key], rest[key]) for key in keys}


def _sequential(
    result: Findings, max_votes: int, photos: Sequence[Photo]
) -> dict[tuple[str, str, float], list[Figure]]:
    """Return sequential figures of some of the photos, by provider, denoiser and radius."""
    found: dict[tuple[str, str, float], list[Figure]] = defaultdict(list)
    for figure in figures(result, photos):
        if (figure.max_votes, figure.method) == (max_votes, "sequential"):
            found[figure.provider, figure.denoiser, figure.radius].append(figure)
    return found


def _without_choice(found: list[Figure]) -> Choice:
    figure = found[0] if found else None
    return Choice(figure, figure, ())


def _choice(calibration: list[Figure], rest: list[Figure]) -> Choice:
    able = [figure for figure in calibration if figure.queries_per_success is not None]
    best = min(able, key=lambda f: (f.queries_per_success or math.inf, f.sigma), default=None)
    if best is None:
        return Choice(None, None, ())
    judged = next((figure for figure in rest if figure.sigma == best.sigma), None)
    return Choice(best, judged, tuple(figure for figure in able if figure is not best))


@dataclass(frozen=True, slots=True)
class Projection:
    """What so many photos will take.

    Attributes:
        photos: how many.
        queries: expected votes of all.
        low: of `CONFIDENCE`: the votes that they will take.
        high: likewise; None, as `low`, if there are too few photos to tell.
        at_most: if each took the cap.
        dollars: price of `queries`, of one month's bill, with free tier and steps.
        dollars_low: price of `low`.
        dollars_high: price of `high`.
        dollars_at_most: price of `at_most`.
    """

    photos: int
    queries: float
    low: float | None
    high: float | None
    at_most: int
    dollars: float
    dollars_low: float | None
    dollars_high: float | None
    dollars_at_most: float


def project(
    votes: Sequence[int], max_votes: int, photos: int, price: Price, *, overhead: float = 1.0
) -> Projection:
    """Project the votes that photos took to a larger number of photos.

    Costs are skewed (most photos take few votes, some take the cap), so the interval is of a
    studentised bootstrap: of (mean - true mean) / standard error over `RESAMPLES` resamples,
    seeded. It is widened for the photos to come being a sample, too.

    Args:
        votes: of each photo of the study.
        max_votes: most votes of a photo.
        photos: how many there will be.
        price: the price list.
        overhead: attempts per vote (retries are paid, too).
    """
    costs = np.asarray(votes, dtype=float)
    n, mean = len(costs), float(np.mean(costs))
    low = high = None
    spread = float(np.std(costs, ddof=1)) if n > 1 else 0.0
    if n >= _FEWEST_TO_PROJECT and spread > 0.0:
        drawn = np.random.default_rng(0).choice(costs, size=(RESAMPLES, n))
        errors = np.std(drawn, axis=1, ddof=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (np.mean(drawn, axis=1) - mean) / errors
        t = np.sort(t[np.isfinite(t)])
        half = (1.0 - CONFIDENCE) / 2.0
        below, above = (float(np.quantile(t, q)) for q in (half, 1.0 - half))
        scale = spread * math.sqrt(1.0 + n / photos)
        low = photos * min(float(max_votes), max(0.0, mean - above * scale))
        high = photos * min(float(max_votes), max(0.0, mean - below * scale))

    def dollars(queries: float) -> float:
        return float(price.of(math.ceil(queries * overhead)))

    return Projection(
        photos=photos,
        queries=photos * mean,
        low=low,
        high=high,
        at_most=photos * max_votes,
        dollars=dollars(photos * mean),
        dollars_low=None if low is None else dollars(low),
        dollars_high=None if high is None else dollars(high),
        dollars_at_most=dollars(float(photos * max_votes)),
    )


def overhead(cells: Sequence[Cell]) -> float:
    """Return attempts per query: what retries add to a bill."""
    queries = sum(cell.queries for cell in cells)
    return max(1.0, sum(cell.attempts for cell in cells) / queries) if queries else 1.0
