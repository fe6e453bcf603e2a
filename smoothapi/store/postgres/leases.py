"""Leases on variants, and which variants were given up, in a database."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from smoothapi.store.owners import owner
from smoothapi.store.postgres.owners import TERM

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from smoothapi.store.postgres.server import Server

_TAKE = """
INSERT INTO smoothapi.leases AS l (key, owner, until)
    SELECT key, %s, smoothapi.moment() + %s * interval '1 second'
    FROM (SELECT DISTINCT key FROM unnest(%s::text[]) AS asked(key) ORDER BY key) AS asked
    WHERE smoothapi.light()
ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until
    WHERE l.owner = excluded.owner OR l.until <= smoothapi.moment()
RETURNING key
"""
_DROP = """
DELETE FROM smoothapi.leases USING (SELECT smoothapi.light()) AS how
    WHERE owner = %s AND key = ANY (%s::text[]) RETURNING 1
"""
# What a dead run held goes when another ends, unless a third is about to take it.
_END = """
WITH over AS (
    SELECT key FROM smoothapi.leases
    WHERE owner = %s OR until <= smoothapi.moment() - interval '1 hour'
    FOR UPDATE SKIP LOCKED
)
DELETE FROM smoothapi.leases l USING over, (SELECT smoothapi.light()) AS how
    WHERE l.key = over.key RETURNING 1
"""
_GIVE_UP = """
INSERT INTO smoothapi.given_up (key, at) SELECT %s, smoothapi.moment() WHERE smoothapi.light()
ON CONFLICT (key) DO UPDATE SET at = excluded.at RETURNING 1
"""
_GIVEN_UP = """
SELECT key FROM smoothapi.given_up
    WHERE key = ANY (%s::text[]) AND at > smoothapi.moment() - interval '30 days'
"""


class PostgresLeases:
    """The leases of one run in a database; a `Leases`.

    A lease ends by itself two minutes after it was last renewed, by the server's clock.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._owner = f"{owner()} {uuid.uuid4().hex}"

    def take(self, keys: Sequence[str]) -> set[str]:
        """Lease those of `keys` that no other holds; return them."""
        if not keys:
            return set()
        return {key for (key,) in self._server.run(_TAKE, self._owner, TERM, list(keys))}

    def renew(self, keys: Collection[str]) -> None:
        """Hold `keys` for another full term, those too that ended meanwhile and nobody took."""
        self.take(list(keys))

    def drop(self, keys: Collection[str]) -> None:
        """Give `keys` back."""
        if keys:
            self._server.run(_DROP, self._owner, list(keys))

    def end(self) -> None:
        """Give back all that is held."""
        self._server.run(_END, self._owner)

    def give_up(self, key: str) -> None:
        """Note that a variant used up its attempts."""
        self._server.run(_GIVE_UP, key)

    def given_up(self, keys: Sequence[str]) -> set[str]:
        """Return those of `keys` that were given up of late."""
        if not keys:
            return set()
        return {key for (key,) in self._server.run(_GIVEN_UP, list(keys))}
