"""Connections of SQLite through a fork: the child neither uses nor closes its parent's.

Python closes a connection that nobody holds any more. In a child that would wait for ever for a
lock that another thread held at the fork, or touch the files beneath the parent
(https://sqlite.org/howtocorrupt.html, 2.6). So a child never lets go of them.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable


class _Holder(Protocol):
    def connections(self) -> Iterable[sqlite3.Connection]:
        """Return those that are open."""


_HOLDERS: WeakSet[_Holder] = WeakSet()


def leave_to_parent(holder: _Holder) -> None:
    """See to it that children of this process never close what the holder has open then."""
    _HOLDERS.add(holder)


def _hold_for_ever() -> None:
    for holder in _HOLDERS:
        for connection in holder.connections():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold_for_ever)
