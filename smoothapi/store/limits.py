"""What budgets still allow: arithmetic on how their accounts stand, wherever these are kept."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING

from smoothapi.store.budget import MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smoothapi.provider.price import Price
    from smoothapi.store.budget import Budget
    from smoothapi.store.protocols import Spent

NANO = 10**9
"""Dollars are kept in billionths, as integers."""


OWN_ACCOUNT = re.compile(r"run [0-9a-f]{32}(?: (.*))?")
"""Names of the accounts of budgets that have none: each of one ledger, and of its owner."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget as an account of a store.

    Attributes:
        budget: the limit itself.
        name: of the account, which others may share.
    """

    budget: Budget
    name: str

    def period(self, now: float) -> str:
        """Return the period of the account at a moment in seconds since the epoch."""
        moment = time.gmtime(now)
        return {
            "run": "run",
            "day": time.strftime("%Y-%m-%d", moment),
            "month": time.strftime("%Y-%m", moment),
        }[self.budget.per]

    @property
    def nano(self) -> int | None:
        """Most billionths of a dollar, None for no limit."""
        dollars = self.budget.dollars
        if not isinstance(dollars, Decimal):
            return None
        return int((dollars * NANO).to_integral_value(ROUND_FLOOR))


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """How the accounts of some limits stand.

    Attributes:
        before: the fewest and the most attempts that this month has had of the provider: what is
            reserved may yet be given back.
        spent: by the limits, in their order; reservations included.
    """

    before: tuple[int, int]
    spent: tuple[Spent, ...]


def room_of(limits: Sequence[Limit], standing: BudgetStanding, price: Price) -> int | None:
    """Return how many more attempts fit into all limits, None if there is no limit."""
    rooms = [
        _room(limit, spent, standing, price)
        for limit, spent in zip(limits, standing.spent, strict=True)
    ]
    limited = [room for room in rooms if room is not None]
    return min(limited) if limited else None


def refusal(limits: Sequence[Limit], standing: BudgetStanding, price: Price, attempts: int) -> str:
    """Return what to say where so many attempts do not fit."""
    for limit, spent in zip(limits, standing.spent, strict=True):
        room = _room(limit, spent, standing, price)
        if room is not None and attempts > room:
            break
    budget = limit.budget
    if OWN_ACCOUNT.fullmatch(budget.name):  # a name that nobody gave it
        budget = replace(budget, name="")
    return (
        f"The budget ({budget}) does not allow another attempt: {spent.attempts:,} made "
        f"or reserved, ${spent.dollars.normalize():f} by the price list. All answers are kept: "
        "the same call with more budget continues where this one ended."
    )


def _room(limit: Limit, spent: Spent, standing: BudgetStanding, price: Price) -> int | None:
    rooms: list[int] = []
    if limit.budget.attempts is not None:
        rooms.append(max(0, limit.budget.attempts - spent.attempts))
    if limit.nano is not None:
        left = limit.nano - in_nano(spent.dollars)
        fits = _most_that_costs(left, lambda n: in_nano(price.dearest(n, *standing.before)))
        if fits < MOST:
            rooms.append(fits)
    return min(rooms) if rooms else None


def in_nano(dollars: Decimal) -> int:
    """Return billionths of a dollar, rounded up."""
    return int((dollars * NANO).to_integral_value(ROUND_CEILING))


def _most_that_costs(most: int, cost: Callable[[int], int]) -> int:
    """Return the largest n up to `MOST` whose cost is at most `most`; costs ascend."""
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= most else (low, middle - 1)
    return low
