"""How many pixels a process decodes at once: 89 million of them take 360 MB and more."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

USUAL = 2**24
"""Pixels of the largest photo that counts as usual; those of a camera or a telephone are."""

MOST_USUAL = 2**26
"""Pixels of usual photos that are decoded at once."""

MOST_LARGE = 89_478_485
"""Pixels of larger photos that are decoded at once: one of the largest that are taken."""


class PixelRoom:
    """A bound on pixels that are held at once: who wants more than are left waits for its turn.

    Turns are taken in the order of asking, so that nobody waits for ever. Who wants more than there
    ever are goes in alone.

    Args:
        most: pixels at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._inside: dict[object, int] = {}

    @property
    def held(self) -> int:
        """Pixels that are held now."""
        return sum(list(self._inside.values()))

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels for a block, which must not ask for more."""
        turn = object()
        try:
            self._enter(turn, pixels)
            yield
        finally:  # also where Ctrl-C ended the wait
            self._leave(turn)

    def _enter(self, turn: object, pixels: int) -> None:
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._has_room(pixels))
            self._inside[turn] = pixels
            self._waiting.popleft()
            self._changed.notify_all()  # there may be room for the next one, too

    def _leave(self, turn: object) -> None:
        with self._changed:
            self._inside.pop(turn, None)
            if turn in self._waiting:
                self._waiting.remove(turn)
            self._changed.notify_all()

    def _has_room(self, pixels: int) -> bool:
        return not self._inside or self.held + pixels <= self._most


class _Process:
    """The rooms of one process. A usual photo does not wait for large ones, nor they for it."""

    def __init__(self) -> None:
        self.usual = PixelRoom(MOST_USUAL)
        self.large = PixelRoom(MOST_LARGE)

    def begin_anew(self) -> None:
        """Forget, in a child, those who were inside in its parent: they are not here to leave."""
        self.__init__()  # type: ignore[misc]


_here = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_here.begin_anew)


@contextmanager
def decoding(pixels: int) -> Iterator[None]:
    """Wait until a photo of so many pixels may be decoded, and hold the room for it for a block.

    One bound a process, whoever loads the photos: memory is the process's.
    """
    room = _here.usual if pixels <= USUAL else _here.large
    with room.hold(pixels):
        yield
