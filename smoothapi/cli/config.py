"""`smoothapi config`: what is in force and where it is from; `trust` vouches for files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.files import to_json
from smoothapi.text import printable

if TYPE_CHECKING:
    from smoothapi.config import Resolved


@click.group("config", invoke_without_command=True)
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def show(ctx: click.Context, home: str | None, as_json: bool) -> int:
    """Show each setting in force here, where its value comes from, and whether that is trusted.

    Order: argument, SMOOTHAPI_* variable, smoothapi.toml, [tool.smoothapi] in pyproject.toml,
    default. SMOOTHAPI_CONFIG names another file instead of those two. Secrets are masked.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from smoothapi.config import resolve  # noqa: PLC0415
    from smoothapi.provider import refused_settings  # noqa: PLC0415

    resolved = resolve(home=home)
    if as_json:
        echo(to_json(_as_json(resolved)))
        return 0
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table()
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")  # a name cut short is of no use
    for name, value, origin in resolved.rows():
        doubt = " (not trusted)" if resolved.unvouched(name) else ""
        table.add_row(*(Text(printable(cell)) for cell in (name, value, f"{origin}{doubt}")))
    PrintableConsole().print(table)
    if refused := refused_settings(resolved):
        echo(
            f"Nobody vouches for these, and they are refused when they are needed: "
            f"{', '.join(map(printable, refused))}. If the file is yours: smoothapi config trust"
        )
    return 0


@show.command(short_help="Vouch for the settings files here.")
@click.option("--revoke", is_flag=True, help="Vouch for them no longer.")
def trust(revoke: bool) -> int:
    """Vouch for smoothapi.toml, and [tool.smoothapi] in pyproject.toml, in this folder.

    A folder's settings that say where credentials and photos go, which code runs or what answers
    are taken for true count only after that. It is for the files as they are now, at this place:
    a changed one is to be read and vouched for again.
    """
    from smoothapi import config, trust  # noqa: PLC0415
    from smoothapi.errors import UsageError  # noqa: PLC0415
    from smoothapi.provider import refused_settings  # noqa: PLC0415

    files = config.settings_files()
    if not files:
        raise UsageError(
            f"There is no {config.FILE} and no [tool.smoothapi] in pyproject.toml in this folder. "
            "Run it where the file is."
        )
    if not revoke and (refused := refused_settings(config.resolve())):
        echo(f"From now on they may decide: {', '.join(map(printable, refused))}.")
    for file in files:
        (trust.revoke if revoke else trust.vouch)(file)
        echo(f"{'Not trusted' if revoke else 'Trusted'}: {printable(str(file.path))}")
    return 0


def _as_json(resolved: Resolved) -> dict[str, Any]:
    found = resolved.to_dict()
    for name, file in resolved.files.items():
        found[name]["trusted"] = file.trusted
    return found
