"""The ledger: what budgets allow is reserved on disk before it is sent, and settled after."""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import uuid
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, TypeAlias

from smoothapi.errors import BudgetExceededError
from smoothapi.store.budget import MOST
from smoothapi.store.owners import owner, owner_is_dead
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from smoothapi.provider.price import Price
    from smoothapi.store.budget import Budget
    from smoothapi.store.local.database import SharedState

_Before: TypeAlias = tuple[int, int]

_NANO = 10**9
_BLOCK = 32  # most queries reserved at once
_OWN = re.compile(r"run [0-9a-f]{32}(?: (.*))?")  # accounts of budgets that have no name


@dataclass(frozen=True, slots=True)
class Spent:
    """What was sent, reservations included."""

    queries: int = 0
    dollars: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Account:
    """How one budget stands.

    Attributes:
        name: the budget's name.
        period: "run", a day or a month.
        queries: sent, or reserved to be.
        dollars: their price.
        reserved: of the queries, those whose outcome is not known (yet).
        query_limit: most queries, None for no limit; as it was last used.
        dollar_limit: most dollars, None for no limit.
    """

    name: str
    period: str
    queries: int
    dollars: Decimal
    reserved: int
    query_limit: int | None
    dollar_limit: Decimal | None

    @property
    def queries_left(self) -> int | None:
        """Queries that may still be sent, None for no limit."""
        return None if self.query_limit is None else max(0, self.query_limit - self.queries)

    @property
    def dollars_left(self) -> Decimal | None:
        """Dollars that may still be spent, None for no limit."""
        return (
            None if self.dollar_limit is None else max(Decimal(0), self.dollar_limit - self.dollars)
        )


@dataclass(frozen=True, slots=True)
class _Open:
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
        return int((dollars * _NANO).to_integral_value(ROUND_FLOOR))


@dataclass(slots=True)
class Reservation:
    """Some queries that were set aside on disk together, and what became of them.

    Attributes:
        number: its row in the database.
        day: when they may be sent (days since the epoch, UTC).
        before: the fewest and the most queries of that month that may come before them, for the
            price: what others have reserved may yet be given back.
        size: how many were set aside.
        taken: of these, promised to senders.
        settled: of these, sent.
    """

    number: int
    day: int
    before: _Before
    size: int
    taken: int = 0
    settled: int = 0


class Ledger:
    """Keeps budgets for one provider, across threads, processes and crashes.

    A query is *reserved* (on disk) before it is sent and *settled* after. Both count as spent; a
    reservation that a crash leaves behind goes on counting, since its query may have been billed.
    Far from the limit several are reserved at once, and the next before the last are used up, so
    that senders seldom wait for the disk; `rest` gives back the unused.

    Args:
        state: the shared database.
        budgets: all hold at once.
        provider: whose price list counts.
        price: the price list.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        state: SharedState,
        budgets: Sequence[Budget],
        provider: str,
        price: Price,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._provider = provider
        self._price = price
        self._clock = clock
        self._begin()
        # A budget without a name per run belongs to this object alone.
        self._own = f"run {uuid.uuid4().hex} {owner()}"
        self._open = [
            _Open(b, b.name or (self._own if b.per == "run" else "default")) for b in budgets
        ]

    def _begin(self) -> None:
        # Held while the database is written, and taken before the other.
        self._writing = threading.Lock()
        # Held for moments: guards the blocks and their numbers.
        self._lock = threading.Lock()
        self._current: Reservation | None = None  # the only one that is taken from
        self._next: Reservation | None = None
        self._old: list[Reservation] = []

    def priced(self, price: Price) -> Ledger:
        """Return a ledger of the same accounts, for queries of another price."""
        twin = copy.copy(self)
        twin._price = price  # noqa: SLF001  its own class
        twin._begin()  # noqa: SLF001
        return twin

    def room(self) -> int | None:
        """Return how many more queries fit now, or None if there is no limit."""
        self.rest()
        with self._state.transaction() as database:
            now = self._clock()
            return self._room(database, self._before(database, now), now)

    def reserve(self, queries: int) -> Reservation:
        """Set `queries` aside, on disk.

        Raises:
            BudgetExceededError: they do not fit; nothing was set aside.
            StoreError: the ledger cannot be written.
        """
        taken = self._take(queries)
        if taken is None:
            with self._writing:
                taken = self._take(queries)  # another thread may have renewed it
                while taken is None:
                    self._renew(queries)
                    taken = self._take(queries)
        elif self._is_low(taken) and self._writing.acquire(blocking=False):
            try:
                if self._is_low(taken):
                    self._renew(1, ahead=True)
            except BaseException:
                self.release(taken, queries)
                raise
            finally:
                self._writing.release()
        return taken

    def _take(self, queries: int) -> Reservation | None:
        """Promise `queries` of the current block, or of the next; None if they are not there."""
        day = _day(self._clock())
        with self._lock:
            for block in (self._current, self._next):
                # What is sent in a new day is not to be paid from the last one's budget.
                if block is not None and block.day == day and block.size - block.taken >= queries:
                    if block is not self._current:
                        self._turn_over()
                    block.taken += queries
                    return block
        return None

    def _turn_over(self) -> None:
        if self._current is not None:
            self._old.append(self._current)
        self._current, self._next = self._next, None

    def _is_low(self, block: Reservation) -> bool:
        """Whether the block under way is half used, and was large, and no other is at hand."""
        with self._lock:
            return (
                block is self._current
                and self._next is None
                and block.size >= _BLOCK // 2
                and block.size - block.taken <= block.size // 2
            )

    def settle(self, reservation: Reservation, queries: int) -> Spent:
        """Note that `queries` of a reservation were sent, whatever came of it; say their price."""
        with self._lock:
            before = reservation.before[1] + reservation.settled
            reservation.settled += queries
        return Spent(queries, self._price.of(queries, before))

    def release(self, reservation: Reservation, queries: int) -> None:
        """Give `queries` of a reservation back: they were not sent."""
        with self._lock:
            reservation.taken -= queries

    def rest(self) -> None:
        """Write down what was settled, and give back what was reserved and not used."""
        with self._writing:
            with self._lock:
                self._turn_over()
                self._turn_over()
                if not self._old:
                    return
            with self._state.transaction() as database:
                retired = self._retire(database)
            self._strike_off(retired)

    def _renew(self, queries: int, *, ahead: bool = False) -> None:
        """Set the next block aside; `ahead` of need, only if it is a large one."""
        refusal = ""
        number = size = 0
        if not ahead:
            with self._lock:
                self._turn_over()
                self._turn_over()
        with self._state.transaction(durable=True) as database:
            now = self._clock()  # one for all: it may have waited past midnight to be here
            retired = self._retire(database)
            before = self._before(database, now)
            room = self._room(database, before, now)
            if room is not None and queries > room:
                refusal = "" if ahead else self._refusal(database, before, now, queries)
            else:
                # Far from the limit many at once; near it one by one, so that none lie idle.
                size = max(queries, _BLOCK if room is None else min(_BLOCK, room // 64))
            if size >= (_BLOCK // 2 if ahead else 1):
                number = self._write(database, now, size, before)
        self._strike_off(retired)
        if refusal:
            raise BudgetExceededError(refusal)
        if number:
            emit("reserved", provider=self._provider, queries=size)
            with self._lock:
                self._next = Reservation(number, _day(now), before, size)

    def _write(self, database: sqlite3.Connection, now: float, size: int, before: _Before) -> int:
        """Set a block aside; return its number."""
        keys, month = self._accounts(now), _month(now)
        nano = _nano(self._price.dearest(size, *before))
        for key in keys:
            of = [entry for entry in self._open if (entry.name, entry.period(now)) == key]
            database.execute(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "queries = queries + excluded.queries, nano = nano + excluded.nano, "
                "query_limit = excluded.query_limit, nano_limit = excluded.nano_limit",
                (
                    *key,
                    size,
                    nano,
                    _least(entry.budget.queries for entry in of),
                    _least(entry.nano_limit for entry in of),
                ),
            )
        database.execute(
            "INSERT INTO usage VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET queries = queries + excluded.queries",
            (self._provider, month, size),
        )
        cursor = database.execute(
            "INSERT INTO reservations (owner, at, provider, month, accounts, queries, nano) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (owner(), now, self._provider, month, json.dumps(keys), size, nano),
        )
        return int(cursor.lastrowid or 0)

    def _accounts(self, now: float) -> list[tuple[str, str]]:
        """Return the accounts in force, each once: two limits may be on one of them."""
        return list(dict.fromkeys((entry.name, entry.period(now)) for entry in self._open))

    def _retire(self, database: sqlite3.Connection) -> list[tuple[Reservation, bool]]:
        """Give back what old blocks did not use, and strike off what is settled.

        Returns:
            Each block with whether it is settled, for `_strike_off` once the transaction is made.
            If it is not made, or that is not reached, the next time does the same again: what is
            given back is the difference to what the database says.
        """
        with self._lock:
            # Of old blocks nothing more is taken, so what is unused stays so.
            blocks = [(block, block.taken, block.settled == block.taken) for block in self._old]
        for block, used, settled in blocks:
            _reduce(database, block.number, used, _nano(self._price.dearest(used, *block.before)))
            if settled:
                database.execute("DELETE FROM reservations WHERE id = ?", (block.number,))
        return [(block, settled) for block, _, settled in blocks]

    def _strike_off(self, retired: Iterable[tuple[Reservation, bool]]) -> None:
        for block, settled in retired:
            if settled:
                with self._lock:
                    self._old.remove(block)
                emit("settled", provider=self._provider, queries=block.settled)

    def _room(self, database: sqlite3.Connection, before: _Before, now: float) -> int | None:
        rooms = [self._room_of(database, entry, before, now) for entry in self._open]
        limited = [room for room in rooms if room is not None]
        return min(limited) if limited else None

    def _refusal(
        self, database: sqlite3.Connection, before: _Before, now: float, queries: int
    ) -> str:
        for entry in self._open:
            room = self._room_of(database, entry, before, now)
            if room is not None and queries > room:
                break
        spent = self._spent_of(database, entry, now)
        return (
            f"The budget ({entry.budget}) does not allow another query: {spent.queries:,} sent or "
            f"reserved, ${spent.dollars.normalize():f} by the price list. All answers are kept: "
            "the same call with more budget continues where this one ended."
        )

    def close(self) -> None:
        """Settle what is open, and forget the account that belonged to this object alone."""
        self.rest()
        with self._state.transaction() as database:
            database.execute("DELETE FROM accounts WHERE name = ?", (self._own,))

    def _before(self, database: sqlite3.Connection, now: float) -> _Before:
        """Return the fewest and the most queries that this month has had of the provider."""
        of = (self._provider, _month(now))
        usage = database.execute(
            "SELECT queries FROM usage WHERE provider = ? AND month = ?", of
        ).fetchone()
        (reserved,) = database.execute(
            "SELECT TOTAL(queries) FROM reservations WHERE provider = ? AND month = ?", of
        ).fetchone()
        most = int(usage[0]) if usage else 0
        return max(0, most - int(reserved)), most

    def _spent_of(self, database: sqlite3.Connection, entry: _Open, now: float) -> Spent:
        row = database.execute(
            "SELECT queries, nano FROM accounts WHERE name = ? AND period = ?",
            (entry.name, entry.period(now)),
        ).fetchone()
        return Spent(int(row[0]), Decimal(row[1]) / _NANO) if row else Spent()

    def _room_of(
        self, database: sqlite3.Connection, entry: _Open, before: _Before, now: float
    ) -> int | None:
        spent = self._spent_of(database, entry, now)
        rooms: list[int] = []
        if entry.budget.queries is not None:
            rooms.append(max(0, entry.budget.queries - spent.queries))
        if entry.nano_limit is not None:
            left = entry.nano_limit - _nano(spent.dollars)
            fits = _most_that_costs(left, lambda n: _nano(self._price.dearest(n, *before)))
            if fits < MOST:
                rooms.append(fits)
        return min(rooms) if rooms else None


def accounts(state: SharedState) -> list[Account]:
    """Return how every budget of a home stands; unnamed budgets of a run are left out."""
    with state.transaction() as database:
        rows = database.execute(
            "SELECT name, period, queries, nano, query_limit, nano_limit FROM accounts "
            "ORDER BY name, period"
        ).fetchall()
        reservations = database.execute("SELECT accounts, queries FROM reservations").fetchall()
    reserved: dict[tuple[str, str], int] = {}
    for text, queries in reservations:
        for name, period in json.loads(text):
            reserved[name, period] = reserved.get((name, period), 0) + queries
    return [
        Account(
            name=name,
            period=period,
            queries=queries,
            dollars=Decimal(nano) / _NANO,
            reserved=reserved.get((name, period), 0),
            query_limit=query_limit,
            dollar_limit=None if nano_limit is None else Decimal(nano_limit) / _NANO,
        )
        for name, period, queries, nano, query_limit, nano_limit in rows
        if reserved.get((name, period)) or not _OWN.fullmatch(name)
    ]


def release_abandoned(state: SharedState, *, everywhere: bool = False) -> int:
    """Give back what processes reserved that are gone; return how many queries.

    Do this only when you know that those queries were not billed: some of them were sent, since
    up to twice 32 are reserved at once.

    Args:
        state: the ledger.
        everywhere: whatever is reserved, also by processes that cannot be looked at from here (of
            another host or container). Only when none is running.
    """
    with state.transaction() as database:
        rows = database.execute("SELECT id, owner, queries FROM reservations").fetchall()
        abandoned = [row for row in rows if everywhere or owner_is_dead(row[1])]
        for number, _, _ in abandoned:
            _reduce(database, number, 0, 0)
            database.execute("DELETE FROM reservations WHERE id = ?", (number,))
        # What budgets without a name left behind when their process was killed.
        for (name,) in database.execute("SELECT DISTINCT name FROM accounts").fetchall():
            own = _OWN.fullmatch(name)
            if own and owner_is_dead(own[1] or ""):
                database.execute("DELETE FROM accounts WHERE name = ?", (name,))
    return sum(row[2] for row in abandoned)


def reset(state: SharedState, name: str) -> int:
    """Forget what was spent under a budget's name, in all periods; return how many accounts."""
    with state.transaction() as database:
        # What is reserved now belongs to what is forgotten, and must not be given back to the new.
        for number, text in database.execute("SELECT id, accounts FROM reservations").fetchall():
            kept = [key for key in json.loads(text) if key[0] != name]
            database.execute(
                "UPDATE reservations SET accounts = ? WHERE id = ?", (json.dumps(kept), number)
            )
        return database.execute("DELETE FROM accounts WHERE name = ?", (name,)).rowcount


def _reduce(database: sqlite3.Connection, number: int, queries: int, nano: int) -> None:
    """Reduce a reservation, its accounts and its provider's month to what was sent of it."""
    row = database.execute(
        "SELECT provider, month, accounts, queries, nano FROM reservations WHERE id = ?", (number,)
    ).fetchone()
    if row is None:  # somebody released it as abandoned
        return
    provider, month, text, reserved, price = row
    for name, period in json.loads(text):
        database.execute(
            "UPDATE accounts SET queries = queries - ?, nano = nano - ? "
            "WHERE name = ? AND period = ?",
            (reserved - queries, price - nano, name, period),
        )
    database.execute(
        "UPDATE usage SET queries = queries - ? WHERE provider = ? AND month = ?",
        (reserved - queries, provider, month),
    )
    database.execute(
        "UPDATE reservations SET queries = ?, nano = ? WHERE id = ?", (queries, nano, number)
    )


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _day(now: float) -> int:
    return int(now // 86_400)


def _month(now: float) -> str:
    return time.strftime("%Y-%m", time.gmtime(now))


def _nano(dollars: Decimal) -> int:
    return int((dollars * _NANO).to_integral_value(ROUND_CEILING))


def _most_that_costs(most: int, cost: Callable[[int], int]) -> int:
    """Return the largest n up to `MOST` whose cost is at most `most`; costs ascend."""
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= most else (low, middle - 1)
    return low
