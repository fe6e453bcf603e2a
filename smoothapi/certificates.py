"""A certificate is issued from a run's votes, and verified again against its photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from smoothapi._version import __version__
from smoothapi.certify.arithmetic import ceil_to, noise_delta, rounding_radius, share_deduction
from smoothapi.certify.certificate import Certificate, ImageFacts, runs_of
from smoothapi.certify.labels import top1
from smoothapi.certify.radii import native_radius, working_radius
from smoothapi.certify.verify import verify_claims
from smoothapi.errors import CertificateError, UsageError
from smoothapi.image import MAX_PIXELS, MAX_SIDE, PhotoSource, load_image, resize_norm
from smoothapi.noise import MAX_SIGMA
from smoothapi.radius import WantedRadius

if TYPE_CHECKING:
    from smoothapi.certify.decision import Decision
    from smoothapi.certify.targets import Target
    from smoothapi.image import WorkingImage
    from smoothapi.session import Collection, Session

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
        replayed_from=variants.replayed_from,
        queries=totals.queries,
        attempts=totals.attempts,
        cached=totals.cached,
        failed=totals.failed,
        cost=ceil_to(float(totals.dollars), _DECIMALS),
        seconds=round(collection.seconds, 3),
    )


def verify(certificate: Certificate, photo: PhotoSource | None = None) -> list[str]:
    """Recompute all of a certificate that can be recomputed; return what was checked, in words.

    The label, the radius and the bound are derived again from the votes in their order; the
    deductions from the picture's size and sigma; the gain from the two sizes; with the photo at
    hand, its size and digest. Without the photo the native radius rests on the size that the
    certificate states. What cannot be checked is what the provider said: that it gave these votes,
    from this model, about these labels or classes, and the plain label.

    Raises:
        CertificateError: something does not follow; says what.
        ImageError: the photo cannot be read.
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
    return checks


def radius_around(image: WorkingImage, wanted: WantedRadius) -> float:
    """Return the L2 radius around a working image that covers the one wanted."""
    rounding = _rounding(image.pixels.size)
    return working_radius(wanted, image.native_size, image.gain, rounding)


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
