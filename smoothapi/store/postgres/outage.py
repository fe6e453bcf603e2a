"""Whether a database answers, and who is told when it does not."""

from __future__ import annotations

import logging
import threading
import time

from smoothapi.events import DatabaseBack, DatabaseLost
from smoothapi.telemetry import emit

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
            says = not self._said and now - since >= _SAID_AFTER
            self._said |= says
        if begins:
            emit(DatabaseLost(""))
        if says:
            _log.warning(
                "The database %s has not answered for %.0f s (%s). What needs it waits, %.0f s at "
                "most, and nothing is sent meanwhile that could not be kept.",
                self._where,
                now - since,
                why,
                self._patience,
            )

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
            _log.warning(
                "The database %s answers again, after %.1f s; %d statements were made again.",
                self._where,
                seconds,
                repeated,
            )
        emit(DatabaseBack("", seconds, repeated))
