"""How fast a provider is asked, by all machines that share a database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smoothapi.errors import UsageError
from smoothapi.events import Throttled
from smoothapi.store.pacing import BURST, DECREASE, INCREASE, LOOK, SentOfLate
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    from smoothapi.store.postgres.server import Server


class PostgresPace:
    """A rate limit shared by all that use a database; a `Pace`, as `smoothapi.store.pacing` says.

    Args:
        server: the database.
        provider: whose pace this is.
        per_second: most pictures a second, None if the provider states no limit.
    """

    def __init__(self, server: Server, provider: str, per_second: float | None) -> None:
        if per_second is not None and not per_second > 0.0:
            raise UsageError(f"per_second={per_second!r}: a pace is above 0, or None for no limit.")
        self._server = server
        self._provider = provider
        self._full = per_second
        self._seen = SentOfLate()
        self._limited = per_second is not None
        self._looked = float("-inf")

    def take(self, pictures: int) -> float:
        """Take a place for `pictures` and return how many seconds to wait before sending them."""
        now = time.monotonic()
        self._seen.note(now, pictures)
        if not self._limited and now - self._looked < LOOK:
            return 0.0
        self._looked = now
        [(wait,)] = self._server.run(
            "SELECT smoothapi.take_place(%s, %s::float8, %s::float8, %s, %s::float8, %s::float8)",
            self._provider,
            self._full,
            self._seen.rate(now),
            pictures,
            BURST,
            INCREASE,
        )
        self._limited = self._full is not None or wait is not None
        return float(wait or 0.0)

    def throttled(self, retry_after: float | None) -> None:
        """Slow down, for all; with `retry_after`, pause for so many seconds first."""
        [((rate, pause),)] = self._server.run(
            "SELECT smoothapi.throttle("
            "%s, %s::float8, %s::float8, %s::float8, %s::float8, %s::float8)",
            self._provider,
            self._full,
            self._seen.rate(time.monotonic()),
            retry_after or 0.0,
            DECREASE,
            INCREASE,
        )
        self._limited = True
        emit(Throttled(self._provider, round(rate, 3), round(pause, 3)))
