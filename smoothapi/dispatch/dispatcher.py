"""Variants out, answers back, in order of index, with a bound on what is in flight.

Around one variant: store -> lease -> retry -> (breaker, pace, budget) per attempt -> adapter ->
store. An answer is on disk before it is handed on. Never more variants are out than could still
be needed (the caller's `needed()`), so no answer is bought that could not have counted. The
dispatcher knows nothing of statistics.
"""

from __future__ import annotations

import copy
import logging
import os
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from smoothapi.answer import Answer
from smoothapi.dispatch.answers import answer_key
from smoothapi.dispatch.asking import ask
from smoothapi.dispatch.budget import Budget, Ledger
from smoothapi.dispatch.events import attempt_span, emit
from smoothapi.dispatch.job import Delivery, Job, Totals
from smoothapi.dispatch.pace import Breaker, Caller, Pace
from smoothapi.dispatch.retry import Retry
from smoothapi.dispatch.state import FORKED, Leases
from smoothapi.errors import (
    BudgetExceededError,
    PermanentError,
    ProviderError,
    SmoothAPIError,
    StoreError,
    ThrottledError,
    TooManyFailuresError,
    TransientError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from decimal import Decimal

    from smoothapi.dispatch.answers import Answers
    from smoothapi.dispatch.contract import Adapter
    from smoothapi.dispatch.job import Encode
    from smoothapi.dispatch.price import Price
    from smoothapi.dispatch.state import SharedState

_log = logging.getLogger("smoothapi")


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
        # More threads than requests: while some wait for the service, others encode and store.
        self.slots = threading.BoundedSemaphore(concurrency)
        self.threads = concurrency + max(1, concurrency // _SPARE)
        self.senders = ThreadPoolExecutor(self.threads, thread_name_prefix="smoothapi-send")
        # A run prepares one lot at a time. With several runs, noise is drawn for some while the
        # denoiser, where they take turns, is busy with another.
        self.preparer = ThreadPoolExecutor(_PREPARERS, thread_name_prefix="smoothapi-prepare")
        self.closed = threading.Event()
        self._process = os.getpid()
        self._runs: WeakSet[Run] = WeakSet()

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
        if self.closed.is_set():
            raise UsageError(_CLOSED)
        if os.getpid() != self._process:
            raise UsageError(FORKED)
        run = Run(self, job)
        self._runs.add(run)
        return run

    def close(self) -> None:
        """Stop all runs, wait for what is under way, then end the threads."""
        self.closed.set()
        for run in list(self._runs):
            run.stop()
        try:
            _finish(self.senders.shutdown)
        finally:
            self.preparer.shutdown()
            self.ledger.close()


_CLOSED = (
    "This Smoother was closed. What was under way was awaited and its answers are kept: the same "
    "call with another Smoother continues where this one ended."
)

_PREPARERS = 4
_SPARE = 2  # one thread more for so many requests

# A share says nothing about a handful of votes.
_FEWEST_TO_JUDGE = 10
_ALWAYS_ALLOWED = 2

_LOOK_AGAIN = 0.05  # seconds until it is looked again what another process is asking for
_RENEW = 30.0  # seconds after which leases are renewed
_DROP_AT_ONCE = 16


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
        # Room for what is sent, what is prepared, and what waits for its turn.
        self._window = 4 * (job.batch + dispatcher.threads * dispatcher.adapter.limits.batch)
        # Fewer than the limit once more of these pictures proved too large for one request.
        self._batch = dispatcher.adapter.limits.batch
        # Where each variant is: looked up to _ahead; missing, preparing, ready, sending, ended.
        self._ahead = 0
        self._misses: deque[int] = deque()
        self._preparing: dict[Future[Sequence[Encode]], list[int]] = {}
        self._ready: deque[tuple[int, Encode]] = deque()
        self._sending: set[Future[list[Delivery]]] = set()
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()  # of those under way
        self._ended: dict[int, Delivery] = {}
        self._delivered = 0
        self._last_error = ""
        # Leases on those between missing and ended, and those to be given back.
        # Of a run, not of the dispatcher: threads that share one do not buy twice either.
        self._leases = Leases(dispatcher.state)
        self._held: dict[int, str] = {}
        self._keys: dict[int, str] = {}
        self._finished: list[str] = []
        self._renewed = time.monotonic()
        self._sent: set[int] = set()
        self._deliveries = self._deliver()

    @property
    def totals(self) -> Totals:
        """What this run has sent and received so far."""
        with self._lock:
            return self._totals

    def stop(self) -> None:
        """Send nothing more; what is under way is awaited by whoever iterates."""
        self._stop.set()

    def __iter__(self) -> Iterator[Delivery]:
        return self._deliveries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._deliveries.close()

    def _count(self, **by: float | Decimal) -> None:
        with self._lock:
            self._totals = replace(
                self._totals, **{name: getattr(self._totals, name) + n for name, n in by.items()}
            )

    def _deliver(self) -> Generator[Delivery]:  # closing it runs its finally
        turn = 0
        try:
            while (needed := self._job.needed()) > 0:
                if self._dispatcher.closed.is_set():
                    raise UsageError(_CLOSED)
                self._look_up(min(turn + needed, turn + self._window))
                if turn not in self._ended:
                    self._start_work()
                    if turn not in self._ended:  # starting may find what another process bought
                        self._await_work()
                    continue
                delivery = self._ended.pop(turn)
                turn += 1
                self._judge(delivery, turn)
                yield delivery
        except (SmoothAPIError, RuntimeError) as error:
            self._halt()  # what is under way still counts
            ended = error
            if self._dispatcher.closed.is_set():  # by another thread, at whatever line
                ended = UsageError(_CLOSED)
            if isinstance(ended, SmoothAPIError):
                self.totals.tell(ended)
            if ended is not error:
                raise ended from error
            raise
        finally:
            self._halt()
            self._say_how_it_ended()

    def _look_up(self, end: int) -> None:
        """Look for the answers of all variants up to `end` in the store."""
        for index in range(self._ahead, end):
            if not self._take_stored(index):
                self._misses.append(index)
        self._ahead = max(self._ahead, end)

    def _start_work(self) -> None:
        """Begin to prepare and to send what may be."""
        dispatcher, job = self._dispatcher, self._job
        # Prepare whatever has gathered as soon as the last lot is on its way: lots grow by
        # themselves where preparing is the slower side.
        if self._misses and not self._preparing and len(self._ready) < job.batch:
            lot = self._lease_lot()
            if lot:
                preparing = dispatcher.preparer.submit(job.prepare, lot)
                self._preparing[preparing] = lot
                preparing.add_done_callback(self._done.put)
        while self._ready and len(self._sending) < dispatcher.threads:
            group = [self._ready.popleft() for _ in range(min(len(self._ready), self._batch))]
            sending = dispatcher.senders.submit(self._send, group)
            self._sending.add(sending)
            sending.add_done_callback(self._done.put)

    def _await_work(self) -> None:
        """Wait until something is done, or there is reason to look again."""
        if not (self._preparing or self._sending):
            # All that is missing is being asked for by another process.
            self._stop.wait(_LOOK_AGAIN)
            return
        contested = self._misses and not self._preparing
        done: list[Future[Any]] = []
        with suppress(queue.Empty):
            done.append(self._done.get(timeout=_LOOK_AGAIN if contested else _RENEW))
            while True:
                done.append(self._done.get_nowait())
        for future in done:
            if future in self._preparing:
                lot = self._preparing.pop(future)
                self._ready.extend(zip(lot, future.result(), strict=True))
            else:
                self._sending.discard(future)
                for delivery in future.result():
                    self._ended[delivery.index] = delivery
                    self._finished.append(self._held.pop(delivery.index))
        self._mind_leases()

    def _key(self, index: int) -> str:
        key = self._keys.get(index)
        if key is None:
            key = self._keys[index] = answer_key(self._job.asked(index))
        return key

    def _take_stored(self, index: int) -> bool:
        """Take the answer of a variant from the store, if it is there."""
        if self._job.refresh:
            return False
        stored = self._dispatcher.store.get(self._key(index))
        if stored is None:
            return False
        self._ended[index] = self._from_store(index, stored)
        return True

    def _lease_lot(self) -> list[int]:
        """Return the next variants that no other process is asking for, leased to this run."""
        lot = [self._misses.popleft() for _ in range(min(self._job.batch, len(self._misses)))]
        keys = {index: self._key(index) for index in lot}
        taken = self._leases.take(list(keys.values()))
        ours: list[int] = []
        for index in reversed(lot):
            # Another may have bought it since it was looked up, before or after the lease.
            if self._take_stored(index):
                if keys[index] in taken:
                    self._finished.append(keys[index])
            elif keys[index] in taken:
                self._held[index] = keys[index]
                ours.append(index)
            else:
                self._misses.appendleft(index)
        return ours[::-1]

    def _mind_leases(self) -> None:
        """Give back the leases of variants that have ended, many at once; renew the others."""
        if len(self._finished) >= _DROP_AT_ONCE:
            self._leases.drop(self._finished)
            self._finished.clear()
        if self._held and time.monotonic() - self._renewed > _RENEW:
            self._leases.renew(self._held.values())
            self._renewed = time.monotonic()

    def _from_store(self, index: int, stored: Answer | PermanentError) -> Delivery:
        self._count(cached=1)
        emit("stored", provider=self._dispatcher.adapter.name, index=index)
        if isinstance(stored, Answer):
            return Delivery(index, stored, cached=True)
        return Delivery(index, None, cached=True, error=str(stored))

    def _judge(self, delivery: Delivery, delivered: int) -> None:
        """Stop a run whose votes are mostly failures: it would pay only to abstain."""
        self._delivered = delivered
        if delivery.answer is not None:
            return
        self._count(failed=1)
        self._last_error = delivery.error
        if delivered >= _FEWEST_TO_JUDGE and self.totals.failed > _ALWAYS_ALLOWED:
            self.refuse_failures()

    def refuse_failures(self) -> None:
        """Raise if more than the allowed share of the variants so far failed for good.

        Raises:
            TooManyFailuresError: says how many, and what the last one met.
        """
        failed = self.totals.failed
        if failed > self._dispatcher.max_failed * self._delivered:
            error = TooManyFailuresError(
                f"{failed} of {self._delivered} variants got no answer from "
                f"{self._dispatcher.adapter.name} (the last: {self._last_error}). Each is a vote "
                'for "no answer", so going on would pay for an abstention. The answers so far '
                "are kept: run the same call again when the service is well, with refresh "
                "(--refresh) if it refused the pictures themselves.",
                provider=self._dispatcher.adapter.name,
            )
            self.totals.tell(error)
            raise error

    def _halt(self) -> None:
        """Await what is under way, send nothing more."""
        self._stop.set()
        under_way: list[Future[Any]] = [*self._preparing, *self._sending]
        for future in under_way:
            future.cancel()
        try:
            _finish(lambda: wait(under_way))
        finally:
            self._write_down_the_end()

    def _write_down_the_end(self) -> None:
        leases = [*self._held.values(), *self._finished]
        try:
            self._leases.drop(leases)
            self._dispatcher.ledger.rest()
        except (StoreError, UsageError) as error:
            # Leases end by themselves, and what is reserved counts as spent: on the safe side.
            _log.warning("The end of the run could not be written down: %s", error)
        self._held.clear()
        self._finished.clear()

    def _say_how_it_ended(self) -> None:
        totals = self.totals
        emit(
            "ended",
            provider=self._dispatcher.adapter.name,
            delivered=self._delivered,
            queries=totals.queries,
            attempts=totals.attempts,
            retries=totals.retries,
            cached=totals.cached,
            failed=totals.failed,
            waited=round(totals.waited, 3),
            dollars=float(totals.dollars),
        )

    def _send(self, group: list[tuple[int, Encode]]) -> list[Delivery]:
        """Send variants until each has ended. Runs in a sender thread."""
        deliveries: list[Delivery] = []
        try:
            if self._stop.is_set():
                return []
            payloads = [encode() for _, encode in group]
            self._check_sizes(payloads)
            for part in self._parts(payloads):
                if not self._stop.is_set():
                    deliveries += self._send_request(group[part], payloads[part])
        except BaseException:
            self._stop.set()  # at once: no thread may start another attempt
            raise
        return deliveries

    def _parts(self, payloads: list[bytes]) -> list[slice]:
        """Return what goes into one request each: as many as its limit of bytes allows."""
        limit = self._dispatcher.adapter.limits.max_request_bytes
        parts: list[slice] = []
        begin = size = 0
        for end, payload in enumerate(payloads):
            if limit is not None and end > begin and size + len(payload) > limit:
                parts.append(slice(begin, end))
                begin, size = end, 0
            size += len(payload)
        parts.append(slice(begin, len(payloads)))
        if len(parts) > 1:
            name = self._dispatcher.adapter.name
            emit("split", provider=name, pictures=len(payloads), requests=len(parts))
            self._batch = max(1, min(self._batch, parts[0].stop))
        return parts

    def _send_request(
        self, group: list[tuple[int, Encode]], payloads: list[bytes]
    ) -> list[Delivery]:
        """Send one request until each of its variants has ended."""
        outcomes: dict[int, Answer | PermanentError] = {}
        gave_up, apart = self._ask_together(group, payloads, outcomes)
        deliveries: list[Delivery] = []
        for row, (index, _) in enumerate(group):
            outcome = outcomes.get(index)
            if isinstance(outcome, Answer):
                deliveries.append(Delivery(index, outcome))
            elif outcome is None and apart:
                if not self._stop.is_set():
                    deliveries += self._send_request([group[row]], [payloads[row]])
            elif not (outcome is None and self._stop.is_set()):
                # Stopped in mid-retry is no final failure: such a variant has not ended.
                if outcome is None:
                    self._dispatcher.store.give_up(self._job.asked(index), gave_up)
                deliveries.append(Delivery(index, None, error=str(outcome or gave_up)))
        return deliveries

    def _ask_together(
        self,
        group: list[tuple[int, Encode]],
        payloads: list[bytes],
        outcomes: dict[int, Answer | PermanentError],
    ) -> tuple[str, bool]:
        """Make one request, again if need be.

        Returns:
            Why it was given up, "" if it was not; and whether each picture without an outcome is
            to be asked alone: one of them may be what is wrong with the request, or the budget
            may do for some.
        """
        gave_up, apart, caller = "", False, Caller()
        try:
            try:
                self._attempt(group, payloads, outcomes, caller)
            except TransientError as error:
                gave_up, failed = self._try_again(error, group, payloads, outcomes, caller)
                apart = failed and len(group) > 1 and not outcomes
        except (PermanentError, BudgetExceededError):
            apart = len(group) - len(outcomes) > 1
            if not apart:
                raise
        if apart:
            name, alone = self._dispatcher.adapter.name, len(group) - len(outcomes)
            emit("split", provider=name, pictures=alone, requests=alone)
        return gave_up, apart

    def _try_again(
        self,
        first: TransientError,
        group: list[tuple[int, Encode]],
        payloads: list[bytes],
        outcomes: dict[int, Answer | PermanentError],
        caller: Caller,
    ) -> tuple[str, bool]:
        """Repeat what failed once, after waits.

        Returns:
            Why it was given up, "" if it was not; and whether it failed, rather than was throttled.
        """
        errors = [first]

        def attempt() -> None:
            if errors:  # the first attempt, which counts, was made
                raise errors.pop()
            self._attempt(group, payloads, outcomes, caller)

        loop = self._dispatcher.retry.loop(self._stop, self._dispatcher.adapter.name)
        try:
            loop(attempt)
        except TransientError as error:
            why = f"{error} (tried {loop.statistics['attempt_number']} times)"
            return why, not isinstance(error, ThrottledError)
        finally:
            self._count(waited=loop.statistics.get("idle_for", 0.0))
        return "", False

    def _check_sizes(self, payloads: list[bytes]) -> None:
        """Refuse what the provider would refuse, before it is paid for."""
        adapter = self._dispatcher.adapter
        limits = adapter.limits
        most = min(limits.max_bytes, limits.max_request_bytes or limits.max_bytes)
        largest = max(len(payload) for payload in payloads)
        if largest > most:
            raise UsageError(
                f"An encoded variant has {largest:,} bytes, and {adapter.name} takes up to "
                f"{most:,}. Give a smaller working size (size=), "
                "or codec='jpeg' if that is not what was sent."
            )

    def _attempt(
        self,
        group: list[tuple[int, Encode]],
        payloads: list[bytes],
        outcomes: dict[int, Answer | PermanentError],
        caller: Caller,
    ) -> None:
        """Ask once about all of the group that has no outcome yet; more often to probe an outage.

        Raises:
            TransientError: some are worth another attempt.
            PermanentError: a request of several pictures was refused as a whole.
        """
        breaker = self._dispatcher.breaker
        while True:
            probing = False
            if breaker.open:
                began = time.monotonic()
                probing = breaker.enter(self._stop)
                self._count(waited=time.monotonic() - began)
            try:
                self._ask_once(group, payloads, outcomes, caller, probing=probing)
            except ThrottledError:
                raise
            except TransientError:
                # In an outage the variant waits for the service; that is no attempt of its own.
                if (probing or breaker.open) and not self._stop.is_set():
                    continue
                raise
            else:
                return
            finally:
                if probing:
                    breaker.leave()  # whatever came of it: others wait for this

    def _ask_once(
        self,
        group: list[tuple[int, Encode]],
        payloads: list[bytes],
        outcomes: dict[int, Answer | PermanentError],
        caller: Caller,
        *,
        probing: bool,
    ) -> None:
        rows = [row for row, (index, _) in enumerate(group) if index not in outcomes]
        self._wait_for_pace(len(rows))
        answers = self._request(
            [group[row][0] for row in rows], [payloads[row] for row in rows], caller, probing
        )
        again: list[TransientError] = []
        fatal: ProviderError | None = None
        for row, answer in zip(rows, answers, strict=True):
            index = group[row][0]
            if isinstance(answer, (Answer, PermanentError)):
                self._dispatcher.store.put(self._job.asked(index), answer, payloads[row])
                outcomes[index] = answer
            elif isinstance(answer, TransientError):
                again.append(answer)
            else:
                self._stop.set()
                fatal = fatal or answer
        if fatal is not None:  # now that the other answers, which were paid for, are stored
            raise fatal
        if again:
            worst = max(again, key=_patience)
            if isinstance(worst, ThrottledError):
                self._dispatcher.pace.throttled(worst.retry_after)
            raise worst

    def _wait_for_pace(self, pictures: int) -> None:
        if self._stop.is_set():
            raise TransientError("the run was stopped", provider=self._dispatcher.adapter.name)
        wait = self._dispatcher.pace.take(pictures)
        deadline = self._dispatcher.retry.deadline
        if wait > deadline:
            self._stop.set()
            raise ProviderError(
                f"{self._dispatcher.adapter.name} asked to wait for {wait:.0f} s, longer than the "
                f"deadline of {deadline:g} s. All answers so far are kept: run the same call again "
                "later.",
                provider=self._dispatcher.adapter.name,
            )
        if wait > 0.0:
            emit("paced", provider=self._dispatcher.adapter.name, seconds=round(wait, 3))
            self._count(waited=wait)
            if self._stop.wait(wait):
                raise TransientError("the run was stopped", provider=self._dispatcher.adapter.name)

    def _request(
        self,
        indices: list[int],
        payloads: list[bytes],
        caller: Caller,
        probing: bool,  # noqa: FBT001
    ) -> Sequence[Answer | ProviderError]:
        """Make one request: reserved before, settled after, counted whatever comes of it."""
        dispatcher = self._dispatcher
        name = dispatcher.adapter.name
        reservation = dispatcher.ledger.reserve(len(payloads))
        with dispatcher.slots:
            if self._stop.is_set():  # a fatal error came while it waited
                dispatcher.ledger.release(reservation, len(payloads))
                raise TransientError("the run was stopped", provider=name)
            began = time.monotonic()
            outcome = "fatal"
            try:
                with attempt_span(name, len(payloads)):
                    answers = ask(dispatcher.adapter, payloads)
                dispatcher.breaker.succeeded()
                outcome = "answered"
            except PermanentError as error:
                dispatcher.breaker.succeeded()
                outcome = "refused"
                if len(payloads) > 1:
                    raise
                return [error]
            except ThrottledError as error:
                dispatcher.breaker.succeeded()  # it is up, and says so
                dispatcher.pace.throttled(error.retry_after)
                outcome = "throttled"
                raise
            except TransientError as error:
                dispatcher.breaker.failed(error, caller, probe=probing)
                outcome = "failed"
                raise
            except ProviderError:
                self._stop.set()  # at once: no thread may start another attempt
                raise
            finally:
                price = dispatcher.ledger.settle(reservation, len(payloads))
                self._count_attempt(indices, price.dollars)
                emit(
                    "attempt",
                    provider=name,
                    outcome=outcome,
                    pictures=len(payloads),
                    dollars=float(price.dollars),
                    seconds=round(time.monotonic() - began, 3),
                )
        return answers

    def _count_attempt(self, indices: list[int], dollars: Decimal) -> None:
        with self._lock:
            first = len(set(indices) - self._sent)
            self._sent.update(indices)
            totals = self._totals
            self._totals = replace(
                totals,
                queries=totals.queries + first,
                attempts=totals.attempts + len(indices),
                dollars=totals.dollars + dollars,
            )


def _finish(waiting: Callable[[], object]) -> None:
    """Wait to the end though Ctrl-C is pressed (again), then raise it: answers are under way."""
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            waiting()
            break
        except KeyboardInterrupt as error:
            _log.warning("Waiting for requests under way: their answers are paid for.")
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _patience(error: TransientError) -> tuple[bool, float]:
    return isinstance(error, ThrottledError), error.retry_after or 0.0
