"""A database that many machines share, as a store."""

from __future__ import annotations

import logging
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from smoothapi.errors import StoreError, UsageError
from smoothapi.keyring import KeyRing
from smoothapi.store.limits import NANO, OWN_ACCOUNT
from smoothapi.store.postgres.answers import PostgresAnswers
from smoothapi.store.postgres.leases import PostgresLeases
from smoothapi.store.postgres.ledger import PostgresLedger
from smoothapi.store.postgres.owners import Owner
from smoothapi.store.postgres.pace import PostgresPace
from smoothapi.store.postgres.records import PostgresRecords
from smoothapi.store.postgres.runs import PostgresRuns
from smoothapi.store.postgres.server import PATIENCE, Server, ServerClock
from smoothapi.store.protocols import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from smoothapi.address import DatabaseAddress
    from smoothapi.provider.price import Price
    from smoothapi.store.budget import Budget

_log = logging.getLogger("smoothapi")

# Where answers are and no keys, they were copied or imported before any machine began. When a key
# came into use that no machine has had yet, nobody knows: -infinity.
_ADOPT = """
INSERT INTO smoothapi.noise_keys
    SELECT DISTINCT noise_key, '-infinity'::timestamptz FROM smoothapi.answers
    WHERE noise_key IS NOT NULL AND NOT EXISTS (SELECT FROM smoothapi.noise_keys)
ON CONFLICT DO NOTHING RETURNING 1
"""
# It is the latest once a machine has it, and whenever one says that it replaced the latest.
_USE = """
UPDATE smoothapi.noise_keys mine SET since = smoothapi.moment()
    FROM smoothapi.noise_keys was
    WHERE mine.id = %s AND was.id = mine.id
      AND (mine.since = '-infinity' OR (
          SELECT id FROM smoothapi.noise_keys ORDER BY since DESC, id LIMIT 1) = ANY (%s::text[]))
    RETURNING was.since = '-infinity'
"""
_FORGET = """
DELETE FROM smoothapi.noise_keys WHERE id = %s
    AND NOT EXISTS (SELECT FROM smoothapi.answers WHERE noise_key = %s) RETURNING 1
"""
_ACCOUNTS = """
SELECT a.name, a.period, a.attempts, a.nano, a.attempt_limit, a.nano_limit,
    coalesce((SELECT sum(r.attempts) FROM smoothapi.reservations r
              WHERE (a.name, a.period) IN (SELECT * FROM unnest(r.names, r.periods))), 0)
FROM smoothapi.accounts a ORDER BY a.name, a.period
"""


class PostgresHome:
    """The store of many machines: a database; a `Store`. Threads may share it.

    Args:
        address: of the database. Passwords come from where libpq finds them: PGPASSWORD, ~/.pgpass,
            a service file.
        noise_key_file: the deployment's noise key; None if none is needed (to copy answers, say).
        patience: seconds for which the server may be away before an operation fails.
        tick: seconds that only count on; for tests.

    Raises:
        StoreError: the database cannot be reached or used; from each method, too.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        *,
        noise_key_file: Path | None = None,
        patience: float = PATIENCE,
        tick: Callable[[], float] | None = None,
    ) -> None:
        self._noise_key_file = noise_key_file
        self._server = Server(address, patience=patience)
        self._clock = ServerClock(self._now, tick)
        self._owner = Owner(self._server, self._clock)

    @cached_property
    def answers(self) -> PostgresAnswers:
        """The answers."""
        return PostgresAnswers(self._server)

    def ledger(self, budgets: Sequence[Budget], provider: str, price: Price) -> PostgresLedger:
        """Return a ledger of `budgets`, all of which hold at once, by the provider's price list."""
        return PostgresLedger(self._server, self._owner, budgets, provider, price)

    def pace(self, provider: str, per_second: float | None) -> PostgresPace:
        """Return the provider's pace; `per_second` is None where it states no limit."""
        return PostgresPace(self._server, provider, per_second)

    def leases(self) -> PostgresLeases:
        """Return the leases of one run, which none other counts as its own."""
        return PostgresLeases(self._server)

    @cached_property
    def runs(self) -> PostgresRuns:
        """What was run, on all machines."""
        return PostgresRuns(self._server)

    @cached_property
    def records(self) -> PostgresRecords:
        """The tokens and certificates of all gateways."""
        return PostgresRecords(self._server)

    def accounts(self) -> list[Account]:
        """Return how every budget stands; unnamed budgets of a run are left out."""
        return [
            Account(
                name=name,
                period=period,
                attempts=attempts,
                dollars=_dollars(nano),
                reserved=int(reserved),
                attempt_limit=attempt_limit,
                dollar_limit=None if nano_limit is None else _dollars(nano_limit),
            )
            for name, period, attempts, nano, attempt_limit, nano_limit, reserved in (
                self._server.run(_ACCOUNTS)
            )
            if reserved or not OWN_ACCOUNT.fullmatch(name)
        ]

    def release_abandoned(self, *, everywhere: bool = False) -> int:
        """Give back what machines reserved that give no more sign of life; see `Store`."""
        [(released,)] = self._server.run("SELECT smoothapi.release_abandoned(%s)", everywhere)
        return int(released)

    def reset(self, name: str) -> int:
        """Forget what was spent under a budget's name; return in how many periods."""
        [(periods,)] = self._server.run("SELECT smoothapi.reset(%s)", name)
        return int(periods)

    def keys(self) -> KeyRing:
        """Return the deployment's noise keys, and make them known to the store.

        Raises:
            StoreError: none was given; or the store holds answers of another key, which this
                machine has not.
        """
        if self._noise_key_file is None:
            raise StoreError(
                "A home on PostgreSQL has no noise key of its own: machines that share it share "
                "the key by a secret of their deployment, never by the database. Make one "
                "(`smoothapi key new --noise FILE`), give its file to every machine, and name it "
                "in SMOOTHAPI_NOISE_KEY_FILE."
            )
        keys = KeyRing.read(self._noise_key_file, deployed=True)
        self._server.run(_ADOPT)
        # One statement, so that of two first machines at once the second is told.
        rows = self._server.run(
            "SELECT id FROM smoothapi.introduce(%s, %s::text[]) AS id",
            keys.id,
            list(keys.former_ids),
        )
        known = [str(key) for (key,) in rows]
        if keys.id not in known:
            raise StoreError(
                f"The noise key of this machine is {keys.id}, and {self._server.where!r} holds "
                f"answers of {', '.join(known)}: with two keys every photo would be paid for "
                "twice. Give this machine the deployment's file (SMOOTHAPI_NOISE_KEY_FILE; "
                "`smoothapi key show-id` says whose it is). A key that is to replace another is "
                "made by `smoothapi key rotate`, and then known. If the other is lost for good: "
                f"`smoothapi key admit {keys.id}`. Nothing was sent."
            )
        self._use(keys)
        return keys

    def _use(self, keys: KeyRing) -> None:
        """Note that a machine has a key, and say what answers it will not find with it."""
        used = self._server.run(_USE, keys.id, list(keys.former_ids))
        own = (keys.id, *keys.former_ids)
        if used == [(True,)]:
            if others := [key for key in self.answers.noise_keys() if key not in own]:
                _log.warning(
                    "The noise key of this machine is %s, and %r holds answers of %s, too: photos "
                    "that were certified with those are asked about anew here. If one of them is "
                    "the deployment's key, give this machine its file.",
                    keys.id,
                    self._server.where,
                    ", ".join(others),
                )
            return
        latest = next(iter(self._known_keys()), keys.id)
        if latest not in own:
            _log.warning(
                "The noise key of this machine, %s, was replaced by %s elsewhere: photos that "
                "other machines have certified are asked about anew here. Give this one the new "
                "file.",
                keys.id,
                latest,
            )

    def known_keys(self) -> tuple[str, ...]:
        """Return the public ids of the noise keys that the store knows, the latest first."""
        # Before a machine began, the answers that were brought say which keys they need.
        return self._known_keys() or tuple(self.answers.noise_keys())

    def _known_keys(self) -> tuple[str, ...]:
        rows = self._server.run("SELECT id FROM smoothapi.noise_keys ORDER BY since DESC, id")
        return tuple(key for (key,) in rows)

    def admit_key(self, key_id: str) -> None:
        """Take a noise key of this public id besides those that are known.

        It replaces none of them before a machine has it.
        """
        self._server.run(_ADOPT)
        self._server.run(
            "INSERT INTO smoothapi.noise_keys VALUES (%s, '-infinity') "
            "ON CONFLICT DO NOTHING RETURNING 1",
            key_id,
        )

    def forget_key(self, key_id: str) -> None:
        """Know a noise key no more.

        Raises:
            UsageError: it is not known, or answers are of its noise.
        """
        self._server.run(_ADOPT)
        if key_id not in self._known_keys():
            raise UsageError(
                f"{self._server.where!r} does not know the noise key {key_id}: there is nothing "
                "to forget."
            )
        self._server.run(_FORGET, key_id, key_id)
        if key_id in self._known_keys():  # what a lost connection did not tell
            count = self.answers.noise_keys().get(key_id, 0)
            raise UsageError(
                f"The noise key {key_id} is in use: {count:,} answers in {self._server.where!r} "
                "are found again only with it. Nothing was changed."
            )

    def note(self, name: str) -> str | None:
        """Return a text that is kept under a name; None if none is."""
        rows = self._server.run("SELECT content FROM smoothapi.notes WHERE name = %s", name)
        return str(rows[0][0]) if rows else None

    def keep_note(self, name: str, text: str) -> None:
        """Keep a text, in place of an earlier one of that name."""
        self._server.run(
            "INSERT INTO smoothapi.notes VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET content = excluded.content RETURNING 1",
            name,
            text,
        )

    def close(self) -> None:
        """Close the connections; in a child of a fork, leave them to the parent."""
        self._owner.close()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> float:
        [(now,)] = self._server.run("SELECT smoothapi.seconds(smoothapi.moment())")
        return float(now)


def _dollars(nano: Any) -> Decimal:
    return Decimal(nano) / NANO
