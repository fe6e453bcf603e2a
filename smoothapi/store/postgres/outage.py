"""Whether a database answers, and who is told when it does not."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from smoothapi.events import DatabaseBack, DatabaseLost
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    from collections.abc import Callable

_SAID_AFTER = 2.0  # seconds: a connection that breaks is mostly made again in a tenth of one

_log = logging.getLogger("smoothapi")


class Outage:
    """Tells once that a database is away, and once that it is back, of all threads that use it.

    Args:
        where: the database, without a password.
        patience: seconds for which statements are made again.
    """

    def __init__(self, where: str, patience: float) -> None:
        self._where = where
        self._patience = patience
        self._lock = threading.Lock()
        self._since: float | None = None
        self._answered = float("-inf")
        self._repeated = 0
        self._said = False
        self._untold: deque[Callable[[], object]] = deque()  # in the order of what happened
        self._telling = threading.Lock()

    def failed(self, why: str, *, since: float, again: bool) -> None:
        """Note that a statement did not reach it, or that its outcome did not come back.

        That begins no outage if another was answered meanwhile: it was late, or the last of one.

        Args:
            why: in words, without a password.
            since: when it was tried, of `time.monotonic`.
            again: whether the statement is made again.
        """
        now = time.monotonic()
        with self._lock:
            begins = self._since is None
            if begins and since <= self._answered:
                return
            since = self._since = min(since, self._since or since)
            self._repeated += again
            if begins:
                self._untold.append(partial(emit, DatabaseLost("")))
            if not self._said and now - since >= _SAID_AFTER:
                self._said = True
                self._warn(
                    "The database %s has not answered for %.0f s (%s). What needs it waits, %.0f s "
                    "at most, and nothing is sent meanwhile that could not be kept.",
                    self._where,
                    now - since,
                    why,
                    self._patience,
                )
        self._tell()

    def answered(self) -> None:
        """Note that a statement was answered."""
        self._answered = time.monotonic()
        if self._since is not None:
            self._end()

    def _end(self) -> None:
        with self._lock:
            since, self._since = self._since, None
            repeated, self._repeated = self._repeated, 0
            said, self._said = self._said, False
            if since is None:  # another thread was first
                return
            seconds = round(time.monotonic() - since, 3)
            if said:
                self._warn(
                    "The database %s answers again, after %.1f s; %d statements were made again.",
                    self._where,
                    seconds,
                    repeated,
                )
            self._untold.append(partial(emit, DatabaseBack("", seconds, repeated)))
        self._tell()

    def _warn(self, text: str, *values: object) -> None:
        self._untold.append(partial(_log.warning, text, *values))

    def _tell(self) -> None:
        """Tell what is untold, in order: one thread does, and the others leave it to that one.

        Told by each for itself, "back" could overtake "lost". Nobody waits meanwhile for what
        listens, which may use the database itself.
        """
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    self._untold.popleft()()
            finally:
                self._telling.release()
