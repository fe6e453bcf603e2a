"""The budget: a hard limit on attempts and dollars, reserved before sending, settled after."""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import uuid
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Literal, TypeAlias

from smoothapi.dispatch.events import emit
from smoothapi.dispatch.state import owner, owner_is_dead
from smoothapi.errors import BudgetExceededError, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from smoothapi.dispatch.price import Price
    from smoothapi.dispatch.state import SharedState

Period: TypeAlias = Literal["run", "day", "month"]

_NANO = 10**9
_BLOCK = 16  # most queries reserved at once
_MOST = 10**9  # more queries, and more dollars, than anyone spends
_OWN = re.compile(r"run [0-9a-f]{32}(?: (.*))?")  # accounts of budgets that have no name


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be sent. Every attempt counts, answered or not.

    Attributes:
        queries: most pictures sent, or None for no limit.
        dollars: most money by the provider's price list, or None. A float means the decimal
            number that it prints as.
        per: "run" limits the life of one `Smoother`; "day" and "month" (UTC) limit all that is
            sent with the same `name` and the same home in that time, by any process.
        name: budgets of one name are one budget. A named budget per "run" is shared by all
            Smoothers that use it, until it is reset.
    """

    queries: int | None = None
    dollars: Decimal | float | str | None = None
    per: Period = "run"
    name: str = ""

    def __post_init__(self) -> None:
        if self.queries is not None and (
            not isinstance(self.queries, int)
            or isinstance(self.queries, bool)
            or not 0 <= self.queries <= _MOST
        ):
            raise UsageError(
                f"A budget of {self.queries!r} queries makes no sense: give an int up to {_MOST:,}."
            )
        if self.per not in ("run", "day", "month"):
            raise UsageError(f"per={self.per!r}: a budget is per run, day or month.")
        if self.dollars is not None:
            object.__setattr__(self, "dollars", _dollars(self.dollars))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "500" (queries), "$2" or "$0.50" (dollars), or both: "500,$2".

        "/day" or "/month" behind it makes it a limit of that period: "$20/month".

        Raises:
            UsageError: the text is none of these.
        """
        amount, _, per = text.partition("/")
        queries: int | None = None
        dollars: Decimal | None = None
        for part in (part.strip() for part in amount.split(",")):
            if part.startswith("$") and dollars is None:
                dollars = _dollars(part[1:])
            elif re.fullmatch(r"[0-9]+(_[0-9]+)*", part) and queries is None:
                queries = int(part)
            else:
                raise UsageError(
                    f"Cannot read the budget {text!r}. Write queries (500), dollars ($2.50) or "
                    "both (500,$2.50), with /day or /month for a limit of that period."
                )
        return cls(queries=queries, dollars=dollars, per=per.strip() or "run")  # type: ignore[arg-type]

    def __str__(self) -> str:
        parts = [] if self.queries is None else [f"{self.queries:,} queries"]
        if self.dollars is not None:
            parts.append(f"${self.dollars:f}")
        amount = " and ".join(parts) or "unlimited"
        return f"{amount} a {self.per}" + (f", {self.name!r}" if self.name else "")


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
    """Some queries that were set aside on disk together, and what became of them."""

    number: int
    accounts: list[tuple[str, str]]
    month: str
    already: int
    size: int
    taken: int = 0
    settled: int = 0


class Ledger:
    """Keeps budgets for one provider, across threads, processes and crashes.

    A query is *reserved* (on disk) before it is sent and *settled* after. Both count as spent; a
    reservation that a crash leaves behind goes on counting, since its query may have been billed.
    Far from the limit several are reserved at once, to write less; `rest` gives back the unused.

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
        self._lock = threading.Lock()
        self._current: Reservation | None = None
        self._retired: list[Reservation] = []
        # A budget without a name per run belongs to this object alone.
        self._own = f"run {uuid.uuid4().hex} {owner()}"
        self._open = [
            _Open(b, b.name or (self._own if b.per == "run" else "default")) for b in budgets
        ]

    def priced(self, price: Price) -> Ledger:
        """Return a ledger of the same accounts, for queries of another price."""
        twin = copy.copy(self)
        twin._price = price  # noqa: SLF001  its own class
        twin._lock, twin._current, twin._retired = threading.Lock(), None, []  # noqa: SLF001
        return twin

    def room(self) -> int | None:
        """Return how many more queries fit now, or None if there is no limit."""
        self.rest()
        with self._state.transaction() as database:
            return self._room(database, self._already(database))

    def reserve(self, queries: int) -> Reservation:
        """Set `queries` aside, on disk.

        Raises:
            BudgetExceededError: they do not fit; nothing was set aside.
            StoreError: the ledger cannot be written.
        """
        with self._lock:
            now = self._clock()
            current = self._current
            if (
                current is None
                or current.size - current.taken < queries
                # What is sent in a new day or month is not to be paid from the last one's budget.
                or current.accounts != self._accounts(now)
                or current.month != _month(now)
            ):
                current = self._renew(queries, now)
            current.taken += queries
            return current

    def settle(self, reservation: Reservation, queries: int) -> Spent:
        """Note that `queries` of a reservation were sent, whatever came of it; say their price."""
        with self._lock:
            before = reservation.already + reservation.settled
            reservation.settled += queries
        return Spent(queries, self._price.of(queries, before))

    def release(self, reservation: Reservation, queries: int) -> None:
        """Give `queries` of a reservation back: they were not sent."""
        with self._lock:
            reservation.taken -= queries

    def rest(self) -> None:
        """Write down what was settled, and give back what was reserved and not used."""
        with self._lock:
            if self._current is None and not self._retired:
                return
            with self._state.transaction() as database:
                self._retire(database)
            self._retired_all()

    def _renew(self, queries: int, now: float) -> Reservation:
        refusal = ""
        number = size = 0
        keys, month = self._accounts(now), _month(now)
        with self._state.transaction(durable=True) as database:
            self._retire(database)
            already = self._already(database)
            room = self._room(database, already)
            if room is not None and queries > room:
                refusal = self._refusal(database, already, queries)
            else:
                # Far from the limit many at once; near it one by one, so that none lie idle.
                size = max(queries, _BLOCK if room is None else min(_BLOCK, room // 64))
                number = self._write(database, now, size, already)
        self._retired_all()
        if refusal:
            raise BudgetExceededError(refusal)
        emit("reserved", provider=self._provider, queries=size)
        self._current = Reservation(number, keys, month, already, size)
        return self._current

    def _write(self, database: sqlite3.Connection, now: float, size: int, already: int) -> int:
        """Set a block aside; return its number."""
        keys, month = self._accounts(now), _month(now)
        nano = _nano(self._price.of(size, already))
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

    def _retire(self, database: sqlite3.Connection) -> None:
        """Give back what is unused, and strike off what is settled.

        `_retired_all` notes that here, once the transaction is made and not before.
        """
        for reservation in self._blocks():
            unused = reservation.size - reservation.taken
            if unused:
                price = self._price.of(unused, reservation.already + reservation.taken)
                _give_back(database, reservation.number, unused, int(price * _NANO))
            if reservation.settled == reservation.taken:
                database.execute("DELETE FROM reservations WHERE id = ?", (reservation.number,))

    def _retired_all(self) -> None:
        blocks = self._blocks()
        for reservation in blocks:
            reservation.size = reservation.taken
            if reservation.settled == reservation.taken:
                emit("settled", provider=self._provider, queries=reservation.settled)
        self._retired = [block for block in blocks if block.settled < block.taken]
        self._current = None

    def _blocks(self) -> list[Reservation]:
        return [*self._retired, *([self._current] if self._current else [])]

    def _room(self, database: sqlite3.Connection, already: int) -> int | None:
        rooms = [self._room_of(database, entry, already) for entry in self._open]
        limited = [room for room in rooms if room is not None]
        return min(limited) if limited else None

    def _refusal(self, database: sqlite3.Connection, already: int, queries: int) -> str:
        for entry in self._open:
            room = self._room_of(database, entry, already)
            if room is not None and queries > room:
                break
        spent = self._spent_of(database, entry)
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

    def _already(self, database: sqlite3.Connection) -> int:
        row = database.execute(
            "SELECT queries FROM usage WHERE provider = ? AND month = ?",
            (self._provider, _month(self._clock())),
        ).fetchone()
        return int(row[0]) if row else 0

    def _spent_of(self, database: sqlite3.Connection, entry: _Open) -> Spent:
        row = database.execute(
            "SELECT queries, nano FROM accounts WHERE name = ? AND period = ?",
            (entry.name, entry.period(self._clock())),
        ).fetchone()
        return Spent(int(row[0]), Decimal(row[1]) / _NANO) if row else Spent()

    def _room_of(self, database: sqlite3.Connection, entry: _Open, already: int) -> int | None:
        spent = self._spent_of(database, entry)
        rooms: list[int] = []
        if entry.budget.queries is not None:
            rooms.append(max(0, entry.budget.queries - spent.queries))
        if entry.nano_limit is not None:
            left = entry.nano_limit - _nano(spent.dollars)
            fits = _most_that_costs(left, lambda n: _nano(self._price.of(n, already)))
            if fits < _MOST:
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
    up to 16 are reserved at once.

    Args:
        state: the ledger.
        everywhere: whatever is reserved, also by processes that cannot be looked at from here (of
            another host or container). Only when none is running.
    """
    with state.transaction() as database:
        rows = database.execute("SELECT id, owner, queries, nano FROM reservations").fetchall()
        abandoned = [row for row in rows if everywhere or owner_is_dead(row[1])]
        for number, _, queries, nano in abandoned:
            _give_back(database, number, queries, nano)
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


def _give_back(database: sqlite3.Connection, number: int, queries: int, nano: int) -> None:
    """Take queries that were not sent off a reservation, its accounts and its provider's month."""
    row = database.execute(
        "SELECT provider, month, accounts FROM reservations WHERE id = ?", (number,)
    ).fetchone()
    if row is None:  # somebody released it as abandoned, and with it these
        return
    provider, month, text = row
    for name, period in json.loads(text):
        database.execute(
            "UPDATE accounts SET queries = queries - ?, nano = nano - ? "
            "WHERE name = ? AND period = ?",
            (queries, nano, name, period),
        )
    database.execute(
        "UPDATE usage SET queries = queries - ? WHERE provider = ? AND month = ?",
        (queries, provider, month),
    )
    database.execute(
        "UPDATE reservations SET queries = queries - ?, nano = nano - ? WHERE id = ?",
        (queries, nano, number),
    )


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _month(now: float) -> str:
    return time.strftime("%Y-%m", time.gmtime(now))


def _nano(dollars: Decimal) -> int:
    return int((dollars * _NANO).to_integral_value(ROUND_CEILING))


def _most_that_costs(most: int, cost: Callable[[int], int]) -> int:
    """Return the largest n up to `_MOST` whose cost is at most `most`; costs ascend."""
    low, high = 0, _MOST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= most else (low, middle - 1)
    return low


def _dollars(value: Decimal | float | str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation as error:
        raise UsageError(
            f"{value!r} is no amount of dollars; write for example 2 or 0.50."
        ) from error
    if not amount.is_finite() or not 0 <= amount <= _MOST:
        raise UsageError(
            f"A budget of {value!r} dollars makes no sense: give 0 or more, up to {_MOST:,}."
        )
    return amount
