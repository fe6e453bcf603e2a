"""How many requests a second each caller may make."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.gateway.records import GatewayCaller


class Rates:
    """A token bucket for each caller that has a rate: one second's worth may come at once.

    Used in the event loop alone.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: GatewayCaller) -> bool:
        """Whether a caller may make one more request now."""
        rate = caller.per_second
        if rate is None:
            return True
        now, full = self._clock(), max(1.0, rate)
        left, at = self._buckets.get(caller.name, (full, now))
        left = min(full, left + (now - at) * rate)
        enough = left >= 1.0
        self._buckets[caller.name] = (left - 1.0 if enough else left, now)
        return enough
