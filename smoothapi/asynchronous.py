"""A call of a Smoother, awaited: it runs in a thread, and stops when its task is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

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

    def watch(self, run: Run) -> None:
        """Take a run that begins."""
        with self._lock:
            self._runs.append(run)
            stopped = self._stopped
        if stopped:
            run.stop()

    def stop(self) -> None:
        """Have nothing more sent."""
        with self._lock:
            self._stopped = True
            runs = list(self._runs)
        for run in runs:
            run.stop()


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
