"""What a provider charges, with its free tier and volume steps."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 10**9
"""More dollars for 1,000 pictures than anyone takes."""


@dataclass(frozen=True, slots=True)
class Price:
    """A provider's price list.

    Attributes:
        per_thousand: US dollars for 1,000 pictures.
        as_of: date of the price list (ISO), or "" where there is none.
        free_per_month: pictures of each calendar month (UTC) that cost nothing.
        steps: (pictures a month, dollars per 1,000 beyond them), ascending: volume discounts.
    """

    per_thousand: Decimal
    as_of: str = ""
    free_per_month: int = 0
    steps: tuple[tuple[int, Decimal], ...] = ()

    def __post_init__(self) -> None:
        prices = [self.per_thousand, *(price for _, price in self.steps)]
        starts = [self.free_per_month, *(start for start, _ in self.steps)]
        if not all(isinstance(p, Decimal) and p.is_finite() and 0 <= p <= MOST for p in prices):
            raise UsageError(f"A price is a Decimal from 0 to {MOST:,}, in dollars per 1,000.")
        if starts[0] < 0 or any(one >= other for one, other in pairwise(starts)):
            raise UsageError(
                f"The steps of a price list ascend, above the free pictures; these are {starts}."
            )

    @classmethod
    def parse(cls, given: Mapping[str, Any], name: str) -> Price:
        """Return the price list that the settings give for the provider `name`.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            return cls(
                per_thousand=Decimal(str(given["per_thousand"])),
                as_of=str(given.get("as_of", "")),
                free_per_month=int(given.get("free_per_month", 0)),
                steps=tuple((int(n), Decimal(str(p))) for n, p in given.get("steps", ())),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise UsageError(
                f"The price of {name} in the settings cannot be read ({error!r}). Write "
                f"[prices.{name}] per_thousand = 1.0, and if need be as_of, free_per_month and "
                "steps = [[1000000, 0.8]]."
            ) from error

    def of(self, pictures: int, already: int = 0) -> Decimal:
        """Return the dollars for `pictures` more, after `already` in the same month."""
        bounds = [0, self.free_per_month, *(start for start, _ in self.steps)]
        prices = [Decimal(0), self.per_thousand, *(price for _, price in self.steps)]
        total = Decimal(0)
        for index, price in enumerate(prices):
            low = max(bounds[index], already)
            high = already + pictures
            if index + 1 < len(bounds):
                high = min(high, bounds[index + 1])
            if high > low:
                total += price * (high - low)
        return total / 1000

    def dearest(self, pictures: int, fewest: int, most: int) -> Decimal:
        """Return the most that `pictures` can cost, after `fewest` to `most` in the same month."""
        # Between two steps the price of so many changes evenly with where they begin.
        steps = [self.free_per_month, *(start for start, _ in self.steps)]
        turns = {turn for step in steps for turn in (step, step - pictures)}
        starts = {fewest, most} | {turn for turn in turns if fewest < turn < most}
        return max(self.of(pictures, start) for start in starts)
