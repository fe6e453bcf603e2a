"""`smoothapi denoiser adapt`: set a denoiser's knobs by a provider's own answers."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.options import options
from smoothapi.cli.signals import ANSWERS_KEPT, says_when_stopped
from smoothapi.cli.terminal import echo
from smoothapi.errors import UsageError
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi.adapting import Adapted, AdaptPlan, AdaptProgress
    from smoothapi.denoise.knobs import Knobs

_SAY_EVERY = 30.0  # seconds between lines of progress where there is no terminal
_PATH = click.Path(exists=True, dir_okay=False, path_type=Path)


def _settings(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[Knobs, ...] | None:
    """Read "blend=0.05,sharpen=0.2"; None if nothing is given."""
    del ctx, param
    from smoothapi.denoise.knobs import Knobs  # noqa: PLC0415  keeps --help light

    made = []
    for value in values:
        try:
            pairs = [part.partition("=") for part in value.split(",")]
            made.append(Knobs(**{name.strip(): float(number) for name, _, number in pairs}))
        except UsageError as error:
            raise click.BadParameter(str(error)) from error
        except (TypeError, ValueError) as error:
            raise click.BadParameter(
                f"{value!r}: write blend=0.05, sharpen=0.2, or both with a comma between."
            ) from error
    return tuple(made) or None


@click.command(short_help="Set a denoiser's knobs by a provider's answers.")
@click.argument("provider")
@click.option(
    "--photos",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="Folder of photos of the kind that the denoiser is meant for.",
)
@options(
    "budget",
    "sigma",
    budget="Hard limit, restarts included: 1000, $2 or '1000,$2'.",
    sigma="Noise level that it is to be used at.",
)
@click.option(
    "--denoiser", "weights", default="default", help="default, small, or a .safetensors file."
)
@click.option(
    "--setting",
    "settings",
    multiple=True,
    callback=_settings,
    metavar="KNOBS",
    help="A setting to try, such as blend=0.05,sharpen=0.2; repeatable.",
)
@options(
    "truth",
    "classes",
    truth="CSV file with the columns file and label: what is right, not the provider's say.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; by default PROVIDER-denoiser.json.",
)
@options("dry-run", "size", "device", "codec", "concurrency", "home")
@click.option("--json", "as_json", is_flag=True, help="The result (or plan) as JSON on stdout.")
@says_when_stopped(ANSWERS_KEPT)
def adapt(
    provider: str,
    *,
    settings: tuple[Knobs, ...] | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Adapt a denoiser to PROVIDER: tune its knobs by what PROVIDER answers about your photos.

    A setting is taken only with enough evidence that PROVIDER prefers it; else all stays as it is.
    Run again after a kill, the command pays for nothing twice. Use the result with --denoiser FILE.
    """
    from smoothapi.adapting import GRID, KnobTuning  # noqa: PLC0415  keeps --help light

    photos = given.pop("photos")
    tuning = KnobTuning(photos, provider=provider, settings=settings or GRID, **given)
    file = out or Path(f"{provider.replace(':', '-').replace('/', '-')}-denoiser.json")
    with _progress() as advance:
        if dry_run:
            plan = tuning.plan(advance)
        else:
            _check_out(file)
            adapted = tuning.run(advance)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return 0
    card = adapted.write(file)
    if as_json:
        knobs = asdict(adapted.adaptation.knobs)
        data = {"schema": "smoothapi.adapted/1", "file": str(file), "knobs": knobs}
        echo(json.dumps({**data, **adapted.to_dict()}))
    else:
        _show(adapted, file, card)
    return 0


def _check_out(file: Path) -> None:
    """Fail before anything is paid for, not after."""
    if file.suffix.lower() != ".json":
        raise UsageError(f"--out {str(file)!r}: an adapted denoiser is a .json file.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be written: {error}.") from error


@contextmanager
def _progress() -> Iterator[Callable[[AdaptProgress], None]]:
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

        def advance(state: AdaptProgress) -> None:
            spent = ""
            if state.phase != "reading":
                spent = f"{state.queries:,} sent, {state.cached:,} stored, ${state.cost:.2f}"
            if state.phase == "tuning":
                spent += f", {state.left} settings left"
            what = f"{state.phase} photos" if state.phase == "reading" else state.phase
            bar.update(task, description=what, completed=state.done, total=state.total, spent=spent)
            if not console.is_terminal and time.monotonic() - said[0] > _SAY_EVERY:
                said[0] = time.monotonic()
                echo(f"{what} {state.done} of {state.total}: {spent}", err=True)

        yield advance


def _show_plan(plan: AdaptPlan, *, as_json: bool) -> None:
    if as_json:
        echo(json.dumps({"schema": "smoothapi.adapt-plan/1", **asdict(plan)}))
        return
    echo(
        f"Nothing was sent. Of {plan.photos:,} photos ({plan.left_out:,} left out), "
        f"{plan.tuning:,} would tune and {plan.held_out:,} measure, within {plan.budget}."
    )
    echo(
        f"At most {plan.queries:,} queries to {printable(plan.provider)} (${plan.dollars:.4f}); "
        f"{plan.stored:,} answers are stored already."
    )
    for knobs in plan.settings:
        echo(f"  {knobs}")


def _show(adapted: Adapted, file: Path, card: Path) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table(title=f"Beside the neutral setting, on {adapted.photos} photos at most")
    table.title_justify = "left"
    table.add_column("setting")
    for name in ("photos", "right", "neutral right", "gain", "e-value"):
        table.add_column(name, justify="right")
    for one in adapted.tried:
        standing = one.standing
        table.add_row(
            Text(str(one.knobs)),
            f"{standing.photos}",
            f"{standing.right}",
            f"{standing.neutral_right}",
            f"{standing.gain:+.1%}",
            f"{standing.evidence:.3g}",
        )
    PrintableConsole().print(table)
    if adapted.changed:
        echo(f"Taken: {adapted.adaptation.knobs}.")
    else:
        echo(
            f"Nothing was changed: no setting reached the e-value of {adapted.needed:g} that it "
            "takes to leave the neutral one."
        )
    held = adapted.held_out
    if held is not None and held.photos:
        low, high = held.band
        echo(
            f"On {held.photos} photos held out: right {held.before} before, {held.after} after "
            f"(95% interval of the difference {low:+.1%} to {high:+.1%})."
        )
    echo(
        f"Sent {adapted.queries:,} queries (${adapted.dollars:.4f}); {adapted.cached:,} answers "
        "were stored."
    )
    if adapted.stopped:
        echo(f"smoothapi: ended early: {printable(adapted.stopped)}", err=True)
    echo(f"Use it with --denoiser {file}; its card: {card}")
