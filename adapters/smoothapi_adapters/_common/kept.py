"""Things that are made once for each key, of which the last few are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")

_MOST = 64


class Kept(Generic[K, V]):
    """Makes values for keys, and keeps those that were last used. Threads share it.

    Args:
        make: key -> value; called by one thread at a time.
        close: releases a value that is kept no longer.
    """

    def __init__(self, make: Callable[[K], V], close: Callable[[V], object]) -> None:
        self._make, self._close = make, close
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        dropped: list[V] = []
        with self._lock:
            if key not in self._values:
                self._values[key] = self._make(key)
            self._values.move_to_end(key)
            value = self._values[key]
            while len(self._values) > _MOST:
                dropped.append(self._values.popitem(last=False)[1])
        for one in dropped:
            self._close(one)
        return value

    def close(self) -> None:
        """Release all that is kept."""
        with self._lock:
            values, self._values = list(self._values.values()), OrderedDict()
        for one in values:
            self._close(one)
