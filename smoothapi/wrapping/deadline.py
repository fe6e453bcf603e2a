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

    Pictures of the call may be under way at once, each in a thread and as `for_picture`.

    Args:
        seconds: from now on; None for no deadline.
        cancel: stops its runs, too, when the caller no longer waits for the call; None for one
            that is not awaited on an event loop.
    """

    def __init__(self, seconds: float | None, cancel: Stop | None = None) -> None:
        super().__init__()
        self._cancel = cancel
        self._timer: threading.Timer | None = None
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

    @property
    def seconds_left(self) -> float | None:
        """How long it is until it passes, 0 if it has; None for no deadline."""
        return None if self._timer is None else max(0.0, self._ends - time.monotonic())

    def pass_now(self) -> StoppedError:
        """Have nothing more sent; return the error that says why."""
        self.stop(self._message)
        return StoppedError(self._message)

    def for_picture(self) -> OnePicture:
        """Return the deadline as it holds for one picture of the call."""
        return OnePicture(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


class OnePicture:
    """A deadline as it holds for one picture of a call. Belongs to one thread.

    Args:
        deadline: of the call.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._left: Future[Any] | None = None  # to its thread

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Return what `function` returns, or leave it to a thread when the deadline passes.

        The thread awaits and keeps what is under way, as long as an event loop that it is on runs.

        Raises:
            StoppedError: the deadline passed.
        """
        seconds = self._deadline.seconds_left
        if seconds is None:
            return function()
        if seconds <= 0.0:
            raise self._deadline.pass_now()
        context = contextvars.copy_context()
        future = ThreadEach("smoothapi-call").submit(context.run, function)
        try:
            wait([future], seconds)
        except BaseException:  # Ctrl-C, or another signal
            self._deadline.stop()
            wait([future])
            raise
        if future.done():
            return future.result()
        self._left = future
        raise self._deadline.pass_now()

    def afterwards(self, step: Callable[[], object]) -> None:
        """Take a step now, or when the thread that a call was left to has ended."""
        if self._left is None:
            step()
        else:
            self._left.add_done_callback(lambda _: step())
