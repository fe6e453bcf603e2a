"""Begins runs, and ends them.

Around one variant: store -> lease -> retry -> (breaker, pace, budget) per attempt -> adapter ->
store. The first half is `smoothapi.dispatch.run`, the second `smoothapi.dispatch.sending`. None
of it knows of statistics.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from smoothapi.dispatch.breaker import Breaker
from smoothapi.dispatch.patience import Patience
from smoothapi.dispatch.retry import Retry
from smoothapi.dispatch.run import CLOSED, Run
from smoothapi.dispatch.shared import Route, Workers
from smoothapi.errors import StoreError, UsageError
from smoothapi.store.allowance import AllowanceLedger
from smoothapi.store.owners import refuse_fork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.dispatch.job import Work
    from smoothapi.provider import Adapter, Price
    from smoothapi.store import Answers, Budget, Store
    from smoothapi.store.allowance import Allowance


_log = logging.getLogger("smoothapi")


@dataclass(frozen=True, slots=True)
class _Runs:
    """The runs of a dispatcher and of those made of it."""

    closed: threading.Event = field(default_factory=threading.Event)
    # A run is begun before it is closed, or not at all.
    opening: threading.RLock = field(default_factory=threading.RLock)
    all: WeakSet[Run] = field(default_factory=WeakSet)
    process: int = field(default_factory=os.getpid)


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Sends through one adapter, for all runs of a `Smoother`. Make one with `open`.

    Attributes:
        route: how the adapter is asked.
        workers: the threads.
        store: budgets, paces and leases.
        max_failed: share of a run's variants that may fail for good before it is stopped; two
            failures, and the first ten variants, are not judged.
    """

    route: Route
    workers: Workers
    store: Store
    max_failed: float
    _runs: _Runs = field(default_factory=_Runs, repr=False)

    @classmethod
    def open(
        cls,
        adapter: Adapter,
        answers: Answers,
        store: Store,
        budgets: Sequence[Budget] = (),
        *,
        price: Price | None = None,
        concurrency: int = 8,
        retry: Retry | None = None,
        max_failed: float = 0.1,
    ) -> Self:
        """Start the threads, and open the budgets.

        Args:
            adapter: the provider.
            answers: where answers are kept.
            store: what is shared with other processes.
            budgets: hard limits over all runs; all hold at once.
            price: the price list, if it is not the adapter's.
            concurrency: most requests in flight.
            retry: when a variant is tried again.
            max_failed: see the attribute.
        """
        workers = Workers.start(concurrency, answers)
        price, retry = price or adapter.price, retry or Retry()
        # Open by the time that a variant would have used up its attempts with no success between.
        failures = max(3, min(5, retry.attempts))
        route = Route(
            adapter=adapter,
            price=price,
            ledger=store.ledger(budgets, adapter.name, price),
            pace=store.pace(adapter.name, adapter.limits.per_second),
            breaker=Breaker(failures, retry.deadline, provider=adapter.name),
            retry=retry,
        )
        return cls(route, workers, store, max_failed)

    @property
    def price(self) -> Price:
        """The price list in force."""
        return self.route.price

    @property
    def concurrency(self) -> int:
        """Most requests in flight."""
        return self.workers.concurrency

    def room(self) -> int | None:
        """Return how many more attempts the budgets allow now, None if there is no limit."""
        return self.route.ledger.room()

    def through(self, adapter: Adapter, price: Price | None = None) -> Self:
        """Return a dispatcher for another adapter of the provider, to be closed with this one.

        It has the same threads, store, breaker and budgets.
        """
        price = price or adapter.price
        route = replace(
            self.route,
            adapter=adapter,
            price=price,
            ledger=self.route.ledger.priced(price),
            pace=self.store.pace(adapter.name, adapter.limits.per_second),
        )
        return replace(self, route=route)

    def within(self, allowance: Allowance) -> Self:
        """Return a dispatcher whose attempts count for an allowance, too; all else is shared."""
        ledger = AllowanceLedger(self.route.ledger, self.route.price, allowance)
        return replace(self, route=replace(self.route, ledger=ledger))

    def run(self, work: Work) -> Run:
        """Return a run of `work`; iterate over it, and close it if you stop early.

        Raises:
            UsageError: the dispatcher is closed, or was made before the process was forked.
        """
        runs = self._runs
        refuse_fork(runs.process)
        with runs.opening:
            if runs.closed.is_set():
                raise UsageError(CLOSED)
            run = Run(
                work, self.route, self.workers, self.store.leases(), max_failed=self.max_failed
            )
            runs.all.add(run)
        return run

    def close(self) -> None:
        """Stop all runs, wait for what is under way, then end the threads.

        In a process that was forked off the one that opened it, nothing is done: all is that one's.
        """
        if os.getpid() != self._runs.process:
            return
        with self._runs.opening:
            self._runs.closed.set()
            runs = list(self._runs.all)
        for run in runs:
            run.stop(CLOSED)
        patience = Patience(
            under_way=lambda: sum(run.under_way() for run in runs),
            leave=lambda: sum(run.leave() for run in runs),
        )
        workers = self.workers
        try:
            patience.await_all(
                *(run.await_under_way for run in runs),
                lambda: workers.senders.shutdown(wait=not patience.over),
                workers.writer.close,  # what arrived is kept, whatever is not awaited
                lambda: workers.preparers.shutdown(wait=not patience.over),
            )
        finally:
            for run in runs:
                run.give_back()
            try:
                self.route.ledger.close()
            except StoreError as error:
                # What is reserved counts as spent. A run's own error is not to be replaced by this.
                _log.warning("The end could not be written down: %s", error)
