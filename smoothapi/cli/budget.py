"""`smoothapi budget`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from smoothapi.cli.group import Group
from smoothapi.cli.home import opened_home
from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.errors import UsageError
from smoothapi.text import printable

if TYPE_CHECKING:
    from decimal import Decimal

    from smoothapi.store import Account


@click.group(cls=Group, invoke_without_command=True)
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def budget(ctx: click.Context, home: str | None, as_json: bool) -> int:
    """Show what each named or periodic budget has spent, reserved and left.

    A budget is made by using it: --budget '$20/month', or Budget(..., name="study").
    """
    if ctx.invoked_subcommand is None:
        with opened_home(home) as opened:
            _show(opened.accounts(), as_json)
    return 0


@budget.command()
@click.option(
    "--everywhere",
    is_flag=True,
    help="Also of other hosts and containers, where nobody can look: only if nothing runs.",
)
@options("home")
def release(home: str | None, *, everywhere: bool) -> int:
    """Give back what killed processes had reserved.

    Such attempts may have been made and billed: do this when you know that they were not.
    """
    with opened_home(home) as opened:
        count = opened.release_abandoned(everywhere=everywhere)
    echo(f"Released {count:,} attempts of processes that are gone.")
    return 0


@budget.command()
@click.argument("name")
@options("home")
def reset(home: str | None, name: str) -> int:
    """Forget what was spent under the budget NAME, in all its periods."""
    with opened_home(home) as opened:
        count = opened.reset(name)
    if not count:
        raise UsageError(
            f"No budget has the name {printable(name)!r}. `smoothapi budget` lists them."
        )
    echo(f"Reset {count} period(s) of {name!r}.")
    return 0


def _show(found: list[Account], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": account.name,
                "period": account.period,
                "attempts": account.attempts,
                "dollars": float(account.dollars),
                "reserved": account.reserved,
                "attempt_limit": account.attempt_limit,
                "attempts_left": account.attempts_left,
                "dollar_limit": _number(account.dollar_limit),
                "dollars_left": _number(account.dollars_left),
            }
            for account in found
        ]
        echo(json.dumps(rows))
        return
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    if not found:
        echo("No named or periodic budget was used yet.")
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # Whole, since `budget reset` needs the name: in several lines where it must be.
    table.add_column("budget", overflow="fold", min_width=12)
    table.add_column("period", no_wrap=True)
    for name in ("attempts", "reserved", "left", "dollars", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for account in found:
        attempts_left = dollars_left = "no limit"
        if account.attempts_left is not None:
            attempts_left = f"{account.attempts_left:,}"
        if account.dollars_left is not None:
            dollars_left = f"${account.dollars_left:.4f}"
        table.add_row(
            Text(printable(account.name)),
            account.period,
            f"{account.attempts:,}",
            f"{account.reserved:,}",
            attempts_left,
            f"${account.dollars:.4f}",
            dollars_left,
        )
    PrintableConsole().print(table)


def _number(dollars: Decimal | None) -> float | None:
    return None if dollars is None else float(dollars)
