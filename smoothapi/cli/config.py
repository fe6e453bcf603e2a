"""`smoothapi config`."""

from __future__ import annotations

import json

import click

from smoothapi.cli.terminal import echo
from smoothapi.text import printable


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(as_json: bool) -> int:
    """Show each setting in force here and where its value comes from.

    Order: argument, SMOOTHAPI_* variable, smoothapi.toml, [tool.smoothapi] in pyproject.toml,
    default. Secrets are masked.
    """
    from smoothapi.config import resolve  # noqa: PLC0415

    rows = resolve().rows()
    if as_json:
        echo(json.dumps({name: {"value": value, "from": origin} for name, value, origin in rows}))
        return 0
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table()
    for column in ("setting", "value", "from"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    PrintableConsole().print(table)
    return 0
