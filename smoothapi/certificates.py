"""A certificate is issued from a run's votes, and verified again against its photo."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from smoothapi._version import __version__
from smoothapi.answer import Answer
from smoothapi.certify.arithmetic import ceil_to, noise_delta, rounding_radius, share_deduction
from smoothapi.certify.certificate import Certificate, ImageFacts, runs_of
from smoothapi.certify.labels import top1
from smoothapi.certify.radii import native_radius, working_radius
from smoothapi.certify.targets import Top1, parse_target
from smoothapi.certify.verify import verify_claims
from smoothapi.errors import CertificateError, StoreError, UsageError
from smoothapi.image import MAX_PIXELS, MAX_SIDE, PhotoSource, load_image, resize_norm
from smoothapi.noise import MAX_SIGMA, NoiseKey
from smoothapi.radius import WantedRadius
from smoothapi.store import Home, answer_key
from smoothapi.variants import asked_of

if TYPE_CHECKING:
    from smoothapi.certify.decision import Decision
    from smoothapi.certify.targets import Target
    from smoothapi.image import WorkingImage
    from smoothapi.session import Collection, Session
    from smoothapi.store import Answers

_DECIMALS = 6
_LONGEST_NATIVE = 10**6


def issue(
    kind: Literal["certify", "predict"],
    image: WorkingImage,
    target: Target,
    decision: Decision,
    collection: Collection,
    *,
    session: Session,
    asked: WantedRadius | None = None,
    replaced: str = "",
) -> Certificate:
    """Return the certificate of what was decided.

    Args:
        kind: whether a radius is claimed.
        image: what was asked about.
        target: what was to be certified.
        decision: what the votes say.
        collection: the votes.
        session: who was asked, and with which settings.
        asked: the radius in the unit that it was asked for in.
        replaced: what the answers came to that were asked for anew, "" if none were.
    """
    certify = kind == "certify"
    variants, settings = session.variants, session.settings
    plain, totals = collection.plain, collection.totals
    rounding = _rounding(image.pixels.size) if certify else 0.0
    return Certificate(
        kind=kind,
        label=decision.label,
        reason=str(decision.reason),
        plain_label=None if plain is None else top1(plain, getattr(target, "space", session.space)),
        plain_asked=settings.plain,
        plain_agrees=None if plain is None else target.agrees(plain, decision),
        radius=decision.radius,
        radius_requested=decision.radius_requested,
        radius_native=native_radius(decision.radius, image.gain, rounding),
        p_lower=decision.p_lower,
        sigma=session.sigma,
        alpha=settings.alpha,
        max_votes=settings.max_votes,
        votes=runs_of(collection.votes),
        delta=share_deduction(image.pixels.size, session.sigma) if certify else 0.0,
        rounding=rounding,
        provider=variants.adapter.name,
        identity=dict(variants.adapter.identity),
        model_version=collection.model_version,
        image=ImageFacts(
            name=image.name,
            digest=image.digest,
            size=image.size,
            native_size=image.native_size,
            gain=image.gain,
            notes=image.notes,
        ),
        denoiser=variants.denoiser.name,
        denoiser_fingerprint=variants.denoiser.fingerprint,
        codec=variants.codec_version(image),
        target=target.description,
        claims=decision.claims,
        largest=decision.largest,
        or_less=decision.or_less,
        radius_asked="" if asked is None or asked.unit == "working" else str(asked),
        noise_key=variants.noise_key,
        version=__version__,
        mix=_mix_digest(session) if certify and isinstance(target, Top1) else "",
        replayed_from=variants.replayed_from,
        refreshes=collection.refreshes,
        replaced=replaced,
        queries=totals.queries,
        attempts=totals.attempts,
        cached=totals.cached,
        failed=totals.failed,
        cost=ceil_to(float(totals.dollars), _DECIMALS),
        seconds=round(collection.seconds, 3),
    )


def _mix_digest(session: Session) -> str:
    mix = session.learnt_mix
    return "" if mix is None else mix.digest


def verify(
    certificate: Certificate,
    photo: PhotoSource | None = None,
    *,
    home: str | Path | None = None,
) -> list[str]:
    """Recompute all of a certificate that can be recomputed; return what was checked, in words.

    The label, the radius and the bound are derived again from the votes in their order; the
    deductions from the picture's size and sigma; the gain from the two sizes.

    What a certificate alone cannot show is what it rests on (`unchecked` says it in words): its
    sigma and its noise key, which a forger can write as they please, the votes, the plain label,
    and which photo it is about. Without the photo the native radius rests on the size that the
    certificate states.

    Args:
        certificate: what to check.
        photo: the photo that it should be about: its size and digest are compared.
        home: folder of the installation that made it: the noise key is compared, and each vote
            with the answer that is stored for this sigma, key, denoiser, photo and model.

    Raises:
        CertificateError: something does not follow; says what.
        ImageError: the photo cannot be read.
        StoreError: there is no home in the folder, or it cannot be read.
        UsageError: its answers are a recording's, which no home has bought.
    """
    width, height = certificate.image.size
    native_width, native_height = certificate.image.native_size
    sides = (width, height, native_width, native_height)
    if not 0.0 < certificate.sigma <= MAX_SIGMA:
        raise CertificateError(f"The certificate does not add up: sigma is in (0, {MAX_SIGMA}].")
    if min(sides) < 1 or max(width, height) > MAX_SIDE or max(sides) > _LONGEST_NATIVE:
        raise CertificateError("The certificate does not add up: no picture has its sizes.")
    if native_width * native_height > MAX_PIXELS:
        raise CertificateError("The certificate does not add up: its photo is impossibly large.")
    gain = resize_norm(native_width, width) * resize_norm(native_height, height)
    pixels = 3 * width * height
    rounding = _rounding(pixels)
    _check_asked(certificate, gain, rounding)
    deduction = noise_delta if certificate.rules == 1 else share_deduction
    checks = verify_claims(
        certificate,
        gain=gain,
        delta=deduction(pixels, certificate.sigma),
        rounding=rounding,
        radius_native=native_radius(certificate.radius, gain, rounding),
    )
    if photo is not None:
        image = load_image(photo, size=certificate.image.size)
        if image.native_size != certificate.image.native_size:
            raise CertificateError(
                f"The certificate is about a photo of {certificate.image.native_size} pixels, this "
                f"one has {image.native_size}: its native radius does not hold for it."
            )
        if image.digest != certificate.image.digest:
            raise CertificateError(
                "The certificate is about another photo: its digest is "
                f"{certificate.image.digest[:16]}..., this photo's is {image.digest[:16]}..."
            )
        checks.append("the photo's size and digest")
    if home is not None:
        checks += _at_home(certificate, Path(home))
    return checks


def radius_around(image: WorkingImage, wanted: WantedRadius) -> float:
    """Return the L2 radius around a working image that covers the one wanted."""
    rounding = _rounding(image.pixels.size)
    return working_radius(wanted, image.native_size, image.gain, rounding)


def unchecked(certificate: Certificate, *, photo: bool, home: bool) -> list[str]:
    """Return what a certificate that was verified still rests on, in words.

    Args:
        certificate: what was verified.
        photo: whether it was compared with a photo.
        home: whether it was compared with the home that made it.
    """
    rests: list[str] = []
    if not home:
        rests = [
            f"that its noise had sigma {certificate.sigma:g} and came from its maker's secret key",
            "that the provider gave these votes and the plain label",
        ]
    if not photo:
        rests.append("which photo it is about")
    return rests


def _at_home(certificate: Certificate, folder: Path) -> list[str]:
    """Compare a certificate with the home that made it; return what was compared."""
    if certificate.replayed_from:
        raise UsageError(
            f"The certificate was replayed from {certificate.replayed_from!r}: no home bought its "
            "answers, so none can vouch for them. Leave the home out."
        )
    if not (folder / "noise.key").is_file():
        raise StoreError(
            f"There is no home in {str(folder)!r}: it has no noise.key. Name the folder that "
            "smoothapi used where the certificate was made (`smoothapi config` shows it)."
        )
    with closing(Home(folder)) as home:
        key = NoiseKey(home.secret()).id
        if key != certificate.noise_key:
            raise CertificateError(
                f"The certificate does not hold: its noise key is {certificate.noise_key!r}, this "
                f"home's is {key!r}. Another installation made it, or it was edited."
            )
        agreeing = _stored_votes(certificate, home.answers)
    votes = f"{agreeing} of {certificate.total_votes} votes"
    return ["the home's noise key", f"sigma, and {votes} against the answers stored for it"]


def _stored_votes(certificate: Certificate, answers: Answers) -> int:
    """Return how many votes are what the store holds; the rest failed when they were asked for.

    Raises:
        CertificateError: more are missing than failed, or one is another.
    """
    asked = asked_of(
        provider=certificate.provider,
        identity=certificate.identity,
        image=certificate.image.digest,
        size=certificate.image.size,
        codec=certificate.codec,
        sigma=certificate.sigma,
        noise=certificate.noise_key,
        denoiser=certificate.denoiser_fingerprint,
    )
    target = parse_target(certificate.target)
    agreeing = absent = 0
    for index, vote in enumerate(certificate.vote_order()):
        outcome = answers.get(answer_key(asked(index)))
        answer = outcome if isinstance(outcome, Answer) else None
        other_model = answer is not None and answer.model_version != certificate.model_version
        if outcome is not None and not other_model and target.vote(answer) == vote:
            agreeing += 1
        elif outcome is None or vote is None:  # what failed may have been answered since
            absent += 1
        else:
            raise CertificateError(
                f"The certificate does not hold: its vote {index} is {vote!r}, and the home holds "
                f"{target.vote(answer)!r}"
                + (f", of the model {answer.model_version!r}" if answer and other_model else "")
                + ". It was edited, or the answers were asked for anew since."
            )
    if absent > certificate.failed:
        raise CertificateError(
            f"The certificate does not hold: for {absent} of its {certificate.total_votes} votes "
            f"the home has no answer about this photo at sigma {certificate.sigma:g} with this "
            f"denoiser and provider, and only {certificate.failed} failed. It was edited, or the "
            "answers were deleted since."
        )
    return agreeing


def _check_asked(certificate: Certificate, gain: float, rounding: float) -> None:
    """Refuse a certificate whose radius is not what was asked for in another unit."""
    if not certificate.radius_asked:
        return
    try:
        asked = WantedRadius.parse(certificate.radius_asked)
    except UsageError as error:
        raise CertificateError(f"The certificate does not add up: {error}") from error
    radius = working_radius(asked, certificate.image.native_size, gain, rounding)
    if certificate.radius_requested != radius or asked.unit == "working":
        raise CertificateError(
            f"The certificate does not add up: {certificate.radius_asked!r} is a radius of "
            f"{radius:g} here, and {certificate.radius_requested!r} was certified."
        )


def _rounding(pixels: int) -> float:
    return ceil_to(rounding_radius(pixels), _DECIMALS)
