"""Tables that are made of the code when the documentation is built, so that they cannot be stale.

`{settings}` lists the settings, `{providers}` what each provider takes and costs. Options that the
help of a command names are set as code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.parsers.rst import Directive

from smoothapi.provider import providers
from smoothapi.settings import Settings

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_OPTION = re.compile(r"`[^`]*`|(?<![\w-])--[a-z][\w-]*")


def _table(head: list[str], rows: list[list[str]], *, code: set[int]) -> nodes.table:
    table = nodes.table(classes=["colwidths-auto"])
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _row(head, set()))
    group += nodes.tbody("", *(_row(row, code) for row in rows))
    table += group
    return table


def _row(cells: list[str], code: set[int]) -> nodes.row:
    row = nodes.row()
    for column, text in enumerate(cells):
        inner = nodes.literal(text, text) if text and column in code else nodes.Text(text)
        row += nodes.entry("", nodes.paragraph("", "", inner))
    return row


class SettingsTable(Directive):
    """Every setting with its default and what it is for."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows: list[list[str]] = []
        for name, item in Settings.model_fields.items():
            default = "the user's data folder" if name == "home" else _text(item.get_default())
            if item.default_factory is not None and name != "home":
                default = "empty"
            rows.append([name, default, item.description or ""])
        return [_table(["setting", "default", "what it is"], rows, code={0, 1})]


class ProvidersTable(Directive):
    """Every adapter that ships, with its limits and its price."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows: list[list[str]] = []
        for info in providers():
            if info.distribution != "smoothapi-vision" or info.adapter is None:
                continue
            limits, price = info.adapter.limits, info.adapter.price
            rows.append(
                [
                    info.name,
                    f"{limits.batch}",
                    f"{limits.max_bytes / 2**20:.3g} MiB",
                    f"{limits.min_side} to {limits.max_side:,}",
                    "not stated" if limits.per_second is None else f"{limits.per_second:g}/s",
                    f"${price.per_thousand}",
                    price.as_of,
                ]
            )
        head = [
            "provider",
            "in a request",
            "largest",
            "sides, px",
            "pace",
            "1,000 pictures",
            "as of",
        ]
        return [_table(head, rows, code={0})]


def _text(value: object) -> str:
    return "not set" if value is None else str(value)


def _options_as_code(_app: Sphinx, _command: object, lines: list[str]) -> None:
    # Else smart quotes make a dash of the two hyphens.
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(".. "):
            lines[number] = _OPTION.sub(lambda m: m[0] if m[0][0] == "`" else f"``{m[0]}``", line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("settings", SettingsTable)
    app.add_directive("providers", ProvidersTable)
    app.connect("sphinx-click-process-description", _options_as_code)
    app.connect("sphinx-click-process-options", _options_as_code)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
