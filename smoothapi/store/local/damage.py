"""What an error of SQLite says: that the file is damaged, that the disk is full, or neither."""

from __future__ import annotations

import sqlite3

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        # These are of a schema, an index or a row that nobody wrote: our statements are right.
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_INTERNAL,
        sqlite3.SQLITE_NOTFOUND,
        sqlite3.SQLITE_EMPTY,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_RANGE,
    }
)
_PRIMARY = 0xFF  # of an extended code, the part that says what kind it is


class DamagedError(ValueError):
    """The files are no sound database, though SQLite would read them."""


def first_of(error: BaseException) -> BaseException:
    """Return the error of SQLite that others hide: a rollback's, or a wrapper's that names none."""
    found, each = error, error.__context__
    while each is not None and not isinstance(found, DamagedError):
        if isinstance(each, sqlite3.Error):
            found = each
        each = each.__context__
    return found


def is_damage(error: BaseException) -> bool:
    """Whether it says that the file is no sound database, not that it is locked, full or gone."""
    if isinstance(error, sqlite3.Error):
        code = _code(error)
        return code in _DAMAGE or (code == 0 and not isinstance(error, sqlite3.ProgrammingError))
    # What is read there is of another type than was written.
    return isinstance(error, (TypeError, ValueError, LookupError, AttributeError))


def is_undecodable(error: sqlite3.Error) -> bool:
    """Whether only a text of one row is not what was written."""
    return isinstance(error, sqlite3.OperationalError) and _code(error) == 0


def is_full(error: BaseException) -> bool:
    """Whether it says that the disk is full."""
    return isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL


def is_locked(error: BaseException) -> bool:
    """Whether another process holds the file."""
    return isinstance(error, sqlite3.Error) and _code(error) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def is_read_only(error: BaseException) -> bool:
    """Whether it cannot be written."""
    return isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_READONLY


def _code(error: sqlite3.Error) -> int:
    """Return the primary code, 0 where the module itself found fault (text that is not UTF-8)."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY
