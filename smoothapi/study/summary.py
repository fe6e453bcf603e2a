"""What a study comes to, in one figure: the report, the terminal and a notebook begin with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.certify.certificate import rounded_down
from smoothapi.study.figures import Choice, Figure, choices, is_split

if TYPE_CHECKING:
    from smoothapi.study.findings import Findings

_WANTED_RADIUS = 0.25


@dataclass(frozen=True, slots=True)
class Way:
    """One provider and denoiser, the two things that a study compares."""

    provider: str
    denoiser: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a study is told by first.

    Attributes:
        radius: the one of the study's that is nearest to 0.25.
        max_votes: the largest cap.
        way: the cheapest provider and denoiser, by a success.
        choices: the choice of sigma for each provider, denoiser and radius.
        calibration: photos that chose among sigmas, providers and denoisers; 0 where there was
            nothing to choose.
    """

    radius: float
    max_votes: int
    way: Way
    choices: dict[tuple[str, str, float], Choice]
    calibration: int

    @classmethod
    def of(cls, result: Findings) -> Summary:
        """Return what a study comes to."""
        cap = result.rules.max_votes[-1]
        radius = min(result.rules.radii, key=lambda r: abs(r - _WANTED_RADIUS))
        found = choices(result, cap)
        prices = {facts.name: float(facts.price.per_thousand) for facts in result.providers}

        def cost(way: Way) -> tuple[float, float]:
            """Return what a success costs: in dollars, then in queries."""
            chosen = found[way.provider, way.denoiser, radius].chosen
            if chosen is None or chosen.queries_per_success is None:
                return math.inf, math.inf
            queries = chosen.queries_per_success
            return prices[way.provider] * queries, queries

        return cls(
            radius=radius,
            max_votes=cap,
            way=min(ways(result), key=cost),  # of equals the one named first
            choices=found,
            calibration=sum(p.calibration for p in result.photos) if is_split(result) else 0,
        )

    @property
    def choice(self) -> Choice:
        """The choice of sigma that the headline is about."""
        return self.choices[self.way.provider, self.way.denoiser, self.radius]

    @property
    def headline(self) -> Figure | None:
        """The figure of the chosen sigma, of photos that had no say in choosing it."""
        return self.choice.judged

    @property
    def lines(self) -> tuple[str, ...]:
        """In words: what counts first, what it costs, and what else is certified."""
        figure = self.headline
        if figure is None:
            radius = rounded_down(self.radius)
            return (f"At no sigma was a photo of the half that chooses certified at {radius}.",)
        said = (
            f"{share_text(figure.success.share)} of {figure.photos:,} photos {figure.measure.text} "
            f"at radius {rounded_down(figure.radius)}, sigma {figure.sigma:g}, for "
            f"{queries_text(figure)} queries each on average."
        )
        return (said, *filter(None, [others_text(figure)]))


def ways(result: Findings) -> list[Way]:
    """Return each provider with each denoiser, in the order of the study."""
    return [Way(p.name, d.name) for p in result.providers for d in result.denoisers]


def share_text(share: float | None, digits: int = 0) -> str:
    """Return a share in percent, as every table has it; a dash for none."""
    return "\N{EN DASH}" if share is None else f"{100.0 * share:.{digits}f}%"


def queries_text(figure: Figure) -> str:
    """Return the queries of a photo; "about" where some were cut short, and are estimated."""
    return f"{'about ' if figure.undecided else ''}{figure.mean_queries:,.0f}"


def others_text(figure: Figure) -> str:
    """Return what is certified besides what counts first, in words; "" if nothing is."""
    (_, others) = (*figure.counts.values(), 0)[:2]
    if not others:
        return ""
    other = "a wrong label" if figure.measure == "right" else "another label than the plain call's"
    share = share_text(others / figure.photos)
    return f"{share} ({others:,}) certified with {other}: look at these."
