"""One sound adapter, and many that each break one rule: run by test_the_contract_catches.py.

The name is not test_*.py, so that a run of all tests does not collect what is meant to fail.
"""

from __future__ import annotations

import io
import itertools
import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image

from smoothapi import Answer, Label, Limits, Price
from smoothapi.errors import FatalError, PermanentError, ThrottledError, TransientError
from smoothapi.provider import Credentials, Vocabulary
from smoothapi.services import Fault, by_colour
from smoothapi.testing import AdapterContract

TOKEN = "tok-0123456789abcdef"  # looked for in all that is shown
_log = logging.getLogger("acme.sdk")


class Service:
    """The provider behind all of them; it counts what it receives."""

    def __init__(self, fault=None):
        self.fault = fault
        self.requests = 0
        self._lock = threading.Lock()

    def label(self, payloads):
        with self._lock:
            self.requests += 1
        return [self._one(payload) for payload in payloads]

    @staticmethod
    def _one(payload):
        try:
            with Image.open(io.BytesIO(payload)) as image:
                return by_colour(np.asarray(image.convert("RGB")))
        except OSError:
            return None


class Sound:
    name = "acme"
    limits = Limits(batch=6)
    price = Price(Decimal("0.5"), as_of="2026-11-22")

    def __init__(self, service, token=TOKEN):
        self.service = service
        self._token = token

    @property
    def identity(self):
        return {"operation": "label", "model": "a", "top": 5, "pin": None}

    def credentials(self):
        if not self._token:
            return Credentials(False, "not in ACME_TOKEN")
        return Credentials(True, "ACME_TOKEN")

    def ask(self, payloads):
        if not self._token:
            raise FatalError("No token: not in ACME_TOKEN.", sent=False)
        if self.service.fault is not None:
            self.service.requests += 1
            raise self.error(self.service.fault)
        return [self.answer(names) for names in self.send(payloads)]

    def send(self, payloads):
        return self.service.label(payloads)

    def answer(self, names):
        if names is None:
            return PermanentError("The payload is no picture.")
        return Answer(tuple(Label(*pair) for pair in names), "model-1", "request-1")

    def error(self, fault):
        if fault in (Fault.denied, Fault.quota):
            return FatalError("Refused.")
        if fault in (Fault.throttled, Fault.throttled_wait, Fault.throttled_date):
            return ThrottledError("Slow down.", retry_after=2.0)
        return TransientError("Try again.")

    def close(self):
        pass


class Base(AdapterContract):
    kind = Sound

    @pytest.fixture
    def service(self):
        return Service()

    @pytest.fixture
    def make(self, service):
        return lambda: self.kind(service)

    @pytest.fixture
    def sent(self, service):
        return lambda: service.requests

    @pytest.fixture
    def secrets(self):
        return [TOKEN]

    @pytest.fixture
    def unreachable(self):
        return self.kind(Service(Fault.reset))

    @pytest.fixture
    def faulty(self, service):
        def make(fault):
            service.fault = fault
            return self.kind(service)

        return make

    @pytest.fixture
    def without_credentials(self, service):
        return self.kind(service, token="")


class TestSound(Base):
    pass


CAUGHT_BY: dict[str, set[str]] = {}


def caught_by(*tests):
    """Make a test class of a mutant, which exactly these tests must fail."""

    def register(kind):
        name = f"Test{kind.__name__}"
        globals()[name] = type(name, (Base,), {"kind": kind, "__module__": __name__})
        CAUGHT_BY[name] = set(tests)
        return kind

    return register


@caught_by("test_it_has_the_members_of_an_adapter")
class ShoutsItsName(Sound):
    name = "Acme Vision!"


@caught_by("test_it_has_the_members_of_an_adapter")
class PriceIsANumber(Sound):
    class _Price(float):
        per_thousand = Decimal(1)
        as_of = ""

        def of(self, pictures):
            return Decimal(1)

    price = _Price(1.0)


@caught_by("test_its_identity_can_be_stored")
class IdentityIsNested(Sound):
    identity = {"options": {"top": 5}}


@caught_by("test_its_identity_can_be_stored")
class IdentityHasBytes(Sound):
    @property
    def identity(self):
        return {"top": np.float64(5)}


@caught_by("test_its_identity_can_be_stored")
class IdentityIsFreshEachTime(Sound):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.identity_ = {"id": str(time.perf_counter_ns())}

    @property
    def identity(self):
        return self.identity_


@caught_by("test_its_identity_stays_when_it_was_asked")
class IdentityLearns(Sound):
    model = None

    @property
    def identity(self):
        return {"model": self.model}

    def send(self, payloads):
        self.model = "learnt"
        return super().send(payloads)


@caught_by("test_nothing_secret_is_shown")
class IdentityHoldsTheToken(Sound):
    @property
    def identity(self):
        return {"key": self._token}


@caught_by("test_nothing_secret_is_shown")
class ReprShowsTheToken(Sound):
    def __repr__(self):
        return f"Acme(token={self._token!r})"


@caught_by("test_nothing_secret_is_shown")
class CredentialsShowTheToken(Sound):
    def credentials(self):
        return Credentials(bool(self._token), f"ACME_TOKEN={self._token}")


@caught_by("test_nothing_secret_is_logged", "test_what_is_no_picture_is_permanent")
class LogsTheToken(Sound):
    def send(self, payloads):
        _log.debug("POST /label", extra={"headers": {"Authorization": f"Key {self._token}"}})
        return super().send(payloads)


@caught_by("test_nothing_secret_is_logged", "test_what_is_no_picture_is_permanent")
class LogsThePicture(Sound):
    def send(self, payloads):
        _log.debug("body %r", payloads[0])
        return super().send(payloads)


@caught_by("test_nothing_secret_is_logged")
class PrintsTheToken(Sound):
    def close(self):
        print("closing", self._token, file=sys.stderr)


@caught_by(
    "test_each_fault_becomes_the_right_error", "test_a_service_that_does_not_listen_is_transient"
)
class CauseHoldsTheToken(Sound):
    def error(self, fault):
        error = super().error(fault)
        error.__cause__ = ValueError("GET /?key=" + self._token)
        return error


@caught_by(
    "test_each_fault_becomes_the_right_error", "test_a_service_that_does_not_listen_is_transient"
)
class ErrorCarriesTheRequest(Sound):
    def error(self, fault):
        error = super().error(fault)
        error.headers = {"Authorization": self._token}
        return error


@caught_by("test_what_is_no_picture_is_permanent")
class ErrorQuotesThePayload(Sound):
    def ask(self, payloads):
        outcomes = super().ask(payloads)
        for outcome in outcomes:
            if isinstance(outcome, PermanentError) and len(payloads) > 1:
                outcome.args = (f"No picture, after {payloads[0]!r}",)
        return outcomes


@caught_by("test_its_limits_are_possible")
class SidesCross(Sound):
    limits = Limits(batch=6, min_side=300, max_side=200)


@caught_by("test_its_limits_are_possible")
class UnheardOfFormats(Sound):
    limits = Limits(batch=6, formats=("png", "png"))


@caught_by("test_its_limits_are_possible")
class RequestTooSmall(Sound):
    limits = Limits(batch=6, max_bytes=1000, max_request_bytes=999)


@caught_by("test_its_price_is_possible")
class PriceOfSomeDay(Sound):
    price = Price(Decimal(1), as_of="last week")


@caught_by("test_it_answers_in_each_format")
class ScoresAreAboveOne(Sound):
    def answer(self, names):
        answer = super().answer(names)
        if isinstance(answer, Answer):
            object.__setattr__(answer.labels[0], "score", 75.0)
        return answer


@caught_by("test_it_answers_in_each_format")
class LabelsAreAList(Sound):
    def answer(self, names):
        answer = super().answer(names)
        if isinstance(answer, Answer):
            object.__setattr__(answer, "labels", list(answer.labels))
        return answer


@caught_by("test_it_answers_in_each_format")
class TakesNoJpeg(Sound):
    def send(self, payloads):
        return [
            None if payload[:2] == b"\xff\xd8" else names
            for payload, names in zip(payloads, super().send(payloads), strict=True)
        ]


@caught_by("test_its_vocabulary_holds_what_it_answers")
class LacksAWord(Sound):
    def vocabulary(self):
        return Vocabulary(("black", "blue", "green", "cyan"), closed=True)  # not "bright"


@caught_by("test_it_tells_pictures_apart")
class SaysAlwaysTheSame(Sound):
    def answer(self, names):
        return super().answer(names and [("thing", 0.5)])


@caught_by("test_one_model_answers")
class ModelChanges(Sound):
    _numbers = itertools.count()

    def answer(self, names):
        answer = super().answer(names)
        if isinstance(answer, Answer):
            return Answer(answer.labels, f"model-{next(self._numbers)}", "request")
        return answer


@caught_by("test_a_batch_keeps_its_order")
class SortsABatch(Sound):
    def send(self, payloads):
        answers = super().send(payloads)
        return sorted(answers, key=str) if None not in answers else answers


@caught_by("test_a_batch_keeps_its_order")
class ListsOnly(Sound):
    def send(self, payloads):
        return super().send(payloads if isinstance(payloads, list) else payloads[:1] * 6)


@caught_by("test_a_batch_keeps_its_order", "test_what_is_no_picture_is_permanent")
class ForgetsTheLast(Sound):
    def send(self, payloads):
        return super().send(payloads)[: max(1, len(payloads) - 1)]


@caught_by("test_one_ask_is_one_request")
class AsksOneByOne(Sound):
    def send(self, payloads):
        return [super(AsksOneByOne, self).send([payload])[0] for payload in payloads]


@caught_by("test_one_ask_is_one_request")
class KeepsAnswers(Sound):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._kept = {}

    def send(self, payloads):
        if tuple(payloads) not in self._kept:
            self._kept[tuple(payloads)] = super().send(payloads)
        return self._kept[tuple(payloads)]


@caught_by("test_each_fault_becomes_the_right_error")
class TriesAgainByItself(Sound):
    def error(self, fault):
        self.service.requests += 1
        return super().error(fault)


@caught_by("test_what_is_no_picture_is_permanent")
class OneBadSpoilsAll(Sound):
    def ask(self, payloads):
        outcomes = super().ask(payloads)
        for outcome in outcomes:
            if isinstance(outcome, PermanentError):
                raise outcome
        return outcomes


@caught_by("test_what_is_no_picture_is_permanent")
class NoPictureIsNoLabel(Sound):
    def answer(self, names):
        return Answer(()) if names is None else super().answer(names)


@caught_by("test_what_is_no_picture_is_permanent")
class NoPictureIsAValueError(Sound):
    def answer(self, names):
        if names is None:
            raise ValueError("bad")
        return super().answer(names)


@caught_by("test_threads_get_their_own_answers")
class SharesAField(Sound):
    def send(self, payloads):
        self._payloads = payloads
        time.sleep(0.002)
        return super().send(self._payloads)


@caught_by("test_threads_get_their_own_answers")
class OneThreadAtATime(Sound):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._lock = threading.Lock()

    def send(self, payloads):
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("busy")
        try:
            time.sleep(0.002)
            return super().send(payloads)
        finally:
            self._lock.release()


@caught_by("test_closing_twice_is_harmless", "test_nothing_secret_is_logged")
class ClosesOnce(Sound):
    def close(self):
        del self.service


@caught_by(
    "test_closing_twice_is_harmless",
    "test_each_fault_becomes_the_right_error",
    "test_without_credentials_it_says_where_it_looked",
)
class SaysGoodbye(Sound):
    def close(self):
        self.service.requests += 1


@caught_by("test_making_one_opens_no_connection")
class ConnectsAtOnce(Sound):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)


@caught_by(
    "test_looking_for_credentials_sends_nothing",
    "test_making_one_opens_no_connection",
    "test_without_credentials_it_says_where_it_looked",
)
class AsksWhoItIs(Sound):
    def credentials(self):
        with suppress(OSError):
            socket.getaddrinfo("localhost", 80)
        return super().credentials()


@caught_by("test_each_fault_becomes_the_right_error")
class NoWordOfHowLong(Sound):
    def error(self, fault):
        error = super().error(fault)
        if isinstance(error, ThrottledError):
            error.retry_after = None
        return error


@caught_by("test_each_fault_becomes_the_right_error")
class EverythingIsThrottled(Sound):
    def error(self, fault):
        return super().error(Fault.throttled if fault is Fault.half else fault)


@caught_by("test_each_fault_becomes_the_right_error")
class DeniedIsTransient(Sound):
    def error(self, fault):
        return super().error(Fault.error if fault is Fault.denied else fault)


@caught_by("test_each_fault_becomes_the_right_error")
class GarbageIsNoLabel(Sound):
    def ask(self, payloads):
        if self.service.fault is Fault.garbage:
            return [Answer(()) for _ in payloads]
        return super().ask(payloads)


@caught_by(
    "test_each_fault_becomes_the_right_error", "test_a_service_that_does_not_listen_is_transient"
)
class ResetIsFatal(Sound):
    def error(self, fault):
        return FatalError("gone") if fault is Fault.reset else super().error(fault)


@caught_by(
    "test_each_fault_becomes_the_right_error", "test_a_service_that_does_not_listen_is_transient"
)
class OSErrorsEscape(Sound):
    def error(self, fault):
        return ConnectionResetError() if fault is Fault.reset else super().error(fault)


@caught_by(
    "test_each_fault_becomes_the_right_error", "test_a_service_that_does_not_listen_is_transient"
)
class ErrorsSayNothing(Sound):
    def error(self, fault):
        return TransientError("") if fault is Fault.reset else super().error(fault)


@caught_by("test_without_credentials_it_says_where_it_looked")
class FindsWhatIsNotThere(Sound):
    def credentials(self):
        return Credentials(True, "ACME_TOKEN")


@caught_by("test_without_credentials_it_says_where_it_looked")
class ChargesWhatItDidNotSend(Sound):
    def ask(self, payloads):
        try:
            return super().ask(payloads)
        except FatalError as error:
            error.sent = True
            raise


@caught_by("test_without_credentials_it_says_where_it_looked")
class DoesNotSayWhereItLooked(Sound):
    def ask(self, payloads):
        if not self._token:
            raise FatalError("Unauthorised.", sent=False)
        return super().ask(payloads)


@caught_by("test_without_credentials_it_says_where_it_looked")
class AsksWithoutCredentials(Sound):
    def ask(self, payloads):
        if not self._token:
            self.service.requests += 1
        return super().ask(payloads)
