"""What all runs of a `Smoother` share: threads, store, pace, breaker, budgets, one adapter.

Around one variant: store -> lease -> retry -> (breaker, pace, budget) per attempt -> adapter ->
store. The first half is `smoothapi.dispatch.run`, the second `smoothapi.dispatch.sending`. None
of it knows of statistics.
"""

from __future__ import annotations

import copy
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from weakref import WeakSet

from smoothapi.dispatch.breaker import Breaker
from smoothapi.dispatch.retry import Retry
from smoothapi.dispatch.run import CLOSED, Run, finish
from smoothapi.dispatch.semaphore import Slots
from smoothapi.dispatch.writing import Keeper
from smoothapi.errors import UsageError
from smoothapi.store.local.ledger import Ledger
from smoothapi.store.local.pace import Pace
from smoothapi.store.owners import FORKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.dispatch.job import Job
    from smoothapi.provider.contract import Adapter
    from smoothapi.provider.price import Price
    from smoothapi.store.budget import Budget
    from smoothapi.store.local.database import SharedState
    from smoothapi.store.protocols import Answers

_PREPARERS = 4
_SPARE = 2  # one thread more for so many requests


class Dispatcher:
    """Sends through one adapter, for all runs of a `Smoother`.

    Args:
        adapter: the provider.
        store: where answers are kept.
        state: what is shared with other processes.
        budgets: hard limits over all runs; all hold at once.
        price: the price list, if it is not the adapter's.
        concurrency: most requests in flight.
        retry: when a variant is tried again.
        max_failed: share of a run's variants that may fail for good before it is stopped; two
            failures, and the first ten variants, are not judged.
    """

    def __init__(
        self,
        adapter: Adapter,
        store: Answers,
        state: SharedState,
        budgets: Sequence[Budget] = (),
        *,
        price: Price | None = None,
        concurrency: int = 8,
        retry: Retry | None = None,
        max_failed: float = 0.1,
    ) -> None:
        if concurrency < 1:
            raise UsageError(f"concurrency={concurrency}: at least one request must be allowed.")
        self.adapter = adapter
        self.store = store
        # No more answers than requests may be on their way to the disk: a crash loses no others.
        self.keeper = Keeper(store, concurrency)
        self.price = price or adapter.price
        self.ledger = Ledger(state, budgets, adapter.name, self.price)
        self.pace = Pace(state, adapter.name, adapter.limits.per_second)
        self.state = state
        self.concurrency = concurrency
        self.retry = retry or Retry()
        # Open by the time that a variant would have used up its attempts with no success between.
        self.breaker = Breaker(
            max(3, min(5, self.retry.attempts)), self.retry.deadline, provider=adapter.name
        )
        self.max_failed = max_failed
        # More threads than requests: while some wait for the service, others encode.
        self.slots = Slots(concurrency)
        self.threads = concurrency + max(1, concurrency // _SPARE)
        self.senders = ThreadPoolExecutor(self.threads, thread_name_prefix="smoothapi-send")
        # A run prepares one lot at a time. With several runs, noise is drawn for some while the
        # denoiser, where they take turns, is busy with another.
        self.preparer = ThreadPoolExecutor(_PREPARERS, thread_name_prefix="smoothapi-prepare")
        self.closed = threading.Event()
        self._process = os.getpid()
        self._runs: WeakSet[Run] = WeakSet()
        self._opening = threading.RLock()  # a run is begun before it is closed, or not at all

    def through(self, adapter: Adapter, price: Price | None = None) -> Dispatcher:
        """Return a dispatcher for another adapter of the provider, to be closed with this one.

        It has the same threads, store, breaker and budgets.
        """
        twin = copy.copy(self)
        twin.adapter = adapter
        twin.price = price or adapter.price
        twin.ledger = self.ledger.priced(twin.price)
        twin.pace = Pace(self.state, adapter.name, adapter.limits.per_second)
        return twin

    def run(self, job: Job) -> Run:
        """Return a run of `job`; iterate over it, and close it if you stop early.

        Raises:
            UsageError: the dispatcher is closed, or was made before the process was forked.
        """
        if os.getpid() != self._process:
            raise UsageError(FORKED)
        with self._opening:
            if self.closed.is_set():
                raise UsageError(CLOSED)
            run = Run(self, job)
            self._runs.add(run)
        return run

    def close(self) -> None:
        """Stop all runs, wait for what is under way, then end the threads."""
        with self._opening:
            self.closed.set()
            runs = list(self._runs)
        for run in runs:
            run.stop()
        try:
            finish(self.senders.shutdown)
        finally:
            self.keeper.close()
            self.preparer.shutdown()
            for run in runs:
                run.give_back()
            self.ledger.close()
