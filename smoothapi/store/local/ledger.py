"""The ledger: what budgets allow is reserved on disk before it is sent, and settled after."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

from smoothapi.store.block_ledger import BlockLedger
from smoothapi.store.blocks import Block
from smoothapi.store.limits import NANO, BudgetStanding, Limit, in_nano, room_of
from smoothapi.store.local.accounts import month_of, reduce_reservation
from smoothapi.store.owners import owner
from smoothapi.store.protocols import Spent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from sqlite3 import Connection

    from smoothapi.provider.price import Price
    from smoothapi.store.blocks import Retired
    from smoothapi.store.budget import Budget
    from smoothapi.store.local.database import Database


class LocalLedger(BlockLedger):
    """Budgets for one provider in the database of a home.

    Args:
        database: of the home.
        budgets: all hold at once.
        provider: whose price list counts.
        price: the price list.
        own: see `BlockLedger`.
    """

    def __init__(
        self,
        database: Database,
        budgets: Sequence[Budget],
        provider: str,
        price: Price,
        *,
        own: str = "",
    ) -> None:
        super().__init__(budgets, provider, price, own=own)
        self._database = database

    def priced(self, price: Price) -> LocalLedger:
        """Return a ledger of the same accounts, for attempts of another price."""
        return LocalLedger(self._database, self._budgets, self._provider, price, own=self._own)

    def _day(self) -> int:
        return _day(self._database.now())

    def _write_down(self, retired: Sequence[Retired]) -> BudgetStanding:
        with self._database.transaction() as sql:
            self._give_back(sql, retired)
            return self._standing(sql, self._database.now())

    def _set_aside(
        self, retired: Sequence[Retired], size_of: Callable[[int | None], int]
    ) -> Block | BudgetStanding:
        with self._database.transaction(durable=True) as sql:
            now = self._database.now()  # one for all: it may have waited past midnight to be here
            self._give_back(sql, retired)
            standing = self._standing(sql, now)
            size = size_of(room_of(self._limits, standing, self._price))
            return self._reserve(sql, size, standing.before, now) if size else standing

    def _forget_own(self) -> None:
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM accounts WHERE name = ?", (self._own,))

    def _reserve(self, sql: Connection, size: int, before: tuple[int, int], now: float) -> Block:
        keys, month = self._accounts(now), month_of(now)
        price = in_nano(self._price.dearest(size, *before))
        for key in keys:
            of = [limit for limit in self._limits if (limit.name, limit.period(now)) == key]
            sql.execute(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "queries = queries + excluded.queries, nano = nano + excluded.nano, "
                "query_limit = excluded.query_limit, nano_limit = excluded.nano_limit",
                (
                    *key,
                    size,
                    price,
                    _least(limit.budget.attempts for limit in of),
                    _least(limit.nano for limit in of),
                ),
            )
        sql.execute(
            "INSERT INTO usage VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET queries = queries + excluded.queries",
            (self._provider, month, size),
        )
        cursor = sql.execute(
            "INSERT INTO reservations (owner, at, provider, month, accounts, queries, nano) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (owner(), now, self._provider, month, json.dumps(keys), size, price),
        )
        return Block(int(cursor.lastrowid or 0), _day(now), before, size)

    def _accounts(self, now: float) -> list[tuple[str, str]]:
        """Return the accounts in force, each once: two limits may be on one of them."""
        return list(dict.fromkeys((limit.name, limit.period(now)) for limit in self._limits))

    def _give_back(self, sql: Connection, retired: Sequence[Retired]) -> None:
        """Give back what retired blocks did not use, and strike off what is settled."""
        for one in retired:
            block, price = one.block, self._price.dearest(one.used, *one.block.before)
            reduce_reservation(sql, block.number, one.used, in_nano(price))
            if one.settled:
                sql.execute("DELETE FROM reservations WHERE id = ?", (block.number,))

    def _standing(self, sql: Connection, now: float) -> BudgetStanding:
        spent = tuple(self._spent_of(sql, limit, now) for limit in self._limits)
        return BudgetStanding(self._before(sql, now), spent)

    def _before(self, sql: Connection, now: float) -> tuple[int, int]:
        """Return the fewest and the most attempts that this month has had of the provider."""
        of = (self._provider, month_of(now))
        usage = sql.execute(
            "SELECT queries FROM usage WHERE provider = ? AND month = ?", of
        ).fetchone()
        (reserved,) = sql.execute(
            "SELECT TOTAL(queries) FROM reservations WHERE provider = ? AND month = ?", of
        ).fetchone()
        most = int(usage[0]) if usage else 0
        return max(0, most - int(reserved)), most

    def _spent_of(self, sql: Connection, limit: Limit, now: float) -> Spent:
        row = sql.execute(
            "SELECT queries, nano FROM accounts WHERE name = ? AND period = ?",
            (limit.name, limit.period(now)),
        ).fetchone()
        return Spent(int(row[0]), Decimal(row[1]) / NANO) if row else Spent()


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _day(now: float) -> int:
    return int(now // 86_400)
