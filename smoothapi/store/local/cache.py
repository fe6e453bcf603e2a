"""The database of answers: diskcache, made to lose nothing, to run nothing, and to close all."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import diskcache

from smoothapi.errors import StoreError, UsageError
from smoothapi.store.local.damage import DamagedError, first_of, is_damage, is_read_only
from smoothapi.store.local.forking import about_to_open, closed
from smoothapi.store.local.pages import log_is_damaged, log_of
from smoothapi.store.owners import FORKED
from smoothapi.store.rows import names_in_row, seen_among

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from smoothapi.store.rows import Seen, SeenName

FILE = diskcache.core.DBNAME

# KiB of pages that each connection keeps; SQLite's own default is 2,000, for each of some hundred
# threads of a gateway. What is read here is read once, and the system has it at hand anyway.
_PAGES = 256

_LOG = 100  # pages, after which the log is written into the file: little to repeat on a full disk

_PLANTED = (
    "The answer store holds a row that smoothapi did not write (it is not plain text, and may be a "
    "pickle, which runs code when it is read). It was not read. Find out who can write to the "
    "store, then move its folder away; answers bought anew will fill a fresh one."
)


_SEEN = (
    "CREATE TABLE Seen (provider TEXT, identity TEXT, kind TEXT, name TEXT, "
    "PRIMARY KEY (provider, identity, kind, name)) WITHOUT ROWID"
)
_SEE = "INSERT OR IGNORE INTO Seen VALUES (?, ?, ?, ?)"
_PAGE = (
    "SELECT CAST(value AS BLOB), rowid, CAST(key AS BLOB) FROM Cache "
    "WHERE rowid > ? ORDER BY rowid LIMIT 1000"
)
_SINCE = "SELECT CAST(value AS BLOB) FROM Cache WHERE rowid > ? OR store_time >= ?"
_UNDER_WAY = 60.0  # seconds that a row may have been written before it is there to be read


class _TextDisk(diskcache.Disk):  # type: ignore[misc]
    """Stores text in the database, and reads nothing else back."""

    def put(self, key: Any) -> tuple[str, bool]:
        return _text(key), True

    def get(self, key: Any, raw: bool) -> str:  # noqa: FBT001  diskcache's signature
        if not raw:
            raise ValueError("a key that is no text")
        return _text(key)

    def store(
        self,
        value: Any,
        read: bool,  # noqa: FBT001
        key: Any = diskcache.UNKNOWN,
    ) -> tuple[int, int, None, str]:
        del read, key
        return 0, diskcache.core.MODE_RAW, None, _text(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> str:  # noqa: FBT001
        del read
        # Damage changes a mode, too: what diskcache wrote itself has a file, or bytes.
        if mode != diskcache.core.MODE_RAW and (filename is not None or isinstance(value, bytes)):
            raise StoreError(_PLANTED)
        return value.decode() if isinstance(value, bytes) else _text(value)

    def remove(self, file_path: str) -> None:
        """Remove nothing: no row of ours has a file, and another may name any."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text is kept")
    return value


class AnswerCache(diskcache.Cache):  # type: ignore[misc]
    """A cache whose connections, one a thread, can be closed by any thread.

    diskcache closes the calling thread's alone; the others stay open until their threads are gone.
    """

    _has_table = False  # of the names in its rows, as far as it is known

    def __init__(self, directory: Path) -> None:
        """Open or make the database in a folder.

        Raises:
            DamagedError, sqlite3.Error: it cannot be used.
        """
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._connecting = threading.Lock()
        self._process = os.getpid()
        self._directory, self._timeout = str(directory), 60
        self.file = directory / FILE
        log = log_of(self.file)
        if not _size(self.file) and _size(log):
            raise DamagedError("the database is gone, and its log is not")
        if log_is_damaged(log):
            raise DamagedError("the log is not as it was written")
        try:
            self._check_schema()
            super().__init__(
                self._directory,
                disk=_TextDisk,
                # Its defaults would drop answers: 1 GiB, then the oldest go. The file remembers
                # what it was first opened with, so they are set anew at each opening.
                eviction_policy="none",
                size_limit=2**62,
                cull_limit=0,
                statistics=0,
                tag_index=0,
                sqlite_synchronous=2,
                # A file that is cut short would end the process, not the reading, were it mapped.
                sqlite_mmap_size=0,
                timeout=60,
            )
            self._mark_schema()
            empty = not self._sql("SELECT 1 FROM Cache LIMIT 1").fetchone()
            if empty and not self._sees():
                self._begin_to_see()
        except BaseException as error:
            self.close()
            if is_read_only(error) and os.access(self.file, os.W_OK):
                raise DamagedError("it says that a later SQLite wrote it") from error
            raise

    def text(self, key: str) -> str | None:
        """Return what is kept for a key, None if nothing is.

        diskcache's `get` passes over a row, or fails at it, for columns that do not matter here.
        """
        row = self._sql(
            "SELECT mode, CAST(filename AS BLOB), value FROM Cache WHERE key = ? ORDER BY raw DESC",
            (key,),
        ).fetchone()
        return None if row is None else self._disk.fetch(*row, read=False)

    def keep(self, rows: Iterable[tuple[str, str]], names: Iterable[SeenName] = ()) -> None:
        """Keep texts by their keys in one transaction, in place of whatever a row held before.

        Args:
            rows: keys and texts.
            names: that are in them.
        """
        with self.transact():
            now = time.time()
            self._con.executemany(
                "INSERT INTO Cache (key, raw, store_time, access_time, mode, value) "
                "VALUES (?, 1, ?, ?, ?, ?) ON CONFLICT (key, raw) DO UPDATE SET "
                "store_time = excluded.store_time, expire_time = NULL, tag = NULL, size = 0, "
                "mode = excluded.mode, filename = NULL, value = excluded.value",
                [(key, now, now, diskcache.core.MODE_RAW, text) for key, text in rows],
            )
            if self._sees():
                self._con.executemany(_SEE, names)

    def seen(self, source: tuple[str, str]) -> Seen:
        """Return the names that were in what was kept of one `source_of` them.

        A store of before has no table of them: it is made when it is first asked for. Where it
        cannot be made (a full disk, a folder to read only), all rows are looked through each time.
        """
        if not self._sees():
            return seen_among(self._begin_to_see(), source)
        select = "SELECT * FROM Seen WHERE provider = ? AND identity = ?"
        return seen_among(self._sql(select, source), source)

    def clear(self, retry: bool = False) -> int:  # noqa: FBT001, FBT002  diskcache's signature
        """Remove all, and forget what was in it; return how many rows there were."""
        count: int = super().clear(retry)
        if self._table():
            self._sql("DELETE FROM Seen")
        return count

    def _sees(self) -> bool:
        """Whether there is a table of the names in all that is kept; it is never removed."""
        if not self._has_table:
            self._has_table = self._table() == _SEEN
        return self._has_table

    def _table(self) -> str:
        """Return how the table of names was made, maybe by an earlier smoothapi; "" for none."""
        found = self._sql("SELECT sql FROM sqlite_master WHERE name = 'Seen'").fetchone()
        return found[0] if found else ""

    def _begin_to_see(self) -> set[SeenName]:
        """Return the names in all rows, and make the table of them, if that is possible.

        Others write to a large store while it is looked through: the transaction, for which they
        wait, only looks at what they wrote meanwhile.
        """
        began = time.time() - _UNDER_WAY
        found: set[SeenName] = set()
        last, key = -(2**63), b""
        while page := self._sql(_PAGE, (last,)).fetchall():
            found |= _names_in(text for text, *_ in page)
            _, last, key = page[-1]
        try:
            with self.transact():
                same = "SELECT 1 FROM Cache WHERE rowid = ? AND CAST(key AS BLOB) = ?"
                if not self._sql(same, (last, key)).fetchone():
                    found.clear()  # as all rows were that were looked through
                found |= self._names_since(last, began)
                if self._table() != _SEEN:  # else another process was here first
                    self._sql("DROP TABLE IF EXISTS Seen")
                    self._sql(_SEEN)
                    self._con.executemany(_SEE, found)
                    # In the same transaction: a schema with another mark counts as damaged.
                    self._sql(f"PRAGMA application_id = {self._fingerprint()}")
        except (sqlite3.OperationalError, diskcache.Timeout) as error:
            if is_damage(first_of(error)):
                raise
            found |= self._names_since(last, began)
        return found

    def _names_since(self, last: int, moment: float) -> set[SeenName]:
        """Return the names in rows after one, and in those before it that were written anew."""
        return _names_in(text for (text,) in self._sql(_SINCE, (last, moment)))

    @property
    def _con(self) -> sqlite3.Connection:
        if os.getpid() != self._process:
            raise UsageError(FORKED)
        return self._connections.get(threading.current_thread()) or self._connect()

    def _connect(self) -> sqlite3.Connection:
        with self._connecting:
            for thread in [each for each in self._connections if not each.is_alive()]:
                self._connections.pop(thread).close()
            about_to_open(self, self.file)
            connection = self._connections[threading.current_thread()] = sqlite3.connect(
                self.file, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute(f"PRAGMA cache_size = -{_PAGES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG}")
        return connection

    @property
    def _sql_retry(self) -> Callable[..., sqlite3.Cursor | None]:
        """Write no setting anew that is as it should be: on a full disk there is room to read."""
        execute = super()._sql_retry

        def changing(statement: str, *values: tuple[object, ...]) -> sqlite3.Cursor | None:
            if statement.startswith(("INSERT OR REPLACE INTO Settings", "UPDATE Settings")):
                setting = values[0] if statement.startswith("INSERT") else values[0][::-1]
                select = "SELECT key, value FROM Settings WHERE key = ?"
                if self._sql(select, setting[:1]).fetchall() == [setting]:
                    return None
            return execute(statement, *values)  # type: ignore[no-any-return]

        return changing

    def write_log(self) -> None:
        """Write what the log holds into the file, and make it empty."""
        self._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _check_schema(self) -> None:
        """Refuse a schema that is not as it was: what it does not name would be forgotten."""
        if self._mark() not in (0, self._fingerprint()):
            raise DamagedError("the schema is not as it was written")

    def _mark_schema(self) -> None:
        if self._mark() != self._fingerprint():
            self._sql_retry(f"PRAGMA application_id = {self._fingerprint()}")

    def _mark(self) -> int:
        return int(self._sql("PRAGMA application_id").fetchone()[0])

    def _fingerprint(self) -> int:
        columns = "type || char(0) || name || char(0) || tbl_name || char(0) || coalesce(sql, '')"
        rows = self._sql(f"SELECT CAST({columns} AS BLOB) FROM sqlite_master").fetchall()  # noqa: S608
        return zlib.crc32(b"\0".join(sorted(row for (row,) in rows))) & 0x7FFFFFFF or 1

    def close(self) -> None:
        """Close the connections of all threads; the last one writes the log into the file.

        In a child of the process that opened them, leave them alone: they are the parent's.
        """
        if os.getpid() != self._process:
            return
        with self._connecting:
            while self._connections:
                self._connections.popitem()[1].close()
            closed(self)


def _names_in(texts: Iterable[bytes]) -> set[SeenName]:
    """Return the names in those rows that can be read; what they say is not checked."""
    found: set[SeenName] = set()
    for text in texts:
        with suppress(
            ValueError, LookupError, TypeError, AttributeError, RecursionError, StoreError
        ):
            found |= names_in_row(json.loads(text))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
