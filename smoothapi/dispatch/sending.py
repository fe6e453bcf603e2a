"""One request until each of its pictures has ended: what a sender thread does.

Around an attempt: retry -> (breaker, pace, budget) -> a slot -> adapter. Nothing here knows of
order, votes or what is still needed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from smoothapi.answer import Answer
from smoothapi.dispatch.breaker import Caller
from smoothapi.errors import (
    BudgetExceededError,
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.events import Attempted, Paced, Split
from smoothapi.provider.asking import ask
from smoothapi.telemetry import attempt_span, emit

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from concurrent.futures import Future

    from smoothapi.dispatch.job import Encode, Meter
    from smoothapi.dispatch.semaphore import FastSemaphore
    from smoothapi.dispatch.shared import Route
    from smoothapi.events import Outcome


class Ends(Protocol):
    """How a variant can end; called in sender threads."""

    def arrived(self, answers: Sequence[Arrived]) -> Future[None]:
        """Have what the provider said in one request, which is paid for, written at once.

        Returns:
            Done when it is on disk.
        """

    def answered(self, index: int, outcome: Answer | PermanentError) -> None:
        """Take what the provider said to a variant, now that it is on disk."""

    def given_up(self, index: int, why: str) -> None:
        """Take note that a variant used up its attempts."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the provider said to one variant.

    Attributes:
        index: which variant.
        outcome: an answer, or why this picture gets none.
        payload: what was sent.
    """

    index: int
    outcome: Answer | PermanentError
    payload: bytes


@dataclass(slots=True)
class _Request:
    """Pictures that go together, and what became of them."""

    indices: list[int]
    payloads: list[bytes]
    caller: Caller = field(default_factory=Caller)
    ended: set[int] = field(default_factory=set)

    @property
    def open(self) -> list[int]:
        """The rows whose variants have no answer yet."""
        return [row for row, index in enumerate(self.indices) if index not in self.ended]


class Sender:
    """Sends the variants of one run. Its threads share it.

    Args:
        route: how the adapter is asked.
        in_flight: bounds the requests of all runs.
        stop: once it is set, no further attempt is begun.
        meter: counts attempts and waits.
        ends: takes what was answered or given up.
        known_to_fail: variants that an earlier run gave up. That they fail says nothing of the
            service.
    """

    def __init__(
        self,
        route: Route,
        in_flight: FastSemaphore,
        *,
        stop: threading.Event,
        meter: Meter,
        ends: Ends,
        known_to_fail: set[int],
    ) -> None:
        self._route = route
        self._in_flight = in_flight
        self._adapter = route.adapter
        self._stop = stop
        self._meter = meter
        self._ends = ends
        self._known_to_fail = known_to_fail
        self.batch = self._adapter.limits.batch
        """Pictures for one request; fewer than the limit once so many proved too large."""

    def send(self, group: Sequence[tuple[int, Encode]]) -> None:
        """Send variants until each has ended, or the run is stopped.

        Raises:
            ProviderError, BudgetExceededError, UsageError: the run cannot go on; it is stopped.
        """
        try:
            if self._stop.is_set():
                return
            payloads = [encode() for _, encode in group]
            self._check_sizes(payloads)
            for part in self._parts(payloads):
                if not self._stop.is_set():
                    indices = [index for index, _ in group[part]]
                    witness = not self._known_to_fail.issuperset(indices)
                    self._finish(_Request(indices, payloads[part], Caller(witness=witness)))
        except BaseException:
            self._stop.set()  # at once: no thread may start another attempt
            raise

    def _check_sizes(self, payloads: list[bytes]) -> None:
        """Refuse what the provider would refuse, before it is paid for."""
        limits = self._adapter.limits
        most = min(limits.max_bytes, limits.max_request_bytes or limits.max_bytes)
        largest = max(len(payload) for payload in payloads)
        if largest > most:
            raise UsageError(
                f"An encoded variant has {largest:,} bytes, and {self._adapter.name} takes up to "
                f"{most:,}. Give a smaller working size (size=), "
                "or codec='jpeg' if that is not what was sent."
            )

    def _parts(self, payloads: list[bytes]) -> list[slice]:
        """Return what goes into one request each: as many as its limit of bytes allows."""
        limit = self._adapter.limits.max_request_bytes
        parts: list[slice] = []
        begin = size = 0
        for end, payload in enumerate(payloads):
            if limit is not None and end > begin and size + len(payload) > limit:
                parts.append(slice(begin, end))
                begin, size = end, 0
            size += len(payload)
        parts.append(slice(begin, len(payloads)))
        if len(parts) > 1:
            emit(Split(self._adapter.name, pictures=len(payloads), requests=len(parts)))
            self.batch = max(1, min(self.batch, parts[0].stop))
        return parts

    def _finish(self, request: _Request) -> None:
        """Send a request until each of its variants has ended."""
        gave_up, apart = self._ask_together(request)
        for row in request.open:
            if self._stop.is_set():  # stopped in mid-retry is no final failure
                return
            if apart:
                alone = Caller(witness=request.caller.witness)
                self._finish(_Request([request.indices[row]], [request.payloads[row]], alone))
            else:
                self._ends.given_up(request.indices[row], gave_up)

    def _ask_together(self, request: _Request) -> tuple[str, bool]:
        """Make one request, again if need be.

        Returns:
            Why it was given up, "" if it was not; and whether each picture without an outcome is
            to be asked alone: one of them may be what is wrong with the request, or the budget
            may do for some.
        """
        gave_up, apart = "", False
        try:
            try:
                self._attempt(request)
            except TransientError as error:
                gave_up, failed = self._try_again(error, request)
                apart = failed and len(request.indices) > 1 and not request.ended
        except (PermanentError, BudgetExceededError):
            apart = len(request.open) > 1
            if not apart:
                raise
        if apart:
            alone = len(request.open)
            emit(Split(self._adapter.name, pictures=alone, requests=alone))
        return gave_up, apart

    def _try_again(self, first: TransientError, request: _Request) -> tuple[str, bool]:
        """Repeat what failed once, after waits.

        Returns:
            Why it was given up, "" if it was not; and whether it failed, rather than was throttled.
        """
        errors = [first]

        def attempt() -> None:
            if errors:  # the first attempt, which counts, was made
                raise errors.pop()
            self._attempt(request)

        loop = self._route.retry.loop(self._wait, self._stop, self._adapter.name)
        try:
            loop(attempt)
        except TransientError as error:
            why = f"{error} (tried {loop.statistics['attempt_number']} times)"
            return why, not isinstance(error, ThrottledError)
        return "", False

    def _attempt(self, request: _Request) -> None:
        """Ask once about all that is open; more often to probe an outage.

        Raises:
            TransientError: some are worth another attempt.
            PermanentError: a request of several pictures was refused as a whole.
        """
        breaker = self._route.breaker
        while True:
            probing = False
            if breaker.open:
                began = time.monotonic()
                probing = breaker.enter(self._stop)
                self._meter.count(waited=time.monotonic() - began)
            try:
                self._ask_once(request, probing=probing)
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

    def _ask_once(self, request: _Request, *, probing: bool) -> None:
        rows = request.open
        self._wait_for_pace(len(rows))
        again: list[TransientError] = []
        fatal: ProviderError | None = None
        for row, answer in zip(rows, self._call(request, rows, probing=probing), strict=True):
            if isinstance(answer, (Answer, PermanentError)):
                request.ended.add(request.indices[row])
                self._ends.answered(request.indices[row], answer)
            elif isinstance(answer, TransientError):
                again.append(answer)
            else:
                self._stop.set()
                fatal = fatal or answer
        if fatal is not None:  # now that the other answers, which were paid for, are kept
            raise fatal
        if again:
            worst = max(again, key=_patience)
            if isinstance(worst, ThrottledError):
                self._route.pace.throttled(worst.retry_after)
            raise worst

    def _wait_for_pace(self, pictures: int) -> None:
        name = self._adapter.name
        if self._stop.is_set():
            raise TransientError(_STOPPED, provider=name)
        wait = self._route.pace.take(pictures)
        deadline = self._route.retry.deadline
        if wait > deadline:
            self._stop.set()
            raise ProviderError(
                f"{name} asked to wait for {wait:.0f} s, longer than the deadline of "
                f"{deadline:g} s. All answers so far are kept: run the same call again later.",
                provider=name,
            )
        if wait > 0.0:
            emit(Paced(name, round(wait, 3)))
            self._wait(wait)
            if self._stop.is_set():
                raise TransientError(_STOPPED, provider=name)

    def _wait(self, seconds: float) -> None:
        """Wait, unless the run is stopped, and count how long it was."""
        began = time.monotonic()
        self._stop.wait(seconds)
        self._meter.count(waited=time.monotonic() - began)

    def _call(
        self, request: _Request, rows: list[int], *, probing: bool
    ) -> Sequence[Answer | ProviderError]:
        """Make one call: reserved before, settled after, counted whatever comes of it.

        What is answered goes to the disk before anything else, and is there when this returns.
        """
        route, name = self._route, self._adapter.name
        reservation = route.ledger.reserve(len(rows))
        written: Future[None] | None = None
        with self._in_flight:
            if self._stop.is_set():  # a fatal error came while it waited
                route.ledger.release(reservation, len(rows))
                raise TransientError(_STOPPED, provider=name)
            began = time.monotonic()
            outcome: Outcome = "fatal"
            try:
                with attempt_span(name, len(rows)):
                    answers = ask(self._adapter, [request.payloads[row] for row in rows])
                    written = self._arrived(request, rows, answers)
                route.breaker.succeeded()
                outcome = "answered"
            except PermanentError as error:
                if len(rows) == 1:
                    answers = [error]
                    written = self._arrived(request, rows, answers)
                route.breaker.succeeded()
                outcome = "refused"
                if written is None:
                    raise
            except ThrottledError as error:
                route.breaker.succeeded()  # it is up, and says so
                route.pace.throttled(error.retry_after)
                outcome = "throttled"
                raise
            except TransientError as error:
                route.breaker.failed(error, request.caller, probe=probing)
                outcome = "failed"
                raise
            except ProviderError as error:
                self._stop.set()  # at once: no thread may start another attempt
                if isinstance(error, FatalError) and not error.sent:
                    outcome = "unsent"
                raise
            finally:
                if outcome == "unsent":
                    route.ledger.release(reservation, len(rows))
                    dollars = Decimal(0)
                else:
                    dollars = route.ledger.settle(reservation, len(rows)).dollars
                    self._meter.attempt([request.indices[row] for row in rows], dollars)
                seconds = round(time.monotonic() - began, 3)
                emit(Attempted(name, outcome, len(rows), float(dollars), seconds))
        written.result()  # its place among the requests is another's meanwhile
        return answers

    def _arrived(
        self, request: _Request, rows: list[int], answers: Sequence[Answer | ProviderError]
    ) -> Future[None]:
        return self._ends.arrived(
            [
                Arrived(request.indices[row], answer, request.payloads[row])
                for row, answer in zip(rows, answers, strict=True)
                if isinstance(answer, (Answer, PermanentError))
            ]
        )


_STOPPED = "the run was stopped"


def _patience(error: TransientError) -> tuple[bool, float]:
    return isinstance(error, ThrottledError), error.retry_after or 0.0
