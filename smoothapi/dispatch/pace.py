"""How fast a provider is asked: a shared limit that yields to throttling, and a circuit breaker."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.dispatch.events import emit
from smoothapi.errors import ProviderError, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from smoothapi.dispatch.state import SharedState

_log = logging.getLogger("smoothapi")

BURST = 1.0
"""Seconds of the pace that may be sent at once after a rest."""

_DECREASE = 0.5  # of the rate, when throttled; at most once a second
_INCREASE = 0.05  # of the full rate, regained per second
_WITNESSES = 2  # callers that must fail before it is called an outage
_SHORTEST = 0.1  # seconds over which a pace is measured
_LOOK = 1.0  # seconds after which a process without a limit looks whether another was throttled


class Pace:
    """A rate limit shared by all threads and processes of a home.

    The generic cell rate algorithm: the database holds the time at which the next picture is due,
    and whoever takes a place moves it on. Additive increase, multiplicative decrease: a throttled
    answer halves the rate, which then returns slowly. A provider without a known limit is not
    held back until it throttles; then half of what was being sent is taken as the limit.

    Args:
        state: the shared database.
        provider: whose pace this is.
        per_second: most pictures a second, None if the provider states no limit.
    """

    def __init__(self, state: SharedState, provider: str, per_second: float | None) -> None:
        if per_second is not None and not per_second > 0.0:
            raise UsageError(f"per_second={per_second!r}: a pace is above 0, or None for no limit.")
        self._state = state
        self._provider = provider
        self._full = per_second
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque(maxlen=1000)
        self._limited = per_second is not None
        self._looked = 0.0

    def take(self, pictures: int) -> float:
        """Take a place for `pictures` and return how many seconds to wait before sending them."""
        now = time.time()
        with self._lock:
            self._recent.append((now, pictures))
            if not self._limited and now - self._looked < _LOOK:
                return 0.0
            self._looked = now
        with self._state.transaction() as database:
            row = self._row(database, now)
            if row is None and self._full is None:
                return 0.0
            due, rate, lowered = row or (0.0, None, 0.0)
            current = self._rates(rate, lowered, now)[1]
            due = max(due, now - BURST)
            self._write(database, due + pictures / current, current, now)
        self._limited = True
        return max(0.0, due - now)

    def throttled(self, retry_after: float | None) -> None:
        """Slow down, for all; with `retry_after`, pause for so many seconds first."""
        now = time.time()
        with self._state.transaction() as database:
            due, rate, lowered = self._row(database, now) or (0.0, None, 0.0)
            full, current = self._rates(rate, lowered, now)
            if rate is None or now - lowered >= 1.0:
                current = max(current * _DECREASE, full * 0.01)
            due = max(due, now + (retry_after or 0.0))
            self._write(database, due, current, now)
        self._limited = True
        emit(
            "throttled",
            provider=self._provider,
            per_second=round(current, 3),
            pause=round(max(0.0, due - now), 3),
        )

    def _row(
        self, database: sqlite3.Connection, now: float
    ) -> tuple[float, float | None, float] | None:
        row = database.execute(
            "SELECT next, rate, lowered FROM paces WHERE provider = ?", (self._provider,)
        ).fetchone()
        if row is None:
            return None
        due, rate, written = float(row[0]), row[1], float(row[2])
        if written > now:  # the clock was set back since
            due, written = due - (written - now), now
        return due, rate, written

    def _rates(self, rate: float | None, changed: float, now: float) -> tuple[float, float]:
        """Return the full rate and the current one, as far as it has recovered by now."""
        full = self._full or self._observed(now)
        if rate is None:
            return full, full
        recovered = rate + _INCREASE * full * max(0.0, now - changed)
        return full, recovered if self._full is None else min(full, recovered)

    def _observed(self, now: float) -> float:
        """Return pictures per second of late, at least one."""
        with self._lock:
            recent = [(at, count) for at, count in self._recent if now - at < 5.0]
        if not recent:
            return 1.0
        return max(1.0, sum(count for _, count in recent) / max(_SHORTEST, now - recent[0][0]))

    def _write(self, database: sqlite3.Connection, due: float, current: float, now: float) -> None:
        database.execute(
            "INSERT OR REPLACE INTO paces VALUES (?, ?, ?, ?)",
            (self._provider, due, current, now),
        )


@dataclass(slots=True, eq=False)
class Caller:
    """One request through all its attempts, so that a bad picture is not taken for an outage.

    Attributes:
        witness: whether its failures say anything of the service; not where all its variants were
            given up before.
        answered: what had been answered, to anyone, when it first failed.
    """

    witness: bool = True
    answered: int | None = None


class Breaker:
    """Pauses all workers of a process while the service is down, and probes with one call.

    After `failures` transient failures in a row with no success between, of more than one
    caller, it opens: one worker at a time goes on trying, in turn and with growing waits, the
    others wait. A success closes it. What is tried while it is open is not charged to a variant's
    attempts, so an outage does not become votes. A caller that fails while others are answered
    says nothing about the service, nor does one that alone is left to ask: it uses up its
    attempts.

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
                emit("breaker", provider=self._provider, state="closed")
            self._close()

    def failed(
        self, error: Exception, caller: Caller | None = None, *, probe: bool = False
    ) -> None:
        """Note a call that was not answered: the probe, or one that began before it opened."""
        caller = caller or Caller()
        with self._changed:
            if caller.answered is None:
                caller.answered = self._answered
            if self._opened is None and (caller.answered != self._answered or not caller.witness):
                return
            self._in_a_row += 1
            self._failing.add(caller)
            if self._opened is not None:
                if probe:
                    self._wait = min(30.0, 2.0 * self._wait)
            elif self._in_a_row >= self._failures and len(self._failing) >= min(
                _WITNESSES, self._failures
            ):
                self._opened = self._clock()
                self._wait = 0.05
                _log.warning(
                    "%d calls in a row were not answered (the last: %s); waiting for the service.",
                    self._in_a_row,
                    error,
                )
                emit("breaker", provider=self._provider, state="open")

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
