"""`smoothapi budget`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from smoothapi.answer import printable
from smoothapi.cli.options import options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from smoothapi.dispatch import Account, SharedState


@click.group(invoke_without_command=True)
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def budget(ctx: click.Context, home: str | None, as_json: bool) -> int:
    """Show what each named or periodic budget has spent, reserved and left.

    A budget is made by using it: --budget '$20/month', or Budget(..., name="study").
    """
    ctx.obj = home
    if ctx.invoked_subcommand is None:
        from smoothapi.dispatch import accounts  # noqa: PLC0415

        with _state(home) as state:
            _show(accounts(state), as_json)
    return 0


@budget.command()
@click.option(
    "--everywhere",
    is_flag=True,
    help="Also of other hosts and containers, where nobody can look: only if nothing runs.",
)
@click.pass_obj
def release(home: str | None, *, everywhere: bool) -> int:
    """Give back what killed processes had reserved.

    Such queries may have been sent and billed: do this when you know that they were not.
    """
    from smoothapi.dispatch import release_abandoned  # noqa: PLC0415

    with _state(home) as state:
        count = release_abandoned(state, everywhere=everywhere)
    click.echo(f"Released {count:,} queries of processes that are gone.")
    return 0


@budget.command()
@click.argument("name")
@click.pass_obj
def reset(home: str | None, name: str) -> int:
    """Forget what was spent under the budget NAME, in all its periods."""
    from smoothapi import dispatch  # noqa: PLC0415

    with _state(home) as state:
        count = dispatch.reset(state, name)
    click.echo(f"Reset {count} period(s) of {name!r}." if count else f"No budget {name!r}.")
    return 0


@contextmanager
def _state(home: str | None) -> Iterator[SharedState]:
    from smoothapi.config import resolve  # noqa: PLC0415
    from smoothapi.dispatch import SharedState  # noqa: PLC0415

    state = SharedState(resolve(home=home).settings.home / "ledger.db")
    try:
        yield state
    finally:
        state.close()


def _show(found: list[Account], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": account.name,
                "period": account.period,
                "queries": account.queries,
                "dollars": float(account.dollars),
                "reserved": account.reserved,
                "query_limit": account.query_limit,
                "queries_left": account.queries_left,
                "dollar_limit": _number(account.dollar_limit),
                "dollars_left": _number(account.dollars_left),
            }
            for account in found
        ]
        click.echo(json.dumps(rows))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not found:
        click.echo("No named or periodic budget was used yet.")
        return
    table = Table()
    table.add_column("budget")
    table.add_column("period")
    for name in ("queries", "reserved", "left", "dollars", "left"):
        table.add_column(name, justify="right")
    for account in found:
        queries_left = dollars_left = "no limit"
        if account.queries_left is not None:
            queries_left = f"{account.queries_left:,}"
        if account.dollars_left is not None:
            dollars_left = f"${account.dollars_left:.4f}"
        table.add_row(
            Text(printable(account.name)),
            account.period,
            f"{account.queries:,}",
            f"{account.reserved:,}",
            queries_left,
            f"${account.dollars:.4f}",
            dollars_left,
        )
    Console().print(table)


def _number(dollars: Decimal | None) -> float | None:
    return None if dollars is None else float(dollars)
