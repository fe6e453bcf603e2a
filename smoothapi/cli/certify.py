"""`smoothapi certify` and `smoothapi predict`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from smoothapi.cli.errors import report
from smoothapi.cli.options import options, target_of
from smoothapi.cli.signals import ANSWERS_KEPT, says_when_stopped
from smoothapi.cli.terminal import command_line, echo
from smoothapi.errors import SigningKeyError, UsageError
from smoothapi.files import shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi.certify import Certificate
    from smoothapi.history import RunLog
    from smoothapi.many import PhotoResult
    from smoothapi.photos import Fetcher
    from smoothapi.plan import Plan
    from smoothapi.radius import WantedRadius
    from smoothapi.session import Progress
    from smoothapi.signing import SigningKey
    from smoothapi.smoother import Smoother

_ABSTAINED = 1
_STDIN = "-"

_SHARED = (
    "provider", "sigma", "alpha", "max-votes", "budget", "size", "classes", "plain", "denoiser",
    "device", "codec", "concurrency", "home", "partial", "refresh", "record",
)  # fmt: skip
_MANY = ("out", "photos-at-once", "fail-fast", "allow-private", "cluster")
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
@options(*_SHARED, *_MANY)
@_JSON
@_SIGN
@options(
    "radius", "target", "or-less", "final", "accept-radius", "dry-run",
    radius="L2 radius to certify: 0.25, '0.5 native', '0.1/255 rms', or 'largest'.",
)  # fmt: skip
@says_when_stopped(ANSWERS_KEPT)
def certify(  # noqa: PLR0917  click passes options by name
    photos: tuple[str, ...],
    as_json: bool,
    sign: SigningKey | str | None,
    dry_run: bool,
    target: str,
    or_less: bool,
    final: bool | None,
    accept_radius: WantedRadius | None,
    out: Path | None,
    photos_at_once: int,
    fail_fast: bool,
    allow_private: bool,
    cluster: str | None,
    **given: Any,
) -> int:
    """Certify the label of each PHOTO.

    PHOTO is a file, a folder (with all below it), a pattern in quotes, an address with https, a
    bucket's file or prefix (s3, gs, az), or - for standard input. Several are worked on at once;
    one that cannot be read is reported, and the rest go on. Stopped or killed, the same command
    continues and pays for what is missing; --out FILE also keeps what it came to.

    What is not given is taken from the settings; `smoothapi config` shows them. Exits with 0 if all
    are certified, 1 if smoothapi abstains on one, else with the code of what failed. Where it
    abstains, what its votes certify at a smaller radius is shown; --accept-radius says how much is
    enough, there and elsewhere.
    """
    from smoothapi.numbers import kept_numbers  # noqa: PLC0415  keeps --help light
    from smoothapi.smoother import Smoother  # noqa: PLC0415

    with Smoother(**given) as smoother, kept_numbers(smoother.session.store):
        meant = target_of(target)
        _check_accepted(accept_radius, smoother)
        how = _How(as_json, _signing_key(sign, smoother, as_json=as_json), accept_radius)
        many = _Many(out, photos_at_once, fail_fast, _fetcher(allow_private), cluster)
        if dry_run:
            plan = partial(smoother.plan, target=meant, or_less=or_less, final=final)
            return _plan_each(photos, as_json, smoother, many.fetcher, plan)
        said = smoother.session.target(meant).description
        return _run(
            photos,
            smoother,
            how,
            many,
            one=partial(smoother.certify, target=meant, or_less=or_less, final=final),
            several=partial(smoother.certify_many, target=meant, or_less=or_less, final=final),
            asked={
                "kind": "certify",
                "target": said,
                "or_less": or_less,
                "final": smoother.session.settings.final if final is None else final,
            },
        )


@click.command()
@_PHOTOS
@options(*_SHARED, *_MANY)
@_JSON
@_SIGN
@says_when_stopped(ANSWERS_KEPT)
def predict(  # noqa: PLR0917  click passes options by name
    photos: tuple[str, ...],
    as_json: bool,
    sign: SigningKey | str | None,
    out: Path | None,
    photos_at_once: int,
    fail_fast: bool,
    allow_private: bool,
    cluster: str | None,
    **given: Any,
) -> int:
    """Give the label that most noisy copies of each PHOTO get, with no radius.

    PHOTO is as for `smoothapi certify`. What is not given is taken from the settings; `smoothapi
    config` shows them.
    """
    from smoothapi.numbers import kept_numbers  # noqa: PLC0415  keeps --help light
    from smoothapi.smoother import Smoother  # noqa: PLC0415

    with Smoother(**given) as smoother, kept_numbers(smoother.session.store):
        how = _How(as_json, _signing_key(sign, smoother, as_json=as_json))
        many = _Many(out, photos_at_once, fail_fast, _fetcher(allow_private), cluster)
        return _run(
            photos,
            smoother,
            how,
            many,
            one=smoother.predict,
            several=smoother.predict_many,
            asked={"kind": "predict"},
        )


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
    from smoothapi.cli.key import signing_key_file  # noqa: PLC0415
    from smoothapi.signing import SigningKey  # noqa: PLC0415

    return SigningKey.read(signing_key_file(smoother.session.settings.home))


@dataclass(frozen=True, slots=True)
class _How:
    """How certificates are shown, and which are enough."""

    as_json: bool
    key: SigningKey | None
    accepted: WantedRadius | None = None

    def text(self, certificate: Certificate) -> str:
        return (certificate if self.key is None else certificate.sign(self.key)).to_json()


@dataclass(frozen=True, slots=True)
class _Many:
    """How many photos are worked on."""

    out: Path | None
    photos_at_once: int
    fail_fast: bool
    fetcher: Fetcher
    cluster: str | None


def _fetcher(allow_private: bool) -> Fetcher:
    from smoothapi.photos import PhotoFetcher  # noqa: PLC0415

    return PhotoFetcher(private=allow_private)


def _run(
    photos: tuple[str, ...],
    smoother: Smoother,
    how: _How,
    many: _Many,
    *,
    one: Callable[..., Certificate],
    several: Callable[..., Iterator[PhotoResult]],
    asked: dict[str, object],
) -> int:
    """Run all photos: a single file with its votes in the bar, others several at once."""
    from smoothapi.cli.many import NamedPhotos, run, settings_digest  # noqa: PLC0415
    from smoothapi.history import RunLog  # noqa: PLC0415

    if photos.count(_STDIN) > 1:
        raise UsageError("Standard input (-) has one photo: name it once.")
    named = NamedPhotos(photos, many.fetcher)
    code = named.check(as_json=how.as_json)
    if code:
        return code  # before the first is paid for: a name is easily mistyped
    with (
        RunLog(smoother.session, str(asked["kind"]), line=command_line(), asked=dict(asked)) as log,
        ExitStack() as stack,
    ):
        if many.out is None and many.cluster is None and len(photos) == 1 and named.one_by_one:
            return _one(photos[0], smoother, how, one, log)
        file = None
        if many.out is not None:
            from smoothapi.many.files import ResultFile  # noqa: PLC0415

            accepted = None if how.accepted is None else str(how.accepted)
            digest = settings_digest(smoother.session, accept_radius=accepted, **asked)
            file = stack.enter_context(ResultFile(many.out, digest, smoother.session.price))
        return run(
            partial(
                several,
                photos_at_once=many.photos_at_once,
                fail_fast=many.fail_fast,
                fetcher=many.fetcher,
                cluster=many.cluster,
            ),
            named,
            session=smoother.session,
            as_json=how.as_json,
            file=file,
            is_enough=lambda certificate, photo: _is_enough(certificate, how.accepted, photo),
            as_text=how.text,
            log=log,
        )


def _one(
    photo: str, smoother: Smoother, how: _How, ask: Callable[..., Certificate], log: RunLog
) -> int:
    """Run one photo. If it is bad, that is reported; all else is raised."""
    from smoothapi.cli.bars import progress  # noqa: PLC0415

    waited = 0.0
    try:
        with progress(Path(photo).name, smoother.session) as advance:

            def note(state: Progress) -> None:
                nonlocal waited
                waited = state.waited
                advance(state)

            certificate = ask(_source(photo), on_progress=note)
    except UsageError as error:
        log.failure(shown_name(photo), error)
        report(error, as_json=how.as_json, photo=photo)
        return error.exit_code
    log.certificate(shown_name(photo), certificate)
    if how.as_json:
        echo(how.text(certificate))
    else:
        from smoothapi.cli.output import show_certificate  # noqa: PLC0415  which JSON does without

        show_certificate(certificate, smoother.session.price, waited)
    return 0 if _is_enough(certificate, how.accepted, photo) else _ABSTAINED


def _check_accepted(accepted: WantedRadius | None, smoother: Smoother) -> None:
    """Refuse to buy votes for a radius that would not be enough."""
    from smoothapi.method import asked_radius  # noqa: PLC0415  keeps --help light

    asked = asked_radius(smoother.session, None)
    if accepted is None or asked is None or asked.unit != accepted.unit:
        return  # around which photo two units are the same is not known yet
    if accepted.value > asked.value:
        raise UsageError(
            f"Votes would be bought for radius {asked}, and --accept-radius says that less than "
            f"{accepted} is not enough. Ask for that with --radius, or accept less."
        )


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


def _source(photo: str) -> str | BinaryIO:
    return sys.stdin.buffer if photo == _STDIN else photo


def _plan_each(
    photos: tuple[str, ...],
    as_json: bool,
    smoother: Smoother,
    fetcher: Fetcher,
    plan: Callable[..., Plan],
) -> int:
    from smoothapi.cli import output  # noqa: PLC0415
    from smoothapi.cli.many import NamedPhotos  # noqa: PLC0415
    from smoothapi.photos import opened  # noqa: PLC0415

    plans: list[Plan] = []
    code = 0
    for photo in NamedPhotos(photos, fetcher):
        try:
            plans.append(plan(opened(photo.source, fetcher)))
        except UsageError as error:
            report(error, as_json=as_json, photo=photo.name)
            code = error.exit_code
            continue
        if as_json:
            echo(json.dumps(output.plan_dict(plans[-1])))
    if plans and not as_json:
        output.show_plans(plans, smoother.session.settings)
    return code
