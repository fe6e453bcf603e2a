"""The many hands: several tasks under way at once, however many there are, and what they spend."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from smoothapi.errors import (
    ImageError,
    ModelChangedError,
    ProcessesLostError,
    SmoothAPIError,
    TooManyFailuresError,
    UsageError,
)
from smoothapi.store.owners import refuse_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from smoothapi.session import Progress

_T = TypeVar("_T")
_R = TypeVar("_R")

_LOOK = 0.2  # seconds between two calls of `on_look`
_AHEAD = 4  # tasks taken for each that is under way: while one is slow, the others go on
_FEWEST_FAILED = 3
_MOST_FAILED = 0.2  # share of the tasks; then the service, not a photo, is at fault


class Crew(Generic[_T, _R]):
    """Works on many tasks at once, each in a thread, and takes them up one by one.

    Args:
        work: does one task. What it raises ends the crew.
        at_once: tasks under way at the same time.
    """

    def __init__(self, work: Callable[[_T], _R], at_once: int) -> None:
        self._work = work
        self._at_once = at_once
        self._enough = threading.Event()

    def take_no_more(self) -> None:
        """Begin no further task; those that have begun go on to their end."""
        self._enough.set()

    def run(
        self,
        tasks: Iterable[_T],
        *,
        in_order: bool,
        on_look: Callable[[], None] | None = None,
        on_cut: Callable[[], None] | None = None,
    ) -> Iterator[tuple[_T, _R]]:
        """Yield each task with what came of it.

        A task is taken out of `tasks` when there is room for it: a few for each that is under way,
        counted until what came of them is taken here. An error of `tasks` itself is raised when
        those taken before have ended.

        Args:
            tasks: may be without end.
            in_order: yield them in their order; else as they end.
            on_look: called some times a second, here.
            on_cut: called when this is left before its end (by Ctrl-C, say), before what is under
                way is awaited.
        """
        process, intake = os.getpid(), _Intake(tasks)
        taken: deque[tuple[Future[_R], _T]] = deque()
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="smoothapi-photo")
        try:
            while True:
                while len(taken) < _AHEAD * self._at_once and not self._enough.is_set():
                    if intake.ended:
                        break
                    taken.extend((pool.submit(self._work, task), task) for task in intake.next())
                if self._enough.is_set():
                    taken = deque(item for item in taken if not item[0].cancel())
                if not taken:
                    break
                refuse_fork(process)  # in `on_look`, or whoever takes these: threads stay behind
                # In order, those that have ended behind one that has not are no news.
                awaited = [future for future, _ in taken if not (in_order and future.done())]
                wait(awaited, timeout=_LOOK, return_when=FIRST_COMPLETED)
                if on_look is not None:
                    on_look()
                yield from _ready(taken, in_order=in_order)
            intake.raise_error()
        except BaseException:
            self._enough.set()
            if on_cut is not None:
                on_cut()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Intake(Generic[_T]):
    """Tasks taken one by one, and the error of ours that ended them."""

    def __init__(self, tasks: Iterable[_T]) -> None:
        self._waiting = iter(tasks)
        self._error: SmoothAPIError | None = None
        self.ended = False

    def next(self) -> tuple[_T, ...]:
        """Return the next task; none when they have ended."""
        try:
            return (next(self._waiting),)
        except StopIteration:
            self.ended = True
        except SmoothAPIError as error:
            self.ended, self._error = True, error
        return ()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _ready(taken: deque[tuple[Future[_R], _T]], *, in_order: bool) -> Iterator[tuple[_T, _R]]:
    """Take out and yield what has ended: in order, up to the first that has not."""
    if in_order:
        while taken and taken[0][0].done():
            future, task = taken.popleft()
            yield task, future.result()
        return
    for item in [item for item in taken if item[0].done()]:
        taken.remove(item)
        yield item[1], item[0].result()


@dataclass(frozen=True, slots=True)
class Outlay:
    """What many tasks have come to so far.

    Attributes:
        votes: counted.
        queries: variants sent.
        cached: answers that the store already had.
        cost: dollars.
        retries: pictures sent again.
    """

    votes: int = 0
    queries: int = 0
    cached: int = 0
    cost: float = 0.0
    retries: int = 0

    def __add__(self, other: Outlay) -> Outlay:
        return Outlay(
            self.votes + other.votes,
            self.queries + other.queries,
            self.cached + other.cached,
            self.cost + other.cost,
            self.retries + other.retries,
        )

    @property
    def attempts(self) -> int:
        """Requests for a picture, retries included."""
        return self.queries + self.retries


class Spending(Generic[_T]):
    """Adds up what tasks spend while they are under way, and keeps no task that has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[_T, Outlay] = {}
        self._ended = Outlay()

    def note(self, task: _T, progress: Progress) -> None:
        """Take how far a task is."""
        spent = Outlay(
            progress.votes, progress.queries, progress.cached, progress.cost, progress.retries
        )
        with self._lock:
            self._under_way[task] = spent

    def at_error(self, task: _T, error: SmoothAPIError) -> Outlay:
        """Return what a task had come to that an error ends.

        The error knows of what was under way when the last progress was noted.
        """
        with self._lock:
            noted = self._under_way.get(task, Outlay())
        sent = error.attempts - error.retries
        if sent < noted.queries:
            return noted
        return replace(noted, queries=sent, cost=error.cost, retries=error.retries)

    def end(self, task: _T, spent: Outlay | None = None) -> Outlay:
        """Take what a task came to, by default what was noted last, and return it."""
        with self._lock:
            noted = self._under_way.pop(task, Outlay())
            spent = spent or noted
            self._ended += spent
        return spent

    @property
    def so_far(self) -> Outlay:
        """What all tasks have come to."""
        with self._lock:
            return sum(self._under_way.values(), self._ended)


OF_ONE_PHOTO = (UsageError, TooManyFailuresError, ModelChangedError, ProcessesLostError)
"""Errors that need not concern other photos."""


class Failures:
    """Tells a photo that cannot be certified from a service that fails on all. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed = 0

    def concern_all(self, error: SmoothAPIError, ended: int) -> bool:
        """Whether an error ends the work on all photos, not on its own alone.

        Args:
            error: what ended the work on one photo.
            ended: photos whose work has ended, this one included.
        """
        if not isinstance(error, OF_ONE_PHOTO):
            return True
        with self._lock:
            self._failed += not isinstance(error, ImageError)
            return self._failed >= max(_FEWEST_FAILED, _MOST_FAILED * ended)
