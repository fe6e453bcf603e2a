"""The method: denoised smoothing in front of a vision API.

photo -> image -> noise -> denoise -> encode -> dispatch -> certify -> certificate

`certify` and `collect_votes`, below the class, are Algorithm 1 of Cohen, Rosenfeld and Kolter (ICML
2019) with a test that may look at every vote. `session` asks for the answers, `variants` makes what
is asked about, `wiring` opens the parts, `plan` says what a run will cost, `certificates` what it
came to.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self, Unpack

from smoothapi.asynchronous import Stop, as_iterable, in_thread, taken_in_threads
from smoothapi.certificates import issue, radius_around, verify
from smoothapi.certify.arithmetic import share_deduction
from smoothapi.certify.predict import SequentialPredict
from smoothapi.certify.radii import native_radius
from smoothapi.certify.sequential import VoteTerms
from smoothapi.certify.targets import Target, Top1
from smoothapi.errors import UsageError
from smoothapi.image import PhotoSource, WorkingImage, load_image
from smoothapi.look import Look
from smoothapi.many import Ask, ManyProgress, PhotoResult, certify_photos
from smoothapi.options import Radius, SmootherOptions, keywords
from smoothapi.photos import FoundPhoto, PhotoFetcher, find
from smoothapi.plan import Plan, count_stored, plan_run, refuse_unpayable
from smoothapi.radius import WantedRadius
from smoothapi.session import Collection, Progress, Session
from smoothapi.text import printable
from smoothapi.wiring import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable

    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.decision import VoteTest
    from smoothapi.dispatch import Totals
    from smoothapi.photos import Fetcher
    from smoothapi.provider import Adapter

_log = logging.getLogger("smoothapi")

__all__ = ["Collection", "Plan", "Progress", "Smoother", "native_radius", "verify"]


class Smoother:
    """Certified labels from one provider.

    Every argument left out is taken from the settings (`smoothapi config` shows them).

    Args:
        provider: name of a registered adapter, or an adapter of your own; "replay:FILE" answers
            from a recording, with neither the provider nor the denoiser.
        sigma: noise level, in (0, 1.5]. Fixed for a deployment: choosing it by photo would void
            the guarantee.
        radius: the L2 radius to certify around the working image, in units of the [0, 1] range;
            "0.5 native" and "0.1/255 rms" are radii around the photo before the resize
            (`smoothapi.radius`); "largest" certifies as much as the votes allow.
        alpha: chance of a wrong certificate.
        max_votes: most votes for one certificate.
        final: promise that no photo is asked about with more votes or at another radius; fewer
            votes then suffice (`certify`).
        budget: hard limit, as a `Budget` or its text ("500", "$2", "$20/month"); several hold at
            once.
        size: shorter side of the working image, or its exact (width, height).
        classes: the caller's classes as {class: [provider labels]}, a `LabelSpace`, or a TOML or
            JSON file of one; by default the provider's own labels.
        plain: ask once for the label of the working image itself, to compare.
        denoiser: "default", "small", "none", a .safetensors file, a .json file that `smoothapi
            denoiser adapt` wrote, a torch module, a callable, or what `smoothapi.denoise.load`
            returned (to share one that is loaded).
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        codec: "png" or "jpeg".
        concurrency: most requests in flight.
        retry: when a variant is tried again.
        refresh: ask again although answers are stored. Repeated until a certificate pleases, that
            voids alpha: each set of answers has its own chance of a wrong certificate, so the
            certificate counts them (`refreshes`).
        partial: buy what the budget allows although it cannot pay for the whole run; what was
            bought is kept, and the same call continues when the budget allows.
        record: file to which each answer that is used is also written, for a replay.
        home: folder of the noise key and of the answers, or "postgresql://user@host/database".
        noise_key_file: file of a deployment's noise key; a home in a database has no other.

    Raises:
        UsageError: a value is out of range, the provider unknown, its package missing.
        StoreError: the key or the answers cannot be kept.

    Threads and tasks may share a Smoother. Close it, or use it in a `with` (or `async with`)
    statement.
    """

    @keywords(SmootherOptions)
    def __init__(
        self, provider: str | Adapter | None = None, **options: Unpack[SmootherOptions]
    ) -> None:
        self._session = open_session(provider, **options)

    def certify(
        self,
        photo: PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
        or_less: bool = False,
        final: bool | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Certificate:
        """Return the label that no change of the photo smaller than `radius` can flip.

        With probability at least 1 - alpha over the noise, a certificate with a label is right.
        Abstaining is a result, not an error: see `Certificate.reason`. What the votes certify at
        another radius than the one asked for is in `Certificate.largest`, also then.

        Args:
            photo: path, encoded bytes, PIL image, or (H, W, 3) array (uint8, or floats in [0, 1]).
            radius: as for the Smoother; by default the settings'.
            target: what is to be certified, out of the same answers: the top label,
                `Presence("Weapon", 0.8)`, `Absence("Weapon", 0.8)`, `MostSpecific(0.5)` along a
                label's parents, or `TopK(3)`. Chosen before the first vote is seen.
            or_less: where `radius` is given up, go on to `max_votes` for the largest below it.
            final: promise to ask about this photo neither with more votes nor at another radius.
                Calibrated to `max_votes`, the test certifies with fewer votes; asking otherwise
                would be a second test, and alpha holds for one of the two. Not for `TopK` and
                `MostSpecific`. By default the Smoother's.
            on_progress: called after each vote.

        Raises:
            ImageError: the photo cannot be used.
            UnreachableRadiusError: `max_votes` votes could not certify the radius.
            BudgetExceededError: the budget does not allow the next query.
            ProviderError: the service failed; what was answered is kept.
        """
        session = self._session
        image = load_image(photo, size=session.size)
        meant = session.target(target)
        start = partial(start_test, session, image, radius, meant, or_less=or_less, final=final)
        asked = asked_radius(session, radius)
        return certify(session, image, meant, start, on_progress, asked=asked)

    def predict(
        self, photo: PhotoSource, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Certificate:
        """Return the smoothed label of the photo, with no radius: the plain majority vote.

        With probability at least 1 - alpha over the noise it is the label that most variants
        get. Raises as `certify` does.
        """
        session = self._session
        image = load_image(photo, size=session.size)
        settings = session.settings
        start = partial(SequentialPredict, alpha=settings.alpha, max_votes=settings.max_votes)
        target = Top1(session.space)
        return certify(session, image, target, start, on_progress, kind="predict")

    def certify_many(
        self,
        photos: Iterable[PhotoSource | FoundPhoto] | PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
        or_less: bool = False,
        final: bool | None = None,
        photos_at_once: int = 8,
        in_order: bool = True,
        fail_fast: bool = False,
        fetcher: Fetcher | None = None,
        on_progress: Callable[[ManyProgress], None] | None = None,
    ) -> Generator[PhotoResult]:
        """Certify many photos, several at once, and yield what each comes to.

        They are taken a few at a time, as their results are taken here: a source without end needs
        no more memory than one of ten. A photo that cannot be read, or that the provider fails on,
        is a result with an `error`; the rest go on. Leaving the loop (by Ctrl-C, too) stops what is
        under way; what was answered is kept, and the same call continues there.

        Args:
            photos: folders, patterns, files, "s3://bucket/prefix/", "https://..." and others (see
                `smoothapi.photos.find`), or photos as for `certify`; one of these, or any number.
            radius: as for `certify`.
            target: as for `certify`.
            or_less: as for `certify`.
            final: as for `certify`.
            photos_at_once: photos under way at the same time, at least 1. They share the denoiser's
                batches, the budget, the pace and the requests in flight.
            in_order: yield results in the order of the photos; else as they end.
            fail_fast: raise the first photo's error instead of going on.
            fetcher: of photos that are elsewhere; by default a `PhotoFetcher`, which refuses
                private addresses.
            on_progress: called some times a second, in the thread that iterates.

        Raises:
            ImageError: a folder or a pattern has no photos.
            UsageError: a value is out of range.
            BudgetExceededError: the budget does not allow the next query; what was finished before
                has been yielded, as for the next two.
            ProviderError: the service fails on all: a credential, an outage, one photo in five.
            StoreError: answers cannot be kept.
        """
        options = _Many(photos_at_once, in_order, fail_fast, fetcher, on_progress)
        return self._certify_many(
            Stop(), photos, radius, target, options, or_less=or_less, final=final
        )

    async def certify_many_async(
        self,
        photos: AsyncIterable[PhotoSource] | Iterable[PhotoSource] | PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
        or_less: bool = False,
        final: bool | None = None,
        photos_at_once: int = 8,
        in_order: bool = True,
        fail_fast: bool = False,
        fetcher: Fetcher | None = None,
        on_progress: Callable[[ManyProgress], None] | None = None,
    ) -> AsyncIterator[PhotoResult]:
        """Do what `certify_many` does in threads, and yield what each photo comes to.

        Takes what `certify_many` takes; photos may come from an asynchronous iterable, too. When
        the task is cancelled, nothing more is sent; what is under way is awaited and kept. Leave
        the loop early only within `contextlib.aclosing`, or what is under way ends later.
        """
        stop = Stop()
        options = _Many(photos_at_once, in_order, fail_fast, fetcher, on_progress)
        given = as_iterable(photos, stop)
        results = self._certify_many(
            stop, given, radius, target, options, or_less=or_less, final=final
        )
        async for result in taken_in_threads(results, stop):
            yield result

    def predict_many(
        self,
        photos: Iterable[PhotoSource | FoundPhoto] | PhotoSource,
        *,
        photos_at_once: int = 8,
        in_order: bool = True,
        fail_fast: bool = False,
        fetcher: Fetcher | None = None,
        on_progress: Callable[[ManyProgress], None] | None = None,
    ) -> Generator[PhotoResult]:
        """Predict many photos as `predict` does, several at once; all else as `certify_many`."""
        session = self._session.for_many()
        options = _Many(photos_at_once, in_order, fail_fast, fetcher, on_progress)
        return options.run(partial(_predict, session), session, photos, Stop())

    async def certify_async(
        self,
        photo: PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
        or_less: bool = False,
        final: bool | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        abandon_on_cancel: bool = False,
    ) -> Certificate:
        """Do what `certify` does in a thread, and await it.

        When the task is cancelled (by `asyncio.timeout`, say), nothing more is sent; what is under
        way is awaited and kept, and the same call continues there.

        Args:
            photo: as for `certify`.
            radius: as for `certify`.
            target: as for `certify`.
            or_less: as for `certify`.
            final: as for `certify`.
            on_progress: called after each vote, in the thread.
            abandon_on_cancel: be cancelled at once, and leave it to the thread to await and keep
                what is under way. `close`, and the end of the event loop, wait for the thread.
        """
        stop = Stop()
        twin = self._watched(stop)
        call = partial(
            twin.certify,
            photo,
            radius,
            target=target,
            or_less=or_less,
            final=final,
            on_progress=on_progress,
        )
        return await in_thread(call, stop, abandon_on_cancel=abandon_on_cancel)

    async def predict_async(
        self,
        photo: PhotoSource,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        abandon_on_cancel: bool = False,
    ) -> Certificate:
        """Do what `predict` does in a thread, and await it; see `certify_async`."""
        stop = Stop()
        twin = self._watched(stop)
        call = partial(twin.predict, photo, on_progress=on_progress)
        return await in_thread(call, stop, abandon_on_cancel=abandon_on_cancel)

    def plan(
        self,
        photo: PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
        or_less: bool = False,
        final: bool | None = None,
    ) -> Plan:
        """Say what `certify` would send and cost, without sending anything."""
        session = self._session
        image = load_image(photo, size=session.size)
        meant = session.target(target)
        final = session.settings.final if final is None else final
        test = start_test(session, image, radius, meant, or_less=or_less, final=final)
        return plan_run(
            session, image, meant, test, wanted_radius(session, image, radius), final=final
        )

    def look(self, photo: PhotoSource, certificate: Certificate | None = None) -> Look:
        """Return a photo with a noisy and a denoised copy, to look at; nothing is sent.

        A notebook draws it, with the certificate and its votes below.

        Args:
            photo: as for `certify`.
            certificate: what it came to.

        Raises:
            UsageError: the certificate is of another photo, or the answers are a recording's,
                which has no pictures.
            ImageError: the photo cannot be read.
        """
        session = self._session
        image = load_image(photo, size=session.size)
        if certificate is not None and certificate.image.digest != image.digest:
            raise UsageError(
                f"The certificate is of another photo ({certificate.image.name}), or of another "
                "working size. Give the photo that it was issued for."
            )
        noisy, denoised = session.look_at(image, 0)
        name = session.variants.denoiser.name
        pixels = image.to_uint8()
        return Look(image.name, session.sigma, name, pixels, noisy, denoised, certificate)

    @property
    def session(self) -> Session:
        """The opened parts, for what is not about one photo: studies, wrapped clients, tools."""
        return self._session

    def close(self) -> None:
        """Wait for requests under way, then release threads, connections and the store."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await in_thread(self.close, Stop())

    def _certify_many(
        self,
        stop: Stop,
        photos: Iterable[PhotoSource | FoundPhoto] | PhotoSource,
        radius: Radius | None,
        target: Target | Literal["top1"],
        options: _Many,
        *,
        or_less: bool,
        final: bool | None,
    ) -> Generator[PhotoResult]:
        session = self._session.for_many()
        ask = partial(
            _certify_one,
            session,
            radius=radius,
            target=session.target(target),
            or_less=or_less,
            final=final,
            asked=asked_radius(session, radius),
        )
        return options.run(ask, session, photos, stop)

    def _watched(self, stop: Stop) -> Self:
        """Return a Smoother whose runs `stop` can stop; all else is shared."""
        twin = object.__new__(type(self))
        twin._session = replace(self._session, on_run=stop.watch)
        return twin


@dataclass(frozen=True, slots=True)
class _Many:
    """How many photos are worked on; members as the arguments of `Smoother.certify_many`."""

    photos_at_once: int
    in_order: bool
    fail_fast: bool
    fetcher: Fetcher | None
    on_progress: Callable[[ManyProgress], None] | None

    def __post_init__(self) -> None:
        if self.photos_at_once < 1:
            raise UsageError(
                f"photos_at_once={self.photos_at_once}: at least one photo is under way."
            )

    def run(
        self,
        ask: Ask,
        session: Session,
        photos: Iterable[PhotoSource | FoundPhoto] | PhotoSource,
        stop: Stop,
    ) -> Generator[PhotoResult]:
        fetcher = self.fetcher or PhotoFetcher()
        return certify_photos(
            ask,
            find(photos, fetcher),
            size=session.size,
            fetcher=fetcher,
            at_once=self.photos_at_once,
            in_order=self.in_order,
            fail_fast=self.fail_fast,
            stop=stop,
            on_progress=self.on_progress,
        )


def _certify_one(
    session: Session,
    image: WorkingImage,
    stop: Stop,
    on_progress: Callable[[Progress], None] | None,
    *,
    radius: Radius | None,
    target: Target,
    or_less: bool,
    final: bool | None,
    asked: WantedRadius | None,
) -> Certificate:
    mine = replace(session, on_run=stop.watch)
    start = partial(start_test, mine, image, radius, target, or_less=or_less, final=final)
    return certify(mine, image, target, start, on_progress, asked=asked)


def _predict(
    session: Session,
    image: WorkingImage,
    stop: Stop,
    on_progress: Callable[[Progress], None] | None,
) -> Certificate:
    mine, settings = replace(session, on_run=stop.watch), session.settings
    start = partial(SequentialPredict, alpha=settings.alpha, max_votes=settings.max_votes)
    return certify(mine, image, Top1(session.space), start, on_progress, kind="predict")


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
    """Return a fresh test of a target's votes; raises UnreachableRadiusError."""
    settings = session.settings
    terms = VoteTerms(
        sigma=session.sigma,
        alpha=settings.alpha,
        max_votes=settings.max_votes,
        radius=wanted_radius(session, image, radius),
        delta=share_deduction(image.pixels.size, session.sigma),
    )
    if or_less:
        terms["or_less"] = True
    if settings.final if final is None else final:
        terms["final"] = True
    if isinstance(target, Top1):
        return target.start(session.futility, **terms)
    return target.start(**terms)


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
