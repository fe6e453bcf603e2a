"""`smoothapi config`."""

from __future__ import annotations

import click

from smoothapi.answer import printable
from smoothapi.cli.options import options
from smoothapi.files import to_json


@click.command("config")
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(home: str | None, as_json: bool) -> int:
    """Show each setting in force here and where its value comes from.

    Order: argument, SMOOTHAPI_* variable, smoothapi.toml, [tool.smoothapi] in pyproject.toml,
    default. Secrets are masked.
    """
    from smoothapi.config import resolve  # noqa: PLC0415

    resolved = resolve(home=home)
    if as_json:
        click.echo(to_json(resolved.to_dict()))
        return 0
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for column in ("setting", "value", "from"):
        table.add_column(column)
    for row in resolved.rows():
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)
    return 0
