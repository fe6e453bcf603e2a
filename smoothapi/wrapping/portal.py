"""From a thread into an event loop and back: how an asynchronous client is asked by threads."""

from __future__ import annotations

import asyncio
import contextvars
import time
from concurrent.futures import CancelledError, wait
from typing import TYPE_CHECKING, Any, TypeVar

from smoothapi.errors import FatalError, TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Future

    from smoothapi.asynchronous import Stop

_Result = TypeVar("_Result")

_TICK = 0.5  # seconds after which a thread looks whether the loop is still there
_GRACE = 5.0  # seconds for a loop that is kept busy to notice that a time limit has passed


class Portal:
    """Lets threads make calls on the event loop in which it was made.

    The calls have the context (contextvars) of the task that made the portal, and what the thread
    has set besides, such as the span of an attempt.

    Args:
        cancel: once it is stopped, calls without a time limit are cancelled; all others, which are
            paid for, are awaited.

    Raises:
        UsageError: no event loop of asyncio runs here.
    """

    def __init__(self, cancel: Stop | None = None) -> None:
        self._cancel = cancel
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "A wrapped asynchronous client needs an event loop of asyncio (or uvloop), and "
                "none runs here: await its methods in a coroutine that asyncio.run runs."
            ) from None
        self._context = contextvars.copy_context()

    def call(self, begin: Callable[[], Awaitable[_Result]], seconds: float | None) -> _Result:
        """Return what the awaitable gives that `begin` returns on the loop.

        Args:
            begin: called on the loop.
            seconds: the longest that it may take, after which it is cancelled; None for no limit.

        Raises:
            TimeoutError: it took longer.
            FatalError: the event loop has ended, so that nothing can be sent any more.
            TransientError: the event loop ended, or was told to cancel everything, in the middle.
            Exception: what the awaitable raised.
        """

        async def call() -> _Result:
            async with asyncio.timeout(seconds):
                return await begin()

        coroutine = call()
        future = self._begun(coroutine)
        if future is None:
            coroutine.close()
            raise FatalError(
                "The event loop of the call has ended, so nothing more can be sent through its "
                "client.",
                sent=False,
            )
        ends = None if seconds is None else time.monotonic() + seconds + _GRACE
        while not wait([future], _TICK).done:
            if self._loop.is_closed():
                raise TransientError("The event loop ended before the service answered.")
            if ends is not None and time.monotonic() > ends:
                future.cancel()
                raise TimeoutError
            if ends is None and self._cancel is not None and self._cancel.stopped:
                future.cancel()
        try:
            return future.result()
        except CancelledError:
            raise TransientError(
                "The request was cancelled by its event loop before the service answered."
            ) from None

    def _begun(self, coroutine: Coroutine[Any, Any, _Result]) -> Future[_Result] | None:
        """Have the loop run a coroutine; None if it runs nothing any more."""
        if not self._loop.is_running():
            return None
        try:
            return self._context_here().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)
        except RuntimeError:  # closed in this moment
            return None

    def _context_here(self) -> contextvars.Context:
        context = self._context.copy()
        for variable, value in contextvars.copy_context().items():
            context.run(variable.set, value)
        return context
