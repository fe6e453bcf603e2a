"""`smoothapi certify` and `smoothapi predict`."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from smoothapi.answer import printable
from smoothapi.errors import SmoothAPIError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.certify import Certificate, Target
    from smoothapi.smoother import Plan, Progress, Smoother

_ABSTAINED = 1


def _radius(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    del ctx, param
    if value is None or value == "largest":
        return value
    try:
        return float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number nor 'largest'.") from error


def _options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that certify and predict share. None means: from the settings."""
    for option in reversed(
        [
            click.argument("photos", nargs=-1, required=True, metavar="PHOTO..."),
            click.option("--provider", help="Adapter to ask, or replay:FILE."),
            click.option("--sigma", type=float, help="Noise level, of the [0, 1] range."),
            click.option("--alpha", type=float, help="Chance of a wrong certificate."),
            click.option("--max-votes", type=int, help="Most votes for one photo."),
            click.option("--budget", help="Hard limit for this command: 500, $2 or '500,$2'."),
            click.option("--size", type=int, help="Shorter side of the working image."),
            click.option(
                "--classes",
                type=click.Path(dir_okay=False, path_type=Path),
                help="TOML or JSON file of your classes: {class: [provider labels]}.",
            ),
            click.option("--plain/--no-plain", default=None, help="Ask for the plain label too."),
            click.option("--denoiser", help="default, small, none, or a file of one."),
            click.option("--device", help="auto, cpu, cuda, cuda:N or mps."),
            click.option("--codec", type=click.Choice(["png", "jpeg"]), help="Encoding."),
            click.option("--concurrency", type=int, help="Most requests in flight."),
            click.option("--home", type=click.Path(file_okay=False), help="Key and answers."),
            click.option(
                "--partial/--no-partial",
                default=None,
                help="Buy what the budget allows although it is not enough.",
            ),
            click.option("--refresh", is_flag=True, help="Ask again although stored."),
            click.option(
                "--record",
                type=click.Path(dir_okay=False),
                help="Write the answers to a file, too.",
            ),
            click.option("--json", "as_json", is_flag=True, help="One JSON object per photo."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--radius", callback=_radius, help="L2 radius to certify, or 'largest'.")
@click.option(
    "--target",
    default="top1",
    metavar="TARGET",
    help="top1, top3 (any k), present:LABEL:SCORE, absent:LABEL:SCORE or most-specific:SCORE.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent and cost; send nothing.")
def certify(
    photos: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
    target: str,
    **options: Any,
) -> int:
    """Certify the label of each PHOTO.

    What is not given is taken from the settings; `smoothapi config` shows them. Exits with 0 if all
    are certified, 1 if smoothapi abstains on one.
    """

    def ask(smoother: Smoother) -> int:
        meant = _target(target)
        if dry_run:
            return _plan_each(photos, as_json, smoother, meant)
        return _each(photos, as_json, smoother, partial(smoother.certify, target=meant))

    return _with_smoother(options, as_json, ask)


@click.command()
@_options
def predict(photos: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Give the label that most noisy copies of each PHOTO get, with no radius.

    What is not given is taken from the settings; `smoothapi config` shows them.
    """
    return _with_smoother(
        options, as_json, lambda smoother: _each(photos, as_json, smoother, smoother.predict)
    )


def _with_smoother(options: dict[str, Any], as_json: bool, ask: Callable[[Smoother], int]) -> int:
    """Make a Smoother of the options and ask it; with --json an error is an object, too."""
    from smoothapi.smoother import Smoother  # noqa: PLC0415  keeps --help light

    try:
        with Smoother(**options) as smoother:
            return ask(smoother)
    except SmoothAPIError as error:
        if not as_json:
            raise
        _report(None, error, as_json)
        return error.exit_code


def _target(text: str) -> Target | Literal["top1"]:
    from smoothapi.certify import MostSpecific, Presence, TopK  # noqa: PLC0415

    kind, _, rest = text.partition(":")
    label, _, score = rest.rpartition(":")
    try:
        if re.fullmatch(r"top\d+", text):
            return "top1" if text == "top1" else TopK(int(text[3:]))
        if kind == "most-specific":
            return MostSpecific(float(rest))
        if kind in ("present", "absent") and label:
            return Presence(
                label, float(score), wanted="present" if kind == "present" else "absent"
            )
    except UsageError:
        raise
    except ValueError:
        pass
    raise UsageError(
        f"--target {text!r} is none of top1, top3 (any k), present:LABEL:SCORE, absent:LABEL:SCORE "
        "and most-specific:SCORE; for example present:Weapon:0.8."
    )


def _each(
    photos: tuple[str, ...],
    as_json: bool,
    smoother: Smoother,
    ask: Callable[..., Certificate],
) -> int:
    """Run photo after photo. A bad photo is reported and the rest go on; all else ends it."""
    from smoothapi.cli import output  # noqa: PLC0415

    code = 0
    for photo in photos:
        waited = 0.0
        try:
            with output.progress(Path(photo).name) as advance:

                def note(state: Progress, advance: Callable[[Progress], None] = advance) -> None:
                    nonlocal waited
                    waited = state.waited
                    advance(state)

                certificate = ask(photo, on_progress=note)
        except UsageError as error:
            _report(photo, error, as_json)
            code = error.exit_code
        else:
            if as_json:
                click.echo(certificate.to_json())
            else:
                output.show_certificate(certificate, smoother.session.adapter.price, waited)
            if certificate.abstained and code == 0:
                code = _ABSTAINED
    return code


def _report(photo: str | None, error: SmoothAPIError, as_json: bool) -> None:
    if as_json:
        data = {
            "schema": "smoothapi.error/1",
            "photo": photo,
            "error": type(error).__name__,
            "message": str(error),
            "queries": error.queries,
            "cost": error.cost,
            "retries": error.retries,
            "waited": round(error.waited, 3),
        }
        click.echo(json.dumps(data, ensure_ascii=False))
    click.echo(f"smoothapi: {printable(str(error))}", err=True)


def _plan_each(
    photos: tuple[str, ...], as_json: bool, smoother: Smoother, target: Target | Literal["top1"]
) -> int:
    from smoothapi.cli import output  # noqa: PLC0415

    plans: list[Plan] = []
    code = 0
    for photo in photos:
        try:
            plans.append(smoother.plan(photo, target=target))
        except UsageError as error:
            _report(photo, error, as_json)
            code = error.exit_code
            continue
        if as_json:
            click.echo(json.dumps(output.plan_dict(plans[-1])))
    if plans and not as_json:
        output.show_plans(plans, smoother.session.settings)
    return code
