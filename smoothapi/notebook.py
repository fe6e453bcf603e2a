"""Tables for notebooks, all text escaped: labels come from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LEFT = "style='text-align:left;white-space:normal;overflow-wrap:anywhere'"
_NAME = "style='text-align:left;white-space:nowrap;vertical-align:top'"
_RIGHT = "style='text-align:right'"


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values."""
    body = "".join(
        f"<tr><th {_NAME}>{escaped(name)}</th><td {_LEFT}>{escaped(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{body}</table>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a header; numbers, which are text here, stand to the right."""
    head = "".join(f"<th {_RIGHT}>{escaped(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td {_RIGHT}>{escaped(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f"<div style='overflow-x:auto'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def bars(counts: Iterable[tuple[str, int]]) -> str:
    """Return a bar for each label, as long as its share of the votes."""
    rows = list(counts)
    total = max(1, sum(count for _, count in rows))
    body = "".join(
        f"<tr><td {_LEFT}>{escaped(name)}</td>"
        "<td style='width:12em'><div style='background:currentColor;opacity:.55;height:.7em;"
        f"border-radius:2px;width:{100.0 * count / total:.1f}%'></div></td>"
        f"<td {_RIGHT}>{count:,}</td></tr>"
        for name, count in rows
    )
    return f"<table aria-label='Votes'>{body}</table>"


def paragraph(text: object) -> str:
    """Return text as a paragraph."""
    return f"<p style='max-width:46em'>{escaped(text)}</p>"


def escaped(value: object) -> str:
    """Return a value as text that is safe in a page."""
    from html import escape  # noqa: PLC0415  it brings the names of all characters

    return escape(printable(str(value)))
