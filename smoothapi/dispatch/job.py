"""What a run is to ask, how each variant of it ended, and what it came to."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.errors import SmoothAPIError

Encode: TypeAlias = "Callable[[], bytes]"
"""Makes a payload when it is about to be sent, in the thread that sends it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one variant ended.

    Attributes:
        index: which variant.
        answer: what the provider said, or None if the variant failed for good.
        cached: whether the answer was bought by an earlier run.
        error: why it failed, "" if it did not.
    """

    index: int
    answer: Answer | None
    cached: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a run has sent and received.

    Attributes:
        queries: variants sent, each counted once.
        attempts: pictures sent, retries included; this is what budgets and bills count.
        cached: variants answered from the store.
        failed: variants that failed for good.
        waited: seconds spent waiting between attempts, summed over threads.
        dollars: price of the attempts.
    """

    queries: int = 0
    attempts: int = 0
    cached: int = 0
    failed: int = 0
    waited: float = 0.0
    dollars: Decimal = Decimal(0)

    def __add__(self, other: Totals) -> Totals:
        """Return what both have sent and received."""
        return Totals(
            *(getattr(self, item.name) + getattr(other, item.name) for item in fields(self))
        )

    @property
    def retries(self) -> int:
        """Pictures sent again."""
        return self.attempts - self.queries

    def tell(self, error: SmoothAPIError) -> None:
        """Note on an error what had been sent when it ended the run."""
        error.queries, error.cost = self.attempts, float(self.dollars)
        error.retries, error.waited = self.retries, self.waited


class Meter:
    """Counts for one run, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: set[int] = set()
        self._attempts = self._cached = self._failed = 0
        self._waited = 0.0
        self._dollars = Decimal(0)

    @property
    def totals(self) -> Totals:
        """The counts so far."""
        with self._lock:
            return Totals(
                queries=len(self._sent),
                attempts=self._attempts,
                cached=self._cached,
                failed=self._failed,
                waited=self._waited,
                dollars=self._dollars,
            )

    def count(self, *, cached: int = 0, failed: int = 0, waited: float = 0.0) -> None:
        """Add what is not an attempt."""
        with self._lock:
            self._cached += cached
            self._failed += failed
            self._waited += waited

    def attempt(self, indices: Sequence[int], dollars: Decimal) -> None:
        """Add an attempt to send the variants `indices` in one request."""
        with self._lock:
            self._sent.update(indices)
            self._attempts += len(indices)
            self._dollars += dollars


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is to ask.

    Attributes:
        asked: index -> all that decides its answer, ready for JSON; the store's key is made of it.
        prepare: indices -> for each, a function that makes its payload. Called for misses only,
            from one thread.
        needed: how many more answers could be needed now; 0 ends the run. Called after each
            delivery, from the thread that iterates.
        batch: variants that are worth preparing together.
        refresh: ask again although an answer is stored.
    """

    asked: Callable[[int], Mapping[str, object]]
    prepare: Callable[[Sequence[int]], Sequence[Encode]]
    needed: Callable[[], int]
    batch: int = 8
    refresh: bool = False
