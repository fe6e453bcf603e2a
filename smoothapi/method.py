"""The method: denoised smoothing in front of a vision API.

photo -> image -> noise -> denoise -> encode -> dispatch -> certify -> certificate

`certify` and `collect_votes` are Algorithm 1 of Cohen, Rosenfeld and Kolter (ICML 2019) with a test
that may look at every vote. `session` asks for the answers, `variants` makes what is asked about,
`wiring` opens the parts, `plan` says what a run will cost, `certificates` what it came to.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Literal

from smoothapi.certificates import issue, radius_around
from smoothapi.certify.arithmetic import share_deduction
from smoothapi.certify.certificate import rounded_down
from smoothapi.certify.predict import SequentialPredict
from smoothapi.certify.radii import photo_radii, rounding_of
from smoothapi.certify.sequential import VoteTerms
from smoothapi.certify.targets import Target, Top1
from smoothapi.errors import UnreachableRadiusError
from smoothapi.plan import count_stored, refuse_unpayable
from smoothapi.radius import WantedRadius
from smoothapi.session import Collection, Progress, Session
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.decision import VoteTest
    from smoothapi.dispatch import Totals
    from smoothapi.image import WorkingImage
    from smoothapi.options import Radius

_log = logging.getLogger("smoothapi")


def certify(
    session: Session,
    image: WorkingImage,
    target: Target,
    start: Callable[[], VoteTest],
    on_progress: Callable[[Progress], None] | None = None,
    *,
    kind: Literal["certify", "predict"] = "certify",
    asked: WantedRadius | None = None,
    by_name: bool = True,
) -> Certificate:
    """Take votes until the test has enough, and issue what they certify.

    Args:
        session: who is asked, and how.
        image: the working image.
        target: what is to be certified.
        start: makes a fresh test of its votes.
        on_progress: called after each vote.
        kind: whether a radius is claimed.
        asked: the radius in the unit that it was asked for in.
        by_name: whether the labels that the target names are the caller's words; else they are
            those of an answer.
    """
    test = start()
    if not session.settings.partial and not session.resources.closed:
        refuse_unpayable(session, image, target, start)
    replaced = _replaced(session, image, target, start) if session.refresh else ""
    votes = collect_votes(session, image, test, target, on_progress)
    return issue(
        kind, image, target, test.result(), votes,
        session=session, asked=asked, replaced=replaced, by_name=by_name,
    )  # fmt: skip


def predict(
    session: Session,
    image: WorkingImage,
    on_progress: Callable[[Progress], None] | None = None,
) -> Certificate:
    """Take votes until most are for one label, and issue what they say: no radius."""
    settings = session.settings
    start = partial(SequentialPredict, alpha=settings.alpha, max_votes=settings.max_votes)
    return certify(session, image, Top1(session.space), start, on_progress, kind="predict")


def collect_votes(
    session: Session,
    image: WorkingImage,
    test: VoteTest,
    target: Target,
    on_progress: Callable[[Progress], None] | None = None,
) -> Collection:
    """Feed votes in order of index to a test until it has enough; raises as `Session.sample`."""
    votes: list[str | None] = []
    with session.sample(image, test.needed, target) as sample:
        for answer in sample:
            vote = target.vote(answer)
            votes.append(vote)
            test.add(vote)
            if on_progress is not None:
                on_progress(_progress(session, test, len(votes), sample.totals))
        if test.result().abstained:
            sample.refuse_failures()
    return Collection(
        tuple(votes), sample.plain, sample.model_version, sample.totals, sample.seconds,
        sample.refreshes,
    )  # fmt: skip


def _replaced(
    session: Session, image: WorkingImage, target: Target, start: Callable[[], VoteTest]
) -> str:
    """Warn of what asking again does to alpha; return what the answers kept so far come to."""
    test = start()
    if not count_stored(session.kept(image), test, target):
        return ""
    decision = test.result()
    ends = "certified" if not decision.abstained else "abstained" if test.done else "undecided"
    _log.warning(
        "Asking again about %s, whose kept answers come to: %s. Alpha is the chance that one set "
        "of answers certifies wrongly. Whoever asks until a set pleases has that chance with each "
        "of them: the certificate counts them.",
        printable(image.name),
        ends,
    )
    return ends


def start_test(
    session: Session,
    image: WorkingImage,
    radius: Radius | None,
    target: Target,
    *,
    or_less: bool = False,
    final: bool | None = None,
) -> VoteTest:
    """Return a fresh test of a target's votes.

    Raises:
        UnreachableRadiusError: `max_votes` votes could not certify the radius; says so in the unit
            that it was asked for in, too.
    """
    terms = vote_terms(session, wanted_radius(session, image, radius), final=final)
    terms["delta"] = share_deduction(image.pixels.size, session.sigma)
    if or_less:
        terms["or_less"] = True
    try:
        if isinstance(target, Top1):
            return target.start(session.futility, **terms)
        return target.start(**terms)
    except UnreachableRadiusError as error:
        given = session.settings.radius if radius is None else radius
        raise _in_its_unit(error, image, given, terms["radius"]) from None


def vote_terms(session: Session, radius: float | None, *, final: bool | None) -> VoteTerms:
    """Return the terms of a test around any working image; `final` as for `start_test`."""
    settings = session.settings
    terms = VoteTerms(
        sigma=session.sigma,
        alpha=settings.alpha,
        max_votes=settings.max_votes,
        radius=radius,
    )
    if settings.final if final is None else final:
        terms["final"] = True
    return terms


def _in_its_unit(
    error: UnreachableRadiusError, image: WorkingImage, given: Radius, radius: float | None
) -> UnreachableRadiusError:
    """Return an error about a radius around the working image in the unit that it was asked for."""
    unit = "working" if radius is None or given == "largest" else WantedRadius.parse(given).unit
    if radius is None or unit == "working":
        return error
    rounding = rounding_of(image.pixels.size)
    found = photo_radii(error.largest, image.native_size, image.gain, rounding)
    largest = f"{found.steps:g}/255" if unit == "rms" else rounded_down(found.native)
    more = f' In the unit asked for that is "{largest} {unit}".' if found.steps else ""
    return UnreachableRadiusError(
        f"{printable(str(given))!r} comes to radius {radius:g} around this photo's working image: "
        f"{error}{more}",
        largest=error.largest,
    )


def asked_radius(session: Session, radius: Radius | None) -> WantedRadius | None:
    """Return the radius to certify as it was asked for, None for the largest."""
    radius = session.settings.radius if radius is None else radius
    return None if radius == "largest" else WantedRadius.parse(radius)


def wanted_radius(session: Session, image: WorkingImage, radius: Radius | None) -> float | None:
    """Return the L2 radius to certify around a working image, None for the largest."""
    asked = asked_radius(session, radius)
    return None if asked is None else radius_around(image, asked)


def _progress(session: Session, test: VoteTest, votes: int, totals: Totals) -> Progress:
    return Progress(
        votes=votes,
        needed=test.needed(),
        max_votes=session.settings.max_votes,
        queries=totals.queries,
        cached=totals.cached,
        cost=float(totals.dollars),
        retries=totals.retries,
        waited=totals.waited,
    )
