"""`smoothapi study`: what a query budget buys, over a folder of photos."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.group import Group
from smoothapi.cli.options import options, target_of, working_radius
from smoothapi.cli.signals import ANSWERS_KEPT, says_when_stopped
from smoothapi.cli.terminal import command_line, echo
from smoothapi.errors import BudgetExceededError, ProviderError, UsageError
from smoothapi.files import check_folder, shown_name
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from smoothapi.study import StudyPlan, StudyProgress, StudyResult
    from smoothapi.study.summary import Summary

_SAVE_EVERY = 1.0  # seconds between lines of progress where there is no terminal


class _StudyGroup(Group):
    """`study PHOTOS...` runs a study; `study report FILE` draws its report again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args.insert(0, "run")
        return super().parse_args(ctx, args)


def numbers(kind: type[int | float]) -> Callable[..., Any]:
    """Return a click callback that reads "0.12,0.25,0.5"."""

    def read(
        ctx: click.Context, param: click.Parameter, value: str | None
    ) -> tuple[float, ...] | None:
        del ctx, param
        if value is None:
            return None
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError as error:
            what = "whole numbers" if kind is int else "numbers"
            raise click.BadParameter(f"{value!r}: write {what} with commas between.") from error

    return read


def _radii(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    """Read "0.1,0.25,0.5", a click callback."""
    read = working_radius(
        "A study compares photos of all sizes at the same radii; it says what each comes to around "
        "the photos, native and as rms."
    )
    return tuple(radius for part in value.split(",") if (radius := read(ctx, param, part)))


@click.group(cls=_StudyGroup)
def study() -> None:
    """Say what a query budget buys, over a folder of photos."""


@study.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option("--provider", "providers", multiple=True, help="Adapter to ask; may be repeated.")
@click.option(
    "--sigma", "sigmas", callback=numbers(float), metavar="LIST", help="Noise levels: 0.12,0.25,0.5"
)
@click.option(
    "--radius",
    "radii",
    callback=_radii,
    default="0.1,0.25,0.5",
    show_default=True,
    metavar="LIST",
    help="L2 radii of interest.",
)
@click.option(
    "--max-votes",
    callback=numbers(int),
    default="50,100,200,1000",
    show_default=True,
    metavar="LIST",
    help="Most votes of a certificate.",
)
@options("truth", "classes", "target")
@click.option(
    "--denoiser", "denoisers", multiple=True, help="default, small, none, a file; repeatable."
)
@options(
    "alpha",
    "budget",
    budget="Hard limit of this study, restarts included: 5000, $20 or '5000,$20'.",
)
@click.option("--pilot", type=click.IntRange(min=1), help="Study so many photos only, at random.")
@options("dry-run")
@click.option(
    "--complete",
    type=click.IntRange(min=1),
    metavar="N",
    help="Buy N votes of each photo, so that fixed samples up to N are measured.",
)
@click.option("--selection", type=int, help="Votes of a fixed sample that name its candidate.")
@click.option("--photos-at-once", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--gallery", type=click.IntRange(0, 100), default=8, show_default=True)
@options("size", "device", "codec", "concurrency", "home", "refresh", "allow-private", "cluster")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report."
)
@click.option("--json", "as_json", is_flag=True, help="The result (or plan) as JSON on stdout.")
@click.option("--mlflow", is_flag=True, help="Log the study as a run of MLflow, with its report.")
@says_when_stopped(ANSWERS_KEPT)
def run(
    photos: tuple[str, ...],
    *,
    providers: tuple[str, ...],
    denoisers: tuple[str, ...],
    classes: Path | None,
    target: str,
    complete: int | None,
    pilot: int | None,
    dry_run: bool,
    out: Path | None,
    allow_private: bool,
    as_json: bool,
    mlflow: bool,
    **given: Any,
) -> int:
    """Study the photos in PHOTOS and write a report.

    PHOTOS are files, folders (with all below them), patterns in quotes, addresses with https, or
    buckets' files and prefixes (s3, gs, az).

    Every answer is bought once and kept: stopped or killed, the same command continues and pays
    for what is missing. `smoothapi study report RESULT.json --out FOLDER` draws the report again.

    Exits with 0, with 3 if the budget ended the study early, with 4 if the provider did.
    """
    from smoothapi.photos import PhotoFetcher  # noqa: PLC0415
    from smoothapi.study import Study  # noqa: PLC0415  keeps --help light

    if out is not None and not dry_run:
        _check_report(out)
    if mlflow and not dry_run:
        import smoothapi.study.report  # noqa: F401, PLC0415  raises MissingExtraError
        from smoothapi.integrations.mlflow import check  # noqa: PLC0415  an extra

        check()
    subject = Study(
        photos[0] if len(photos) == 1 else photos,
        provider=providers or None,
        denoisers=denoisers or None,
        classes=classes,
        target=target_of(target),
        complete=complete or 0,
        command=command_line(),
        fetcher=PhotoFetcher(private=allow_private),
        **given,
    )
    with _progress() as advance:
        if dry_run:
            plan = subject.plan(pilot=pilot, on_progress=advance)
        else:
            result = subject.run(advance, pilot=pilot)
    if dry_run:
        _show_plan(plan, as_json)
        return 0
    if as_json:
        echo(result.to_json())
    if out is not None:
        echo(f"Report: {shown_name(str(result.report(out)))}", err=as_json)
    if mlflow:
        from smoothapi.integrations.mlflow import log_study  # noqa: PLC0415  an extra

        echo(f"MLflow run: {log_study(result, report=out)}", err=as_json)
    if not as_json:
        _show(result)
    if result.stopped:
        echo(f"smoothapi: the study is partial: {printable(result.stopped)}", err=True)
        return (
            BudgetExceededError.exit_code
            if result.stopped.startswith(("The budget", "This needs at least"))
            else ProviderError.exit_code
        )
    return 0


@study.command()
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Its folder."
)
def report(result: Path, out: Path) -> int:
    """Draw the report of RESULT.json again, here or elsewhere: nothing else is needed."""
    from smoothapi.study import StudyResult  # noqa: PLC0415

    echo(f"Report: {shown_name(str(StudyResult.load(result).report(out)))}")
    return 0


def _check_report(out: Path) -> None:
    """Fail before anything is paid for, not after."""
    import smoothapi.study.report  # noqa: F401, PLC0415  raises MissingExtraError

    try:
        check_folder(out)
    except OSError as error:
        raise UsageError(
            f"The report cannot be written to {str(out)!r}: {error.strerror or error}. Give "
            "--out a folder that you can write to."
        ) from error


@contextmanager
def _progress() -> Iterator[Callable[[StudyProgress], None]]:
    """Show a bar on stderr; without a terminal a line now and then."""
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    console = PrintableConsole(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[spent]}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading photos", total=None, spent="")
        said = [time.monotonic()]

        def advance(state: StudyProgress) -> None:
            spent = ""
            if state.phase == "asking":
                rate = state.votes / state.seconds if state.seconds > 0 else 0.0
                spent = (
                    f"{state.votes:,} votes, {state.queries:,} sent, ${state.cost:.2f} spent, "
                    f"{rate:.0f}/s"
                )
                if state.problems:
                    spent += f", {state.problems} problems"
            what = {"reading": "reading photos", "asking": "photo x sigma"}[state.phase]
            bar.update(task, description=what, completed=state.done, total=state.total, spent=spent)
            if not console.is_terminal and time.monotonic() - said[0] > 30 * _SAVE_EVERY:
                said[0] = time.monotonic()
                echo(f"{what} {state.done} of {state.total}: {spent}", err=True)

        yield advance


def _show_plan(plan: StudyPlan, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict  # noqa: PLC0415

        totals = {
            "expected": plan.expected,
            "at_most": plan.at_most,
            "dollars": plan.dollars,
            "dollars_at_most": plan.dollars_at_most,
        }
        data = {"schema": "smoothapi.study-plan/1", **totals}
        echo(json.dumps({**data, "rows": [asdict(row) for row in plan.rows]}))
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table(title="Nothing was sent. The study would still send:", title_justify="left")
    several = len({(row.provider, row.denoiser) for row in plan.rows}) > 1
    for name in ("provider", "denoiser") if several else ():
        table.add_column(name)
    for name in ("sigma", "photos", "stored", "expected", "at most", "dollars", "at most $"):
        table.add_column(name, justify="right")
    for row in plan.rows:
        names = (row.provider, row.denoiser) if several else ()
        table.add_row(
            *(Text(printable(name)) for name in names),
            f"{row.sigma:g}",
            f"{row.photos:,}",
            f"{row.stored:,}",
            "?" if row.expected is None else f"{row.expected:,}",
            f"{row.at_most:,}",
            "?" if row.dollars is None else f"${row.dollars:,.2f}",
            f"${row.dollars_at_most:,.2f}",
        )
    console = PrintableConsole()
    console.print(table)
    expected = "?" if plan.expected is None else f"{plan.expected:,}"
    dollars = "?" if plan.dollars is None else f"${plan.dollars:,.2f}"
    console.print(
        f"In all {expected} queries expected ({dollars}), at most {plan.at_most:,} "
        f"(${plan.dollars_at_most:,.2f})."
    )
    for basis in dict.fromkeys(row.basis for row in plan.rows):
        console.print(Text(f"Expected: {printable(basis)}"), style="dim")


def _show(result: StudyResult) -> None:
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415
    from smoothapi.study.figures import around_photos  # noqa: PLC0415
    from smoothapi.study.summary import Summary  # noqa: PLC0415

    console = PrintableConsole()
    summary = Summary.of(result)
    for number, line in enumerate(summary.lines):
        console.print(Text(printable(line), style="" if number else "bold"))
    console.print(_table(result, summary))
    for around in around_photos(result):
        console.print(Text(around.text), style="dim")
    for line in _advice(result, summary):
        console.print(Text(printable(line)))
    sent = f"Sent now: {result.queries:,} queries (${result.dollars:.2f})."
    undecided = {p.photo for p in result.problems if p.kind == "undecided"}
    if result.left_out:
        sent += f" {result.left_out} left out."
    if undecided:
        sent += f" {len(undecided)} undecided somewhere, counted there as not certified."
    console.print(sent)
    for problem in result.problems[:10]:
        console.print(Text(f"  {printable(problem.photo)}: {printable(problem.why)}"), style="dim")
    if len(result.problems) > 10:
        console.print(f"  and {len(result.problems) - 10} more", style="dim")


def _several(result: StudyResult) -> bool:
    return len(result.providers) * len(result.denoisers) > 1


def _table(result: StudyResult, summary: Summary) -> Table:
    """Return figures of all photos at the largest cap; what counts first comes first."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.study import figures  # noqa: PLC0415
    from smoothapi.study.figures import measures_of  # noqa: PLC0415
    from smoothapi.study.summary import share_text  # noqa: PLC0415

    cap = summary.max_votes
    measure, *others = measures_of(result)
    if _several(result):
        others = []  # for which there is no room; the report has them
    table = Table(
        title=f"All {len(result.photos):,} photos, at most {cap:,} votes each, sequential",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("provider", "denoiser") if _several(result) else ():
        table.add_column(name)
    for name in (
        "sigma", "radius", measure.heading, "95% band", "queries",
        "per success", *(other.heading for other in others),
    ):  # fmt: skip
        table.add_column(name.replace(", ", ",\n").replace("per s", "per\ns"), justify="right")
    for figure in figures(result):
        if figure.max_votes != cap or figure.method != "sequential":
            continue
        names = (figure.provider, figure.denoiser) if _several(result) else ()
        band, per = figure.success, figure.queries_per_success
        told = [figure.share(other) for other in others]
        table.add_row(
            *(Text(printable(name)) for name in names),
            f"{figure.sigma:g}",
            f"{figure.radius:g}",
            share_text(band.share),
            f"{share_text(band.low)} - {share_text(band.high)}",
            f"{'~' if figure.undecided else ''}{figure.mean_queries:,.0f}",
            "none" if per is None else f"{per:,.0f}",
            *("" if share is None else share_text(share.share) for share in told),
        )
    return table


def _advice(result: StudyResult, summary: Summary) -> Iterator[str]:
    """Yield what each radius takes on photos that had no say in choosing the sigma for it."""
    from smoothapi.study.summary import queries_text, share_text  # noqa: PLC0415

    if not summary.calibration:
        return  # nothing was chosen: the table says it all
    for (provider, denoiser, radius), choice in summary.choices.items():
        judged = choice.judged
        if choice.chosen is not None and judged is not None:
            where = f" ({provider}, {denoiser})" if _several(result) else ""
            yield (
                f"Radius {radius:g}{where}: sigma {judged.sigma:g} is the cheapest on "
                f"{summary.calibration:,} photos; of the other {judged.photos:,}, "
                f"{share_text(judged.success.share)} are {judged.measure.text}, for "
                f"{queries_text(judged)} queries each."
            )
