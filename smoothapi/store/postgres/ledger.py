"""Budgets in PostgreSQL: a block is set aside by one statement, which checks every limit."""

from __future__ import annotations

import json
import secrets
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from smoothapi.store.block_ledger import BlockLedger
from smoothapi.store.blocks import SHARE, Block
from smoothapi.store.limits import NANO, BudgetStanding, in_nano, room_of
from smoothapi.store.postgres.owners import TERM
from smoothapi.store.protocols import Spent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smoothapi.provider.price import Price
    from smoothapi.store.blocks import Retired
    from smoothapi.store.budget import Budget
    from smoothapi.store.postgres.owners import Owner
    from smoothapi.store.postgres.server import Server

_BOOK = "SELECT smoothapi.book(%s, %s::jsonb, %s::jsonb, %s::jsonb)"
_WIDER = (10**12, 10_000, 0)  # attempts of others by which a price may still be right


class PostgresLedger(BlockLedger):
    """Budgets for one provider in a database.

    A block's size and price are worked out here, from how the budgets stood when the server last
    said so, and checked there, where all take turns: if others have spent since what it would have
    taken, nothing is set aside, and it is worked out anew from what the server says.

    Args:
        server: the database.
        owner: who reserves.
        budgets: all hold at once.
        provider: whose price list counts.
        price: the price list.
        own: see `BlockLedger`.
    """

    def __init__(
        self,
        server: Server,
        owner: Owner,
        budgets: Sequence[Budget],
        provider: str,
        price: Price,
        *,
        own: str = "",
    ) -> None:
        own = own or f"run {uuid.uuid4().hex} {owner.name}"
        super().__init__(budgets, provider, price, own=own)
        self._server = server
        self._clock = owner.clock
        self._owner = owner
        self._stood: BudgetStanding | None = None
        self._accounts = json.dumps(
            [
                {
                    "name": limit.name,
                    "per": limit.budget.per,
                    "attempts": limit.budget.attempts,
                    "nano": limit.nano,
                }
                for limit in self._limits
            ]
        )

    def priced(self, price: Price) -> PostgresLedger:
        """Return a ledger of the same accounts, for attempts of another price."""
        return PostgresLedger(
            self._server,
            self._owner,
            self._budgets,
            self._provider,
            price,
            own=self._own,
        )

    def _day(self) -> int:
        return self._clock.day()

    def _take(self, attempts: int) -> Block | None:
        if not self._owner.holds():
            # Cut off for so long that others may have given back what was reserved here.
            self._blocks.retire_all()
            return None
        return super()._take(attempts)

    def _write_down(self, retired: Sequence[Retired]) -> BudgetStanding:
        return self._book(retired)[0]

    def _set_aside(
        self, retired: Sequence[Retired], size_of: Callable[[int | None], int]
    ) -> Block | BudgetStanding:
        standing, current = self._stood, False
        while True:
            size = 0
            if standing is not None:
                size = size_of(room_of(self._limits, standing, self._price))
            if standing is not None and size:
                # Whether so many are taken because they are needed, or because there is room.
                room = size if size_of(size) >= size else size * SHARE
                standing, block = self._book(retired, self._wanted(size, room, standing))
                if block is not None:
                    return block
            elif standing is not None and current:
                return standing
            else:
                standing = self._write_down(retired)
            current = True

    def _forget_own(self) -> None:
        self._server.run("DELETE FROM smoothapi.accounts WHERE name = %s RETURNING 1", self._own)

    def _wanted(self, size: int, room: int, standing: BudgetStanding) -> dict[str, Any]:
        fewest, most = standing.before
        price = in_nano(self._price.dearest(size, fewest, most))
        for wider in _WIDER:
            low, high = max(0, fewest - wider), most + wider
            if in_nano(self._price.dearest(size, low, high)) == price:
                break
        return {
            "id": secrets.randbits(62),
            "size": size,
            "room": room,
            "nano": price,
            "from": low,
            "to": high,
            "owner": self._owner.name,
            "seconds": TERM,
        }

    def _book(
        self, retired: Sequence[Retired], wanted: dict[str, Any] | None = None
    ) -> tuple[BudgetStanding, Block | None]:
        done = [
            {
                "id": one.block.number,
                "used": one.used,
                "nano": in_nano(self._price.dearest(one.used, *one.block.before)),
                "settled": one.settled,
            }
            for one in retired
        ]
        sent = self._clock.tick()
        [(told,)] = self._server.run(
            _BOOK,
            self._provider,
            self._accounts,
            json.dumps(done),
            None if wanted is None else json.dumps(wanted),
        )
        self._clock.heard(told["now"], sent)
        standing = BudgetStanding(
            (told["fewest"], told["most"]),
            tuple(Spent(attempts, Decimal(nano) / NANO) for attempts, nano in told["spent"]),
        )
        self._stood = standing
        made = told["block"]
        if wanted is None or made is None:
            return standing, None
        self._owner.lives(told["now"])
        # What the next one is worked out from is what is left behind this one.
        self._stood = BudgetStanding(
            (standing.before[0], standing.before[1] + wanted["size"]),
            tuple(
                Spent(
                    spent.attempts + wanted["size"], spent.dollars + Decimal(wanted["nano"]) / NANO
                )
                for spent in standing.spent
            ),
        )
        before = made["fewest"], made["most"]
        return standing, Block(wanted["id"], made["day"], before, wanted["size"])
