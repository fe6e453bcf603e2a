"""How fast a provider is asked: a limit that a home shares, and that yields to throttling."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from smoothapi.errors import UsageError
from smoothapi.events import Throttled
from smoothapi.store.pacing import BURST, DECREASE, INCREASE, LOOK, SentOfLate
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    from sqlite3 import Connection

    from smoothapi.store.local.database import Database


class LocalPace:
    """A rate limit shared by all threads and processes of a home; a `Pace`.

    How it yields to throttling: `smoothapi.store.pacing`.

    Args:
        database: of the home.
        provider: whose pace this is.
        per_second: most pictures a second, None if the provider states no limit.
    """

    def __init__(self, database: Database, provider: str, per_second: float | None) -> None:
        if per_second is not None and not per_second > 0.0:
            raise UsageError(f"per_second={per_second!r}: a pace is above 0, or None for no limit.")
        self._database = database
        self._provider = provider
        self._full = per_second
        self._lock = threading.Lock()
        self._seen = SentOfLate()
        self._limited = per_second is not None
        self._looked = 0.0

    def take(self, pictures: int) -> float:
        """Take a place for `pictures` and return how many seconds to wait before sending them."""
        now = self._database.now()
        self._seen.note(now, pictures)
        with self._lock:
            if not self._limited and now - self._looked < LOOK:
                return 0.0
            self._looked = now
        with self._database.transaction() as sql:
            row = self._row(sql, now)
            if row is None and self._full is None:
                return 0.0
            due, rate, lowered = row or (0.0, None, 0.0)
            current = self._rates(rate, lowered, now)[1]
            due = max(due, now - BURST)
            self._write(sql, due + pictures / current, current, now)
        self._limited = True
        return max(0.0, due - now)

    def throttled(self, retry_after: float | None) -> None:
        """Slow down, for all; with `retry_after`, pause for so many seconds first."""
        now = self._database.now()
        with self._database.transaction() as sql:
            due, rate, lowered = self._row(sql, now) or (0.0, None, 0.0)
            full, current = self._rates(rate, lowered, now)
            if rate is None or now - lowered >= 1.0:
                current = max(current * DECREASE, full * 0.01)
            due = max(due, now + (retry_after or 0.0))
            self._write(sql, due, current, now)
        self._limited = True
        pause = max(0.0, due - now)
        emit(Throttled(self._provider, round(current, 3), round(pause, 3)))

    def _row(self, sql: Connection, now: float) -> tuple[float, float | None, float] | None:
        row = sql.execute(
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
        full = self._full or self._seen.rate(now)
        if rate is None:
            return full, full
        recovered = rate + INCREASE * full * max(0.0, now - changed)
        return full, recovered if self._full is None else min(full, recovered)

    def _write(self, sql: Connection, due: float, current: float, now: float) -> None:
        sql.execute(
            "INSERT OR REPLACE INTO paces VALUES (?, ?, ?, ?)",
            (self._provider, due, current, now),
        )
