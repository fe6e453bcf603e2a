"""A `Smoother`: certified labels from one provider.

`smoothapi.method` is what it does, `smoothapi.each_photo` what it does with many photos. Both are
loaded with the first Smoother, not with the class: a program that imports it may never make one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self, Unpack

from smoothapi._lazy import later
from smoothapi.errors import UsageError
from smoothapi.options import Radius, SmootherOptions, keywords

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable

    from smoothapi import asynchronous, each_photo, method, wiring
    from smoothapi import image as images
    from smoothapi import look as looks
    from smoothapi import plan as plans
    from smoothapi.asynchronous import Stop
    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.targets import Target
    from smoothapi.each_photo import ManyPhotos
    from smoothapi.image import PhotoSource
    from smoothapi.look import Look
    from smoothapi.many import ManyProgress, PhotoResult
    from smoothapi.many.cluster import Cluster
    from smoothapi.photos import Fetcher, FoundPhoto
    from smoothapi.plan import Plan
    from smoothapi.provider import Adapter
    from smoothapi.session import Progress, Session
else:
    asynchronous = later("smoothapi.asynchronous")
    each_photo = later("smoothapi.each_photo")
    images = later("smoothapi.image")
    looks = later("smoothapi.look")
    method = later("smoothapi.method")
    plans = later("smoothapi.plan")
    wiring = later("smoothapi.wiring")


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
        alpha: chance of a wrong certificate; chosen before the first vote is seen.
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
        self._session = wiring.open_session(provider, **options)
        self._given = provider, options.get("denoiser")

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
                label's parents, or `TopK(3)`. Chosen before the first vote is seen; of several,
                each keeps its alpha, and that all of them are right fails with up to the sum.
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
        image = images.load_image(photo, size=session.size)
        meant = session.target(target)
        start = partial(
            method.start_test, session, image, radius, meant, or_less=or_less, final=final
        )
        asked = method.asked_radius(session, radius)
        return method.certify(session, image, meant, start, on_progress, asked=asked)

    def predict(
        self, photo: PhotoSource, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Certificate:
        """Return the smoothed label of the photo, with no radius: the plain majority vote.

        With probability at least 1 - alpha over the noise it is the label that most variants
        get. Raises as `certify` does.
        """
        session = self._session
        image = images.load_image(photo, size=session.size)
        return method.predict(session, image, on_progress)

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
        cluster: Cluster | str | None = None,
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
            fail_fast: raise the first photo's error, after its result, instead of going on.
            fetcher: of photos that are elsewhere; by default a `PhotoFetcher`, which refuses
                private addresses.
            cluster: machines that share the work, each with `photos_at_once` photos for each of
                its processes: "local", "auto", "ray://host:port", or a `Cluster`.
            on_progress: called some times a second, in the thread that iterates.

        Raises:
            ImageError: a folder or a pattern has no photos.
            UnreachableRadiusError: `max_votes` votes could not certify the radius of any photo.
            UsageError: a value is out of range; something was given that other machines cannot be
                told of, or one of them differs from this one.
            ClusterError: the cluster cannot be reached, or is lost.
            BudgetExceededError: the budget does not allow the next query; what was finished before
                has been yielded, as for the next two.
            ProviderError: the service fails on all: a credential, an outage, one photo in five.
            StoreError: answers cannot be kept.
        """
        options = each_photo.ManyPhotos(
            photos_at_once, in_order, fail_fast, fetcher, cluster, on_progress
        )
        return self._certify_many(
            asynchronous.Stop(), photos, radius, target, options, or_less=or_less, final=final
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
        cluster: Cluster | str | None = None,
        on_progress: Callable[[ManyProgress], None] | None = None,
    ) -> AsyncIterator[PhotoResult]:
        """Do what `certify_many` does in threads, and yield what each photo comes to.

        Takes what `certify_many` takes; photos may come from an asynchronous iterable, too. When
        the task is cancelled, nothing more is sent; what is under way is awaited and kept. Leave
        the loop early only within `contextlib.aclosing`, or what is under way ends later.
        """
        stop = asynchronous.Stop()
        options = each_photo.ManyPhotos(
            photos_at_once, in_order, fail_fast, fetcher, cluster, on_progress
        )
        given = asynchronous.as_iterable(photos, stop)
        results = self._certify_many(
            stop, given, radius, target, options, or_less=or_less, final=final
        )
        async for result in asynchronous.taken_in_threads(results, stop):
            yield result

    def predict_many(
        self,
        photos: Iterable[PhotoSource | FoundPhoto] | PhotoSource,
        *,
        photos_at_once: int = 8,
        in_order: bool = True,
        fail_fast: bool = False,
        fetcher: Fetcher | None = None,
        cluster: Cluster | str | None = None,
        on_progress: Callable[[ManyProgress], None] | None = None,
    ) -> Generator[PhotoResult]:
        """Predict many photos as `predict` does, several at once; all else as `certify_many`."""
        options = each_photo.ManyPhotos(
            photos_at_once, in_order, fail_fast, fetcher, cluster, on_progress
        )
        return options.run(
            each_photo.PREDICTION, self._session, self._given, photos, asynchronous.Stop()
        )

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
        stop = asynchronous.Stop()
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
        return await asynchronous.in_thread(call, stop, abandon_on_cancel=abandon_on_cancel)

    async def predict_async(
        self,
        photo: PhotoSource,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        abandon_on_cancel: bool = False,
    ) -> Certificate:
        """Do what `predict` does in a thread, and await it; see `certify_async`."""
        stop = asynchronous.Stop()
        twin = self._watched(stop)
        call = partial(twin.predict, photo, on_progress=on_progress)
        return await asynchronous.in_thread(call, stop, abandon_on_cancel=abandon_on_cancel)

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
        image = images.load_image(photo, size=session.size)
        meant = session.target(target)
        final = session.settings.final if final is None else final
        test = method.start_test(session, image, radius, meant, or_less=or_less, final=final)
        return plans.plan_run(
            session, image, meant, test, method.wanted_radius(session, image, radius), final=final
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
        image = images.load_image(photo, size=session.size)
        if certificate is not None and certificate.image.digest != image.digest:
            raise UsageError(
                f"The certificate is of another photo ({certificate.image.name}), or of another "
                "working size. Give the photo that it was issued for."
            )
        noisy, denoised = session.look_at(image, 0)
        name = session.variants.denoiser.name
        pixels = image.to_uint8()
        return looks.Look(image.name, session.sigma, name, pixels, noisy, denoised, certificate)

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
        await asynchronous.in_thread(self.close, asynchronous.Stop())

    def _certify_many(
        self,
        stop: Stop,
        photos: Iterable[PhotoSource | FoundPhoto] | PhotoSource,
        radius: Radius | None,
        target: Target | Literal["top1"],
        options: ManyPhotos,
        *,
        or_less: bool,
        final: bool | None,
    ) -> Generator[PhotoResult]:
        session = self._session
        method.asked_radius(session, radius)  # refuses what is none, before the first photo
        asked = each_photo.Asked(radius, session.target(target), or_less=or_less, final=final)
        return options.run(asked, session, self._given, photos, stop)

    def _watched(self, stop: Stop) -> Self:
        """Return a Smoother whose runs `stop` can stop; all else is shared."""
        twin = object.__new__(type(self))
        twin._session = replace(self._session, on_run=stop.watch)
        twin._given = self._given
        return twin
