"""What threads and processes share besides answers: a small SQLite database beside the store.

It keeps the ledger of budgets, the pace of each provider and the leases on variants. Every change
is one transaction, so that a process killed at any moment leaves a state that counts it at its
worst: what it had reserved stays spent.

What survives what: when a transaction returns, it survives the death of the process (kill -9, a
crash, the end of a container). A loss of power may undo those of the last moments, unless they
are made `durable`: reservations of queries are, so that a budget holds through that too. A lost
lease or pace costs nothing; a lost answer (see `smoothapi.dispatch.answers`) is asked again.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from smoothapi.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

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

_SUSPECTS = "CREATE TABLE suspects (key TEXT PRIMARY KEY, at REAL NOT NULL);"

_STEPS: tuple[_Step, ...] = (_TABLES, _FIND_EXPIRED_LEASES, _SUSPECTS)
"""Step n leads from schema n to n + 1; a new file has schema 0. Steps are added, never changed. All
that are missing are made in one transaction."""


class SharedState:
    """One database file, one connection a process, its threads taking turns.

    Raises:
        StoreError: the file cannot be used. A damaged one is *not* set aside: forgetting what was
            spent would void the budgets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._durable = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            os.close(descriptor)
            self._connection = sqlite3.connect(
                path, timeout=60.0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(self._unusable(error)) from error
        try:
            _patiently(lambda: self._connection.execute("PRAGMA journal_mode = WAL"))
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._migrate()
        except sqlite3.Error as error:
            self._connection.close()
            raise StoreError(self._unusable(error)) from error
        except BaseException:
            self._connection.close()
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
            except sqlite3.Error as error:
                raise StoreError(self._unusable(error)) from error
            finally:
                # Also where Ctrl-C came between two lines: others wait for this lock.
                with suppress(sqlite3.Error):
                    if database.in_transaction:
                        database.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

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
                if callable(step):
                    step(database)
                else:
                    for statement in step.split(";"):
                        database.execute(statement)
            if version < len(_STEPS):
                database.execute(f"PRAGMA user_version = {len(_STEPS)}")

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


FORKED = (
    "This Smoother was made before the process was forked: its threads and its connections stayed "
    "behind. Make one in each process (they share answers, pace and named budgets by the home), "
    "or start processes by spawn."
)


def owner() -> str:
    """Return who reserves: host, and process as number, name space and birth.

    Numbers of processes are given again to others, and mean nothing in another container.
    """
    return f"{socket.gethostname()}:{os.getpid()}@{_birth(os.getpid())}"


def owner_is_dead(name: str) -> bool:
    """Whether the owner was a process of this host that is gone; False where that is unknown."""
    host, _, process = name.rpartition(":")
    number, _, birth = process.partition("@")
    if host != socket.gethostname() or not re.fullmatch("[0-9]{1,9}", number):
        return False
    if os.name != "posix":  # elsewhere signal 0 is one that kills
        return False
    space, now = birth.partition("/")[0], _birth(os.getpid())
    if birth and now and space != now.partition("/")[0]:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is another user's
    found = _birth(int(number))
    return bool(birth and now and found) and found != birth


def _birth(process: int) -> str:
    """Return name space and start of a process, "" where they cannot be read; a zombie has none."""
    try:
        # Its second field is the program's name in brackets, and may hold anything.
        text = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2]
        space = Path("/proc/self/ns/pid").stat().st_ino
        state, start = text.split()[0], text.split()[19]
    except (OSError, IndexError):
        return ""
    return "ended" if state in "ZX" else f"{space}/{start}"


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
            # Those that nobody renewed; or they were taken before the clock was set back.
            database.execute(
                "DELETE FROM leases WHERE until <= ? OR until > ?",
                (now, now + 2.0 * self._seconds),
            )
            marks = ",".join("?" * len(keys))
            owners = dict(
                database.execute(
                    f"SELECT key, owner FROM leases WHERE key IN ({marks})",  # noqa: S608
                    list(keys),
                )
            )
            for key in keys:
                holder = owners.get(key, self._owner)
                if holder == self._owner or owner_is_dead(holder.rpartition(":")[0]):
                    taken.add(key)
            database.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)",
                [(key, self._owner, now + self._seconds) for key in taken],
            )
        return taken

    def renew(self, keys: Collection[str]) -> None:
        """Hold `keys` for another full term."""
        if not keys:
            return
        with self._state.transaction() as database:
            database.executemany(
                "UPDATE leases SET until = ? WHERE key = ? AND owner = ?",
                [(time.time() + self._seconds, key, self._owner) for key in keys],
            )

    def drop(self, keys: Collection[str]) -> None:
        """Give `keys` back."""
        if not keys:
            return
        with self._state.transaction() as database:
            database.executemany(
                "DELETE FROM leases WHERE key = ? AND owner = ?",
                [(key, self._owner) for key in keys],
            )

    def end(self) -> None:
        """Give back all that is held."""
        with self._state.transaction() as database:
            database.execute("DELETE FROM leases WHERE owner = ?", (self._owner,))


class Suspects:
    """Variants that were given up after their retries, while others were answered.

    They are asked again by the next run. Where only such are left, that all fail says nothing of
    the service: see `Breaker`.
    """

    def __init__(self, state: SharedState, seconds: float = 30 * 86_400.0) -> None:
        self._state = state
        self._seconds = seconds

    def add(self, key: str) -> None:
        """Note a variant, and forget what is long past."""
        now = time.time()
        with self._state.transaction() as database:
            database.execute("DELETE FROM suspects WHERE at < ?", (now - self._seconds,))
            database.execute("INSERT OR REPLACE INTO suspects VALUES (?, ?)", (key, now))

    def among(self, keys: Sequence[str]) -> set[str]:
        """Return those of `keys` that were given up."""
        if not keys:
            return set()
        marks = ",".join("?" * len(keys))
        with self._state.transaction() as database:
            rows = database.execute(f"SELECT key FROM suspects WHERE key IN ({marks})", keys)  # noqa: S608
            return {key for (key,) in rows}
