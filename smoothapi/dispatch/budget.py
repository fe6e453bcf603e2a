"""The budget: a hard limit on attempts and dollars, reserved before sending, settled after."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from smoothapi.errors import BudgetExceededError, UsageError

if TYPE_CHECKING:
    from smoothapi.dispatch.contract import Price


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a `Smoother` may send in its lifetime. Every attempt counts, answered or not.

    Attributes:
        queries: most pictures sent, or None for no limit.
        dollars: most money by the provider's price list, or None. A float means the decimal
            number that it prints as.
    """

    queries: int | None = None
    dollars: Decimal | float | str | None = None

    def __post_init__(self) -> None:
        if self.queries is not None and (not isinstance(self.queries, int) or self.queries < 0):
            raise UsageError(f"A budget of {self.queries!r} queries makes no sense: give an int.")
        if self.dollars is not None:
            object.__setattr__(self, "dollars", _dollars(self.dollars))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "500" (queries), "$2" or "$0.50" (dollars), or both with a comma between.

        Raises:
            UsageError: the text is none of these.
        """
        queries: int | None = None
        dollars: Decimal | None = None
        for part in (part.strip() for part in text.split(",")):
            if part.startswith("$") and dollars is None:
                dollars = _dollars(part[1:])
            elif re.fullmatch(r"\d[\d_]*", part) and queries is None:
                queries = int(part)
            else:
                raise UsageError(
                    f"Cannot read the budget {text!r}. Write queries (500), dollars ($2.50) or "
                    "both (500,$2.50)."
                )
        return cls(queries=queries, dollars=dollars)

    def __str__(self) -> str:
        parts = [] if self.queries is None else [f"{self.queries:,} queries"]
        if self.dollars is not None:
            parts.append(f"${self.dollars}")
        return " and ".join(parts) or "unlimited"


@dataclass(frozen=True, slots=True)
class Spent:
    """What has been sent so far, reservations included."""

    queries: int = 0
    dollars: Decimal = Decimal(0)


class Ledger:
    """Keeps one budget, for all threads of a process."""

    def __init__(self, budget: Budget, price: Price) -> None:
        self._budget = budget
        self._price = price
        self._lock = threading.Lock()
        self._settled = 0
        self._reserved = 0

    @property
    def spent(self) -> Spent:
        """Queries and dollars sent or about to be."""
        with self._lock:
            queries = self._settled + self._reserved
        return Spent(queries, self._price.of(queries))

    def room(self) -> int | None:
        """Return how many more queries fit, or None if there is no limit."""
        with self._lock:
            return self._room()

    def reserve(self, queries: int) -> None:
        """Set aside `queries`, or refuse.

        Raises:
            BudgetExceededError: they do not fit; nothing was set aside.
        """
        with self._lock:
            room = self._room()
            if room is not None and queries > room:
                spent = self._settled + self._reserved
                raise BudgetExceededError(
                    f"The budget ({self._budget}) does not allow another query: "
                    f"{spent:,} sent, ${self._price.of(spent)} by the price list. All answers "
                    "are kept: the same call with a larger budget continues where this one ended."
                )
            self._reserved += queries

    def settle(self, queries: int) -> None:
        """Turn a reservation into queries spent: they were sent, whatever came of it."""
        with self._lock:
            self._reserved -= queries
            self._settled += queries

    def release(self, queries: int) -> None:
        """Give a reservation back: nothing was sent."""
        with self._lock:
            self._reserved -= queries

    def _room(self) -> int | None:
        limits: list[int] = []
        if self._budget.queries is not None:
            limits.append(self._budget.queries)
        dollars = self._budget.dollars
        if isinstance(dollars, Decimal) and self._price.per_thousand > 0:
            limits.append(int(dollars * 1000 / self._price.per_thousand))
        if not limits:
            return None
        return min(limits) - self._settled - self._reserved


def _dollars(value: Decimal | float | str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation as error:
        raise UsageError(
            f"{value!r} is no amount of dollars; write for example 2 or 0.50."
        ) from error
    if not amount.is_finite() or amount < 0:
        raise UsageError(f"A budget of {value!r} dollars makes no sense: give 0 or more.")
    return amount
