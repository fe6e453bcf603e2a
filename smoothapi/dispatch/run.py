"""One job under way: variants out, answers back in order of index.

A variant is looked up in the store; if it is missing there it is leased, prepared with others in
a lot, sent by a `Sender`, and its answer is on disk before it is handed on. Never more variants
are out than could still be needed (the job's `needed()`), so no answer is bought that could not
have counted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from smoothapi.answer import Answer
from smoothapi.dispatch.job import Delivery, Meter, Totals
from smoothapi.dispatch.patience import Patience
from smoothapi.dispatch.sending import Arrived, Sender
from smoothapi.errors import (
    PermanentError,
    SmoothAPIError,
    StoppedError,
    StoreError,
    TooManyFailuresError,
    UsageError,
)
from smoothapi.events import Ended, Stored
from smoothapi.store.owners import refuse_fork
from smoothapi.store.rows import StoredAnswer, answer_key
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from smoothapi.dispatch.job import Encode, Work
    from smoothapi.dispatch.shared import Route, Workers
    from smoothapi.store import Leases

    _Preparing: TypeAlias = "Future[Sequence[Encode]]"
    # What makes a run go on: a variant ended, a lot is ready, a thread failed, or a nudge.
    _News: TypeAlias = "Delivery | Future[Any] | None"

_log = logging.getLogger("smoothapi")

CLOSED = (
    "This Smoother was closed. What was under way was awaited and its answers are kept: the same "
    "call with another Smoother continues where this one ended."
)

STOPPED = (
    "The run was stopped. What was under way was awaited and its answers are kept: the same call "
    "continues where this one ended."
)

# A share says nothing about a handful of votes.
_FEWEST_TO_JUDGE = 10
_ALWAYS_ALLOWED = 2

_LOTS_AT_ONCE = 2
_LOOK_AHEAD = 64  # variants that are looked up in the store together
_LOOK_AGAIN = 0.05  # seconds until it is looked again what another process is asking for
_RENEW = 30.0  # seconds after which leases are renewed
_DROP_AT_ONCE = 16


class Run:
    """One job under way: an iterator of deliveries in order of index.

    However it ends (all delivered, closed early, an error, Ctrl-C), requests under way are
    awaited and their answers stored, and nothing more is sent. Not awaited is a call that lasts
    longer than the deadline, and none after a second Ctrl-C. In a process that was forked meanwhile
    it ends at once: what is under way, leased and reserved is the parent's.
    """

    def __init__(
        self, work: Work, route: Route, workers: Workers, leases: Leases, *, max_failed: float
    ) -> None:
        self._work = work
        self._route = route
        self._workers = workers
        self._leases = leases
        self._max_failed = max_failed
        self._provider = route.adapter.name
        self._process = os.getpid()
        self._meter = Meter()
        self._stop = threading.Event()
        self._stopped = ""  # by `stop`, from outside: why
        self._given_back = False
        self._known_to_fail: set[int] = set()
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._keys: dict[int, str] = {}
        self._sender = Sender(
            route,
            workers,
            stop=self._stop,
            meter=self._meter,
            ends=_Ends(work, workers, leases, self._keys, self._news),
            known_to_fail=self._known_to_fail,
        )
        # Room for what is sent, what is prepared, and what waits for its turn.
        self._window = 4 * (work.batch + workers.threads * self._sender.batch)
        # Where each variant is: found up to _looked, looked up to _ahead; missing, preparing,
        # ready, sending, ended.
        self._ahead = self._looked = 0
        self._found: dict[int, Answer | PermanentError] = {}
        self._misses: deque[int] = deque()
        self._preparing: dict[_Preparing, list[int]] = {}
        self._ready: dict[int, Encode] = {}
        self._sending: set[Future[None]] = set()
        self._waits_for_a_sender = False
        self._lost: set[Future[Any]] = set()  # of which the log says so
        self._ended: dict[int, Delivery] = {}
        self._delivered = 0
        self._last_error = ""
        # Leases on those between missing and ended, and those to be given back.
        self._held: dict[int, str] = {}
        self._finished: list[str] = []
        self._renewed = time.monotonic()
        self._deliveries = self._deliver()

    @property
    def totals(self) -> Totals:
        """What this run has sent and received so far."""
        return self._meter.totals

    def stop(self, why: str = STOPPED) -> None:
        """Send nothing more; whoever iterates awaits what is under way, and gets a StoppedError."""
        self._stopped = self._stopped or why
        self._stop.set()
        self._news.put(None)

    def give_back(self) -> None:
        """Give back leases and reservations, when nothing is under way any more.

        For a run that nobody iterates to its end, or too late for it to do so itself.
        """
        self._write_down_the_end()
        self._given_back = True

    def __iter__(self) -> Iterator[Delivery]:
        return self._deliveries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._deliveries.close()

    def _deliver(self) -> Generator[Delivery]:  # closing it runs its finally
        turn = 0
        try:
            while (needed := self._work.needed()) > 0:
                refuse_fork(self._process)
                if self._stopped:
                    raise StoppedError(self._stopped)
                self._look_up(min(turn + needed, turn + self._window))
                if turn not in self._ended:
                    self._start_work(turn + needed)
                    if turn not in self._ended:  # starting may find what another process bought
                        self._await_work()
                    continue
                delivery = self._ended.pop(turn)
                turn += 1
                self._judge(delivery, turn)
                yield delivery
        except (SmoothAPIError, RuntimeError) as error:
            self._halt()  # what is under way still counts
            # It may have been stopped by another thread, at whatever line.
            if self._stopped and not isinstance(error, StoppedError):
                raise self._told(StoppedError(self._stopped)) from error
            if isinstance(error, SmoothAPIError):
                self._told(error)
            raise
        finally:
            self._halt()
            if not self._forked():
                self._say_how_it_ended()

    def _told(self, error: SmoothAPIError) -> SmoothAPIError:
        self.totals.tell(error)
        return error

    def _forked(self) -> bool:
        return os.getpid() != self._process

    # Before it is sent

    def _look_up(self, end: int) -> None:
        """Look for the answers of all variants up to `end` in the store."""
        if self._looked < end and not self._work.refresh:
            # Many at once: where the store is elsewhere, each look is a way there and back.
            fetched = range(self._looked, max(end, self._looked + _LOOK_AHEAD))
            self._found.update(self._stored(fetched))
            self._looked = fetched.stop
        for index in range(self._ahead, end):
            if not self._take_stored(index, self._found.pop(index, None)):
                self._misses.append(index)
        self._ahead = max(self._ahead, end)

    def _start_work(self, end: int) -> None:
        """Begin to prepare and to send what may be, of the variants up to `end`.

        Less may be needed than was when they were looked up, or even prepared.
        """
        work, workers = self._work, self._workers
        due = [index for index in self._ready if index < end]
        # Something for every request lies ready or is being made: a second lot is begun while the
        # first waits for its turn at the denoiser.
        enough = max(work.batch, workers.concurrency)
        while len(self._preparing) < _LOTS_AT_ONCE:
            if len(due) + sum(map(len, self._preparing.values())) >= enough:
                break
            lot = self._lease_lot(end)
            if not lot:
                break
            preparing = workers.preparers.submit(work.prepare, lot)
            self._preparing[preparing] = lot
            preparing.add_done_callback(self._news.put)
        self._waits_for_a_sender = True  # before it looks: whoever ends after that says so
        while due and len(self._sending) < workers.threads:
            many = self._sender.batch
            group = [(index, self._ready.pop(index)) for index in due[:many]]
            del due[:many]
            sending = workers.senders.submit(self._sender.send, group)
            self._sending.add(sending)
            sending.add_done_callback(self._sent)
        self._waits_for_a_sender = bool(due)

    def _key(self, index: int) -> str:
        key = self._keys.get(index)
        if key is None:
            key = self._keys[index] = answer_key(self._work.asked(index))
        return key

    def _stored(self, indices: Iterable[int]) -> dict[int, Answer | PermanentError]:
        """Return the answers that the store has of some variants."""
        if self._work.refresh:
            return {}
        keys = {self._key(index): index for index in indices}
        found = self._workers.answers.get_all(list(keys))
        return {keys[key]: outcome for key, outcome in found.items()}

    def _take_stored(self, index: int, stored: Answer | PermanentError | None) -> bool:
        """Take the answer of a variant that is stored, if it is."""
        if stored is None:
            return False
        self._meter.count(cached=1)
        emit(Stored(self._provider, index))
        self._ended[index] = _delivery(index, stored, cached=True)
        return True

    def _lease_lot(self, end: int) -> list[int]:
        """Return the next variants up to `end` that no other asks for, leased to this run."""
        lot: list[int] = []
        while self._misses and self._misses[0] < end and len(lot) < self._work.batch:
            lot.append(self._misses.popleft())
        if not lot:
            return lot
        keys = {index: self._key(index) for index in lot}
        taken = self._leases.take(list(keys.values()))
        stored = self._stored(lot)
        ours: list[int] = []
        for index in reversed(lot):
            # Another may have bought it since it was looked up, before or after the lease.
            if self._take_stored(index, stored.get(index)):
                if keys[index] in taken:
                    self._finished.append(keys[index])
            elif keys[index] in taken:
                self._held[index] = keys[index]
                ours.append(index)
            else:
                self._misses.appendleft(index)
        given_up = self._leases.given_up([keys[index] for index in ours])
        self._known_to_fail.update(index for index in ours if keys[index] in given_up)
        return ours[::-1]

    # After it was sent; the first is called in other threads

    def _sent(self, sending: Future[None]) -> None:
        self._sending.discard(sending)
        if sending.cancelled():
            return
        # Of success its answers tell, but perhaps before another could be sent in its place.
        if sending.exception() is not None:
            self._news.put(sending)
        elif self._stop.is_set() or self._waits_for_a_sender:
            self._news.put(None)

    def _await_work(self) -> None:
        """Wait until something is done, or there is reason to look again."""
        if not (self._preparing or self._sending or self._held):
            # All that is missing is being asked for by another process.
            self._stop.wait(_LOOK_AGAIN)
            return
        contested = self._misses and not self._preparing
        with suppress(queue.Empty):
            self._take(self._news.get(timeout=_LOOK_AGAIN if contested else self._look_again()))
            while True:
                self._take(self._news.get_nowait())
        self._ready |= self._sender.leave_overdue()
        self._mind_leases()

    def _look_again(self) -> float:
        """Return seconds until leases are to be renewed, or a call is overdue."""
        overdue = self._sender.calls.patience()
        return _RENEW if overdue is None else min(overdue, _RENEW)

    def _take(self, news: _News) -> None:
        if isinstance(news, Delivery):
            self._ended[news.index] = news
            self._finished.append(self._held.pop(news.index))
        elif news is not None:
            lot = self._preparing.pop(news, ())
            self._ready.update(zip(lot, news.result() or (), strict=True))

    def _mind_leases(self) -> None:
        """Give back the leases of variants that have ended, many at once; renew the others."""
        if len(self._finished) >= _DROP_AT_ONCE:
            self._leases.drop(self._finished)
            self._finished.clear()
        if self._held and time.monotonic() - self._renewed > _RENEW:
            self._leases.renew(self._held.values())
            self._renewed = time.monotonic()

    def _judge(self, delivery: Delivery, delivered: int) -> None:
        """Stop a run whose votes are mostly failures: it would pay only to abstain."""
        self._delivered = delivered
        if delivery.answer is not None:
            return
        self._meter.count(failed=1)
        self._last_error = delivery.error
        if delivered >= _FEWEST_TO_JUDGE and self.totals.failed > _ALWAYS_ALLOWED:
            self.refuse_failures()

    def refuse_failures(self) -> None:
        """Raise if more than the allowed share of the variants so far failed for good.

        Raises:
            TooManyFailuresError: says how many, and what the last one met.
        """
        failed = self.totals.failed
        if failed > self._max_failed * self._delivered:
            error = TooManyFailuresError(
                f"{failed} of {self._delivered} variants got no answer from "
                f"{self._provider} (the last: {self._last_error}). Each is a vote "
                'for "no answer", so going on would pay for an abstention. The answers so far '
                "are kept: run the same call again when the service is well, with refresh "
                "(--refresh) if it refused the pictures themselves.",
                provider=self._provider,
            )
            self.totals.tell(error)
            raise error

    # The end

    def _halt(self) -> None:
        """Await what is under way and keep its answers; send nothing more."""
        self._stop.set()
        if self._forked():
            return
        begun: list[Future[Any]] = [*self._preparing, *self._sending]
        # One that is cancelled would end only when a thread is free, which others may keep long.
        under_way = {future for future in begun if not future.cancel()}
        try:
            Patience(self.under_way, self.leave).await_all(partial(self._await, under_way))
        finally:
            self._say_what_is_lost(under_way - self._preparing.keys())
            self._write_down_the_end()

    def await_under_way(self) -> None:
        """Wait for the calls under way, but for those that last longer than the deadline."""
        self._await(set(self._sending))

    def under_way(self) -> int:
        """Return how many queries are."""
        return sum(len(call.indices) for call in self._sender.calls.all())

    def leave(self) -> int:
        """Go on without the calls under way, which count as spent; return how many queries."""
        return self._sender.leave(self._sender.calls.all())

    def _await(self, futures: set[Future[Any]]) -> None:
        while futures:
            futures = wait(futures, timeout=self._look_again()).not_done
            self._sender.leave(self._sender.calls.overdue())

    def _say_what_is_lost(self, sent: set[Future[Any]]) -> None:
        self._sending.difference_update(sent)  # whoever awaited them may be here before `_sent`
        with suppress(queue.Empty):
            while True:
                news = self._news.get_nowait()
                if isinstance(news, Future) and news not in self._preparing:
                    sent.add(news)
        ended = {future for future in sent if future.done()} - self._lost
        self._lost |= ended
        errors = [future.exception() for future in ended]
        lost = Counter(str(error) for error in errors if isinstance(error, StoreError))
        for why, requests in lost.items():
            _log.warning("Of %d more requests under way: %s", requests, why)

    def _write_down_the_end(self) -> None:
        try:
            # Those too that it did not get to note, since it was interrupted as it took them.
            self._leases.end()
            self._route.ledger.rest()
        except (StoreError, UsageError) as error:
            # Leases end by themselves, and what is reserved counts as spent: on the safe side.
            if not self._given_back:
                _log.warning("The end of the run could not be written down: %s", error)
        self._held.clear()
        self._finished.clear()

    def _say_how_it_ended(self) -> None:
        totals = self.totals
        emit(
            Ended(
                self._provider,
                delivered=self._delivered,
                queries=totals.queries,
                attempts=totals.attempts,
                retries=totals.retries,
                cached=totals.cached,
                failed=totals.failed,
                waited=round(totals.waited, 3),
                dollars=float(totals.dollars),
            )
        )


@dataclass(frozen=True, slots=True)
class _Ends:
    """How the variants of a run end; called in threads that send.

    They do not know the run: it would hold them and they it, and what it made of the photo would
    stay in memory until Python next looks for such circles.

    Attributes:
        work: what is asked.
        workers: where answers are kept, and by whom.
        leases: on the variants.
        keys: of the variants that were looked up.
        news: for the run.
    """

    work: Work
    workers: Workers
    leases: Leases
    keys: Mapping[int, str]
    news: queue.SimpleQueue[_News]

    def arrived(self, answers: Sequence[Arrived]) -> Future[None]:
        """Have the answers of one request written."""
        return self.workers.writer.write(
            [
                StoredAnswer(
                    self.work.asked(each.index),
                    each.outcome,
                    hashlib.sha256(each.payload).hexdigest(),
                    self.keys[each.index],
                    self.work.refreshes,
                )
                for each in answers
            ]
        )

    def answered(self, index: int, outcome: Answer | PermanentError) -> None:
        """Take an answer that is on disk."""
        self.news.put(_delivery(index, outcome))

    def given_up(self, index: int, why: str) -> None:
        """Note that a variant used up its attempts: a vote of this run, asked again by the next."""
        self.leases.give_up(self.keys[index])
        self.workers.answers.give_up(self.work.asked(index), why)
        self.news.put(Delivery(index, None, error=why))


def _delivery(index: int, outcome: Answer | PermanentError, *, cached: bool = False) -> Delivery:
    if isinstance(outcome, Answer):
        return Delivery(index, outcome, cached=cached)
    return Delivery(index, None, cached=cached, error=str(outcome))
