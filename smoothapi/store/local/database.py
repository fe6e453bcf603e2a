"""What threads and processes share besides answers: a small SQLite database beside them.

It keeps the ledger of budgets, the pace of each provider and the leases on variants. Columns named
`queries` count attempts. Every change
is one transaction, so that a process killed at any moment leaves a state that counts it at its
worst: what it had reserved stays spent.

What survives what: when a transaction returns, it survives the death of the process (kill -9, a
crash, the end of a container). A loss of power may undo those of the last moments, unless they
are made `durable`: reservations are, so that a budget holds through that too. A lost
lease or pace costs nothing; a lost answer (see `smoothapi.store.local.answers`) is asked again.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from smoothapi.errors import SmoothAPIError, StoreError, UsageError
from smoothapi.store.local.forking import about_to_open, closed
from smoothapi.store.local.pages import log_is_damaged, log_of
from smoothapi.store.owners import FORKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_Step: TypeAlias = "str | Callable[[sqlite3.Connection], None]"

_TABLES = """
CREATE TABLE accounts (
    name TEXT, period TEXT, queries INTEGER NOT NULL DEFAULT 0, nano INTEGER NOT NULL DEFAULT 0,
    query_limit INTEGER, nano_limit INTEGER, PRIMARY KEY (name, period)
);
CREATE TABLE usage (
    provider TEXT, month TEXT, queries INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (provider, month)
);
CREATE TABLE reservations (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, at REAL NOT NULL, provider TEXT NOT NULL,
    month TEXT NOT NULL, accounts TEXT NOT NULL, queries INTEGER NOT NULL, nano INTEGER NOT NULL
);
CREATE TABLE paces (
    provider TEXT PRIMARY KEY, next REAL NOT NULL, rate REAL, lowered REAL NOT NULL
);
CREATE TABLE leases (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL);
"""
_FIND_EXPIRED_LEASES = "CREATE INDEX leases_until ON leases (until);"

_LOG = 200  # pages, after which the log is written into the file
_SMALLEST = 512  # bytes of a database with anything in it

_SUSPECTS = "CREATE TABLE suspects (key TEXT PRIMARY KEY, at REAL NOT NULL);"

_NUMBERS = {
    "accounts": ("queries", "nano"),
    "usage": ("queries",),
    "reservations": ("queries", "nano"),
}
"""Columns that hold money: whole numbers, never negative."""

_COPIED = {
    "accounts": (("name", "period"), ("queries", "nano")),
    "usage": (("provider", "month"), ("queries",)),
    "reservations": (("id",), ("provider", "month", "accounts", "queries", "nano")),
}
"""What names a row, and what of it is kept twice: what damage has changed differs from its copy."""


def _copy(database: sqlite3.Connection) -> None:
    """Have each row that is money kept twice."""
    database.execute("CREATE TABLE copies (of TEXT, name TEXT, says TEXT, PRIMARY KEY (of, name))")
    for table, (names, _) in _COPIED.items():
        # Not OR REPLACE: how a statement settles conflicts is how its triggers do.
        drop = f"DELETE FROM copies WHERE of = '{table}' AND name = {_text(names, 'old.')};"  # noqa: S608
        make = f"INSERT INTO copies SELECT {_copy_of(table, 'new.')};"
        for event, action in (("INSERT", make), ("UPDATE", drop + make), ("DELETE", drop)):
            database.execute(
                f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN {action} END"
            )
        database.execute(f"INSERT INTO copies SELECT {_copy_of(table)} FROM {table}")  # noqa: S608


def _copy_of(table: str, row: str = "") -> str:
    names, columns = _COPIED[table]
    return f"'{table}', {_text(names, row)}, {_text(columns, row)}"


def _text(columns: Sequence[str], row: str) -> str:
    return " || ',' || ".join(f"quote({row}{column})" for column in columns)


_STEPS: tuple[_Step, ...] = (_TABLES, _FIND_EXPIRED_LEASES, _SUSPECTS, _copy)
"""Step n leads from schema n to n + 1; a new file has schema 0. Steps are added, never changed. All
that are missing are made in one transaction."""


class Database:
    """One database file, one connection a process, its threads taking turns.

    Args:
        path: the file.
        clock: seconds since the epoch, for all that is kept in it.

    Raises:
        StoreError: the file cannot be used. A damaged one is *not* set aside: forgetting what was
            spent would void the budgets.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.now = clock
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._durable = False
        about_to_open(self, path)
        try:
            _make(path)
            _refuse_what_would_be_forgotten(path)
            self._connection = sqlite3.connect(
                path, timeout=60.0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(self._unusable(error)) from error
        try:
            _patiently(lambda: self._connection.execute("PRAGMA journal_mode = WAL"))
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG}")
            self._migrate()
            self._check()
        except BaseException as error:
            self._connection.close()
            # An error's own text may be damaged, too.
            if isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
                raise StoreError(self._unusable(error)) from error
            raise

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction that no other process can come between.

        Args:
            durable: wait until it would also survive a loss of power.

        Raises:
            StoreError: the database cannot be written (the disk is full, say).
            UsageError: the process was forked off the one that opened the database.
        """
        if os.getpid() != self._process:
            raise UsageError(FORKED)
        with self._lock:
            database = self._connection
            try:
                if durable != self._durable:
                    database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except SmoothAPIError:
                raise
            except (sqlite3.Error, TypeError, ValueError, ArithmeticError) as error:
                # What is read is of another type than was written: the file is damaged.
                raise StoreError(self._unusable(error)) from error
            finally:
                # Also where Ctrl-C came between two lines: others wait for this lock.
                with suppress(sqlite3.Error):
                    if database.in_transaction:
                        database.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection; the last one writes the log into the file.

        In a child of the process that opened it, leave it alone: it is the parent's.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._connection.close()
            closed(self)

    def _migrate(self) -> None:
        """Bring the database to the schema of this version."""
        with self.transaction() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(_STEPS):
                raise StoreError(
                    f"The ledger {str(self.path)!r} was written by a later smoothapi (schema "
                    f"{version}; this version knows up to {len(_STEPS)}). Nothing was changed: "
                    "update smoothapi, or use another home."
                )
            for step in _STEPS[version:]:
                _take(step, database)
            if version < len(_STEPS):
                database.execute(f"PRAGMA user_version = {len(_STEPS)}")

    def _check(self) -> None:
        """Refuse a file that SQLite reads, and that would forget what was spent.

        Raises:
            StoreError: its tables are not those that were made, or do not hold together.
        """
        with self.transaction() as sql:
            if _schema(sql) != _sound_schema():
                raise StoreError(self._unusable("its tables are not those that were made"))
            (found,) = sql.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise StoreError(self._unusable(f"it is damaged ({found})"))
            for table, names in _NUMBERS.items():
                bad = " OR ".join(f"typeof({n}) <> 'integer' OR {n} < 0" for n in names)
                if sql.execute(f"SELECT 1 FROM {table} WHERE {bad}").fetchone():  # noqa: S608
                    raise StoreError(self._unusable(f"a number of {table} is damaged"))
            rows = " UNION ".join(f"SELECT {_copy_of(table)} FROM {table}" for table in _COPIED)  # noqa: S608
            both = sql.execute(f"SELECT COUNT(*) FROM (SELECT * FROM copies UNION {rows})")  # noqa: S608
            (copies,) = sql.execute("SELECT COUNT(*) FROM copies").fetchone()
            if both.fetchone() != (copies,):
                raise StoreError(self._unusable("what it says was spent differs from its copy"))

    def _unusable(self, error: Exception | str) -> str:
        return (
            f"The ledger {str(self.path)!r} cannot be used: {error}. Nothing is sent without it, "
            "since budgets could not be kept. Free the disk, or restore the file; delete it only "
            "if what was spent before may be forgotten."
        )


def _make(path: Path) -> None:
    """Make the file whole and in one step, so that an empty one is known to have lost all.

    A file that is there is not opened here: to close it would drop the locks that SQLite holds on
    it for others of this process (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    if path.exists():
        return
    if _size(log_of(path)):
        raise sqlite3.DatabaseError("it is gone, and its log (-wal) is not")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as database:
            database.execute("PRAGMA application_id = 0")
            database.execute("VACUUM")  # writes its first page
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _refuse_what_would_be_forgotten(path: Path) -> None:
    """Refuse what SQLite would take for a file in which nothing was written yet, or no more."""
    if _size(path) < _SMALLEST:
        raise sqlite3.DatabaseError("it is empty, as a file is that was cut off")
    if log_is_damaged(log_of(path)):
        raise sqlite3.DatabaseError(
            "its log (-wal) is damaged: without it, what was spent last would be forgotten"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _schema(database: sqlite3.Connection) -> list[tuple[str, ...]]:
    select = (
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%' "
        "ORDER BY type, name"
    )
    return database.execute(select).fetchall()


@cache
def _sound_schema() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as database:
        for step in _STEPS:
            _take(step, database)
        return _schema(database)


def _take(step: _Step, database: sqlite3.Connection) -> None:
    if callable(step):
        step(database)
    else:
        for statement in step.split(";"):
            database.execute(statement)


def _patiently(step: Callable[[], object], seconds: float = 30.0) -> None:
    """Retry while the database is locked: the change to WAL does not wait by itself."""
    end = time.monotonic() + seconds
    while True:
        try:
            step()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return
