"""The ledger: what budgets allow is reserved on disk before it is sent, and settled after."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, TypeAlias

from smoothapi.errors import BudgetExceededError
from smoothapi.events import Reserved, Settled
from smoothapi.store.blocks import Block, Blocks, is_large, size_for
from smoothapi.store.budget import MOST
from smoothapi.store.local.accounts import NANO, in_nano, month_of, reduce_reservation
from smoothapi.store.owners import owner, refuse_fork
from smoothapi.store.protocols import Spent
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from sqlite3 import Connection

    from smoothapi.provider.price import Price
    from smoothapi.store.blocks import Retired
    from smoothapi.store.budget import Budget
    from smoothapi.store.local.database import Database

_Before: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Limit:
    """A budget as an account of the database."""

    budget: Budget
    name: str

    def period(self, now: float) -> str:
        moment = time.gmtime(now)
        return {
            "run": "run",
            "day": time.strftime("%Y-%m-%d", moment),
            "month": time.strftime("%Y-%m", moment),
        }[self.budget.per]

    @property
    def nano_limit(self) -> int | None:
        dollars = self.budget.dollars
        if not isinstance(dollars, Decimal):
            return None
        return int((dollars * NANO).to_integral_value(ROUND_FLOOR))


class LocalLedger:
    """Budgets for one provider in the database of a home; a `Ledger`.

    Attempts are reserved in blocks (`smoothapi.store.blocks`). A block that a crash leaves behind
    goes on counting, since its attempts may have been billed.

    Args:
        database: of the home.
        budgets: all hold at once.
        provider: whose price list counts.
        price: the price list.
        own: the account of budgets per run that have no name; a new one if "".
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
        self._process = os.getpid()
        self._database = database
        self._budgets = budgets
        self._provider = provider
        self._price = price
        # A budget without a name per run belongs to this object alone, and to those made of it.
        self._own = own or f"run {uuid.uuid4().hex} {owner()}"
        self._limits = [
            _Limit(b, b.name or (self._own if b.per == "run" else "default")) for b in budgets
        ]
        self._blocks = Blocks()
        self._writing = threading.Lock()  # one block is set aside at a time

    def priced(self, price: Price) -> LocalLedger:
        """Return a ledger of the same accounts, for attempts of another price."""
        return LocalLedger(self._database, self._budgets, self._provider, price, own=self._own)

    def room(self) -> int | None:
        """Return how many more attempts fit now, or None if there is no limit."""
        self.rest()
        with self._database.transaction() as sql:
            now = self._database.now()
            return self._room(sql, self._before(sql, now), now)

    def reserve(self, attempts: int) -> Block:
        """Set attempts aside, on disk; see `Ledger.reserve`."""
        refuse_fork(self._process)
        while True:
            block = self._promise(attempts)
            if block.day == _day(self._database.now()):
                return block
            # Midnight passed while another process, or the disk, was waited for.
            self.release(block, attempts)

    def _promise(self, attempts: int) -> Block:
        """Promise attempts of a block, which may be of a day that is over."""
        block = self._take(attempts)
        if block is None:
            with self._writing:
                block = self._take(attempts)  # another thread may have renewed it
                while block is None:
                    self._renew(attempts)
                    block = self._take(attempts)
        elif self._blocks.is_low(block) and self._writing.acquire(blocking=False):
            try:
                if self._blocks.is_low(block):
                    self._renew_ahead()
            except BaseException:
                self.release(block, attempts)
                raise
            finally:
                self._writing.release()
        return block

    def settle(self, block: Block, attempts: int) -> Spent:
        """Note that attempts of a block were sent, whatever came of it; say their price."""
        before = self._blocks.settle(block, attempts)
        return Spent(attempts, self._price.of(attempts, before))

    def release(self, block: Block, attempts: int) -> None:
        """Give attempts of a block back: they were not sent."""
        self._blocks.release(block, attempts)

    def rest(self) -> None:
        """Write down what was settled, and give back what was reserved and not used."""
        refuse_fork(self._process)
        with self._writing:
            self._blocks.retire_all()
            if not self._blocks.retired():
                return
            with self._database.transaction() as sql:
                retired = self._give_back(sql)
            self._strike_off(retired)

    def close(self) -> None:
        """Settle what is open, and forget the account that belonged to this object alone."""
        self.rest()
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM accounts WHERE name = ?", (self._own,))

    def _take(self, attempts: int) -> Block | None:
        return self._blocks.take(attempts, _day(self._database.now()))

    def _renew(self, attempts: int) -> None:
        """Set a block aside for `attempts`, and more if there is room."""
        self._blocks.retire_all()
        refusal, block = "", None
        with self._database.transaction(durable=True) as sql:
            now = self._database.now()  # one for all: it may have waited past midnight to be here
            retired = self._give_back(sql)
            before = self._before(sql, now)
            room = self._room(sql, before, now)
            if room is not None and attempts > room:
                refusal = self._refusal(sql, before, now, attempts)
            else:
                block = self._set_aside(sql, size_for(attempts, room), before, now)
        self._strike_off(retired)
        if refusal:
            raise BudgetExceededError(refusal)
        self._take_on(block)

    def _renew_ahead(self) -> None:
        """Set the next block aside before it is needed, if it would be a large one."""
        block = None
        with self._database.transaction(durable=True) as sql:
            now = self._database.now()
            retired = self._give_back(sql)
            before = self._before(sql, now)
            room = self._room(sql, before, now)
            size = size_for(1, room) if room is None or room > 0 else 0
            if is_large(size):
                block = self._set_aside(sql, size, before, now)
        self._strike_off(retired)
        self._take_on(block)

    def _take_on(self, block: Block | None) -> None:
        if block is not None:
            emit(Reserved(self._provider, block.size))
            self._blocks.add(block)

    def _set_aside(self, sql: Connection, size: int, before: _Before, now: float) -> Block:
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
                    _least(limit.nano_limit for limit in of),
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

    def _give_back(self, sql: Connection) -> list[Retired]:
        """Give back what retired blocks did not use, and strike off what is settled.

        Returns:
            The blocks, for `_strike_off` once the transaction is made. If it is not made, or that
            is not reached, the next time does the same again: what is given back is the
            difference to what the database says.
        """
        retired = self._blocks.retired()
        for one in retired:
            block, price = one.block, self._price.dearest(one.used, *one.block.before)
            reduce_reservation(sql, block.number, one.used, in_nano(price))
            if one.settled:
                sql.execute("DELETE FROM reservations WHERE id = ?", (block.number,))
        return retired

    def _strike_off(self, retired: Iterable[Retired]) -> None:
        for one in retired:
            if one.settled:
                self._blocks.forget(one.block)
                emit(Settled(self._provider, one.block.settled))

    def _room(self, sql: Connection, before: _Before, now: float) -> int | None:
        rooms = [self._room_of(sql, limit, before, now) for limit in self._limits]
        limited = [room for room in rooms if room is not None]
        return min(limited) if limited else None

    def _refusal(self, sql: Connection, before: _Before, now: float, attempts: int) -> str:
        for limit in self._limits:
            room = self._room_of(sql, limit, before, now)
            if room is not None and attempts > room:
                break
        spent = self._spent_of(sql, limit, now)
        return (
            f"The budget ({limit.budget}) does not allow another attempt: {spent.attempts:,} made "
            f"or reserved, ${spent.dollars.normalize():f} by the price list. All answers are kept: "
            "the same call with more budget continues where this one ended."
        )

    def _before(self, sql: Connection, now: float) -> _Before:
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

    def _spent_of(self, sql: Connection, limit: _Limit, now: float) -> Spent:
        row = sql.execute(
            "SELECT queries, nano FROM accounts WHERE name = ? AND period = ?",
            (limit.name, limit.period(now)),
        ).fetchone()
        return Spent(int(row[0]), Decimal(row[1]) / NANO) if row else Spent()

    def _room_of(self, sql: Connection, limit: _Limit, before: _Before, now: float) -> int | None:
        spent = self._spent_of(sql, limit, now)
        rooms: list[int] = []
        if limit.budget.attempts is not None:
            rooms.append(max(0, limit.budget.attempts - spent.attempts))
        if limit.nano_limit is not None:
            left = limit.nano_limit - in_nano(spent.dollars)
            fits = _most_that_costs(left, lambda n: in_nano(self._price.dearest(n, *before)))
            if fits < MOST:
                rooms.append(fits)
        return min(rooms) if rooms else None


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _day(now: float) -> int:
    return int(now // 86_400)


def _most_that_costs(most: int, cost: Callable[[int], int]) -> int:
    """Return the largest n up to `MOST` whose cost is at most `most`; costs ascend."""
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= most else (low, middle - 1)
    return low
