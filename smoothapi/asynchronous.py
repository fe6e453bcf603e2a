"""A call of a Smoother, awaited: it runs in a thread, and stops when its task is cancelled."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncIterable
from concurrent.futures import Executor, Future, wait
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from smoothapi.dispatch import Totals
from smoothapi.dispatch.run import STOPPED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from smoothapi.dispatch import Run

_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")

_LOOK = 0.1  # seconds between looks whether it is stopped


class Stop:
    """Stops the runs that it is told of, those that begin later too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[Run | Stop] = []
        self._stopped = False
        self._why = STOPPED

    def for_one(self) -> Stop:
        """Return a stop for a part of the runs, which this one stops, too, until it forgets it."""
        part = Stop()
        self.watch(part)
        return part

    def forget(self, part: Stop) -> None:
        """Let go of a part whose runs have ended, and of what they sent."""
        with self._lock:
            self._runs.remove(part)

    def watch(self, run: Run | Stop) -> None:
        """Take a run that begins, or several that one stop is for."""
        with self._lock:
            self._runs.append(run)
            stopped = self._stopped
        if stopped:
            run.stop(self._why)

    def stop(self, why: str = STOPPED) -> None:
        """Have nothing more sent; `why` is what the StoppedError of a run will say."""
        with self._lock:
            self._stopped = True
            self._why = why
            runs = list(self._runs)
        for run in runs:
            run.stop(why)

    @property
    def stopped(self) -> bool:
        """Whether nothing more is to be sent."""
        with self._lock:
            return self._stopped

    @property
    def totals(self) -> Totals:
        """What the runs have sent and received so far."""
        with self._lock:
            return sum((run.totals for run in self._runs), Totals())


class ThreadEach(Executor):
    """Gives each call a thread of its own.

    asyncio's own executor is a handful of threads, in which an event loop looks up hosts, too.
    Calls that wait there for requests of that loop would keep them from ever being sent.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def submit(
        self, fn: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> Future[_Result]:
        """Start a thread that calls `fn`."""
        future: Future[_Result] = Future()
        future.set_running_or_notify_cancel()
        call = partial(fn, *args, **kwargs)
        threading.Thread(target=settle, args=(future, call), name=self._name).start()
        return future


def settle(future: Future[_Result], call: Callable[[], _Result]) -> None:
    """Have a future hold what a call returns or raises."""
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001  raised to whoever still waits for it
        future.set_exception(error)
        del future, call  # the error holds this frame


async def in_thread(
    call: Callable[[], _Result],
    stop: Stop,
    *,
    abandon_on_cancel: bool = False,
    executor: Executor | None = None,
) -> _Result:
    """Return what `call` returns; when this is cancelled, stop its runs and await their end.

    Requests under way are paid for, so their answers are awaited and kept before the cancellation
    goes on, however often it is asked for. With `abandon_on_cancel` it goes on at once, and the
    thread awaits them.

    Args:
        call: runs in the context of the caller.
        stop: is told to stop when this is cancelled.
        abandon_on_cancel: whether to leave what is under way to the thread.
        executor: whose thread it is; None for the event loop's own.
    """
    import asyncio  # noqa: PLC0415  whoever awaits has it already

    context = contextvars.copy_context()
    thread = asyncio.get_running_loop().run_in_executor(executor, partial(context.run, call))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.stop()
        if abandon_on_cancel:
            thread.cancel()  # nobody waits for it; the loop may be closed when its thread ends
            raise
        while not thread.done():
            try:
                await asyncio.wait([thread])
            except asyncio.CancelledError:
                continue
        _take_note(thread)
        raise


async def taken_in_threads(
    results: Generator[_Result, None, None], stop: Stop
) -> AsyncIterator[_Result]:
    """Yield what a generator yields, which runs in threads; see `in_thread`."""
    try:
        while (result := await in_thread(lambda: next(results, None), stop)) is not None:
            yield result
    finally:
        await in_thread(results.close, Stop())


def as_iterable(given: Any, stop: Stop) -> Any:
    """Return what is asynchronous as an iterator for other threads than the loop's.

    Args:
        given: to be iterated over; what is not asynchronous is returned as it is.
        stop: ends it while it waits.
    """
    if not isinstance(given, AsyncIterable):
        return given
    import asyncio  # noqa: PLC0415  whoever awaits has it already

    return _taken_from_loop(given, asyncio.get_running_loop(), stop)


def _taken_from_loop(
    given: AsyncIterable[_Result], loop: asyncio.AbstractEventLoop, stop: Stop
) -> Iterator[_Result]:
    import asyncio  # noqa: PLC0415  whoever awaits has it already

    source = aiter(given)

    async def one() -> tuple[_Result] | None:
        try:
            return (await anext(source),)
        except StopAsyncIteration:
            return None

    while True:
        future = asyncio.run_coroutine_threadsafe(one(), loop)
        while not future.done():
            if stop.stopped:
                future.cancel()
                return
            wait([future], timeout=_LOOK)
        found = future.result()
        if found is None:
            return
        yield found[0]


def _take_note(thread: asyncio.Future[_Result]) -> None:
    """Look at how a stopped call ended: that it was stopped is no news."""
    if not thread.cancelled():
        thread.exception()
