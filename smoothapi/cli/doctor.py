"""`smoothapi doctor`: whether a run would work here, and what to do where it would not."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.files import to_json
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from smoothapi.doctor import CheckResult, State

SCHEMA = "smoothapi.doctor/1"
_PROBLEM = 2
_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command(short_help="Say whether a run would work here, and what to do.")
@options("provider", "denoiser", "device", "size", "home")
@click.option("--offline", is_flag=True, help="Do not try to reach the provider's host.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(offline: bool, as_json: bool, **given: Any) -> int:
    """Look at Python, settings, home, denoiser and provider, and say what to do.

    Nothing is sent to be labelled, so it is free, and nothing is changed. One request without
    credentials goes to the provider's host, unless --offline. Exits with 2 if there is a problem;
    a warning is none.
    """
    from smoothapi.doctor import examine  # noqa: PLC0415  keeps --help light

    found = examine(given, online=not offline)
    if as_json:
        results = list(found)
        ok = all(result.state != "problem" for result in results)
        echo(
            to_json({"schema": SCHEMA, "ok": ok, "checks": [asdict(result) for result in results]})
        )
        return 0 if ok else _PROBLEM
    return _show(found)


def _show(found: Iterable[CheckResult]) -> int:
    """Print each result as soon as there is one; return the exit code."""
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    console = PrintableConsole()
    counts: dict[State, int] = dict.fromkeys(_STYLES, 0)
    for result in found:
        counts[result.state] += 1
        row = Table.grid(padding=(0, 1))
        row.add_column(width=7)
        row.add_column(width=9)
        row.add_column()
        said = Text(printable(result.said))
        if result.advice:
            said.append(f"\n{printable(result.advice)}", style="bold")
        row.add_row(
            Text(result.state, style=_STYLES[result.state]), Text(printable(result.name)), said
        )
        console.print(Padding(row, 0))
        sys.stdout.flush()
    problems, warnings = counts["problem"], counts["warning"]
    if problems:
        echo(f"\n{problems} problem{'s' * (problems > 1)}: a run would fail, or mean nothing.")
        return _PROBLEM
    more = f", with {warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    echo(f"\nReady{more}. See what a run would cost: smoothapi certify PHOTO --dry-run")
    return 0
