"""What a run is to ask, how each variant of it ended, and what it came to."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
        waited: seconds in which a request waited between attempts; of the clock, so that any
            number that wait at the same time count once.
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
        error.attempts, error.cost = self.attempts, float(self.dollars)
        error.retries, error.waited = self.retries, self.waited


class Meter:
    """Counts for one run, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: set[int] = set()
        self._attempts = self._cached = self._failed = 0
        self._waiting = 0  # threads
        self._waited = self._since = 0.0
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
                waited=self._waited + (time.monotonic() - self._since if self._waiting else 0.0),
                dollars=self._dollars,
            )

    def count(self, *, cached: int = 0, failed: int = 0) -> None:
        """Add what is not an attempt."""
        with self._lock:
            self._cached += cached
            self._failed += failed

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a `with` statement as waited, once however many threads wait in it."""
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._waited += time.monotonic() - self._since

    def attempt(self, indices: Sequence[int], dollars: Decimal) -> None:
        """Add an attempt to send the variants `indices` in one request."""
        with self._lock:
            self._sent.update(indices)
            self._attempts += len(indices)
            self._dollars += dollars


class Work(Protocol):
    """What a run is to ask, and how."""

    @property
    def batch(self) -> int:
        """Variants that are worth preparing together."""

    @property
    def refresh(self) -> bool:
        """Whether to ask again although an answer is stored."""

    @property
    def refreshes(self) -> int:
        """How often these answers will have been asked for anew: it is kept with them."""

    def asked(self, index: int, /) -> Mapping[str, object]:
        """Return all that decides a variant's answer, ready for JSON: the store's key is of it."""

    def prepare(self, indices: Sequence[int], /) -> Sequence[Encode]:
        """Return for each variant what makes its payload; for misses only, not from two threads."""

    def needed(self) -> int:
        """Return how many more answers could be needed now; 0 ends the run.

        Called after each delivery, from the thread that iterates.
        """
