"""Variants out, answers back, in order of index, with a bound on what is in flight.

Around one variant: cache -> retry -> budget per attempt -> adapter -> store. An answer is on disk
before it is handed on. Never more variants are out than could still be needed (the caller's
`needed()`), so no answer is bought that could not have counted. The dispatcher knows nothing of
statistics.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from smoothapi.answer import Answer
from smoothapi.dispatch.budget import Budget, Ledger
from smoothapi.dispatch.retry import Retry
from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    SmoothAPIError,
    TooManyFailuresError,
    TransientError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from smoothapi.dispatch.answers import AnswerStore
    from smoothapi.dispatch.contract import Adapter

Encode: TypeAlias = "Callable[[], bytes]"
"""Makes a payload when it is about to be sent, in the thread that sends it."""

_log = logging.getLogger("smoothapi")


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
    """

    queries: int = 0
    attempts: int = 0
    cached: int = 0
    failed: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is to ask.

    Attributes:
        key: index -> cache key.
        prepare: indices -> for each, a function that makes its payload. Called for misses only,
            from one thread.
        needed: how many more answers could be needed now; 0 ends the run. Called after each
            delivery, from the thread that iterates.
        batch: variants that are worth preparing together.
        refresh: ask again although an answer is stored.
    """

    key: Callable[[int], str]
    prepare: Callable[[Sequence[int]], Sequence[Encode]]
    needed: Callable[[], int]
    batch: int = 8
    refresh: bool = False


class Dispatcher:
    """Sends through one adapter, for all runs of a `Smoother`.

    Args:
        adapter: the provider.
        store: where answers are kept.
        budget: the hard limit over all runs.
        concurrency: most requests in flight.
        retry: when a variant is tried again.
        max_failed: share of a run's variants that may fail for good before it is stopped; two
            failures, and the first ten variants, are not judged.
    """

    def __init__(
        self,
        adapter: Adapter,
        store: AnswerStore,
        budget: Budget,
        *,
        concurrency: int = 8,
        retry: Retry | None = None,
        max_failed: float = 0.1,
    ) -> None:
        if concurrency < 1:
            raise UsageError(f"concurrency={concurrency}: at least one request must be allowed.")
        self.adapter = adapter
        self.store = store
        self.ledger = Ledger(budget, adapter.price)
        self.concurrency = concurrency
        self.retry = retry or Retry()
        self.max_failed = max_failed
        self.senders = ThreadPoolExecutor(concurrency, thread_name_prefix="smoothapi-send")
        # One: the denoiser is a single device. A second thread would only compete for it.
        self.preparer = ThreadPoolExecutor(1, thread_name_prefix="smoothapi-prepare")

    def run(self, job: Job) -> Run:
        """Return a run of `job`; iterate over it, and close it if you stop early."""
        return Run(self, job)

    def close(self) -> None:
        """Wait for what is running, then end the threads."""
        self.senders.shutdown()
        self.preparer.shutdown()


# A share says nothing about a handful of votes.
_FEWEST_TO_JUDGE = 10
_ALWAYS_ALLOWED = 2


class Run:
    """One job under way: an iterator of deliveries in order of index.

    However it ends (all delivered, closed early, an error, Ctrl-C), requests under way are
    awaited and their answers stored, and nothing more is sent.
    """

    def __init__(self, dispatcher: Dispatcher, job: Job) -> None:
        self._dispatcher = dispatcher
        self._job = job
        self._lock = threading.Lock()
        self._totals = Totals()
        self._stop = threading.Event()
        self._deliveries = self._deliver()

    @property
    def totals(self) -> Totals:
        """What this run has sent and received so far."""
        with self._lock:
            return self._totals

    def __iter__(self) -> Iterator[Delivery]:
        return self._deliveries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._deliveries.close()

    def _count(self, **by: float) -> None:
        with self._lock:
            self._totals = replace(
                self._totals, **{name: getattr(self._totals, name) + n for name, n in by.items()}
            )

    def _deliver(self) -> Generator[Delivery]:  # closing it runs its finally
        dispatcher, job = self._dispatcher, self._job
        window = max(2 * job.batch, 2 * dispatcher.concurrency * dispatcher.adapter.limits.batch)
        ended: dict[int, Delivery] = {}
        misses: deque[int] = deque()
        ready: deque[tuple[int, Encode]] = deque()
        preparing: dict[Future[Sequence[Encode]], list[int]] = {}
        sending: set[Future[list[Delivery]]] = set()
        turn = ahead = 0
        try:
            while (needed := job.needed()) > 0:
                while ahead - turn < min(needed, window):
                    stored = None if job.refresh else dispatcher.store.get(job.key(ahead))
                    if stored is None:
                        misses.append(ahead)
                    else:
                        ended[ahead] = self._from_store(ahead, stored)
                    ahead += 1
                if turn in ended:
                    delivery = ended.pop(turn)
                    turn += 1
                    self._judge(delivery, turn)
                    yield delivery
                    continue
                # Prepare whatever has gathered as soon as the last lot is on its way: lots grow
                # by themselves where preparing is the slower side.
                if misses and not preparing and len(ready) < job.batch:
                    lot = [misses.popleft() for _ in range(min(job.batch, len(misses)))]
                    preparing[dispatcher.preparer.submit(job.prepare, lot)] = lot
                while ready and len(sending) < dispatcher.concurrency:
                    size = min(len(ready), dispatcher.adapter.limits.batch)
                    group = [ready.popleft() for _ in range(size)]
                    sending.add(dispatcher.senders.submit(self._send, group))
                under_way: list[Future[Any]] = [*preparing, *sending]
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    if future in preparing:
                        ready.extend(zip(preparing.pop(future), future.result(), strict=True))
                    else:
                        sending.discard(future)
                        ended.update((d.index, d) for d in future.result())
        except SmoothAPIError as error:
            self._halt(preparing, sending)  # what is under way still counts
            error.queries = self.totals.attempts
            error.cost = float(dispatcher.adapter.price.of(error.queries))
            raise
        finally:
            self._halt(preparing, sending)

    def _from_store(self, index: int, stored: Answer | PermanentError) -> Delivery:
        self._count(cached=1)
        if isinstance(stored, Answer):
            return Delivery(index, stored, cached=True)
        return Delivery(index, None, cached=True, error=str(stored))

    def _judge(self, delivery: Delivery, delivered: int) -> None:
        """Stop a run whose votes are mostly failures: it would pay only to abstain."""
        if delivery.answer is not None:
            return
        self._count(failed=1)
        failed = self.totals.failed
        allowed = max(_ALWAYS_ALLOWED, self._dispatcher.max_failed * delivered)
        if delivered >= _FEWEST_TO_JUDGE and failed > allowed:
            raise TooManyFailuresError(
                f"{failed} of {delivered} variants got no answer from "
                f"{self._dispatcher.adapter.name} (the last: {delivery.error}). Each is a vote "
                'for "no answer", so going on would pay for an abstention. The answers so far '
                "are kept: run the same call again when the service is well.",
                provider=self._dispatcher.adapter.name,
            )

    def _halt(
        self,
        preparing: dict[Future[Sequence[Encode]], list[int]],
        sending: set[Future[list[Delivery]]],
    ) -> None:
        """Await what is under way, send nothing more."""
        self._stop.set()
        under_way: list[Future[Any]] = [*preparing, *sending]
        for future in under_way:
            future.cancel()
        wait(under_way)

    def _send(self, group: list[tuple[int, Encode]]) -> list[Delivery]:
        """Send one request until each of its variants has ended. Runs in a sender thread."""
        if self._stop.is_set():
            return []
        payloads = [encode() for _, encode in group]
        outcomes: dict[int, Answer | PermanentError] = {}
        self._count(queries=len(group))
        loop = self._dispatcher.retry.loop(self._stop)
        try:
            loop(self._attempt, group, payloads, outcomes)
        except TransientError as error:
            gave_up = f"{error} (tried {loop.statistics['attempt_number']} times)"
        else:
            gave_up = ""
        finally:
            self._count(waited=loop.statistics.get("idle_for", 0.0))
        deliveries: list[Delivery] = []
        for index, _ in group:
            outcome = outcomes.get(index)
            if isinstance(outcome, Answer):
                deliveries.append(Delivery(index, outcome))
            elif not (outcome is None and self._stop.is_set()):
                # Stopped in mid-retry is no final failure: such a variant has not ended.
                deliveries.append(Delivery(index, None, error=str(outcome or gave_up)))
        return deliveries

    def _attempt(
        self,
        group: list[tuple[int, Encode]],
        payloads: list[bytes],
        outcomes: dict[int, Answer | PermanentError],
    ) -> None:
        """Ask once about all of the group that has no outcome yet."""
        if self._stop.is_set():
            raise TransientError("the run was stopped", provider=self._dispatcher.adapter.name)
        open_ = [row for row, (index, _) in enumerate(group) if index not in outcomes]
        dispatcher = self._dispatcher
        dispatcher.ledger.reserve(len(open_))
        self._count(attempts=len(open_))
        began = time.monotonic()
        try:
            answers = _ask(dispatcher.adapter, [payloads[row] for row in open_])
        except PermanentError as error:
            answers = [error] * len(open_)
        except TransientError as error:
            _log.info("attempt failed after %.2f s: %s", time.monotonic() - began, error)
            raise
        except ProviderError:
            self._stop.set()  # at once: no thread may start another attempt
            raise
        finally:
            dispatcher.ledger.settle(len(open_))
        again: TransientError | None = None
        fatal: ProviderError | None = None
        for row, answer in zip(open_, answers, strict=True):
            index = group[row][0]
            if isinstance(answer, (Answer, PermanentError)):
                dispatcher.store.put(self._job.key(index), answer)
                outcomes[index] = answer
            elif isinstance(answer, TransientError):
                again = answer
            else:
                fatal = answer
        if fatal is not None:
            self._stop.set()
            raise fatal
        if again is not None:
            raise again


def _ask(adapter: Adapter, payloads: Sequence[bytes]) -> Sequence[Answer | ProviderError]:
    """Call the adapter and hold it to its contract."""
    try:
        answers = adapter.ask(payloads)
    except ProviderError as error:
        error.provider = error.provider or adapter.name
        raise
    except Exception as error:
        raise FatalError(
            f"The adapter {adapter.name!r} failed with {type(error).__name__}, which is none of "
            "smoothapi's provider errors: this is a defect of the adapter.",
            provider=adapter.name,
        ) from error
    with suppress(TypeError):
        if len(answers) == len(payloads) and all(
            isinstance(answer, (Answer, ProviderError)) for answer in answers
        ):
            return answers
    raise FatalError(
        f"The adapter {adapter.name!r} must return one Answer or ProviderError for each of the "
        f"{len(payloads)} pictures it was given: this is a defect of the adapter.",
        provider=adapter.name,
    )
