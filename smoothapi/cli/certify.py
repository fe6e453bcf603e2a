"""`smoothapi certify` and `smoothapi predict`."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from smoothapi.cli.errors import report
from smoothapi.cli.options import options, target_of
from smoothapi.cli.terminal import echo
from smoothapi.errors import SigningKeyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.certify import Certificate
    from smoothapi.radius import WantedRadius
    from smoothapi.signing import SigningKey
    from smoothapi.smoother import Plan, Progress, Smoother

_ABSTAINED = 1
_STDIN = "-"

_SHARED = (
    "provider", "sigma", "alpha", "max-votes", "budget", "size", "classes", "plain", "denoiser",
    "device", "codec", "concurrency", "home", "partial", "refresh", "record",
)  # fmt: skip
_PHOTOS = click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object per photo.")
_OF_THE_HOME = "\0"  # no file has such a name


def _given_key(ctx: click.Context, _: click.Parameter, file: str | None) -> SigningKey | str | None:
    """Read the key at once: a photo that was taken for one is found before anything is missed."""
    if file in (None, _OF_THE_HOME) or ctx.resilient_parsing:
        return file
    from smoothapi.signing import SigningKey  # noqa: PLC0415  keeps --help light

    try:
        return SigningKey.read(str(file))
    except SigningKeyError as error:
        raise SigningKeyError(
            f"{error} --sign takes the word after it for its KEY: for the home's own key, write it "
            "behind the photos."
        ) from None


_SIGN = click.option(
    "--sign",
    is_flag=False,
    flag_value=_OF_THE_HOME,
    default=None,
    metavar="[KEY]",
    callback=_given_key,
    help="With --json: sign each certificate, with the key in this file or else the home's own.",
)


@click.command()
@_PHOTOS
@options(*_SHARED)
@_JSON
@_SIGN
@options(
    "radius", "target", "or-less", "final", "accept-radius", "dry-run",
    radius="L2 radius to certify: 0.25, '0.5 native', '0.1/255 rms', or 'largest'.",
)  # fmt: skip
def certify(  # noqa: PLR0917  click passes options by name
    photos: tuple[str, ...],
    as_json: bool,
    sign: SigningKey | str | None,
    dry_run: bool,
    target: str,
    or_less: bool,
    final: bool,
    accept_radius: WantedRadius | None,
    **given: Any,
) -> int:
    """Certify the label of each PHOTO; - is standard input.

    What is not given is taken from the settings; `smoothapi config` shows them. Exits with 0 if all
    are certified, 1 if smoothapi abstains on one. Where it abstains, what its votes certify at a
    smaller radius is shown; --accept-radius says how much is enough, there and elsewhere.
    """
    from smoothapi.smoother import Smoother  # noqa: PLC0415  keeps --help light

    with Smoother(**given) as smoother:
        meant = target_of(target)
        key = _signing_key(sign, smoother, as_json=as_json)
        if dry_run:
            plan = partial(smoother.plan, target=meant, or_less=or_less, final=final)
            return _plan_each(photos, as_json, smoother, plan)
        ask = partial(smoother.certify, target=meant, or_less=or_less, final=final)
        return _each(photos, as_json, smoother, ask, key=key, accept_radius=accept_radius)


@click.command()
@_PHOTOS
@options(*_SHARED)
@_JSON
@_SIGN
def predict(
    photos: tuple[str, ...], as_json: bool, sign: SigningKey | str | None, **given: Any
) -> int:
    """Give the label that most noisy copies of each PHOTO get, with no radius.

    What is not given is taken from the settings; `smoothapi config` shows them.
    """
    from smoothapi.smoother import Smoother  # noqa: PLC0415  keeps --help light

    with Smoother(**given) as smoother:
        key = _signing_key(sign, smoother, as_json=as_json)
        return _each(photos, as_json, smoother, smoother.predict, key=key)


def _signing_key(
    given: SigningKey | str | None, smoother: Smoother, *, as_json: bool
) -> SigningKey | None:
    """Return the key to sign with; None where nothing is to be signed."""
    if given is None:
        return None
    if not as_json:
        raise UsageError("--sign signs the JSON of a certificate, not a table: add --json.")
    if not isinstance(given, str):
        return given
    from smoothapi.signing import SigningKey  # noqa: PLC0415
    from smoothapi.store import Home  # noqa: PLC0415

    return SigningKey.read(Home(smoother.session.settings.home).signing_key_file)


def _each(
    photos: tuple[str, ...],
    as_json: bool,
    smoother: Smoother,
    ask: Callable[..., Certificate],
    *,
    key: SigningKey | None = None,
    accept_radius: WantedRadius | None = None,
) -> int:
    """Run photo after photo. A bad photo is reported and the rest go on; all else ends it."""
    from smoothapi.cli import output  # noqa: PLC0415

    code = _check_files(photos, as_json=as_json)
    if code:
        return code  # before the first is paid for: a name is easily mistyped
    for photo in photos:
        waited = 0.0
        try:
            with output.progress(Path(photo).name) as advance:

                def note(state: Progress, advance: Callable[[Progress], None] = advance) -> None:
                    nonlocal waited
                    waited = state.waited
                    advance(state)

                certificate = ask(_source(photo), on_progress=note)
        except UsageError as error:
            report(error, as_json=as_json, photo=photo)
            code = error.exit_code
        else:
            if as_json:
                echo((certificate if key is None else certificate.sign(key)).to_json())
            else:
                output.show_certificate(certificate, smoother.session.adapter.price, waited)
            if not _is_enough(certificate, accept_radius, photo) and code == 0:
                code = _ABSTAINED
    return code


def _is_enough(certificate: Certificate, accepted: WantedRadius | None, photo: str) -> bool:
    if accepted is None:
        return not certificate.abstained
    from smoothapi.certify import working_radius  # noqa: PLC0415  keeps --help light

    image = certificate.image
    radius = working_radius(accepted, image.native_size, image.gain, certificate.rounding)
    if certificate.largest_radius >= radius:
        return True
    if not certificate.abstained:
        echo(
            f"{Path(photo).name}: certified, but not at the {radius:g} of --accept-radius.",
            err=True,
        )
    return False


def _check_files(photos: tuple[str, ...], *, as_json: bool) -> int:
    """Report each file that cannot be read; return the exit code, 0 if all can."""
    from smoothapi.image import check_readable  # noqa: PLC0415  keeps --help light

    code = 0
    for photo in photos:
        try:
            if photo != _STDIN:
                check_readable(photo)
        except UsageError as error:
            report(error, as_json=as_json, photo=photo)
            code = error.exit_code
    if photos.count(_STDIN) > 1:
        raise UsageError("Standard input (-) has one photo: name it once.")
    return code


def _source(photo: str) -> str | BinaryIO:
    return sys.stdin.buffer if photo == _STDIN else photo


def _plan_each(
    photos: tuple[str, ...], as_json: bool, smoother: Smoother, plan: Callable[..., Plan]
) -> int:
    from smoothapi.cli import output  # noqa: PLC0415

    plans: list[Plan] = []
    code = 0
    for photo in photos:
        try:
            plans.append(plan(_source(photo)))
        except UsageError as error:
            report(error, as_json=as_json, photo=photo)
            code = error.exit_code
            continue
        if as_json:
            echo(json.dumps(output.plan_dict(plans[-1])))
    if plans and not as_json:
        output.show_plans(plans, smoother.session.settings)
    return code
