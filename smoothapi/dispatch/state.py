"""What threads and processes share besides answers: a small SQLite database beside the store.

It keeps the ledger of budgets, the pace of each provider and the leases on variants. Every change
is one transaction that is on disk when it returns, so that a process killed at any moment leaves
a state that counts it at its worst: what it had reserved stays spent.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smoothapi.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

_SCHEMA = 1
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


class SharedState:
    """One database file, one connection a process, its threads taking turns.

    Raises:
        StoreError: the file cannot be used. A damaged one is *not* set aside: forgetting what was
            spent would void the budgets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            os.close(descriptor)
            self._connection = sqlite3.connect(
                path, timeout=60.0, isolation_level=None, check_same_thread=False
            )
            # NORMAL in WAL: a commit survives the death of the process, not a loss of power.
            _patiently(lambda: self._connection.execute("PRAGMA journal_mode = WAL"))
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(self._unusable(error)) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction that no other process can come between.

        Raises:
            StoreError: the database cannot be written (the disk is full, say).
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise StoreError(self._unusable(error)) from error

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with self.transaction() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_SCHEMA}")
            elif version != _SCHEMA:
                raise StoreError(
                    f"The ledger {str(self.path)!r} has schema {version}, this version reads "
                    f"{_SCHEMA}: use the version of smoothapi that wrote it, or another home."
                )

    def _unusable(self, error: Exception) -> str:
        return (
            f"The ledger {str(self.path)!r} cannot be used: {error}. Nothing is sent without it, "
            "since budgets could not be kept. Free the disk, or restore the file; delete it only "
            "if what was spent before may be forgotten."
        )


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


def owner() -> str:
    """Return who reserves: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def owner_is_dead(name: str) -> bool:
    """Whether the owner was a process of this host that is gone; False where that is unknown."""
    host, _, number = name.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class Leases:
    """Who is asking for which variant now, so that two processes do not buy it twice.

    A lease ends by itself after `seconds`, and at once when its process is gone from this host:
    what a dead process held blocks nobody for long.
    """

    def __init__(self, state: SharedState, seconds: float = 120.0) -> None:
        self._state = state
        self._seconds = seconds
        self._owner = f"{owner()}:{id(self)}"

    def take(self, keys: Sequence[str]) -> set[str]:
        """Lease what of `keys` no other holds, in one transaction; return those."""
        now = time.time()
        taken: set[str] = set()
        with self._state.transaction() as database:
            for key in keys:
                row = database.execute(
                    "SELECT owner, until FROM leases WHERE key = ?", (key,)
                ).fetchone()
                held = row is not None and row[0] != self._owner and row[1] > now
                if not held or owner_is_dead(row[0].rpartition(":")[0]):
                    taken.add(key)
            database.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)",
                [(key, self._owner, now + self._seconds) for key in taken],
            )
        return taken

    def renew(self, keys: Collection[str]) -> None:
        """Hold `keys` for another full term."""
        with self._state.transaction() as database:
            database.executemany(
                "UPDATE leases SET until = ? WHERE key = ? AND owner = ?",
                [(time.time() + self._seconds, key, self._owner) for key in keys],
            )

    def drop(self, keys: Collection[str]) -> None:
        """Give `keys` back."""
        with self._state.transaction() as database:
            database.executemany(
                "DELETE FROM leases WHERE key = ? AND owner = ?",
                [(key, self._owner) for key in keys],
            )
