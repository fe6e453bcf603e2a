"""The calls of a run that are under way: each ends once, when it comes back or is left behind."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.dispatch.job import Encode
    from smoothapi.store.blocks import Block


@dataclass(frozen=True, slots=True, eq=False)
class CallUnderWay:
    """One call of the adapter.

    Attributes:
        indices: the variants that it asks about.
        block: what is reserved for it.
        until: when it is overdue (monotonic seconds).
        answered: how much had been answered, to anyone, when it began.
        probing: whether it is the probe of an open breaker.
        attempt: which one of its request, from 1.
        open: what its thread was given and has no outcome yet, the call's own variants included.
        began: when it did (monotonic seconds).
        thread: that makes it.
    """

    indices: list[int]
    block: Block
    until: float
    answered: int
    probing: bool
    attempt: int
    open: Mapping[int, Encode]
    began: float = field(default_factory=time.monotonic)
    thread: threading.Thread = field(default_factory=threading.current_thread)


class CallsUnderWay:
    """All calls of one run that are under way. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[CallUnderWay] = set()

    def begin(self, call: CallUnderWay) -> None:
        """Take a call that begins."""
        with self._lock:
            self._calls.add(call)

    def end(self, call: CallUnderWay) -> bool:
        """End a call; False if it has been ended before, by its thread or by who left it."""
        with self._lock:
            if call not in self._calls:
                return False
            self._calls.remove(call)
            return True

    def all(self) -> list[CallUnderWay]:
        """Return those that are under way."""
        with self._lock:
            return list(self._calls)

    def overdue(self) -> list[CallUnderWay]:
        """Return those that have lasted too long."""
        now = time.monotonic()
        return [call for call in self.all() if call.until <= now]

    def patience(self) -> float | None:
        """Return the seconds until the first is overdue, 0 if one is; None if there is none."""
        until = min((call.until for call in self.all()), default=None)
        return None if until is None else max(0.0, until - time.monotonic())
