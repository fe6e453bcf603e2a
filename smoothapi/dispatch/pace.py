"""How fast a provider is asked: a shared limit that yields to throttling, and a circuit breaker."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from smoothapi.errors import ProviderError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from smoothapi.dispatch.state import SharedState

_log = logging.getLogger("smoothapi")

BURST = 1.0
"""Seconds of the pace that may be sent at once after a rest."""

_DECREASE = 0.5  # of the rate, when throttled; at most once a second
_INCREASE = 0.05  # of the full rate, regained per second
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
            row = self._row(database)
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
            due, rate, lowered = self._row(database) or (0.0, None, 0.0)
            full, current = self._rates(rate, lowered, now)
            if rate is None or now - lowered >= 1.0:
                current = max(current * _DECREASE, full * 0.01)
                _log.info("throttled: %s is asked %.3g times a second", self._provider, current)
            due = max(due, now + (retry_after or 0.0))
            self._write(database, due, current, now)
        self._limited = True

    def _row(self, database: sqlite3.Connection) -> tuple[float, float | None, float] | None:
        row = database.execute(
            "SELECT next, rate, lowered FROM paces WHERE provider = ?", (self._provider,)
        ).fetchone()
        return None if row is None else (float(row[0]), row[1], float(row[2]))

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
        return max(1.0, sum(count for _, count in recent) / max(1.0, now - recent[0][0]))

    def _write(self, database: sqlite3.Connection, due: float, current: float, now: float) -> None:
        database.execute(
            "INSERT OR REPLACE INTO paces VALUES (?, ?, ?, ?)",
            (self._provider, due, current, now),
        )


class Breaker:
    """Pauses all workers of a process while the service is down, and probes with one call.

    After `failures` transient failures in a row with no success between, it opens: one worker
    goes on trying, with growing waits, the others wait. A success closes it. What is tried while
    it is open is not charged to a variant's attempts, so an outage does not become votes.

    Args:
        failures: how many in a row open it.
        deadline: seconds after which it gives up.
        clock: seconds, monotonic.
    """

    def __init__(
        self, failures: int, deadline: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._deadline = deadline
        self._clock = clock
        self._changed = threading.Condition()
        self._in_a_row = 0
        self._opened: float | None = None
        self._probing = False
        self._wait = 0.0

    @property
    def open(self) -> bool:
        """Whether the service is taken to be down."""
        return self._opened is not None

    def enter(self, stop: threading.Event) -> bool:
        """Wait until a call may be made; return whether it is the probe of an open breaker.

        Raises:
            ProviderError: the service did not come back before the deadline.
        """
        with self._changed:
            while self._opened is not None and not stop.is_set():
                if not self._probing:
                    self._probing = True
                    break
                self._changed.wait(0.05)
            if self._opened is None or stop.is_set():
                return False
            wait, opened = self._wait, self._opened
        # Only the probe gets here: it alone waits, then tries.
        if self._clock() + wait - opened > self._deadline:
            self.leave()
            raise ProviderError(
                f"The service has not answered for {self._clock() - opened:.0f} s (deadline "
                f"{self._deadline:g} s). All answers so far are kept: run the same call again "
                "when it is well."
            )
        stop.wait(wait)
        return True

    def succeeded(self) -> None:
        """Note an answer, of any kind: the service is up."""
        with self._changed:
            if self._opened is not None:
                _log.warning("The service answers again; going on.")
            self._in_a_row = 0
            self._opened = None
            self._probing = False
            self._changed.notify_all()

    def failed(self, error: Exception) -> None:
        """Note a call that was not answered."""
        with self._changed:
            self._in_a_row += 1
            self._probing = False
            if self._opened is not None:
                self._wait = min(30.0, 2.0 * self._wait)
            elif self._in_a_row >= self._failures:
                self._opened = self._clock()
                self._wait = 0.05
                _log.warning(
                    "%d calls in a row were not answered (the last: %s); waiting for the service.",
                    self._in_a_row,
                    error,
                )
            self._changed.notify_all()

    def leave(self) -> None:
        """End a probe that neither succeeded nor failed: another may try in its place."""
        with self._changed:
            self._probing = False
            self._changed.notify_all()
