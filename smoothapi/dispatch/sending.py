"""One request until each of its pictures has ended: what a sender thread does.

Around an attempt: retry -> (breaker, pace, budget) -> a slot -> adapter. Nothing here knows of
order, votes or what is still needed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from smoothapi.answer import Answer
from smoothapi.dispatch.breaker import Caller
from smoothapi.dispatch.under_way import CallsUnderWay, CallUnderWay
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
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future

    from smoothapi.dispatch.job import Encode, Meter
    from smoothapi.dispatch.shared import Route, Workers
    from smoothapi.events import Outcome


_PATIENCE = 2.0  # seconds for which a service that was never reached is tried again
_AGAIN = 0.05  # seconds after which what failed in an outage is tried again when that is over


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
    given: dict[int, Encode]  # what its thread was given, and has no outcome yet
    caller: Caller = field(default_factory=Caller)
    attempts: int = 0
    in_outage: bool = False  # whether the last of them failed while the service was down

    @property
    def open(self) -> list[int]:
        """The rows whose variants have no answer yet."""
        return [row for row, index in enumerate(self.indices) if index in self.given]


class _LeftError(Exception):
    """The run has gone on without this thread, whose call has come back at last."""


class Sender:
    """Sends the variants of one run. Its threads share it.

    Args:
        route: how the adapter is asked.
        workers: the threads that send, and the bound on requests of all runs.
        stop: once it is set, no further attempt is begun.
        meter: counts attempts and waits.
        ends: takes what was answered or given up.
        known_to_fail: variants that an earlier run gave up. That they fail says nothing of the
            service.
    """

    def __init__(
        self,
        route: Route,
        workers: Workers,
        *,
        stop: threading.Event,
        meter: Meter,
        ends: Ends,
        known_to_fail: set[int],
    ) -> None:
        self._route = route
        self._in_flight = workers.in_flight
        self._threads = workers.senders
        self._adapter = route.adapter
        self._stop = stop
        self._meter = meter
        self._ends = ends
        self._known_to_fail = known_to_fail
        self.calls = CallsUnderWay()
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
            given = dict(group)
            payloads = [encode() for _, encode in group]
            self._check_sizes(payloads)
            for part in self._parts(payloads):
                if not self._stop.is_set():
                    indices = [index for index, _ in group[part]]
                    witness = not self._known_to_fail.issuperset(indices)
                    caller = Caller(witness=witness)
                    self._finish(_Request(indices, payloads[part], given, caller))
        except _LeftError:
            return
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
                index, payload = request.indices[row], request.payloads[row]
                self._finish(_Request([index], [payload], request.given, alone))
            else:
                del request.given[request.indices[row]]
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
            first = self._first_attempt(request)
            if first is not None:
                gave_up, failed = self._try_again(first, request)
                apart = failed and len(request.open) == len(request.indices) > 1
        except (PermanentError, BudgetExceededError):
            apart = len(request.open) > 1
            if not apart:
                raise
        if apart:
            alone = len(request.open)
            emit(Split(self._adapter.name, pictures=alone, requests=alone))
        return gave_up, apart

    def _first_attempt(self, request: _Request) -> TransientError | None:
        """Make an attempt; return why there should be another, which is not part of its error."""
        try:
            self._attempt(request)
        except TransientError as error:
            return error
        return None

    def _try_again(self, first: TransientError, request: _Request) -> tuple[str, bool]:
        """Repeat what failed once, after waits.

        Returns:
            Why it was given up, "" if it was not; and whether it failed, rather than was throttled.
        """
        errors = [first]
        began = time.monotonic()

        def attempt() -> None:
            try:
                if errors:  # the first attempt, which counts, was made
                    raise errors.pop()
                self._attempt(request)
            except TransientError as error:
                if self._never_reached(error) and time.monotonic() - began >= _PATIENCE:
                    raise self._misconfigured(error) from error
                raise

        loop = self._route.retry.loop(self._wait, self._stop, self._adapter.name)
        try:
            loop(attempt)
        except TransientError as error:
            if self._never_reached(error):
                raise self._misconfigured(error) from error
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
            probing = request.in_outage = False
            if breaker.open:
                with self._meter.waiting():
                    probing = breaker.enter(self._stop)
            try:
                self._ask_once(request, probing=probing)
            except _LeftError:
                probing = False  # who left the call behind has ended the probe
                raise
            except ThrottledError:
                raise
            except TransientError as error:
                # In an outage the variant waits for the service; that is no attempt of its own.
                outage = probing or request.in_outage or breaker.open
                if outage and not self._never_reached(error) and not self._stop.is_set():
                    if not breaker.open:  # others were answered meanwhile: nobody else waits
                        probing = False  # which ended this one; another may be under way soon
                        self._wait(_AGAIN)
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
                index = request.indices[row]
                del request.given[index]
                self._ends.answered(index, answer)
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
        """Wait, unless the run is stopped, and note how long it was."""
        with self._meter.waiting():
            self._stop.wait(seconds)

    def _call(
        self, request: _Request, rows: list[int], *, probing: bool
    ) -> Sequence[Answer | ProviderError]:
        """Make one call: reserved before, settled after, counted whatever comes of it.

        What is answered goes to the disk before anything else, and is there when this returns.
        """
        call = self._begin(request, rows, probing=probing)
        answers: Sequence[Answer | ProviderError] = ()
        error: ProviderError | None = None
        written: Future[None] | None = None
        outcome: Outcome = "fatal"
        back = True
        try:
            try:
                with attempt_span(self._adapter.name, len(rows)):
                    answers = ask(self._adapter, [request.payloads[row] for row in rows])
                    written = self._arrived(request, rows, answers)
            except ProviderError as caught:
                error = caught
                if isinstance(error, PermanentError) and len(rows) == 1:
                    answers = [_as_answer(error)]
                    written = self._arrived(request, rows, answers)
            back = self.calls.end(call)
            if back:
                outcome = self._note(error, request, probing=probing)
        finally:
            if back:
                self._in_flight.release()
                self._count(call, outcome)
        if not back:
            raise _LeftError
        if error is not None and written is None:
            raise error
        if written is not None:
            written.result()  # its place among the requests is another's meanwhile
        return answers

    def _begin(self, request: _Request, rows: list[int], *, probing: bool) -> CallUnderWay:
        """Wait for a place among the requests in flight, and reserve what the call will count."""
        route = self._route
        self._in_flight.acquire()
        try:
            self._check_stopped()  # a fatal error may have come while it waited
            # Last of all: it is reserved of the day in which it is sent.
            block = route.ledger.reserve(len(rows))
            if self._stop.is_set():  # while a store was waited for, which may take a minute
                route.ledger.release(block, len(rows))
                self._check_stopped()
        except BaseException:
            self._in_flight.release()
            raise
        request.attempts += 1
        call = CallUnderWay(
            indices=[request.indices[row] for row in rows],
            block=block,
            until=time.monotonic() + (route.retry.deadline or math.inf),
            answered=route.breaker.answered,
            probing=probing,
            attempt=request.attempts,
            open=request.given,
        )
        self.calls.begin(call)
        return call

    def _check_stopped(self) -> None:
        if self._stop.is_set():
            raise TransientError(_STOPPED, provider=self._adapter.name)

    def _note(self, error: ProviderError | None, request: _Request, *, probing: bool) -> Outcome:
        """Take what came of a call for a word about the service; return it in one."""
        route = self._route
        match error:
            case None:
                route.breaker.succeeded()
                return "answered"
            case PermanentError():
                route.breaker.succeeded()
                return "refused"
            case ThrottledError():
                route.breaker.succeeded()  # it is up, and says so
                route.pace.throttled(error.retry_after)
                return "throttled"
            case TransientError():
                request.in_outage = not self._never_reached(error) and route.breaker.failed(
                    error, request.caller, probe=probing
                )
                return "failed" if error.sent else "unsent"
        self._stop.set()  # at once: no thread may start another attempt
        return "fatal" if error.sent else "unsent"

    def _count(self, call: CallUnderWay, outcome: Outcome) -> None:
        """Settle a call with the ledger, unless it never left this machine."""
        ledger, pictures, dollars = self._route.ledger, len(call.indices), Decimal(0)
        if outcome == "unsent":
            ledger.release(call.block, pictures)
        else:
            dollars = ledger.settle(call.block, pictures).dollars
            self._meter.attempt(call.indices, dollars)
        seconds = round(time.monotonic() - call.began, 3)
        emit(Attempted(self._adapter.name, outcome, pictures, float(dollars), seconds))

    # What was never reached

    def _never_reached(self, error: TransientError) -> bool:
        """Whether it says that nothing left this machine, and nobody has been answered so far."""
        return not error.sent and not self._route.breaker.answered

    def _misconfigured(self, error: TransientError) -> FatalError:
        identity = self._adapter.identity
        place = ", ".join(f"{name} {identity[name]}" for name in _PLACE if identity.get(name))
        return FatalError(
            f"{self._adapter.name} cannot be reached as configured{f' ({place})' if place else ''}"
            f": {str(error).rstrip('.')}. Nothing was sent, so nothing is charged; and nothing has "
            "been answered before, so it looks like a wrong setting rather than an outage. Check "
            "the endpoint and the region, that this machine finds the host and may connect to it, "
            "and the proxy (HTTPS_PROXY, NO_PROXY).",
            sent=False,
            provider=self._adapter.name,
        )

    # What does not come back

    def leave(self, calls: Iterable[CallUnderWay]) -> int:
        """Go on without calls that are under way; return how many pictures were in them.

        They count as sent, and others get their places. Should one be answered yet, that is kept.
        """
        left = [call for call in calls if self.calls.end(call)]
        for call in left:
            self._go_on_without(call)
        return sum(len(call.indices) for call in left)

    def _go_on_without(self, call: CallUnderWay) -> None:
        if call.probing:
            self._route.breaker.leave()
        self._count(call, "left")
        self._in_flight.release()
        self._threads.leave(call.thread)

    def leave_overdue(self) -> dict[int, Encode]:
        """Give up the variants of calls that have lasted too long, and go on without them.

        Returns:
            What their threads were given besides and did not get to.

        Raises:
            ProviderError: nobody was answered since one of them began.
        """
        deadline, name = self._route.retry.deadline, self._adapter.name
        rest: dict[int, Encode] = {}
        for call in self.calls.overdue():
            if not self.calls.end(call):
                continue
            nobody = call.answered == self._route.breaker.answered
            if nobody:
                self._stop.set()  # before another thread gets its place
            self._go_on_without(call)
            if nobody:
                raise ProviderError(
                    f"{name} has not answered a request for {deadline:g} s (the deadline), nor any "
                    "other meanwhile. It was left under way, and counts as spent. All answers so "
                    "far are kept: run the same call again when the service is well.",
                    provider=name,
                )
            for index in call.indices:
                why = f"no answer within the deadline of {deadline:g} s"
                self._ends.given_up(index, f"{why} (tried {call.attempt} times)")
            rest |= {i: encode for i, encode in call.open.items() if i not in call.indices}
        return rest

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


_PLACE = ("endpoint", "url", "region")  # what an adapter's identity calls where it sends to
_STOPPED = "the run was stopped"


def _as_answer(error: PermanentError) -> PermanentError:
    """Return an error as what was said to a picture: without its trace, which holds the picture."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _patience(error: TransientError) -> tuple[bool, float]:
    return isinstance(error, ThrottledError), error.retry_after or 0.0
