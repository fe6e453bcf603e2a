"""The report of a study: one HTML file that needs nothing else, and its figures beside it."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Any

try:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    from smoothapi.errors import MissingExtraError

    raise MissingExtraError(
        "The report needs jinja2: pip install 'smoothapi-vision[report]'."
    ) from error

from smoothapi.certify.certificate import confidence, rounded_down
from smoothapi.certify.decision import Reason
from smoothapi.errors import UsageError
from smoothapi.files import csv_cell, replacing, shown_name
from smoothapi.study import plots
from smoothapi.study.collect import FAILED, MODEL_CHANGED, OPEN, UNDECIDED, UNREACHABLE
from smoothapi.study.figures import (
    CONFIDENCE,
    RHO,
    Figure,
    Projection,
    around_photos,
    figures,
    measures_of,
    overhead,
    project,
    votes_to_the_end,
)
from smoothapi.study.folder import is_right
from smoothapi.study.success import Measure
from smoothapi.study.summary import Summary, Way, others_text, queries_text, share_text, ways
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from smoothapi.study.collect import Outcome
    from smoothapi.study.findings import Cell, Findings, GalleryPhoto

PROJECTED = (1_000, 10_000, 100_000)
"""Numbers of photos that costs are projected to."""

_MOST_BARS = 5
_NONE = "\N{EN DASH}"
_TEXTS = {str(reason): reason.text for reason in Reason} | {
    UNDECIDED: "the study ended before the test could decide",
    FAILED: "the provider failed too often under noise before the test could decide",
    MODEL_CHANGED: "the provider's model changed before the test could decide",
    UNREACHABLE: "the cap is too small for this radius at this sigma, whatever the votes",
}


def write_report(result: Findings, folder: Path) -> Path:
    """Write report.html, result.json, figures.csv, figures.json and photos.csv.

    The result is on the disk before anything is drawn of it. Each file is the old one or the new
    one, whatever ends the writing.

    Returns:
        The path of report.html.

    Raises:
        UsageError: the folder cannot be written.
    """
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "result.json") as stream:
            stream.write(result.to_json())
        rows = [figure.to_row() for figure in figures(result)]
        with replacing(folder / "figures.json") as stream:
            stream.write(json.dumps(rows, indent=1))
        _write_csv(folder / "figures.csv", rows)
        _write_csv(folder / "photos.csv", result.records())
        with replacing(path) as stream:
            stream.write(_writable(render(result)))
    except OSError as error:
        raise UsageError(
            f"The report cannot be written to {shown_name(str(folder))!r}: "
            f"{error.strerror or error}. All answers are kept: the same command, or `smoothapi "
            "study report` with the result.json of it, writes it again without asking anything."
        ) from error
    return path


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else ["provider"])
        writer.writeheader()
        writer.writerows([{n: _writable(csv_cell(v)) for n, v in row.items()} for row in rows])


def _writable(text: str) -> str:
    """Return text without halves of surrogate pairs, which no encoding can write."""
    return text.encode("utf-8", "replace").decode("utf-8")


def render(result: Findings) -> str:
    """Return the report as HTML; all text from outside is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": share_text,
        "queries": queries_text,
        "count": lambda value: _NONE if value is None else f"{value:,.0f}",
        "dollars": _dollars,
        "text": lambda value: printable(str(value)),
        "radius": rounded_down,
        "reason": lambda value: _TEXTS.get(value, value),
    }
    files = resources.files("smoothapi.study") / "templates"
    script = (files / "report.js").read_text(encoding="utf-8")
    template = environment.from_string((files / "report.html.j2").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return template.render(
        style=Markup((files / "report.css").read_text(encoding="utf-8")),  # noqa: S704  our own
        script=Markup(script),  # noqa: S704  our own
        script_hash=digest,
        **View(result).context(),
    )


def _dollars(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


class View:
    """What the page shows of a result."""

    def __init__(self, result: Findings) -> None:
        self._result = result
        self._figures = figures(result)
        self._summary = Summary.of(result)
        self._cap = self._summary.max_votes
        self._radius = self._summary.radius
        self._ways = ways(result)
        self._first = self._summary.way
        self._measures = measures_of(result)
        self._measure = self._measures[0]

    def context(self) -> dict[str, Any]:
        """Return what the template is given."""
        result = self._result
        return {
            "result": result,
            "headline": self._summary.headline,
            "others": self._others(),
            "measure": self._measure,
            "measures": self._measures,
            "main_measures": [
                m for m in self._measures if m is self._measure or m is not Measure.CERTIFIED
            ],
            "radius": self._radius,
            "max_votes": self._cap,
            "around": around_photos(result),
            "confidence": confidence(result.rules.alpha),
            "band_percent": f"{CONFIDENCE:.0%}",
            "rho_percent": confidence(RHO),
            "first": self._first,
            "pilot": len(
                {photo.name for photo in result.photos} | {p.photo for p in result.problems}
            )
            < result.photos_found,
            "several_ways": len(self._ways) > 1,
            "plots": {name: Markup(svg) for name, svg in self._plots()},  # noqa: S704  escaped
            "choices": self._choice_rows(),
            "side_by_side": self._side_by_side(),
            "reasons": self._reasons(),
            "undecided": len(self._undecided()),
            "undecided_kinds": sorted(Counter(self._undecided().values()).items()),
            "cut_short": len({p.photo for p in result.problems if p.kind == "undecided"}),
            "projections": self._projections(),
            "comparison": self._comparison(),
            "plain": self._plain_calls(),
            "figures": self._figures,
            "gallery": [self._card(picture) for picture in result.pictures],
            "problems": result.problems,
            "calibration": self._summary.calibration,
            "spent": {"queries": result.queries, "dollars": result.dollars},
            "cached": sum(cell.cached for cell in result.cells),
            "target": _target_text(result),
            "command_text": result.command or "made from Python: smoothapi.Study(...)",
        }

    def _of(self, way: Way, **wanted: Any) -> list[Figure]:
        return [
            figure
            for figure in self._figures
            if (figure.provider, figure.denoiser) == (way.provider, way.denoiser)
            and all(getattr(figure, name) == value for name, value in wanted.items())
        ]

    def _others(self) -> str:
        headline = self._summary.headline
        return "" if headline is None else others_text(headline)

    def _best_sigma(self) -> float:
        chosen = self._summary.choice.chosen
        if chosen is not None:
            return chosen.sigma
        return self._result.sigmas[len(self._result.sigmas) // 2]

    def _by_sigma(self, **wanted: Any) -> list[tuple[str, list[Figure]]]:
        return [
            (f"sigma {sigma:g}", self._of(self._first, sigma=sigma, **wanted))
            for sigma in self._result.sigmas
        ]

    def _plots(self) -> Iterator[tuple[str, str]]:
        radius, cap = self._radius, self._cap
        yield (
            "budget",
            plots.budget_plot(
                self._by_sigma(radius=radius),
                f"Share of photos {self._measure.text} at radius {radius:g}, "
                "against queries per photo, one line for each sigma and a point for each cap; "
                "fixed samples dashed. The same figures are in the table below it.",
            ),
        )
        at_cap = self._by_sigma(max_votes=cap, method="sequential")
        if len(self._result.rules.radii) > 1:
            described = f"by radius, cap {cap}, with 95% bands, one line for each sigma."
            for measure in self._measures[:2]:
                yield (
                    f"radius-{measure}",
                    plots.radius_plot(
                        at_cap, measure, described=f"Photos {measure.text}, {described}"
                    ),
                )
        spread = [
            (f"sigma {sigma:g}", self._votes(self._first, sigma, radius))
            for sigma in self._result.sigmas
        ]
        yield (
            "spread",
            plots.spread_plot(
                spread,
                cap,
                f"Share of photos decided within so many queries at radius {radius:g}, cap {cap}.",
            ),
        )
        rows = [
            (f"sigma {row['sigma']:g}", [(kind, n / row["photos"]) for kind, n in row["parts"]])
            for row in self._reasons()
        ]
        yield (
            "reasons",
            plots.reasons_plot(rows, "What became of the photos, one bar for each sigma."),
        )
        if len(self._ways) > 1:
            yield (
                "comparison",
                plots.comparison_plot(
                    [(f"{f.provider} · {f.denoiser} · {f.sigma:g}", f) for f in self._comparison()],
                    f"Photos {self._measure.text}, for each provider, denoiser and sigma.",
                ),
            )

    def _cells(self, way: Way, sigma: float) -> list[Cell]:
        key = (way.provider, way.denoiser, sigma)
        return [c for c in self._result.cells if (c.provider, c.denoiser, c.sigma) == key]

    def _outcomes(self, way: Way, sigma: float, radius: float) -> list[Outcome]:
        outcomes = [cell.outcome(radius, self._cap) for cell in self._cells(way, sigma)]
        return [outcome for outcome in outcomes if outcome is not None]

    def _votes(self, way: Way, sigma: float, radius: float) -> list[int]:
        """Return the votes that decided each photo, 0 where none did."""
        return [0 if o.reason in OPEN else o.votes for o in self._outcomes(way, sigma, radius)]

    def _undecided(self) -> dict[str, str]:
        """Return {photo: why} of those without a decision in some cell, at the chosen radius."""
        found: dict[str, str] = {}
        for cell in self._result.cells:
            outcome = cell.outcome(self._radius, self._cap)
            if outcome is not None and outcome.reason in OPEN:
                found[cell.photo] = outcome.reason
        return found

    def _choice_rows(self) -> list[dict[str, Any]]:
        return [
            {"provider": provider, "denoiser": denoiser, "radius": radius, "choice": choice}
            for (provider, denoiser, radius), choice in self._summary.choices.items()
        ]

    def _side_by_side(self) -> list[dict[str, Any]]:
        """Return, by sigma and cap, the sequential and the fixed figure at the chosen radius."""
        rows: list[dict[str, Any]] = []
        for sigma in self._result.sigmas:
            for cap in self._result.rules.max_votes:
                found = self._of(self._first, sigma=sigma, radius=self._radius, max_votes=cap)
                row: dict[str, Any] = {"sigma": sigma, "max_votes": cap}
                row |= {"sequential": None, "fixed": None} | {f.method: f for f in found}
                rows.append(row)
        return rows

    def _reasons(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for figure in self._of(
            self._first, radius=self._radius, max_votes=self._cap, method="sequential"
        ):
            parts = list(figure.counts.items())
            parts += sorted(figure.abstained.items(), key=lambda item: -item[1])
            rows.append({"sigma": figure.sigma, "photos": figure.photos, "parts": parts})
        kinds = dict.fromkeys(kind for row in rows for kind, _ in row["parts"])
        used = [k for k in kinds if any(dict(row["parts"]).get(k) for row in rows)]
        for row in rows:
            counts = dict(row["parts"])
            row["parts"] = [(kind, counts.get(kind, 0)) for kind in used]
        return rows

    def _projections(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for facts in self._result.providers:
            for denoiser in self._result.denoisers:
                way = Way(facts.name, denoiser.name)
                sigma = self._best_sigma()
                outcomes = self._outcomes(way, sigma, self._radius)
                votes = [round(number) for number in votes_to_the_end(outcomes)]
                if not votes or not any(votes):
                    continue
                more = overhead(self._cells(way, sigma))
                projected: list[Projection] = [
                    project(votes, self._cap, n, facts.price, overhead=more) for n in PROJECTED
                ]
                rows.append({"way": way, "sigma": sigma, "price": facts.price, "rows": projected})
        return rows

    def _comparison(self) -> list[Figure]:
        return [
            figure
            for way in self._ways
            for figure in self._of(
                way, radius=self._radius, max_votes=self._cap, method="sequential"
            )
        ]

    def _plain_calls(self) -> list[dict[str, Any]]:
        """Return, for each way and sigma, how often most votes are for the plain label."""
        rows: list[dict[str, Any]] = []
        for way in self._ways:
            for sigma in self._result.sigmas:
                cells = [cell for cell in self._cells(way, sigma) if cell.votes]
                if cells:
                    rows.append({"way": way, "sigma": sigma, **self._plain_shares(cells)})
        return rows

    def _plain_shares(self, cells: list[Cell]) -> dict[str, Any]:
        truths = {photo.name: photo.truth for photo in self._result.photos}
        known = [(cell.plain, truths[cell.photo]) for cell in cells if truths[cell.photo]]
        right = sum(plain is not None and is_right(plain, truth) for plain, truth in known)
        same = sum(cell.leader is not None and cell.leader == cell.plain for cell in cells)
        return {
            "photos": len(cells),
            "same": same / len(cells),
            "plain_accuracy": right / len(known) if known else None,
        }

    def _card(self, picture: GalleryPhoto) -> dict[str, Any]:
        cell = next(
            cell
            for cell in self._result.cells
            if (cell.photo, cell.provider, cell.denoiser, cell.sigma)
            == (picture.photo, picture.provider, picture.denoiser, picture.sigma)
        )
        tally = list(cell.tally.items())
        bars = tally[:_MOST_BARS]
        rest = sum(count for _, count in tally[_MOST_BARS:])
        certified = [
            outcome
            for outcome in cell.outcomes
            if outcome.method == "sequential" and outcome.max_votes == self._cap
        ]
        return {
            "picture": picture,
            "cell": cell,
            "bars": [("no answer" if label is None else label, n) for label, n in bars]
            + ([(f"other labels ({len(tally) - _MOST_BARS})", rest)] if rest else []),
            "outcomes": certified,
            "truth": self._result.photo(picture.photo).truth,
        }


def _target_text(result: Findings) -> str:
    target = dict(result.target)
    kind = target.get("target")
    if kind == "top1":
        return "the top label" + (" in the given classes" if target.get("space") else "")
    if kind == "presence":
        names: Sequence[str] = target.get("labels", ())
        return f"presence of {', '.join(names)} at a score of at least {target.get('score')}"
    if kind == "scores":
        names = target.get("labels", ())
        return f"the scores of {', '.join(names)}, from {target.get('least')} up"
    if kind == "most-specific":
        return f"the most specific label with a score of at least {target.get('score')}"
    return f"a label among the best {target.get('k')}"
