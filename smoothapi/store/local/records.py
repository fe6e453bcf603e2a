"""The tokens and certificates of a gateway on one machine: a SQLite file of their own."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from smoothapi.errors import StoreError
from smoothapi.store.records import record_of, token_of
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from smoothapi.store.records import Record, Token

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, digest BLOB NOT NULL, budget TEXT NOT NULL,
    per_second REAL, operator INTEGER NOT NULL, made REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS certificates (
    id TEXT PRIMARY KEY, at REAL NOT NULL, caller TEXT NOT NULL, provider TEXT NOT NULL,
    operation TEXT NOT NULL, outcome TEXT NOT NULL, why TEXT NOT NULL, finding TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS certificates_at ON certificates (at);
CREATE INDEX IF NOT EXISTS certificates_caller ON certificates (caller, at);
PRAGMA user_version = 1;
"""
_TOKENS = "id, name, digest, budget, per_second, operator, made"
_RECORDS = "id, caller, provider, operation, outcome, why, finding, at"


class LocalRecords:
    """A database of tokens and certificates; see `smoothapi.store.GatewayRecords`.

    Threads and processes may share the file.

    Args:
        path: the file; made if there is none.
        clock: seconds since the epoch.

    Raises:
        StoreError: the file cannot be used; from each method, too.
    """

    shared = False

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        # Who looks does not wait for who writes: each request looks for its caller.
        self._writing, self._reading = threading.Lock(), threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._sql, self._look = self._connected(), self._connected()
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = NORMAL")
            self._sql.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from error

    def add_token(self, token: Token) -> bool:
        """Keep a token; False if the caller has one already."""
        row = (
            token.id, token.name, token.digest, token.budget, token.per_second,
            int(token.operator), self._clock(),
        )  # fmt: skip
        statement = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return self._change(statement, row) > 0

    def remove_token(self, name: str) -> bool:
        """Forget a caller's token; whether there was one."""
        return self._change("DELETE FROM tokens WHERE name = ?", (name,)) > 0

    def tokens(self) -> list[Token]:
        """Return all tokens, by the callers' names."""
        rows = self._rows(f"SELECT {_TOKENS} FROM tokens ORDER BY name")  # noqa: S608  our own names
        return [token_of(row) for row in rows]

    def token(self, identity: str) -> Token | None:
        """Return the token of an id, None if there is none."""
        rows = self._rows(f"SELECT {_TOKENS} FROM tokens WHERE id = ?", (identity,))  # noqa: S608
        return token_of(rows[0]) if rows else None

    def keep(self, record: Record) -> None:
        """Keep what was found about a picture."""
        row = (
            record.id, self._clock(), record.caller, record.provider, record.operation,
            record.outcome, record.why, json.dumps(record.finding, allow_nan=False),
        )  # fmt: skip
        self._change("INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def record(self, identity: str) -> Record | None:
        """Return what is kept under an id."""
        rows = self._rows(f"SELECT {_RECORDS} FROM certificates WHERE id = ?", (identity,))  # noqa: S608
        return record_of(rows[0]) if rows else None

    def latest(self, most: int) -> list[Record]:
        """Return so many records at most, the last one first."""
        rows = self._rows(
            f"SELECT {_RECORDS} FROM certificates "  # noqa: S608
            "ORDER BY at DESC, rowid DESC LIMIT ?",
            (most,),
        )
        return [record_of(row) for row in rows]

    def outcomes(self, seconds: float) -> dict[tuple[str, str, str], int]:
        """Return (provider, caller, outcome) -> how many records of the last so many seconds."""
        rows = self._rows(
            "SELECT provider, caller, outcome, count(*) FROM certificates WHERE at >= ? "
            "GROUP BY provider, caller, outcome",
            (self._clock() - seconds,),
        )
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    def forget(self, seconds: float) -> int:
        """Forget records that are older; return how many."""
        return self._change("DELETE FROM certificates WHERE at < ?", (self._clock() - seconds,))

    def close(self) -> None:
        """Close the file."""
        with self._writing, self._reading:
            self._sql.close()
            self._look.close()

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=60.0, isolation_level=None, check_same_thread=False
        )

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._explained(), self._reading:
            return self._look.execute(statement, values).fetchall()

    def _change(self, statement: str, values: tuple[Any, ...]) -> int:
        with self._explained(), self._writing:
            return self._sql.execute(statement, values).rowcount

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreError:
        return StoreError(
            f"{printable(str(self._path))}, which holds the gateway's tokens and certificates, "
            f"cannot be used: {error}."
        )
