"""`smoothapi providers`."""

from __future__ import annotations

import json

import click

from smoothapi.answer import printable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def providers(as_json: bool) -> int:
    """List the providers that are installed, what they take and what they cost."""
    from smoothapi import dispatch  # noqa: PLC0415

    found = dispatch.providers()
    if as_json:
        rows = [
            {
                "name": info.name,
                "package": info.distribution,
                "usable": info.adapter is not None,
                "problem": info.problem,
                "per_thousand": float(info.adapter.price.per_thousand) if info.adapter else None,
                "price_as_of": info.adapter.price.as_of if info.adapter else None,
                "batch": info.adapter.limits.batch if info.adapter else None,
                "max_bytes": info.adapter.limits.max_bytes if info.adapter else None,
                "min_side": info.adapter.limits.min_side if info.adapter else None,
                "formats": list(info.adapter.limits.formats) if info.adapter else None,
            }
            for info in found
        ]
        click.echo(json.dumps(rows))
        return 0
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for name in ("provider", "from", "per 1,000", "a request", "takes", "here"):
        table.add_column(name)
    for info in found:
        if info.adapter is None:
            row = ("", "", "", info.problem)
        else:
            price, limits = info.adapter.price, info.adapter.limits
            row = (
                f"${price.per_thousand}" + (f" ({price.as_of})" if price.as_of else ""),
                str(limits.batch),
                f"{', '.join(limits.formats)} up to {limits.max_bytes / 2**20:.1f} MiB",
                "ready",
            )
        table.add_row(*(Text(printable(cell)) for cell in (info.name, info.distribution, *row)))
    Console().print(table)
    return 0
