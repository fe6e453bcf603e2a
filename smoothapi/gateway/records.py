"""What a gateway keeps besides answers and budgets: its callers' tokens, and its certificates."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from smoothapi.errors import StoreError, UsageError
from smoothapi.gateway.config import ACCOUNTS, lasting_budget
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from smoothapi.store import Budget
    from smoothapi.wrapping import Finding

ANYONE = "anyone"
"""The caller's name where everybody is let in."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_TOKEN = re.compile(r"sgw_([0-9a-f]{16})_([0-9a-f]{48})", re.ASCII)
_PRUNED = 500  # certificates are written between two looks for old ones

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


@dataclass(frozen=True, slots=True)
class GatewayCaller:
    """Who may call.

    Attributes:
        name: as the token was given it.
        budget: hard limit on what its calls send.
        per_second: most requests a second; None for no limit.
        operator: whether it may see everybody's certificates, the page and the metrics.
        made: seconds since the epoch at which the token was made.
    """

    name: str
    budget: Budget
    per_second: float | None = None
    operator: bool = False
    made: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """What was found about one picture.

    Attributes:
        id: of the certificate.
        at: seconds since the epoch.
        caller: its name.
        provider: the provider's name.
        operation: the provider's name for what was asked.
        outcome: "certified", "abstained", or what ended the votes.
        why: in words; "" where something is certified.
        finding: as `Finding.to_dict` gives it.
    """

    id: str
    at: float
    caller: str
    provider: str
    operation: str
    outcome: str
    why: str
    finding: dict[str, Any] = field(repr=False)


def outcome_of(finding: Finding) -> str:
    """Return in a word what was found."""
    return finding.ended or ("certified" if finding.certified else "abstained")


class Records:
    """A database of tokens and certificates; threads and processes may share the file.

    Of a token only the SHA-256 is kept: it is 192 random bits, so that nobody can find it from
    that, and it is compared in constant time.

    Args:
        path: the file.
        keep_days: for which certificates are kept.
        clock: seconds since the epoch.

    Raises:
        StoreError: the file cannot be used.
    """

    def __init__(
        self, path: Path, *, keep_days: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._clock, self._keep = path, clock, keep_days * 86_400
        # Who looks does not wait for who writes: each request looks for its caller.
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._written = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._sql, self._look = self._connected(), self._connected()
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = NORMAL")
            self._sql.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{printable(str(path))}, which holds the gateway's tokens and certificates, "
                f"cannot be used: {error}."
            ) from error

    def add_token(
        self,
        name: str,
        *,
        budget: str = "",
        per_second: float | None = None,
        operator: bool = False,
    ) -> str:
        """Make a token for a caller, and return it: it cannot be shown again.

        Args:
            name: of the caller.
            budget: such as "$50/month"; "" for none of its own.
            per_second: most requests a second.
            operator: whether it may see what all callers did.

        Raises:
            UsageError: the name is taken, or a value is out of range.
        """
        if not _NAME.fullmatch(name) or name == ANYONE:
            raise UsageError(
                f"{name!r} cannot be a caller's name: use up to 64 letters, digits, dots, - and _."
            )
        lasting_budget(budget, _account(name))
        if per_second is not None and not 0.0 < per_second < float("inf"):
            raise UsageError(f"per_second={per_second!r}: give a number above 0.")
        identity, secret = secrets.token_hex(8), secrets.token_hex(24)
        row = (
            identity, name, _digest(secret), budget, per_second, int(operator), self._clock(),
        )  # fmt: skip
        try:
            self._change("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise UsageError(
                f"There is a token for {name!r} already. Remove it first (`smoothapi serve token "
                f"remove {name}`), or choose another name."
            ) from None
        return f"sgw_{identity}_{secret}"

    def remove_token(self, name: str) -> bool:
        """Forget a caller's token; whether there was one. What it spent stays counted."""
        return self._change("DELETE FROM tokens WHERE name = ?", (name,)) > 0

    def callers(self) -> list[GatewayCaller]:
        """Return who has a token, by name."""
        rows = self._rows(
            "SELECT name, budget, per_second, operator, made FROM tokens ORDER BY name"
        )
        return [_caller(*row) for row in rows]

    def caller(self, token: str) -> GatewayCaller | None:
        """Return whose token it is; None if nobody's."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        rows = self._rows(
            "SELECT digest, name, budget, per_second, operator, made FROM tokens WHERE id = ?",
            (found[1],),
        )
        known = rows[0][0] if rows else b"\0" * 32
        if not hmac.compare_digest(known, _digest(found[2])) or not rows:
            return None
        return _caller(*rows[0][1:])

    def keep(self, caller: str, provider: str, operation: str, finding: Finding) -> str:
        """Keep what was found about a picture; return its id."""
        identity = secrets.token_hex(16)
        row = (
            identity, self._clock(), caller, provider, operation, outcome_of(finding), finding.why,
            json.dumps(finding.to_dict(), allow_nan=False),
        )  # fmt: skip
        self._change("INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._written += 1
        if self._written % _PRUNED == 1:
            old = (self._clock() - self._keep,)
            self._change("DELETE FROM certificates WHERE at < ?", old)
        return identity

    def record(self, identity: str) -> Record | None:
        """Return what is kept under an id."""
        rows = self._rows("SELECT * FROM certificates WHERE id = ?", (identity,))
        return _record(rows[0]) if rows else None

    def latest(self, count: int, *, caller: str | None = None) -> list[Record]:
        """Return the latest records, newest first; of one caller, if one is named."""
        rows = self._rows(
            "SELECT * FROM certificates WHERE caller = coalesce(?, caller) "
            "ORDER BY at DESC, rowid DESC LIMIT ?",
            (caller, count),
        )
        return [_record(row) for row in rows]

    def outcomes(self, since: float) -> dict[tuple[str, str, str], int]:
        """Return (provider, caller, outcome) -> how many records since a time."""
        rows = self._rows(
            "SELECT provider, caller, outcome, count(*) FROM certificates WHERE at >= ? "
            "GROUP BY provider, caller, outcome",
            (since,),
        )
        return {(row[0], row[1], row[2]): row[3] for row in rows}

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
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise StoreError(
                f"{printable(str(self._path))}, which holds the gateway's tokens and certificates, "
                f"cannot be used: {error}."
            ) from error


def anyone() -> GatewayCaller:
    """Return the caller that everybody is where no token is asked for."""
    return GatewayCaller(ANYONE, lasting_budget("", _account(ANYONE)), operator=True)


def _account(name: str) -> str:
    return f"{ACCOUNTS}caller-{name}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _caller(
    name: str, budget: str, per_second: float | None, operator: int, made: float
) -> GatewayCaller:
    return GatewayCaller(
        name, lasting_budget(budget, _account(name)), per_second, bool(operator), made
    )


def _record(row: tuple[Any, ...]) -> Record:
    identity, at, caller, provider, operation, outcome, why, finding = row
    return Record(identity, at, caller, provider, operation, outcome, why, json.loads(finding))
