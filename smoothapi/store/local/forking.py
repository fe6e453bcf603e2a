"""Connections of SQLite through a fork: the child neither uses nor closes its parent's.

Python closes a connection, and resets a cursor, that nobody holds any more. In a child that would
wait for ever for a lock that another thread held at the fork, or touch the files beneath the
parent (https://sqlite.org/howtocorrupt.html, 2.6). So a child never lets go of them.
"""

from __future__ import annotations

import ctypes
import gc
import os
from weakref import WeakSet

_OPEN: WeakSet[object] = WeakSet()


def leave_to_parent(holder: object) -> None:
    """See to it that children of this process never close what `holder` has open then."""
    _OPEN.add(holder)


def _hold_for_ever() -> None:
    if not len(_OPEN):
        return
    things = gc.get_objects()
    gc.freeze()  # nor collects what the threads left behind that were in the midst of a call
    for thing in things:
        if type(thing).__module__ == "sqlite3":
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold_for_ever)
