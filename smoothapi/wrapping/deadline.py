"""A call's deadline: after it nothing more is sent, and what is under way is kept."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from smoothapi.asynchronous import Stop, ThreadEach
from smoothapi.errors import StoppedError, let_go

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from smoothapi.dispatch import Run

_Result = TypeVar("_Result")

_MOST_LEFT = 64


class Left:
    """The threads to which calls were left when their deadlines passed, and which have not ended.

    A store or a service that answers nobody would gather ever more of them, each with its picture:
    so there is a bound, up to which no other call is begun.
    """

    def __init__(self) -> None:
        self._futures: set[Future[Any]] = set()

    @property
    def are_many(self) -> bool:
        """Whether no other is to be begun."""
        return len(self._futures) >= _MOST_LEFT

    def add(self, future: Future[Any]) -> None:
        """Take a thread's future until it is done."""
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)


class Deadline(Stop):
    """Stops the runs that it is told of when its time has come. Use it in a `with` statement.

    Pictures of the call may be under way at once, each in a thread and with `steps` of its own.

    Args:
        seconds: from now on; None for no deadline.
        cancel: stops its runs, too, when the caller no longer waits for the call; None for one
            that is not awaited on an event loop.
        left: those of all calls; None where this call has no other beside it.
        waited: how many of the seconds have passed already.
    """

    def __init__(
        self,
        seconds: float | None,
        cancel: Stop | None = None,
        left: Left | None = None,
        *,
        waited: float = 0.0,
    ) -> None:
        super().__init__()
        self._cancel = cancel
        self.left = Left() if left is None else left
        self._timer: threading.Timer | None = None
        self._ends: float | None = None
        if seconds is None:
            return
        remaining = max(0.0, seconds - waited)
        self._ends = time.monotonic() + remaining
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
        self._timer = threading.Timer(remaining, self.stop, [self._message])
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
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def pass_now(self) -> StoppedError:
        """Have nothing more sent; return the error that says why."""
        self.stop(self._message)
        passed = StoppedError(self._message)
        self.totals.tell(passed)
        return passed

    def steps(self) -> Steps:
        """Return the deadline as it holds for what one thread does, step by step."""
        return Steps(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # it holds this one, and with it the runs


class Steps:
    """Steps of a call, such as those for one of its pictures. Belongs to one thread.

    Whatever may wait for a store is a step: a database that answers nobody would else keep the
    caller, too.

    Args:
        deadline: of the call.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._left: Future[Any] | None = None  # to its thread

    def take(self, step: Callable[[], _Result]) -> _Result:
        """Return what a step returns, or leave it to a thread when the deadline passes.

        The thread awaits and keeps what is under way, as long as an event loop that it is on runs.

        Raises:
            StoppedError: the deadline passed, or too many calls were left to threads before it.
        """
        seconds = self._deadline.seconds_left
        if seconds is None:
            return step()
        if seconds <= 0.0:
            raise self._deadline.pass_now()
        left = self._deadline.left
        if left.are_many:
            raise StoppedError(
                f"Nothing was begun for this call: for {_MOST_LEFT} calls before it, whose "
                "deadlines have passed, the home (where answers and budgets are kept) or the "
                "provider is still waited for. Look whether both answer."
            )
        context = contextvars.copy_context()
        future = ThreadEach("smoothapi-call").submit(context.run, step)
        try:
            wait([future], seconds)
        except BaseException:  # Ctrl-C, or another signal
            self._deadline.stop()
            wait([future])
            raise
        if future.done():
            return future.result()
        self._left = future
        left.add(future)
        raise self._deadline.pass_now()

    def afterwards(self, step: Callable[[], object]) -> None:
        """Take a step now, or when the thread that another was left to has ended."""
        if self._left is None:
            step()
        else:
            self._left.add_done_callback(partial(_end_of_left, step))


def _end_of_left(step: Callable[[], object], left: Future[Any]) -> None:
    try:
        step()
    finally:
        error = left.exception()
        if error is not None:  # which nobody will take
            let_go(error)
