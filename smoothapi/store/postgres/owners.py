"""Who reserves: one opening of a store, alive as long as it says so again and again.

A process number means nothing on another machine, and a host's name may be many machines'. So an
owner has a lease, renewed by a thread of its own. What it reserved is abandoned when that has run
out; then it takes no attempt of it any more either, so that both cannot be.
"""

from __future__ import annotations

import os
import threading
import uuid
from typing import TYPE_CHECKING

from smoothapi.errors import SmoothAPIError
from smoothapi.store.owners import owner

if TYPE_CHECKING:
    from smoothapi.store.postgres.server import Server, ServerClock

TERM = 120.0
"""Seconds for which an owner, or a lease, lives on without a sign of life."""

_RENEW = 30.0  # seconds


class Owner:
    """One opening of a store.

    Args:
        server: the database.
        clock: its time.
    """

    def __init__(self, server: Server, clock: ServerClock) -> None:
        self.name = f"{owner()} {uuid.uuid4().hex}"
        self._server = server
        self.clock = clock
        self._process = os.getpid()
        self._until = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def lives(self, since: float) -> None:
        """Note that the store has taken a sign of life, and go on giving some.

        Args:
            since: the server's time then, or before.
        """
        self._until = max(self._until, since + TERM)
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=self._renew, name="smoothapi-alive", daemon=True
                )
                self._thread.start()

    def holds(self) -> bool:
        """Whether what this owner reserved is certainly its own still."""
        return self.clock.latest() < self._until

    def close(self) -> None:
        """Give no more signs of life. A child of a fork has no thread to end."""
        self._closed.set()
        if self._thread is not None and os.getpid() == self._process:
            self._thread.join()

    def _renew(self) -> None:
        while not self._closed.wait(_RENEW):
            try:
                sent = self.clock.tick()
                [(now,)] = self._server.run(
                    "SELECT smoothapi.live(%s, %s)", self.name, TERM, patience=0.0
                )
            except SmoothAPIError:
                continue  # the next statement of somebody who needs it will say why
            self.clock.heard(now, sent)
            self._until = max(self._until, now + TERM)
