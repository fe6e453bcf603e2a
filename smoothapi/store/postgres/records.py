"""The tokens and certificates of the gateways that share a database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from smoothapi.store.records import record_of, token_of

if TYPE_CHECKING:
    from smoothapi.store.postgres.server import Server
    from smoothapi.store.records import Record, Token

_PATIENCE = 5.0  # seconds; a caller waits, whose answer is paid for
_TOKENS = "id, name, digest, budget, per_second, operator, smoothapi.seconds(made)"
_RECORDS = "id, caller, provider, operation, outcome, why, content, smoothapi.seconds(at)"


class PostgresRecords:
    """Tables of tokens and certificates; see `smoothapi.store.GatewayRecords`.

    Args:
        server: the database.
    """

    shared = True

    def __init__(self, server: Server) -> None:
        self._server = server

    def add_token(self, token: Token) -> bool:
        """Keep a token; False if the caller has one already."""
        # Made twice, it is kept once, and the second time it is there already: its id tells.
        rows = self._run(
            "WITH made AS (INSERT INTO smoothapi.tokens "
            "SELECT %s, %s, %s, %s, %s, %s, smoothapi.moment() "
            "ON CONFLICT DO NOTHING RETURNING id) "
            "SELECT id FROM made UNION SELECT id FROM smoothapi.tokens WHERE name = %s",
            token.id,
            token.name,
            token.digest,
            token.budget,
            token.per_second,
            token.operator,
            token.name,
        )
        return rows == [(token.id,)]

    def remove_token(self, name: str) -> bool:
        """Forget a caller's token; whether there was one."""
        return bool(self._run("DELETE FROM smoothapi.tokens WHERE name = %s RETURNING 1", name))

    def tokens(self) -> list[Token]:
        """Return all tokens, by the callers' names."""
        rows = self._run(
            f'SELECT {_TOKENS} FROM smoothapi.tokens ORDER BY name COLLATE "C"'  # noqa: S608  our own
        )
        return [token_of(row) for row in rows]

    def token(self, identity: str) -> Token | None:
        """Return the token of an id, None if there is none."""
        rows = self._run(
            f"SELECT {_TOKENS} FROM smoothapi.tokens WHERE id = %s",  # noqa: S608
            identity,
        )
        return token_of(rows[0]) if rows else None

    def keep(self, record: Record) -> None:
        """Keep what was found about a picture."""
        self._run(
            "INSERT INTO smoothapi.certificates "
            "(id, at, caller, provider, operation, outcome, why, content) "
            "SELECT %s, smoothapi.moment(), %s, %s, %s, %s, %s, %s WHERE smoothapi.light() "
            "ON CONFLICT DO NOTHING RETURNING 1",
            record.id,
            record.caller,
            record.provider,
            record.operation,
            record.outcome,
            record.why,
            json.dumps(record.finding, allow_nan=False),
        )

    def record(self, identity: str) -> Record | None:
        """Return what is kept under an id."""
        rows = self._run(
            f"SELECT {_RECORDS} FROM smoothapi.certificates WHERE id = %s",  # noqa: S608
            identity,
        )
        return record_of(rows[0]) if rows else None

    def latest(self, most: int) -> list[Record]:
        """Return so many records at most, the last one first."""
        rows = self._run(
            f"SELECT {_RECORDS} FROM smoothapi.certificates "  # noqa: S608
            "ORDER BY at DESC, number DESC LIMIT %s",
            most,
        )
        return [record_of(row) for row in rows]

    def outcomes(self, seconds: float) -> dict[tuple[str, str, str], int]:
        """Return (provider, caller, outcome) -> how many records of the last so many seconds."""
        rows = self._run(
            "SELECT provider, caller, outcome, count(*) FROM smoothapi.certificates "
            "WHERE at >= smoothapi.moment() - %s * interval '1 second' "
            "GROUP BY provider, caller, outcome",
            seconds,
        )
        return {(row[0], row[1], row[2]): int(row[3]) for row in rows}

    def forget(self, seconds: float) -> int:
        """Forget records that are older; return how many."""
        [(count,)] = self._run(
            "WITH old AS (DELETE FROM smoothapi.certificates "
            "WHERE at < smoothapi.moment() - %s * interval '1 second' RETURNING 1) "
            "SELECT count(*) FROM old",
            seconds,
        )
        return int(count)

    def close(self) -> None:
        """Leave the database to the store, which closes it."""

    def _run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._server.run(statement, *values, patience=_PATIENCE)
