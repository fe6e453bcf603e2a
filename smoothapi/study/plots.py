"""The report's plots, as SVG to be put into an HTML page.

Drawn in stand-in colours that become CSS variables, so that one drawing serves a light page, a
dark one and paper; text stays text, in the page's own font.
"""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from typing import TYPE_CHECKING, Any

try:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
except ImportError as error:
    from smoothapi.errors import MissingExtraError

    raise MissingExtraError(
        "The report's plots need matplotlib: pip install 'smoothapi-vision[report]'."
    ) from error

from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from smoothapi.study.figures import Figure
    from smoothapi.study.success import Measure

SERIES = 6
"""Colours there are; a seventh series has the first one's."""

_INK, _MUTED, _GRID, _SURFACE = "#010101", "#020202", "#030303", "#040404"
_COLOURS = tuple(f"#0a000{number}" for number in range(1, SERIES + 1))
_MARKERS = "osD^vP"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    _SURFACE: "var(--surface)",
} | {colour: f"var(--s{number})" for number, colour in enumerate(_COLOURS, 1)}

_WIDTH = 4.8  # inches: read at 450 pixels, where a narrow screen has no more
_LEGEND_WIDTH = 68  # characters
_NAME_WIDTH = 26  # likewise


_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "text.color": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "path.simplify": True,
}


def budget_plot(groups: Sequence[tuple[str, Sequence[Figure]]], described: str) -> str:
    """Draw the share certified against queries per photo: a line a series, a point a cap.

    Args:
        groups: (series name, its figures at one radius, of both methods).
        described: what the plot shows, for those who cannot see it.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "budget"}):
        canvas, axes = _axes(_WIDTH, 3.4)
        highest = 0.0
        for number, (name, figures) in enumerate(groups):
            colour, marker = _look(number)
            highest = max(highest, *(f.success.high or f.success.share for f in figures), 0.0)
            ours = sorted(
                (f for f in figures if f.method == "sequential"), key=lambda f: f.max_votes
            )
            ours = [f for f in ours if f.mean_queries > 0]
            fixed = sorted((f for f in figures if f.method == "fixed"), key=lambda f: f.max_votes)
            if fixed:
                axes.plot(
                    [f.mean_queries for f in fixed],
                    [f.success.share for f in fixed],
                    color=colour, linestyle=(0, (3, 2)), linewidth=1.2, marker=marker,
                    markersize=4.5, markerfacecolor=_SURFACE, markeredgecolor=colour,
                    label=None if ours else name,
                )  # fmt: skip
            if not ours:
                continue
            x, y = [f.mean_queries for f in ours], [f.success.share for f in ours]
            _errors(axes, x, ours, colour)
            axes.plot(x, y, color=colour, marker=marker, markeredgecolor=_SURFACE, label=name)
        axes.set_xscale("log")
        _plain_log(axes)
        axes.set_xlabel("queries per photo, on average")
        _shares(axes, _measured_by(groups), highest)
        handles, labels = axes.get_legend_handles_labels()
        for name, style in (("sequential", "solid"), ("fixed sample", (0, (3, 2)))):
            handles += axes.plot([], [], color=_MUTED, linestyle=style, linewidth=1.4)
            labels.append(name)
        _legend(axes, handles, labels, handlelength=2.4)
        return _svg(canvas, "budget", "What queries buy", described)


def radius_plot(
    groups: Sequence[tuple[str, Sequence[Figure]]], share: Measure, *, described: str
) -> str:
    """Draw a share against the radius.

    Args:
        groups: (series name, its figures at one cap).
        share: which one, of the certificates that are counted.
        described: what the plot shows, for those who cannot see it.
    """
    name = f"radius-{share}"
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas, axes = _axes(_WIDTH, 3.4)
        highest = 0.0
        for number, (label, figures) in enumerate(groups):
            colour, marker = _look(number)
            rows = sorted(figures, key=lambda f: f.radius)
            shown = [(f.radius, b) for f in rows if (b := f.share(share)) is not None]
            if not shown:
                continue
            highest = max(highest, *(b.high or b.share for _, b in shown))
            x = [radius for radius, _ in shown]
            axes.fill_between(
                x, [b.low or 0.0 for _, b in shown], [b.high or 0.0 for _, b in shown],
                color=colour, alpha=0.12, linewidth=0,
            )  # fmt: skip
            axes.plot(
                x, [b.share for _, b in shown], color=colour, marker=marker, label=label,
                markeredgecolor=_SURFACE,
            )  # fmt: skip
        axes.set_xlim(left=0.0)
        axes.set_xlabel("L2 radius")
        _shares(axes, share.heading, highest)
        _legend(axes)
        return _svg(canvas, name, "Share of photos by radius", described)


def reasons_plot(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], described: str) -> str:
    """Draw a stacked bar a row: (name, [(what became of the photos, share)])."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "reasons"}):
        kinds = list(dict.fromkeys(kind for _, parts in rows for kind, _ in parts))
        lines = math.ceil(len(kinds) / _columns(kinds))
        canvas, axes = _axes(_WIDTH, 0.8 + 0.34 * len(rows) + 0.22 * lines)
        for number, kind in enumerate(kinds):
            shares = [dict(parts).get(kind, 0.0) for _, parts in rows]
            starts = [
                sum(dict(parts).get(earlier, 0.0) for earlier in kinds[:number])
                for _, parts in rows
            ]
            axes.barh(
                range(len(rows)), shares, left=starts, height=0.62, color=_COLOURS[number % SERIES],
                alpha=1.0 if number == 0 else 0.75, label=kind, edgecolor=_SURFACE, linewidth=1.0,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_text(name) for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        _legend(axes, handlelength=1.2)
        return _svg(canvas, "reasons", "What became of the photos", described)


def spread_plot(groups: Sequence[tuple[str, Sequence[int]]], cap: int, described: str) -> str:
    """Draw which share of the photos was decided within how many queries; 0 stands for never."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "spread"}):
        canvas, axes = _axes(_WIDTH, 3.4)
        highest = 0.0
        for number, (label, votes) in enumerate(groups):
            ordered = sorted(vote for vote in votes if vote > 0)
            if not ordered:
                continue
            steps = [(index + 1) / len(votes) for index in range(len(ordered))]
            highest = max(highest, steps[-1])
            axes.step(
                [ordered[0], *ordered, cap], [0.0, *steps, steps[-1]], where="post",
                color=_look(number)[0], label=label,
            )  # fmt: skip
        axes.set_xscale("log")
        _plain_log(axes)
        axes.set_xlabel("queries for one photo")
        _shares(axes, "decided", highest)
        if axes.get_legend_handles_labels()[1]:
            _legend(axes)
        else:  # no test of any photo used a vote and decided
            axes.set_xlim(1, cap)
        return _svg(canvas, "spread", "Queries that photos took", described)


def comparison_plot(rows: Sequence[tuple[str, Figure]], described: str) -> str:
    """Draw a dot with its band for each way to certify."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "comparison"}):
        names = [textwrap.fill(name, _NAME_WIDTH) for name, _ in rows]
        lines = sum(name.count("\n") + 1 for name in names)
        canvas, axes = _axes(_WIDTH, 0.8 + 0.2 * len(rows) + 0.16 * lines)
        for number, (_, figure) in enumerate(rows):
            band = figure.success
            axes.plot(
                [band.low or 0.0, band.high or 0.0], [number] * 2, color=_COLOURS[0], alpha=0.4
            )
            axes.plot([band.share], [number], "o", color=_COLOURS[0], markeredgecolor=_SURFACE)
        axes.set_yticks(range(len(rows)), [_text(name) for name in names])
        axes.invert_yaxis()
        axes.set_xlim(-0.01, 1.01)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=True, axis="x")
        axes.set_xlabel(_measured_by([("", [figure for _, figure in rows])]))
        return _svg(canvas, "comparison", "Providers and denoisers", described)


def _axes(width: float, height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(canvas)
    canvas.patch.set_visible(False)
    axes = canvas.add_subplot()
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y")
    return canvas, axes


def _legend(axes: Axes, *entries: Any, **options: Any) -> None:
    """Put the legend above the axes, where it hides no band; as many columns as have room."""
    labels = entries[1] if entries else axes.get_legend_handles_labels()[1]
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    axes.legend(*entries, **{**place, "ncols": _columns(labels), "fontsize": 8.5, **options})


def _columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels), default=0)
    return max(1, min(4, _LEGEND_WIDTH // (longest + 7)))


def _measured_by(groups: Sequence[tuple[str, Sequence[Figure]]]) -> str:
    return next(
        (figure.measure.heading for _, figures in groups for figure in figures), "certified"
    )


def _look(number: int) -> tuple[str, str]:
    return _COLOURS[number % SERIES], _MARKERS[number % len(_MARKERS)]


def _shares(axes: Axes, label: str, highest: float) -> None:
    """Have an axis of shares from 0 to a round number that the highest fits under."""
    top = next((end for end in (0.1, 0.2, 0.4, 0.6, 0.8) if highest <= end), 1.0)
    axes.set_ylim(0.0, 1.04 * top)
    axes.yaxis.set_major_locator(FixedLocator([top * step / 4 for step in range(5)]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if top < 0.2 else 0))
    axes.set_ylabel(label)


def _plain_log(axes: Axes) -> None:
    ticks = [float(m * 10**e) for e in range(7) for m in (1, 2, 5)]
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _errors(axes: Axes, x: Sequence[float], figures: Sequence[Figure], colour: str) -> None:
    for at, figure in zip(x, figures, strict=True):
        band = figure.success
        if band.low is not None and band.high is not None:
            axes.plot([at, at], [band.low, band.high], color=colour, alpha=0.35, linewidth=3.0)


def _text(name: str) -> str:
    """Return a name as matplotlib is to draw it: no dollar sign starts a formula."""
    return printable(name).replace("$", r"\$")


def _svg(canvas: Canvas, name: str, title: str, described: str) -> str:
    stream = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    canvas.savefig(stream, format="svg", metadata=metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: (?:\w+ )?([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    box = re.search(r'viewBox="[^"]*"', text)
    opening = (
        f'<svg {box.group() if box else ""} role="img" '
        f'aria-labelledby="{name}-title {name}-desc" class="plot">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-desc">{html.escape(described)}</desc>'
    )
    return opening + text[text.index(">") + 1 :]
