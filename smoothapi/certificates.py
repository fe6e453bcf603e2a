"""A certificate is issued from a run's votes, and verified again against its photo."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from smoothapi._version import __version__
from smoothapi.address import parse_home
from smoothapi.answer import Answer
from smoothapi.certify.arithmetic import ceil_to, noise_delta, share_deduction
from smoothapi.certify.certificate import Certificate, ImageFacts, never_seen_names, runs_of
from smoothapi.certify.labels import top1
from smoothapi.certify.radii import native_radius, rounding_of, working_radius
from smoothapi.certify.targets import Top1, TopK, parse_target
from smoothapi.certify.verify import verify_claims
from smoothapi.certify.votes import same_vote
from smoothapi.errors import (
    CertificateError,
    StoreError,
    UnreadableCertificateError,
    UntrustedCertificateError,
    UsageError,
)
from smoothapi.files import parse_json
from smoothapi.image import MAX_PIXELS, MAX_SIDE, PhotoSource, load_image, resize_gain
from smoothapi.noise import MAX_SIGMA
from smoothapi.radius import WantedRadius
from smoothapi.signing import PublicKey, SignedCertificate, is_envelope, short_id
from smoothapi.store import answer_key, open_home, refreshes_of
from smoothapi.variants import asked_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from smoothapi.address import HomeAddress
    from smoothapi.certify.decision import Decision
    from smoothapi.certify.targets import Target
    from smoothapi.image import WorkingImage
    from smoothapi.session import Collection, Session
    from smoothapi.store import Answers
    from smoothapi.variants import Asked

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
    by_name: bool = True,
    asked: WantedRadius | None = None,
    replaced: str = "",
    clock: Callable[[], float] = time.time,
) -> Certificate:
    """Return the certificate of what was decided.

    Args:
        kind: whether a radius is claimed.
        image: what was asked about.
        target: what was to be certified.
        decision: what the votes say.
        collection: the votes.
        session: who was asked, and with which settings.
        by_name: whether the labels that the target names are the caller's words.
        asked: the radius in the unit that it was asked for in.
        replaced: what the answers came to that were asked for anew, "" if none were.
        clock: seconds since the epoch, for the time of issue.
    """
    certify = kind == "certify"
    variants, settings = session.variants, session.settings
    plain, totals = collection.plain, collection.totals
    rounding = rounding_of(image.pixels.size) if certify else 0.0
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
        never_seen=session.never_seen(target) if by_name else (),
        claims=decision.claims,
        largest=decision.largest,
        or_less=decision.or_less,
        final=decision.final,
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
        issued=f"{datetime.fromtimestamp(clock(), UTC):%Y-%m-%dT%H:%M:%SZ}",
    )


def _mix_digest(session: Session) -> str:
    mix = session.learnt_mix
    return "" if mix is None else mix.digest


def read(text: str | bytes) -> Certificate | SignedCertificate:
    """Read a certificate, signed or not, from JSON text.

    Raises:
        UnreadableCertificateError: it is neither.
        CertificateError: it is a certificate that is malformed or contradicts itself.
    """
    try:
        data = parse_json(text)
    except ValueError as error:
        raise UnreadableCertificateError(f"The certificate cannot be read: {error}.") from error
    return (SignedCertificate if is_envelope(data) else Certificate).from_dict(data)


def verify(
    certificate: Certificate | SignedCertificate,
    photo: PhotoSource | None = None,
    *,
    home: str | Path | None = None,
    keys: Iterable[PublicKey] | None = None,
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
        home: folder, or database, of the installation that made it: the noise key is compared,
            and each vote with the answer that is stored for this sigma, key, denoiser, photo and
            model, and how often they were asked for anew; for the targets top1 and top-k the plain
            label, too.
        keys: whom to trust: one of them must have signed it. By default signatures are not
            checked.

    Raises:
        CertificateError: something does not follow, or a signature is forged; says what.
        UntrustedCertificateError: all follows, but none of `keys` has signed it.
        ImageError: the photo cannot be read.
        StoreError: there is no home in the folder, or it cannot be read.
        UsageError: its answers are a recording's, which no home has bought.
    """
    trusted = None if keys is None else _public_keys(keys)
    signer, said = None, "it is not signed"
    if isinstance(certificate, SignedCertificate):
        signer = certificate.signer(trusted or ())  # before anything in it is looked at
        if certificate.signatures:
            said = (
                f"none of the keys given has signed it. It names {certificate.named} as its key, "
                "which anybody can write"
            )
        certificate = Certificate.from_json(certificate.payload)
    checks = _verify_contents(certificate, photo, home)
    if signer is not None:
        checks.append(f"the signature, by the key {short_id(signer)}")
    elif trusted is not None:
        raise UntrustedCertificateError(
            f"The certificate adds up, but nobody vouches for it: {said}. Ask its maker for a "
            "signed one, or, if you trust its maker's key, give that too."
        )
    return checks


def _public_keys(keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
    trusted = () if isinstance(keys, (str, PublicKey)) else tuple(keys)
    if not trusted or not all(isinstance(key, PublicKey) for key in trusted):
        raise UsageError("keys are those to trust: a list of at least one PublicKey, or None.")
    return trusted


def _verify_contents(
    certificate: Certificate, photo: PhotoSource | None, home: str | Path | None
) -> list[str]:
    width, height = certificate.image.size
    native_width, native_height = certificate.image.native_size
    sides = (width, height, native_width, native_height)
    if not 0.0 < certificate.sigma <= MAX_SIGMA:
        raise CertificateError(f"The certificate does not add up: sigma is in (0, {MAX_SIGMA}].")
    if min(sides) < 1 or max(width, height) > MAX_SIDE or max(sides) > _LONGEST_NATIVE:
        raise CertificateError("The certificate does not add up: no picture has its sizes.")
    if native_width * native_height > MAX_PIXELS:
        raise CertificateError("The certificate does not add up: its photo is impossibly large.")
    gain = resize_gain((native_width, native_height), (width, height))
    pixels = 3 * width * height
    rounding = rounding_of(pixels)
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
        checks += _at_home(certificate, parse_home(home))
    return checks


def radius_around(image: WorkingImage, wanted: WantedRadius) -> float:
    """Return the L2 radius around a working image that covers the one wanted."""
    rounding = rounding_of(image.pixels.size)
    return working_radius(wanted, image.native_size, image.gain, rounding)


def unchecked(
    certificate: Certificate | SignedCertificate,
    *,
    photo: bool,
    home: bool,
    keys: bool = False,
) -> list[str]:
    """Return what a certificate that was verified still rests on, in words.

    Args:
        certificate: what was verified.
        photo: whether it was compared with a photo.
        home: whether it was compared with the home that made it.
        keys: whether its signature was checked.
    """
    rests: list[str] = []
    if isinstance(certificate, SignedCertificate):
        if not keys:
            rests.append("who signed it")
        certificate = Certificate.from_json(certificate.payload)
    if not home:
        rests += [
            f"that its noise had sigma {certificate.sigma:g} and came from its maker's secret key",
            "that the provider gave these votes and the plain label",
            "that it was not asked for them anew more often than this says",
        ]
    else:
        if certificate.plain_asked and not _can_compare_plain(certificate):
            rests.append("what the provider said plainly")
        if certificate.failed:
            rests.append(f"that {certificate.failed} of its votes for no answer failed")
        if not _counts_refreshes(certificate):
            rests.append("how often its answers were asked for anew")
    if certificate.never_seen:
        rests.append(
            f"that the provider can say {never_seen_names(certificate)} at all: it was never seen "
            "in any answer of it"
        )
    if not photo:
        rests.append("which photo it is about")
    return rests


def _at_home(certificate: Certificate, where: HomeAddress) -> list[str]:
    """Compare a certificate with the home that made it; return what was compared."""
    if certificate.replayed_from:
        raise StoreError(
            f"The certificate was replayed from {certificate.replayed_from!r}: no home bought its "
            "answers, so none can vouch for them. Leave the home out."
        )
    with closing(open_home(where)) as home:
        keys = home.known_keys()
        if not keys:
            raise StoreError(
                f"There is no home in {str(where)!r}: it has no noise.key. Name the folder or "
                "database that smoothapi used where the certificate was made (`smoothapi config` "
                "shows it)."
            )
        if certificate.noise_key not in keys:
            raise CertificateError(
                f"The certificate does not hold: its noise key is {certificate.noise_key!r}, this "
                f"home's is {keys[0]!r}. Another installation made it, or it was edited."
            )
        agreeing = _stored_votes(certificate, home.answers)
        compared: list[str] = []
        if _can_compare_plain(certificate):
            _check_stored_plain(certificate, home.answers)
            compared.append("the plain label against the answer stored for it")
        if _counts_refreshes(certificate):
            _check_stored_refreshes(certificate, home.answers)
            compared.append("how often its answers were asked for anew")
    votes = f"{agreeing} of {certificate.total_votes} votes"
    return [
        *compared,
        "the home's noise key",
        f"sigma, and {votes} against the answers stored for it",
    ]


def _can_compare_plain(certificate: Certificate) -> bool:
    """Whether a stored answer can tell if the plain label is right.

    Other targets than these do not say into which classes labels were mapped for it; and where
    there is none, the query may have failed then, and have been answered since.
    """
    target = parse_target(certificate.target)
    return certificate.plain_label is not None and isinstance(target, (Top1, TopK))


def _check_stored_plain(certificate: Certificate, answers: Answers) -> None:
    """Raise CertificateError if the home holds no plain answer of this label."""
    outcome = answers.get(answer_key(_asked(certificate)(None)))
    space = getattr(parse_target(certificate.target), "space", None)
    found = top1(outcome, space) if isinstance(outcome, Answer) else None
    if found != certificate.plain_label:
        raise CertificateError(
            f"The certificate does not hold: its plain label is {certificate.plain_label!r}, and "
            f"the home holds {found!r}. It was edited, or the answer was deleted or asked for anew "
            "since."
        )


def _counts_refreshes(certificate: Certificate) -> bool:
    """Whether it says how often its answers were asked for anew: those of schema 1 do not."""
    return certificate.rules > 1


def _check_stored_refreshes(certificate: Certificate, answers: Answers) -> None:
    """Raise CertificateError if the home asked for its answers more often than it says.

    The first variant's answer counts for all of them.
    """
    try:
        row = answers.row(answer_key(_asked(certificate)(0)))
    except (StoreError, LookupError):
        return  # it failed, and so was never kept
    found = refreshes_of(row)
    if found > certificate.refreshes:
        raise CertificateError(
            "The certificate does not hold: by its own count (refreshes) its answers were asked "
            f"for anew {certificate.refreshes} times, by the home's {found}. It was edited, or the "
            "answers were deleted or asked for anew since."
        )


def _asked(certificate: Certificate) -> Asked:
    """Return index -> all that decided the answer; None stands for the plain query."""
    return asked_of(
        provider=certificate.provider,
        identity=certificate.identity,
        image=certificate.image.digest,
        size=certificate.image.size,
        codec=certificate.codec,
        sigma=certificate.sigma,
        noise=certificate.noise_key,
        denoiser=certificate.denoiser_fingerprint,
    )


def _stored_votes(certificate: Certificate, answers: Answers) -> int:
    """Return how many votes are what the store holds; the rest failed when they were asked for.

    Only a vote for "no answer" can be of a variant that failed, and may have been answered since.
    It counts against every label; but among the best k it is a rival beside those that are stored.

    Raises:
        CertificateError: more are missing than failed, or one is another.
    """
    asked = _asked(certificate)
    target = parse_target(certificate.target)
    agreeing = absent = 0
    votes = list(certificate.vote_order())
    keys = [answer_key(asked(index)) for index in range(len(votes))]
    stored = answers.get_all(keys)
    for index, vote in enumerate(votes):
        outcome = stored.get(keys[index])
        answer = outcome if isinstance(outcome, Answer) else None
        other_model = answer is not None and answer.model_version != certificate.model_version
        if outcome is not None and not other_model and same_vote(target.vote(answer), vote):
            agreeing += 1
        elif vote is None and (outcome is None or not isinstance(target, TopK)):
            absent += 1
        elif outcome is None:
            raise CertificateError(
                f"The certificate does not hold: its vote {index} is {vote!r}, and the home has no "
                f"answer about this photo at sigma {certificate.sigma:g} with this denoiser and "
                "provider. It was edited, or the answers were deleted since."
            )
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
