"""A circuit breaker: while a service is down, one call at a time tries it, and the others wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.errors import ProviderError
from smoothapi.events import BreakerChanged
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("smoothapi")

_WITNESSES = 2  # callers that must fail before it is called an outage


@dataclass(slots=True, eq=False)
class Caller:
    """One request through all its attempts, so that a bad picture is not taken for an outage.

    Attributes:
        witness: whether its failures say anything of the service; not where all its variants were
            given up before.
        answered: what had been answered, to anyone, when it first failed.
        unsent: how many of its calls never left this machine, which is no picture's doing.
    """

    witness: bool = True
    answered: int | None = None
    unsent: int = 0


class Breaker:
    """Pauses all workers of a process while the service is down, and probes with one call.

    After `failures` transient failures in a row with no success between, of more than one
    caller, it opens: one worker at a time goes on trying, in turn and with growing waits, the
    others wait. A success closes it. What is tried while it is open is not charged to a variant's
    attempts, so an outage does not become votes. A failure counts towards an outage only if nobody
    was answered since that request first failed and its variants have not failed before.
    Otherwise it only uses up its own attempts. Calls that never left this machine count anyhow,
    and so many of one caller open it: no picture keeps a call from leaving.

    Args:
        failures: how many in a row open it.
        deadline: seconds after which it gives up.
        provider: whose service it is, for events.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        failures: int,
        deadline: float,
        *,
        provider: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._deadline = deadline
        self._provider = provider
        self._clock = clock
        self._changed = threading.Condition()
        self._in_a_row = 0
        self._answered = 0
        self._failing: set[Caller] = set()
        self._waiting: deque[object] = deque()  # whose turn it is to probe
        self._opened: float | None = None
        self._probing = False
        self._wait = 0.0
        self._given_up = 0  # how often

    @property
    def open(self) -> bool:
        """Whether the service is taken to be down."""
        return self._opened is not None

    @property
    def answered(self) -> int:
        """How often the service has answered so far, in any way; grows, though it may skip."""
        return self._answered

    def enter(self, stop: threading.Event) -> bool:
        """Wait until a call may be made; return whether it is the probe of an open breaker.

        Raises:
            ProviderError: the service did not come back before the deadline. All that wait get
                it; who comes later finds the breaker closed and may try for as long again.
        """
        if self._opened is None:  # the usual case waits for no lock
            return False
        with self._changed:
            given_up = self._given_up
            turn = object()
            self._waiting.append(turn)
            try:
                while (
                    self._opened is not None
                    and (self._probing or self._waiting[0] is not turn)
                    and not stop.is_set()
                ):
                    self._changed.wait(0.05)
            finally:
                self._waiting.remove(turn)
            if self._given_up != given_up:
                raise self._gone(self._deadline)
            if self._opened is None or stop.is_set():
                return False
            lasted = self._clock() - self._opened
            if lasted + self._wait > self._deadline:
                self._given_up += 1
                self._close()
                raise self._gone(lasted)
            self._probing = True
            wait = self._wait
        # Only the probe gets here: it alone waits, then tries.
        stop.wait(wait)
        return True

    def succeeded(self) -> None:
        """Note an answer, of any kind: the service is up."""
        self._answered += 1  # whether it changed is what matters, so no lock
        if self._opened is None and not self._in_a_row:
            return
        with self._changed:
            if self._opened is not None:
                _log.warning("The service answers again; going on.")
                emit(BreakerChanged(self._provider, "closed"))
            self._close()

    def failed(
        self, error: Exception, caller: Caller | None = None, *, probe: bool = False
    ) -> bool:
        """Note a call that was not answered: the probe, or one that began before it opened.

        Returns:
            Whether the service is taken to be down, now that this is known.
        """
        caller = caller or Caller()
        with self._changed:
            if caller.answered is None:
                caller.answered = self._answered
            unsent = isinstance(error, ProviderError) and not error.sent
            caller.unsent += unsent
            of_the_picture = caller.answered != self._answered or not caller.witness
            if self._opened is None and of_the_picture and not unsent:
                return False
            self._in_a_row += 1
            self._failing.add(caller)
            if self._opened is not None:
                if probe:
                    self._wait = min(30.0, 2.0 * self._wait)
            elif self._is_outage(caller):
                self._opened = self._clock()
                self._wait = 0.05
                _log.warning(
                    "%d calls in a row were not answered (the last: %s); waiting for the service.",
                    self._in_a_row,
                    error,
                )
                emit(BreakerChanged(self._provider, "open"))
            return self._opened is not None

    def _is_outage(self, caller: Caller) -> bool:
        if caller.unsent >= self._failures:
            return True
        witnesses = min(_WITNESSES, self._failures)
        return self._in_a_row >= self._failures and len(self._failing) >= witnesses

    def leave(self) -> None:
        """End a probe, whatever came of it: another may try in its place."""
        with self._changed:
            self._probing = False
            self._changed.notify_all()

    def _close(self) -> None:
        self._in_a_row = 0
        self._failing.clear()
        self._opened = None
        self._probing = False
        self._changed.notify_all()

    def _gone(self, seconds: float) -> ProviderError:
        return ProviderError(
            f"The service has not answered for {seconds:.0f} s (deadline {self._deadline:g} s). "
            "All answers so far are kept: run the same call again when it is well.",
            provider=self._provider,
        )
