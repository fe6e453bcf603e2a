"""A study on a cluster: its machines read photos and fill cells; figures are drawn here."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from smoothapi.asynchronous import Stop
from smoothapi.dispatch.run import STOPPED
from smoothapi.image import load_image
from smoothapi.many.cluster import open_session_here
from smoothapi.photos.carrying import carried
from smoothapi.study.crew import Filled, Wanted, fill_cell, look_at, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.image import PhotoSource
    from smoothapi.many.cluster import Note, SessionRecipe, Team
    from smoothapi.photos import CarriedPhoto, Fetcher
    from smoothapi.session import Session
    from smoothapi.store import Budget
    from smoothapi.study.crew import Setup, Task
    from smoothapi.study.findings import Photo, Problem


@dataclass(frozen=True, slots=True)
class _Reading:
    """A photo to be read, and what it is called."""

    photo: CarriedPhoto
    name: str
    truth: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Filling:
    """A cell to be filled, and the budgets that hold."""

    photo: CarriedPhoto
    wanted: Wanted
    budgets: tuple[Budget, ...] | None


@dataclass(frozen=True, slots=True)
class StudyDuty:
    """What a machine of a cluster is told to do for a study; a `Duty`.

    Attributes:
        recipe: of the sessions.
        providers: {name in the study: name of the adapter}.
        sigmas: noise levels.
        size: of the working image.
        fetcher: of photos that are elsewhere.
    """

    recipe: SessionRecipe
    providers: Mapping[str, str]
    sigmas: tuple[float, ...]
    size: int | tuple[int, int]
    fetcher: Fetcher

    def open(self, denoisers: Mapping[str, DenoiserRuntime]) -> StudyHands:
        """Get ready; providers are opened for the first cell, whose budgets they need."""
        return StudyHands(self, denoisers)


class StudyHands:
    """Reads photos and fills cells on a machine of a cluster; `Hands`."""

    def __init__(self, duty: StudyDuty, denoisers: Mapping[str, DenoiserRuntime]) -> None:
        self._duty = duty
        self._denoisers = denoisers
        self._fetcher = duty.fetcher
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._sessions: dict[tuple[str, str, float], Session] = {}

    def do(self, task: _Reading | _Filling, stop: Stop, note: Note) -> Photo | Problem | Filled:
        """Read a photo, or fill a cell."""
        size = self._duty.size
        source = task.photo.open(self._fetcher)
        if isinstance(task, _Reading):
            return look_at(task.name, source, self._fetcher, size=size, truth=task.truth)
        halt = _Halt()
        stop.watch(halt)
        key = task.wanted.provider, task.wanted.denoiser, task.wanted.sigma
        session = self._opened(task.budgets)[key]
        load = partial(load_image, source, size=size)
        return fill_cell(session, load, task.wanted, halt.event, note)

    def close(self) -> None:
        """Wait for requests under way, and release all."""
        self._stack.close()

    def _opened(self, budgets: Sequence[Budget] | None) -> Mapping[tuple[str, str, float], Session]:
        with self._lock:
            if not self._sessions:
                for name, provider in self._duty.providers.items():
                    first = open_session_here(
                        self._duty.recipe, provider, next(iter(self._denoisers.values())), budgets
                    )
                    self._stack.callback(first.close)
                    self._sessions |= {
                        (name, kind, sigma): first.beside(sigma=sigma, denoiser=runtime)
                        for kind, runtime in self._denoisers.items()
                        for sigma in self._duty.sigmas
                    }
            return self._sessions


class _Halt(Stop):
    """Sets an event when it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.event = threading.Event()

    def stop(self, why: str = STOPPED) -> None:
        super().stop(why)
        self.event.set()


class OnCluster:
    """The machines of a cluster; a `StudyPlace`.

    Args:
        setup: of the study.
        team: of machines with a `StudyDuty`.
        budgets: that hold for all of them together.
    """

    def __init__(self, setup: Setup, team: Team[Any], budgets: Sequence[Budget] | None) -> None:
        self.at_once = team.at_once
        self._setup = setup
        self._team = team
        self._budgets = None if budgets is None else tuple(budgets)

    def fill(self, task: Task, note: Note) -> Filled:
        """Fill a cell."""
        photo = carried(task.read.source, self._setup.size)
        errand = _Filling(photo, wanted(task, self._setup), self._budgets)
        filled: Filled = self._team.do(errand, note)
        return filled

    def look(self) -> None:
        """Take the news."""
        self._team.look()

    def stop(self) -> None:
        """Have nothing more sent."""
        self._team.stop()


def reader(
    team: Team[Any], size: int | tuple[int, int]
) -> Callable[[str, PhotoSource, tuple[str, ...]], Photo | Problem]:
    """Return what reads a photo on a machine of the team; takes what `look_at` takes."""

    def read(name: str, source: PhotoSource, truth: tuple[str, ...]) -> Photo | Problem:
        found: Photo | Problem = team.do(
            _Reading(carried(source, size), name, truth), lambda _: None
        )
        return found

    return read
