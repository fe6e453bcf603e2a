"""Many photos certified: a broken one is reported and the rest go on, and nothing paid is lost."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

from smoothapi.errors import SmoothAPIError, StoppedError
from smoothapi.many.crew import OF_ONE_PHOTO, Crew, Failures, Outlay, Spending
from smoothapi.many.results import PhotoResult

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from smoothapi.asynchronous import Stop
    from smoothapi.certify.certificate import Certificate
    from smoothapi.photos import FoundPhoto
    from smoothapi.session import Progress


class Ask(Protocol):
    """Certifies one photo, here or elsewhere."""

    def __call__(
        self, photo: FoundPhoto, stop: Stop, on_progress: Callable[[Progress], None], /
    ) -> Certificate:
        """Return its certificate; `stop` can end it, `on_progress` is called after each vote."""
        ...


@dataclass(frozen=True, slots=True)
class ManyProgress:
    """How far many photos are.

    Attributes:
        done: photos that are certified, abstained on or failed.
        certified: with a label.
        abstained: without one.
        failed: of which there is no certificate, but an error.
        under_way: photos that have begun and not ended.
        votes: counted so far.
        queries: variants sent so far.
        cached: answers from the store so far.
        cost: dollars so far.
        seconds: since the first photo.
        retries: pictures sent again so far.
    """

    done: int
    certified: int
    abstained: int
    failed: int
    under_way: int
    votes: int
    queries: int
    cached: int
    cost: float
    seconds: float
    retries: int = 0

    @property
    def attempts(self) -> int:
        """Requests for a picture so far, retries included."""
        return self.queries + self.retries


def certify_photos(
    ask: Ask,
    photos: Iterable[FoundPhoto],
    *,
    at_once: int,
    in_order: bool,
    fail_fast: bool,
    stop: Stop,
    on_progress: Callable[[ManyProgress], None] | None,
    on_look: Callable[[], None] | None = None,
) -> Generator[PhotoResult]:
    """Yield what each photo comes to.

    A photo that cannot be read, or that the provider fails on, is a result with an error. What
    concerns all (the budget's end, a service that is down, a store that cannot keep answers) ends
    the work: those under way end by themselves, their results are yielded, and the error is raised.

    Args:
        ask: certifies one photo.
        photos: taken a few at a time.
        at_once: photos under way at the same time.
        in_order: yield results in the order of the photos; else as they end.
        fail_fast: raise the first photo's error, too, after its result.
        stop: ends all of them from outside.
        on_progress: called some times a second, where this is iterated over.
        on_look: called before it, for news of what is elsewhere.
    """
    work = _Work(ask, stop, fail_fast=fail_fast)
    crew = work.crew = Crew(work.do, at_once)
    tasks = (_Task(index, photo) for index, photo in zip(count(), photos, strict=False))

    def look() -> None:
        if on_look is not None:
            on_look()
        if on_progress is not None:
            on_progress(work.progress)

    for _, result in crew.run(tasks, in_order=in_order, on_look=look, on_cut=stop.stop):
        if result is not None:
            yield result
    look()
    if work.error is not None:
        if not work.is_result(work.error):  # then what it tells of is all photos
            spent = work.progress
            work.error.attempts, work.error.retries = spent.attempts, spent.retries
            work.error.cost = spent.cost
        raise work.error


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    index: int
    photo: FoundPhoto


class _Work:
    """What is done with each photo, and what all have come to. Threads share it."""

    crew: Crew[_Task, PhotoResult | None]

    def __init__(self, ask: Ask, stop: Stop, *, fail_fast: bool) -> None:
        self._ask = ask
        self._stop = stop
        self._fail_fast = fail_fast
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._spending: Spending[_Task] = Spending()
        self._failures = Failures()
        self._ended = {"certified": 0, "abstained": 0, "failed": 0}
        self._under_way = 0
        self.error: SmoothAPIError | None = None

    @property
    def progress(self) -> ManyProgress:
        with self._lock:
            ended, under_way = dict(self._ended), self._under_way
        spent = self._spending.so_far
        return ManyProgress(
            done=sum(ended.values()),
            **ended,
            under_way=under_way,
            votes=spent.votes,
            queries=spent.queries,
            cached=spent.cached,
            cost=spent.cost,
            seconds=time.monotonic() - self._began,
            retries=spent.retries,
        )

    def do(self, task: _Task) -> PhotoResult | None:
        """Return the result; None where the work on all photos ended first."""
        with self._lock:
            self._under_way += 1
        mine = self._stop.for_one()
        photo = task.photo
        spent: Outlay | None = None
        try:
            certificate = self._ask(photo, mine, partial(self._spending.note, task))
            # With what came after the vote that decided: it was under way, and is paid for.
            spent = Outlay(
                certificate.total_votes, certificate.queries, certificate.cached, certificate.cost,
                certificate.attempts - certificate.queries,
            )  # fmt: skip
            result = PhotoResult(task.index, photo.name, certificate, stamp=photo.stamp)
        except SmoothAPIError as error:
            spent = self._spending.at_error(task, error)
            if self._concerns_all(error) and not self.is_result(error):
                return None
            result = PhotoResult(task.index, photo.name, None, error)
        finally:
            self._stop.forget(mine)
            self._spending.end(task, spent)
            with self._lock:
                self._under_way -= 1
        with self._lock:
            self._ended[result.outcome] += 1
        return result

    def is_result(self, error: SmoothAPIError) -> bool:
        """Whether an error that ends all is the result of its own photo, too."""
        return self._fail_fast and error is self.error and isinstance(error, OF_ONE_PHOTO)

    def _concerns_all(self, error: SmoothAPIError) -> bool:
        with self._lock:
            ended = sum(self._ended.values()) + 1
        if not self._fail_fast and not self._failures.concern_all(error, ended):
            return False
        with self._lock:
            # That a run was stopped is what came of another error, or of whoever stopped it.
            if self.error is None or isinstance(self.error, StoppedError):
                self.error = error
        self.crew.take_no_more()
        if self._fail_fast:
            self._stop.stop()
        return True
