"""What one call may spend: a budget that ends with it, on top of those of the ledger."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING

from smoothapi.errors import BudgetExceededError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.provider.price import Price
    from smoothapi.store.blocks import Block
    from smoothapi.store.budget import Budget
    from smoothapi.store.protocols import Ledger, Spent


class Allowance:
    """What is left of the budgets of one call. Safe for threads.

    It is kept in memory: a call does not outlive its process, and what it spends is in the
    ledger's accounts as well, on disk.

    Args:
        budgets: per run, without a name; all hold at once.

    Raises:
        UsageError: a budget is of a period, or has a name: calls would share it.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        for budget in budgets:
            if budget.per != "run" or budget.name:
                raise UsageError(
                    f"budget={str(budget)!r} outlives a call. What one call may spend is so many "
                    'attempts or dollars, such as "300" or "$0.10"; a budget of a day or a month, '
                    "or with a name, is given to smoothapi.wrap, and holds besides."
                )
        self._budgets = tuple(budgets)
        self._lock = threading.Lock()
        self._attempts = 0
        self._dollars = Decimal(0)

    def room(self, price: Price) -> int | None:
        """Return how many more attempts fit at best, or None if there is no limit."""
        with self._lock:
            attempts, dollars = self._attempts, self._dollars
        rooms: list[int] = []
        for budget in self._budgets:
            if budget.attempts is not None:
                rooms.append(max(0, budget.attempts - attempts))
            if isinstance(budget.dollars, Decimal) and (least := _cheapest(price)) > 0:
                rooms.append(max(0, int((budget.dollars - dollars) / least)))
        return min(rooms, default=None)

    def take(self, attempts: int, dollars: Decimal) -> None:
        """Count attempts that are about to be sent.

        Raises:
            BudgetExceededError: they do not fit; nothing was counted.
        """
        with self._lock:
            spent = self._attempts + attempts, self._dollars + dollars
            for budget in self._budgets:
                too_many = budget.attempts is not None and spent[0] > budget.attempts
                too_dear = budget.dollars is not None and spent[1] > Decimal(budget.dollars)
                if too_many or too_dear:
                    raise BudgetExceededError(
                        f"The budget of this call ({str(budget).removesuffix(' a run')}) does not "
                        f"allow another attempt: {self._attempts:,} made or reserved, "
                        f"${self._dollars.normalize():f} by the price list. All answers are kept: "
                        "the same call with more budget continues where this one ended."
                    )
            self._attempts, self._dollars = spent

    def give_back(self, attempts: int, dollars: Decimal) -> None:
        """Take back what was counted."""
        with self._lock:
            self._attempts -= attempts
            self._dollars -= dollars


class AllowanceLedger:
    """A ledger whose attempts count for one call's allowance, too; a `Ledger`.

    Args:
        ledger: all budgets that hold besides.
        price: the price list that it goes by.
        allowance: of the call.
    """

    def __init__(self, ledger: Ledger, price: Price, allowance: Allowance) -> None:
        self._ledger = ledger
        self._price = price
        self._allowance = allowance

    def room(self) -> int | None:
        """Return how many more attempts fit now, or None if there is no limit."""
        rooms = self._ledger.room(), self._allowance.room(self._price)
        return min((room for room in rooms if room is not None), default=None)

    def reserve(self, attempts: int) -> Block:
        """Set attempts aside; see `Ledger.reserve`."""
        block = self._ledger.reserve(attempts)
        try:
            self._allowance.take(attempts, attempts * self._most(block))
        except BudgetExceededError:
            self._ledger.release(block, attempts)
            raise
        return block

    def settle(self, block: Block, attempts: int) -> Spent:
        """Note that attempts of a reservation were sent, whatever came of it; say their price."""
        spent = self._ledger.settle(block, attempts)
        self._allowance.give_back(0, attempts * self._most(block) - spent.dollars)
        return spent

    def release(self, block: Block, attempts: int) -> None:
        """Give attempts of a reservation back: they were not sent."""
        self._ledger.release(block, attempts)
        self._allowance.give_back(attempts, attempts * self._most(block))

    def rest(self) -> None:
        """Write down what was settled, and give back what was reserved and not used."""
        self._ledger.rest()

    @property
    def shared(self) -> Sequence[Budget]:
        """The budgets of the ledger; the allowance is one call's, in this process."""
        return self._ledger.shared

    def priced(self, price: Price) -> AllowanceLedger:
        """Return a ledger of the same budgets, for attempts of another price."""
        return AllowanceLedger(self._ledger.priced(price), price, self._allowance)

    def close(self) -> None:
        """Settle what is open, and forget the account that belonged to the ledger alone."""
        self._ledger.close()

    def _most(self, block: Block) -> Decimal:
        """Return the most that one attempt of a block can cost."""
        fewest, most = block.before
        return self._price.dearest(1, fewest, most + block.size)


def _cheapest(price: Price) -> Decimal:
    """Return the least that an attempt costs."""
    free = [Decimal(0)] if price.free_per_month else []
    return min(*free, price.per_thousand, *(step for _, step in price.steps), Decimal(10**9)) / 1000
