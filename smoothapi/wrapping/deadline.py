"""A call's deadline: after it nothing more is sent, and what is under way is kept."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Self, TypeVar

from smoothapi.asynchronous import Stop, ThreadEach
from smoothapi.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from smoothapi.dispatch import Run

_Result = TypeVar("_Result")


class Deadline(Stop):
    """Stops the runs that it is told of when its time has come. Use it in a `with` statement.

    Args:
        seconds: from now on; None for no deadline.
        cancel: stops its runs, too, when the caller no longer waits for the call; None for one
            that is not awaited on an event loop.
    """

    def __init__(self, seconds: float | None, cancel: Stop | None = None) -> None:
        super().__init__()
        self._cancel = cancel
        self._timer: threading.Timer | None = None
        self._left: Future[Any] | None = None  # to its thread
        if seconds is None:
            return
        self._ends = time.monotonic() + seconds
        # An event loop that ends cancels the requests on it, whoever awaits them.
        awaited = "" if cancel is None else (
            ", if the wrapped client is closed before its event loop ends (`async with`, or "
            "`await client.close()`)"
        )  # fmt: skip
        self._message = (
            f"The call's deadline of {seconds:g} s passed before its labels were certified. "
            "Nothing more is sent; what is under way is awaited and its answers are kept"
            f"{awaited}: the same call continues where this one ended."
        )
        self._timer = threading.Timer(seconds, self.stop, [self._message])
        self._timer.daemon = True
        self._timer.start()

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits for the call."""
        return self._cancel is not None and self._cancel.stopped

    def check_cancelled(self) -> None:
        """Raise StoppedError if the caller no longer waits for the call."""
        if self.cancelled:
            raise StoppedError("The call was cancelled. What was answered is kept.")

    def watch(self, run: Run | Stop) -> None:
        """Take a run that begins, or several that one stop is for."""
        super().watch(run)
        if self._cancel is not None:
            self._cancel.watch(run)

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Return what `function` returns, or leave it to a thread when the deadline passes.

        The thread awaits and keeps what is under way, as long as an event loop that it is on runs.

        Raises:
            StoppedError: the deadline passed.
        """
        if self._timer is None:
            return function()
        left = self._ends - time.monotonic()
        if left <= 0.0:
            self.stop(self._message)
            raise StoppedError(self._message)
        context = contextvars.copy_context()
        future = ThreadEach("smoothapi-call").submit(context.run, function)
        try:
            wait([future], left)
        except BaseException:  # Ctrl-C, or another signal
            self.stop()
            wait([future])
            raise
        if future.done():
            return future.result()
        self._left = future
        self.stop(self._message)
        raise StoppedError(self._message)

    def afterwards(self, step: Callable[[], object]) -> None:
        """Take a step now, or when the thread that a call was left to has ended."""
        if self._left is None:
            step()
        else:
            self._left.add_done_callback(lambda _: step())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
