"""What is asked about each of many photos: on this machine, or on those of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from smoothapi.errors import UsageError
from smoothapi.image import PhotoSource, WorkingImage, load_image
from smoothapi.many import Ask, ManyProgress, PhotoResult, certify_photos
from smoothapi.many.cluster import (
    Cluster,
    SessionRecipe,
    TeamStop,
    open_session_here,
    open_team,
    recipe_of,
    sendable,
)
from smoothapi.method import asked_radius, certify, predict, start_test, vote_terms
from smoothapi.photos.carrying import CarriedPhoto, carried
from smoothapi.photos.fetching import PhotoFetcher, opened
from smoothapi.photos.finding import FoundPhoto, find

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from smoothapi.asynchronous import Stop
    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.targets import Target
    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.options import Radius
    from smoothapi.photos import Fetcher
    from smoothapi.session import Progress, Session


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about each of many photos; members as the arguments of `certify_many`.

    Without a target it is a prediction.
    """

    radius: Radius | None
    target: Target | None
    or_less: bool
    final: bool | None

    def about(
        self,
        session: Session,
        image: WorkingImage,
        stop: Stop,
        on_progress: Callable[[Progress], None],
    ) -> Certificate:
        """Return the certificate of an image; `stop` can end it."""
        mine = replace(session, on_run=stop.watch)
        if self.target is None:
            return predict(mine, image, on_progress)
        begin = partial(
            start_test, mine, image, self.radius, self.target,
            or_less=self.or_less, final=self.final,
        )  # fmt: skip
        asked = asked_radius(session, self.radius)
        return certify(mine, image, self.target, begin, on_progress, asked=asked)

    def check(self, session: Session) -> None:
        """Refuse what no photo's votes could reach; raises UnreachableRadiusError."""
        if self.target is None:
            return
        asked = asked_radius(session, self.radius)
        if asked is not None and asked.unit != "working":  # what it comes to, each photo decides
            return
        radius = None if asked is None else asked.value
        self.target.start(**vote_terms(session, radius, final=self.final))


PREDICTION = Asked(None, None, or_less=False, final=False)


@dataclass(frozen=True, slots=True)
class ManyPhotos:
    """How many photos are worked on; members as the arguments of `Smoother.certify_many`."""

    photos_at_once: int
    in_order: bool
    fail_fast: bool
    fetcher: Fetcher | None
    cluster: Cluster | str | None
    on_progress: Callable[[ManyProgress], None] | None

    def __post_init__(self) -> None:
        if self.photos_at_once < 1:
            raise UsageError(
                f"photos_at_once={self.photos_at_once}: at least one photo is under way."
            )

    def run(
        self,
        asked: Asked,
        session: Session,
        given: tuple[object, object],
        photos: Iterable[PhotoSource | FoundPhoto] | PhotoSource,
        stop: Stop,
    ) -> Generator[PhotoResult]:
        """Yield what each photo comes to, here or on the cluster.

        Args:
            asked: what about each.
            session: who is asked.
            given: the provider and the denoiser that the session was opened with.
            photos: which.
            stop: ends all of them.
        """
        asked.check(session)
        fetcher = self.fetcher or PhotoFetcher()
        found = find(photos, fetcher)
        if self.cluster is not None:
            duty = _CertifyingDuty(_recipe(session, given), asked, sendable(fetcher))
            return self._on_cluster(Cluster.of(self.cluster), duty, session, found, stop)
        mine = session.for_many()

        def ask(
            photo: FoundPhoto, stop: Stop, on_progress: Callable[[Progress], None]
        ) -> Certificate:
            image = load_image(opened(photo.source, fetcher), size=mine.size)
            return asked.about(mine, image, stop, on_progress)

        return self._certified(ask, found, stop, at_once=self.photos_at_once)

    def _on_cluster(
        self,
        cluster: Cluster,
        duty: _CertifyingDuty,
        session: Session,
        found: Iterator[FoundPhoto],
        stop: Stop,
    ) -> Generator[PhotoResult]:
        size = session.size
        with open_team(cluster, duty, slots=self.photos_at_once, size=size) as team:
            stop.watch(TeamStop(team))

            def ask(
                photo: FoundPhoto, _: Stop, on_progress: Callable[[Progress], None]
            ) -> Certificate:
                result: Certificate = team.do(_Errand(carried(photo.source, size)), on_progress)
                return result

            yield from self._certified(ask, found, stop, at_once=team.at_once, on_look=team.look)

    def _certified(
        self,
        ask: Ask,
        found: Iterator[FoundPhoto],
        stop: Stop,
        *,
        at_once: int,
        on_look: Callable[[], None] | None = None,
    ) -> Generator[PhotoResult]:
        return certify_photos(
            ask,
            found,
            at_once=at_once,
            in_order=self.in_order,
            fail_fast=self.fail_fast,
            stop=stop,
            on_progress=self.on_progress,
            on_look=on_look,
        )


@dataclass(frozen=True, slots=True)
class _Errand:
    """A photo to be certified by another machine."""

    photo: CarriedPhoto


@dataclass(frozen=True, slots=True)
class _CertifyingDuty:
    """What a machine of a cluster is told to do with photos; a `Duty`."""

    recipe: SessionRecipe
    asked: Asked
    fetcher: Fetcher

    def open(self, denoisers: Mapping[str, DenoiserRuntime]) -> _CertifyingHands:
        """Open the provider."""
        (provider,), (denoiser,) = self.recipe.providers, denoisers.values()
        session = open_session_here(self.recipe, provider, denoiser)
        return _CertifyingHands(session, self.asked, self.fetcher)


class _CertifyingHands:
    """Certifies photos on a machine of a cluster; `Hands`."""

    def __init__(self, session: Session, asked: Asked, fetcher: Fetcher) -> None:
        self._session = session
        self._asked = asked
        self._fetcher = fetcher

    def do(self, task: _Errand, stop: Stop, note: Callable[[Progress], None]) -> Certificate:
        """Return the certificate of a photo."""
        image = load_image(task.photo.open(self._fetcher), size=self._session.size)
        return self._asked.about(self._session, image, stop, note)

    def close(self) -> None:
        """Wait for requests under way, and release all."""
        self._session.close()


def _recipe(session: Session, given: tuple[object, object]) -> SessionRecipe:
    """Return what other machines open sessions like this one by.

    Raises:
        UsageError: something was given that they cannot be told of.
    """
    settings, dispatcher = session.settings, session.dispatcher
    provider, denoiser = (
        default if each is None else each
        for each, default in zip(given, (settings.provider, settings.denoiser), strict=True)
    )
    return recipe_of(
        {"": provider},
        {"": denoiser},
        settings,
        {
            "sigma": session.sigma,
            "radius": settings.radius,
            "alpha": settings.alpha,
            "max_votes": settings.max_votes,
            "size": session.size,
            "classes": session.space,
            "plain": settings.plain,
            "partial": settings.partial,
            "final": settings.final,
            "codec": settings.codec,
            "concurrency": settings.concurrency,
            "retry": dispatcher.route.retry,
            "refresh": session.refresh,
            "budget": tuple(dispatcher.route.ledger.shared),
        },
    )
