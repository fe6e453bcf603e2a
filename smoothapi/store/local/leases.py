"""Leases on variants, and which variants were given up, in the database of a home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi.store.owners import owner, owner_is_dead

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from smoothapi.store.local.database import Database

_GIVEN_UP_FOR = 30 * 86_400.0  # seconds


class LocalLeases:
    """The leases of one run in the database of a home; a `Leases`.

    A lease ends by itself after `seconds`, and at once when its process is gone from this host:
    what a dead process held blocks nobody for long.
    """

    def __init__(self, database: Database, seconds: float = 120.0) -> None:
        self._database = database
        self._seconds = seconds
        self._owner = f"{owner()}:{id(self)}"

    def take(self, keys: Sequence[str]) -> set[str]:
        """Lease what of `keys` no other holds, in one transaction; return those."""
        now = self._database.now()
        taken: set[str] = set()
        with self._database.transaction() as sql:
            # Those that nobody renewed; or they were taken before the clock was set back.
            sql.execute(
                "DELETE FROM leases WHERE until <= ? OR until > ?",
                (now, now + 2.0 * self._seconds),
            )
            marks = ",".join("?" * len(keys))
            owners = dict(
                sql.execute(
                    f"SELECT key, owner FROM leases WHERE key IN ({marks})",  # noqa: S608
                    list(keys),
                )
            )
            for key in keys:
                holder = owners.get(key, self._owner)
                if holder == self._owner or owner_is_dead(holder.rpartition(":")[0]):
                    taken.add(key)
            sql.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)",
                [(key, self._owner, now + self._seconds) for key in taken],
            )
        return taken

    def renew(self, keys: Collection[str]) -> None:
        """Hold `keys` for another full term."""
        if not keys:
            return
        with self._database.transaction() as sql:
            sql.executemany(
                "UPDATE leases SET until = ? WHERE key = ? AND owner = ?",
                [(self._database.now() + self._seconds, key, self._owner) for key in keys],
            )

    def drop(self, keys: Collection[str]) -> None:
        """Give `keys` back."""
        if not keys:
            return
        with self._database.transaction() as sql:
            sql.executemany(
                "DELETE FROM leases WHERE key = ? AND owner = ?",
                [(key, self._owner) for key in keys],
            )

    def end(self) -> None:
        """Give back all that is held."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM leases WHERE owner = ?", (self._owner,))

    def give_up(self, key: str) -> None:
        """Note that a variant used up its attempts, and forget those of long ago."""
        now = self._database.now()
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM suspects WHERE at < ?", (now - _GIVEN_UP_FOR,))
            sql.execute("INSERT OR REPLACE INTO suspects VALUES (?, ?)", (key, now))

    def given_up(self, keys: Sequence[str]) -> set[str]:
        """Return those of `keys` that were given up of late."""
        if not keys:
            return set()
        marks = ",".join("?" * len(keys))
        with self._database.transaction() as sql:
            rows = sql.execute(f"SELECT key FROM suspects WHERE key IN ({marks})", keys)  # noqa: S608
            return {key for (key,) in rows}
