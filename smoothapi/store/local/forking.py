"""Databases of SQLite through a fork: the child leaves those alone that its parent has open.

It neither uses nor closes its parent's connections. Python closes connections and resets cursors
that nobody holds any more, and SQLite then takes locks of its own: that of the connection, and one
of all its memory (SQLITE_MUTEX_STATIC_MEM, in sqlite3_malloc and sqlite3_free). A thread of the
parent that was within SQLite at the fork holds them in the child too, where it does not exist; who
waits for them waits for ever (tests/unit/store/test_fork.py shows both). So a child never lets go
of its parent's connections. For the same reason any use of SQLite in a child, of whatever file, may
hang if the fork came while a thread of the parent was writing: fork before, or spawn.

Nor does it open such a file anew. SQLite keeps a process's locks of a file in the memory that a
fork copies, so the child's connection counts on locks that its parent alone has. The parent, when
it closes, then takes the log away beneath the child, and all that the child writes is lost
(https://sqlite.org/howtocorrupt.html, 2.6; tests/unit/store/test_fork.py shows it).
"""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_open: WeakKeyDictionary[object, Path] = WeakKeyDictionary()
_of_parents: set[tuple[int, int]] = set()  # device and inode


def about_to_open(holder: object, file: Path) -> None:
    """See to it that children of this process leave `file` alone while `holder` has it open.

    Raises:
        UsageError: a process that this one was forked from had it open then.
    """
    if _of_parents:
        with suppress(OSError):
            found = file.stat()
            if (found.st_dev, found.st_ino) in _of_parents:
                raise UsageError(
                    f"The process that this one was forked from had the store {str(file.parent)!r} "
                    "open: written from here, answers and what they cost would be lost. Close the "
                    "Smoother before the fork and make one in each process, or start processes by "
                    "spawn."
                )
    _open[holder] = file


def closed(holder: object) -> None:
    """Take note that `holder` has nothing open any more."""
    _open.pop(holder, None)


def _leave_to_parent() -> None:
    if not len(_open):
        return
    for file in _open.values():
        with suppress(OSError):
            found = file.stat()
            _of_parents.add((found.st_dev, found.st_ino))
    things = gc.get_objects()
    gc.freeze()  # nor collects what the threads left behind that were in the midst of a call
    for thing in things:
        if type(thing).__module__ == "sqlite3":
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
