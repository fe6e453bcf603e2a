"""Who is at work, who waits for a turn, and what is held of them meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from smoothapi.gateway.config import GatewayConfig
    from smoothapi.gateway.gateway import Gateway


class NoRoomError(Exception):
    """The pictures of all who wait are too much to hold."""


class Room:
    """Who is at work, who waits, and how much of them is held. Used in the event loop alone."""

    def __init__(self, config: GatewayConfig) -> None:
        self.inside = 0
        self.working = 0
        self.held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.limits(config)

    def limits(self, config: GatewayConfig) -> None:
        """Hold to the limits of a configuration from now on."""
        table = config.gateway
        self._workers = table.workers
        self._most = table.workers + table.queue
        self._most_bytes = table.waiting_bytes

    def enter(self) -> bool:
        """Let one more in, if there is room."""
        if self.inside >= self._most:
            return False
        self.inside += 1
        return True

    def hold(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            NoRoomError: they are too many.
        """
        if self.held + count > self._most_bytes:
            raise NoRoomError
        self.held += count

    def leave(self, held: int) -> None:
        """Let one out, and what was held for it."""
        self.inside -= 1
        self.held -= held

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a turn, and give the seconds that it took; the next one begins behind it.

        They are 0 where there was no wait.
        """
        waited = 0.0
        if self.working < self._workers:
            self.working += 1
        else:
            began = time.monotonic()
            await self._wait()
            waited = time.monotonic() - began
        try:
            yield waited
        finally:
            self.working -= 1
            self._next()

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was this one's turn already
                self.working -= 1
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting and self.working < self._workers:
            turn = self._waiting.popleft()
            if not turn.done():
                self.working += 1
                turn.set_result(None)


class Users:
    """How many requests use which gateway: one that was replaced is closed when none does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count: Counter[Gateway] = Counter()
        self._afterwards: dict[Gateway, Callable[[], object]] = {}

    @contextmanager
    def using(self, current: Callable[[], Gateway]) -> Iterator[Gateway]:
        """Use the gateway that `current` returns."""
        with self._lock:
            gateway = current()
            self._count[gateway] += 1
        try:
            yield gateway
        finally:
            with self._lock:
                self._count[gateway] -= 1
                self._look_after(gateway)

    def when_left(self, gateway: Gateway, step: Callable[[], object]) -> None:
        """Take a step, in a thread of its own, when no request uses a gateway any longer."""
        with self._lock:
            self._afterwards[gateway] = step
            self._look_after(gateway)

    def _look_after(self, gateway: Gateway) -> None:
        if self._count[gateway]:
            return
        del self._count[gateway]
        step = self._afterwards.pop(gateway, None)
        if step is not None:
            threading.Thread(target=step, name="smoothapi-reload").start()
