"""`smoothapi runs`: what was certified when, for whom, with which settings and at what cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.group import Group
from smoothapi.cli.home import opened_home
from smoothapi.cli.options import options
from smoothapi.cli.terminal import confirm, echo
from smoothapi.errors import UsageError
from smoothapi.store.runs import DONE
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.store import RunRecord, Runs, Store

_MOST_DAYS = 36_500


class _Runs(Group):
    """`runs` alone lists them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        helps = ctx.help_option_names
        if not args or (args[0] not in self.commands and args[0] not in helps):
            args.insert(0, "list")
        return super().parse_args(ctx, args)


@click.group(cls=_Runs)
def runs() -> None:
    """Show what was run: `runs list`, `runs show ID`, `runs clear`."""


@runs.command("list")
@click.option(
    "--most", type=click.IntRange(min=1), default=20, show_default=True, help="Runs shown."
)
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per run.")
def list_(*, most: int, home: str | None, as_json: bool) -> int:
    """List the last runs of this home, the latest first."""
    with opened_home(home) as store:
        found = _runs_of(store).latest(most)
    if as_json:
        for run in found:
            echo(run.to_json())
        return 0
    if not found:
        echo("Nothing was run with this home yet.")
        return 0
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("run", "command", "by", "provider", "dollars", "outcome"):
        # All but the outcome whole: `runs show` needs the ID.
        table.add_column(
            name,
            justify="right" if name == "dollars" else "left",
            no_wrap=name != "outcome",
            overflow="fold",
        )
    for run in found:
        ended = "" if run.outcome == DONE else run.outcome
        outcome = "; ".join(filter(None, (_counts(run), ended)))
        row = (run.id, run.command, run.by, run.provider, f"${run.dollars:,.4f}", outcome)
        table.add_row(*(Text(printable(cell)) for cell in row))
    PrintableConsole().print_table(table)
    return 0


@runs.command()
@click.argument("identity", required=False, metavar="[ID]")
@options("home")
@click.option("--json", "as_json", is_flag=True, help="The record as JSON.")
def show(*, identity: str | None, home: str | None, as_json: bool) -> int:
    """Show one run: the ID of `runs list`, its beginning or its end; the last one by default."""
    with opened_home(home) as store:
        kept = _runs_of(store)
        found = kept.latest(1) if identity is None else kept.find(identity)
    if not found:
        raise UsageError(
            "Nothing was run with this home yet."
            if identity is None
            else f"No run has the id {printable(identity)!r}. `smoothapi runs` lists them."
        )
    if len(found) > 1:
        several = ", ".join(run.id for run in found)
        raise UsageError(f"{printable(str(identity))!r} is of several runs: {several}. Say more.")
    if as_json:
        echo(found[0].to_json())
        return 0
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _facts(found[0]):
        table.add_row(Text(name), Text(printable(value)))
    PrintableConsole().print(table)
    return 0


def _days(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """Refuse what is no age, a click callback."""
    del ctx, param
    if not 0.0 <= value <= _MOST_DAYS:
        raise click.BadParameter(f"{value:g}: write days, from 0, which is all, to {_MOST_DAYS:,}.")
    return value


@runs.command()
@click.option(
    "--older-than", "days", callback=_days, type=float, required=True, metavar="DAYS",
    help="Only runs that began more than so many days ago; 0 is all.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@options("home")
def clear(*, days: float, yes: bool, home: str | None) -> int:
    """Forget past runs. Answers, budgets and certificates stay: they do not rest on them."""
    with opened_home(home) as store:
        kept = _runs_of(store)
        if not hasattr(kept, "clear"):
            raise UsageError(
                "This store forgets no runs: it was made before smoothapi asked it to."
            )
        count = kept.older(days)
        if count and not yes:
            confirm(f"Forget {_runs(count)} that began more than {days:g} days ago?", abort=True)
        echo(f"Forgot {_runs(kept.clear(days) if count else 0)}.")
    return 0


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def _facts(run: RunRecord) -> Iterator[tuple[str, str]]:
    yield "run", run.id
    yield "command", run.line or f"{run.command}, from Python"
    yield "by", run.by
    yield "began", run.began
    yield "ended", run.ended or "not yet, or its process was killed"
    yield "outcome", run.outcome
    yield "provider", run.provider
    for name, value in sorted(run.settings.items()):
        yield f"  {name}", value if isinstance(value, str) else json.dumps(value)
    yield "photos", _counts(run) or "none"
    yield "cost", f"${run.dollars:,.4f}: {run.attempts:,} sent, {run.cached:,} from the store"
    for photo in run.photos:
        yield "  " + printable(str(photo.get("outcome", ""))), _of_photo(photo)
    more = sum(run.counts.values()) - len(run.photos)
    if run.photos and more > 0:
        yield "", f"and {more:,} more; `certify --out FILE` keeps all"


def _of_photo(photo: Any) -> str:
    said = str(photo.get("photo", ""))
    if photo.get("label") is not None:
        said += f": {photo['label']}"
        if photo.get("radius"):
            said += f" at radius {photo['radius']:g}"
    elif photo.get("reason") or photo.get("error"):
        said += f": {photo.get('reason') or photo.get('error')}"
    return f"{said} (${float(photo.get('dollars') or 0.0):.4f})"


def _counts(run: RunRecord) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in run.counts.items() if count)


def _runs_of(store: Store) -> Runs:
    found: Runs | None = getattr(store, "runs", None)
    if found is None:
        raise UsageError("This store keeps no runs: it was made before smoothapi asked for them.")
    return found
