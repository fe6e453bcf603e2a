"""The certifiers of a gateway's callers: those in use, and a few that were used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.errors import StoppedError
from smoothapi.gateway.unforeseen import log_unforeseen

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from smoothapi.wrapping import Certifier

KEPT = 16
"""Certifiers that stay open while nobody uses them, those in use included."""

_AT_ONCE = 4  # are closed: one may have a request under way that is long in coming back


@dataclass(slots=True, eq=False)
class _Open:
    certifier: Certifier
    users: int = 0


class Certifiers:
    """Certifiers by key, each with a session, threads and files of its own. Threads share it.

    Callers come and go, and a process has only so many threads and files: beyond `KEPT` those that
    nobody has used for longest are closed, and opened again when they are asked for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Hashable, _Open] = OrderedDict()  # used last, stands last
        self._closing = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="smoothapi-gateway-closing")
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether calls under way are to end, and none is to begin."""
        return self._closed

    @contextmanager
    def using(self, key: Hashable, make: Callable[[], Certifier]) -> Iterator[Certifier]:
        """Use the certifier of a key, which is made if it is not open.

        Raises:
            StoppedError: all are closed.
        """
        with self._lock:
            if self._closed:
                raise StoppedError("The gateway is stopping.")
            if key not in self._open:
                self._open[key] = _Open(make())
            self._open.move_to_end(key)
            mine = self._open[key]
            mine.users += 1
        try:
            yield mine.certifier
        finally:
            with self._lock:
                mine.users -= 1
                self._close_some()

    def close(self) -> None:
        """Have calls under way end, and close all; twice does no harm."""
        with self._lock:
            self._closed = True
            still, self._open = list(self._open.values()), OrderedDict()
        for one in still:
            one.certifier.close()
        self._closing.shutdown(wait=True)

    def _close_some(self) -> None:
        """Have those closed that are too many; not here, as a store may keep that waiting."""
        idle = [key for key, one in self._open.items() if not one.users]
        for key in idle[: max(0, len(self._open) - KEPT)]:
            self._closing.submit(_closed, self._open.pop(key).certifier)


def _closed(certifier: Certifier) -> None:
    try:
        certifier.close()
    except Exception as error:  # noqa: BLE001  nobody waits for it who could be told
        log_unforeseen(error, "A caller's session was not closed well")
