"""`smoothapi certify` and `smoothapi predict`."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from smoothapi.answer import printable
from smoothapi.cli.options import options
from smoothapi.errors import SmoothAPIError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.certify import Certificate, Target
    from smoothapi.smoother import Plan, Progress, Smoother

_ABSTAINED = 1


_SHARED = (
    "provider", "sigma", "alpha", "max-votes", "budget", "size", "classes", "plain", "denoiser",
    "device", "codec", "concurrency", "home", "partial", "refresh", "record",
)  # fmt: skip
_PHOTOS = click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object per photo.")


@click.command()
@_PHOTOS
@options(*_SHARED)
@_JSON
@options("radius", "target", "dry-run", radius="L2 radius to certify, or 'largest'.")
def certify(
    photos: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
    target: str,
    **given: Any,
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

    return _with_smoother(given, as_json, ask)


@click.command()
@_PHOTOS
@options(*_SHARED)
@_JSON
def predict(photos: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Give the label that most noisy copies of each PHOTO get, with no radius.

    What is not given is taken from the settings; `smoothapi config` shows them.
    """
    return _with_smoother(
        given, as_json, lambda smoother: _each(photos, as_json, smoother, smoother.predict)
    )


def _with_smoother(given: dict[str, Any], as_json: bool, ask: Callable[[Smoother], int]) -> int:
    """Make a Smoother of the options and ask it; with --json an error is an object, too."""
    from smoothapi.smoother import Smoother  # noqa: PLC0415  keeps --help light

    try:
        with Smoother(**given) as smoother:
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
