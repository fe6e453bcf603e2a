"""How a pace yields to throttling, and what a process has seen of its own: the same in every store.

The generic cell rate algorithm: the store holds the time at which the next picture is due, and
whoever takes a place moves it on. Additive increase, multiplicative decrease: a throttled answer
halves the rate, which then returns slowly. A provider without a known limit is not held back until
it throttles; then half of what was being sent is taken as the limit.
"""

from __future__ import annotations

import threading
from collections import deque

BURST = 1.0
"""Seconds of the pace that may be sent at once after a rest."""

DECREASE = 0.5
"""Of the rate, when throttled; at most once a second."""

INCREASE = 0.05
"""Of the full rate, regained per second."""

LOOK = 1.0
"""Seconds after which a process without a limit looks whether another was throttled."""

_SHORTEST = 0.1  # seconds over which a pace is measured


class SentOfLate:
    """What this process has sent of late. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque(maxlen=1000)

    def note(self, now: float, pictures: int) -> None:
        """Note that pictures are sent at a moment of any clock that counts seconds."""
        with self._lock:
            self._recent.append((now, pictures))

    def rate(self, now: float) -> float:
        """Return pictures per second of late, at least one."""
        with self._lock:
            recent = [(at, count) for at, count in self._recent if now - at < 5.0]
        if not recent:
            return 1.0
        return max(1.0, sum(count for _, count in recent) / max(_SHORTEST, now - recent[0][0]))
