"""Leases on variants, and which variants were given up, in the database of a home."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smoothapi.store.owners import owner, owner_is_dead

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from smoothapi.store.local.database import SharedState


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
