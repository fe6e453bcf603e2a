"""A call of a Smoother, awaited: it runs in a thread, and stops when its task is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from smoothapi.dispatch import Totals
from smoothapi.dispatch.run import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.dispatch import Run

_Result = TypeVar("_Result")


class Stop:
    """Stops the runs that it is told of, those that begin later too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[Run] = []
        self._stopped = False
        self._why = STOPPED

    def watch(self, run: Run) -> None:
        """Take a run that begins."""
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
    def totals(self) -> Totals:
        """What the runs have sent and received so far."""
        with self._lock:
            return sum((run.totals for run in self._runs), Totals())


async def in_thread(
    call: Callable[[], _Result], stop: Stop, *, abandon_on_cancel: bool = False
) -> _Result:
    """Return what `call` returns; when this is cancelled, stop its runs and await their end.

    Requests under way are paid for, so their answers are awaited and kept before the cancellation
    goes on, however often it is asked for. With `abandon_on_cancel` it goes on at once, and the
    thread awaits them.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.stop()
        if abandon_on_cancel:
            thread.add_done_callback(_take_note)
            raise
        while not thread.done():
            try:
                await asyncio.wait([thread])
            except asyncio.CancelledError:
                continue
        _take_note(thread)
        raise


def _take_note(thread: asyncio.Future[_Result]) -> None:
    """Look at how a stopped call ended: that it was stopped is no news."""
    if not thread.cancelled():
        thread.exception()
