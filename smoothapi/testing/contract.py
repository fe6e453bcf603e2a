"""What every adapter promises, as pytest tests that a stranger's adapter inherits.

::

    import pytest
    from smoothapi.services import by_colour
    from smoothapi.testing import AdapterContract
    from smoothapi_acme import AcmeAdapter

    class TestAcme(AdapterContract):
        @pytest.fixture
        def make(self, acme_server):  # a local service that labels with `by_colour`
            return lambda: AcmeAdapter(url=acme_server.url, token="a-secret-token")

        @pytest.fixture
        def secrets(self):
            return ["a-secret-token"]

        @pytest.fixture
        def sent(self, acme_server):
            return lambda: acme_server.requests

Needs pytest, which smoothapi itself does not install.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from decimal import Decimal
from itertools import combinations
from secrets import randbelow
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import pytest

from smoothapi.answer import Answer, Label
from smoothapi.encode import CODECS, Codec
from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
)
from smoothapi.provider import (
    Adapter,
    Credentials,
    Limits,
    NeedsCredentials,
    Price,
    vocabulary_of,
)
from smoothapi.services.faults import Fault
from smoothapi.testing.watch import (
    everything_logged,
    excerpts,
    forms,
    look_at,
    no_network,
    told,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Make: TypeAlias = Callable[[], Adapter]
Outcome: TypeAlias = Answer | ProviderError

_THREADS = 16
_PORTS = (20_000, 32_000)  # below those that systems hand out to whoever asks for any

# What a caller can do about each fault decides what it must become.
_MEANT: dict[Fault, tuple[type[ProviderError], ...]] = {
    Fault.throttled: (ThrottledError,),
    Fault.throttled_wait: (ThrottledError,),
    Fault.throttled_date: (ThrottledError,),
    Fault.error: (TransientError,),
    Fault.unavailable: (TransientError, ThrottledError),
    Fault.reset: (TransientError,),
    Fault.timeout: (TransientError,),
    Fault.late: (TransientError,),
    Fault.half: (TransientError,),
    Fault.garbage: (TransientError,),
    Fault.inside: (TransientError, ThrottledError, PermanentError, FatalError),
    Fault.slow: (TransientError,),
    Fault.denied: (FatalError,),
    Fault.quota: (FatalError,),
}


class AdapterContract:
    """Tests that an adapter keeps its contract; subclass it as `Test...` in a module of yours.

    A subclass gives the fixture `make`, or `adapter` alone, and as many of the others as it can:
    a test that lacks what it needs is skipped and says what to give. The service behind the
    adapter is best a local one that labels with `by_colour`.

    Fixtures to give:
        make: a callable without arguments that returns a new adapter.
        adapter: an adapter; by default `make()`, closed at the end.
        pictures: (H, W, 3) uint8 RGB pictures, each of which the service labels differently; by
            default eight plain colours.
        secrets: texts that the adapter was given and that must never be seen.
        sent: a callable that returns how many requests the service has received in all.
        unreachable: an adapter whose service does not listen.
        faulty: a callable (Fault) -> an adapter whose service meets each request with that fault;
            for `Fault.timeout`, `late` and `slow` with a timeout well below a second, and for the
            others with its usual one, which a busy machine keeps, too. Raise `pytest.skip` for
            what it cannot do.
        without_credentials: an adapter that found nothing to sign in with.

    Class attributes to override:
        errors_per_payload: False if the provider refuses a whole request for one bad picture.
        meant: {Fault: classes of errors}, where a provider's own differ from the usual.
        loggers_with_pictures: names of loggers of the SDK that write pictures at level DEBUG.
            Secrets are not allowed there either.
    """

    errors_per_payload: ClassVar[bool] = True
    meant: ClassVar[Mapping[Fault, tuple[type[ProviderError], ...]]] = {}
    loggers_with_pictures: ClassVar[Sequence[str]] = ()

    @pytest.fixture
    def make(self) -> Make | None:
        """Give this one, or `adapter`."""
        return None

    @pytest.fixture
    def adapter(self, make: Make | None) -> Iterator[Adapter]:
        """Give this one, or `make`."""
        if make is None:
            pytest.fail("Give a fixture `make` that returns a callable () -> adapter.")
        adapter = make()
        yield adapter
        adapter.close()

    @pytest.fixture
    def pictures(self) -> Sequence[NDArray[np.uint8]]:
        """Eight plain colours."""
        return [
            np.full((96, 128, 3), [40 + 170 * (i >> bit & 1) for bit in (2, 1, 0)], dtype=np.uint8)
            for i in range(8)
        ]

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """None, unless a subclass knows some."""
        return ()

    @pytest.fixture
    def sent(self) -> Callable[[], int] | None:
        """Nothing, unless a subclass can count."""
        return None

    @pytest.fixture
    def unreachable(self) -> Adapter | None:
        """Nothing, unless a subclass can make one."""
        return None

    @pytest.fixture
    def faulty(self) -> Callable[[Fault], Adapter] | None:
        """Nothing, unless a subclass can make one."""
        return None

    @pytest.fixture
    def without_credentials(self) -> Adapter | None:
        """Nothing, unless a subclass can make one."""
        return None

    def test_it_has_the_members_of_an_adapter(self, adapter: Adapter) -> None:
        """All members, of the right types."""
        assert isinstance(adapter, Adapter), "An adapter has name, identity, limits, price, ask..."
        assert isinstance(adapter.limits, Limits), "limits is a smoothapi.Limits"
        assert isinstance(adapter.price, Price), "price is a smoothapi.Price"
        assert isinstance(adapter.name, str), "name is text"
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", adapter.name), (
            f"name={adapter.name!r} is typed on command lines: small letters, digits, - and _"
        )

    def test_its_identity_can_be_stored(self, adapter: Adapter, make: Make | None) -> None:
        """A cache key is made of it: JSON, scalars, the same each time."""
        identity = adapter.identity
        assert isinstance(identity, Mapping), "identity is a mapping"
        for name, value in identity.items():
            assert isinstance(name, str), f"identity: the key {name!r} is not text"
            assert value is None or type(value) in (str, int, float, bool), (
                f"identity[{name!r}] is a {type(value).__name__}: text, numbers, True, False, None"
            )
        before = json.dumps(dict(identity), allow_nan=False, sort_keys=True)
        again = json.dumps(dict(adapter.identity), allow_nan=False, sort_keys=True)
        assert before == again, "identity differs from one look to the next"
        if make is not None:
            other = make()
            same = json.dumps(dict(other.identity), allow_nan=False, sort_keys=True)
            other.close()
            assert before == same, "two adapters made alike differ in identity: nothing is reused"

    def test_its_identity_stays_when_it_was_asked(
        self, adapter: Adapter, pictures: Sequence[NDArray[np.uint8]]
    ) -> None:
        """Keys are made before the first answer, too."""
        before = dict(adapter.identity)
        _answer(adapter, _encoded(adapter, pictures)[0])
        assert before == dict(adapter.identity), "identity differs after ask()"

    def test_its_limits_are_possible(self, adapter: Adapter) -> None:
        """Limits that the dispatcher and the codec can work with."""
        limits = adapter.limits
        assert isinstance(limits.batch, int), "batch is a whole number"
        assert limits.batch >= 1, "at least one picture fits in a request"
        assert limits.max_bytes > 0, "max_bytes is above 0"
        assert 1 <= limits.min_side <= limits.max_side, "1 <= min_side <= max_side"
        assert limits.max_request_bytes is None or limits.max_request_bytes >= limits.max_bytes, (
            "one largest payload fits in a request: max_request_bytes >= max_bytes"
        )
        assert limits.per_second is None or limits.per_second > 0, "per_second is above 0, or None"
        assert limits.formats, "formats names at least one"
        assert set(limits.formats) <= set(CODECS), f"formats are of {CODECS}"
        assert len(set(limits.formats)) == len(limits.formats), "formats names each once"

    def test_its_price_is_possible(self, adapter: Adapter) -> None:
        """A price from 0 up, with a date that can be read if it has one."""
        price = adapter.price
        assert isinstance(price.per_thousand, Decimal), "per_thousand is a Decimal"
        assert price.of(1000) >= 0, "1,000 pictures cost 0 or more"
        if price.as_of:
            date.fromisoformat(price.as_of)

    def test_it_answers_in_each_format(
        self, adapter: Adapter, pictures: Sequence[NDArray[np.uint8]]
    ) -> None:
        """Labels with names and scores in range; as JSON and back they are the same."""
        for codec in adapter.limits.formats:
            for payload in _encoded(adapter, pictures[:2], codec):
                answer = _answer(adapter, payload)
                assert type(answer.labels) is tuple, "labels is a tuple"
                for label in answer.labels:
                    assert isinstance(label, Label), f"{label!r} is not a Label"
                    assert type(label.score) is float, f"the score of {label!r} is not a float"
                    assert 0.0 <= label.score <= 1.0, f"the score of {label!r} is not in [0, 1]"
                assert Answer.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer, (
                    "the answer is another one after it was stored"
                )

    def test_its_vocabulary_holds_what_it_answers(
        self, adapter: Adapter, pictures: Sequence[NDArray[np.uint8]]
    ) -> None:
        """A label that a closed vocabulary lacks could not be asked for, though it is given."""
        stated = vocabulary_of(adapter)
        if not stated.closed:
            return
        known = {name.strip().casefold() for name in stated.all_names}
        answers = [_answer(adapter, payload) for payload in _encoded(adapter, pictures[:4])]
        for label in (label for answer in answers for label in answer.labels):
            for name in (label.name, *label.parents):
                assert name.strip().casefold() in known, (
                    f"{name!r} was answered, and the vocabulary, which is closed, lacks it"
                )

    def test_it_tells_pictures_apart(
        self, adapter: Adapter, pictures: Sequence[NDArray[np.uint8]]
    ) -> None:
        """Without this, the tests of order and of threads could not fail."""
        answers = [_answer(adapter, payload) for payload in _encoded(adapter, pictures)]
        for one, other in combinations(answers, 2):
            assert not _alike(one, other), (
                "two pictures get the same best label and score: give a fixture `pictures` of "
                "(H, W, 3) uint8 arrays that the service labels differently"
            )

    def test_one_model_answers(
        self, adapter: Adapter, pictures: Sequence[NDArray[np.uint8]]
    ) -> None:
        """A version that changes with each answer would void every certificate."""
        payloads = _encoded(adapter, pictures)[:3]
        versions = {_answer(adapter, payload).model_version for payload in payloads}
        assert len(versions) == 1, f"one model, but these versions: {sorted(versions)}"

    def test_a_batch_keeps_its_order(
        self, adapter: Adapter, pictures: Sequence[NDArray[np.uint8]]
    ) -> None:
        """From 1 to `limits.batch` payloads, as list and as tuple; each gets its own answer."""
        payloads = _encoded(adapter, pictures)
        alone = [_answer(adapter, payload) for payload in payloads]
        most = adapter.limits.batch
        for size in sorted({1, min(2, most), min(len(payloads), most), min(most, 24)}):
            order = [(7 * i + 3) % len(payloads) for i in range(size)]
            for kind in (list, tuple):
                outcomes = adapter.ask(kind(payloads[i] for i in order))
                assert len(outcomes) == size, f"{len(outcomes)} outcomes for {size} payloads"
                for outcome, i in zip(outcomes, order, strict=True):
                    assert isinstance(outcome, Answer), f"got {outcome!r} for a good picture"
                    assert _alike(outcome, alone[i]), "an answer belongs to another picture"

    def test_one_ask_is_one_request(
        self,
        adapter: Adapter,
        pictures: Sequence[NDArray[np.uint8]],
        sent: Callable[[], int] | None,
    ) -> None:
        """Each request is paid for: nothing is sent twice, nothing in vain."""
        if sent is None:
            pytest.skip("give a fixture `sent`: a callable that counts the requests received")
        payloads = _encoded(adapter, pictures)[: adapter.limits.batch]
        for number in range(1, 4):
            before = sent()
            adapter.ask(payloads)
            assert sent() == before + 1, f"ask number {number} made {sent() - before} requests"

    @pytest.mark.parametrize("kind", ["empty", "text", "half"])
    def test_what_is_no_picture_is_permanent(
        self,
        kind: str,
        adapter: Adapter,
        pictures: Sequence[NDArray[np.uint8]],
        secrets: Sequence[str],
    ) -> None:
        """A payload that can never be answered says so, for itself alone."""
        good = _encoded(adapter, pictures)[0]
        bad = {"empty": b"", "text": b"no picture at all", "half": good[: len(good) // 2]}[kind]
        with everything_logged() as logged:
            outcomes = _outcomes(adapter, [bad])
            if adapter.limits.batch > 1 and self.errors_per_payload:
                outcomes += _outcomes(adapter, [good, bad])
        assert isinstance(outcomes[0], PermanentError), f"it became {outcomes[0]!r}"
        if len(outcomes) == 3:
            assert isinstance(outcomes[1], Answer), f"the good one beside it became {outcomes[1]!r}"
            assert isinstance(outcomes[2], PermanentError), f"beside a good one: {outcomes[2]!r}"
        self._check_told([told(o) for o in outcomes if not isinstance(o, Answer)], secrets, [good])
        self._check_logged(logged, secrets, [good])

    def test_threads_get_their_own_answers(
        self, adapter: Adapter, pictures: Sequence[NDArray[np.uint8]]
    ) -> None:
        """One adapter serves every thread of a run."""
        payloads = _encoded(adapter, pictures)
        alone = [_answer(adapter, payload) for payload in payloads]
        ready = threading.Barrier(_THREADS)

        def some(thread: int) -> list[tuple[int, Outcome]]:
            ready.wait(30)
            turns = [(thread + turn) % len(payloads) for turn in range(3)]
            return [(i, _outcomes(adapter, [payloads[i]])[0]) for i in turns]

        with ThreadPoolExecutor(_THREADS) as threads:
            for i, outcome in (pair for got in threads.map(some, range(_THREADS)) for pair in got):
                assert isinstance(outcome, Answer), f"under load: {outcome!r}"
                assert _alike(outcome, alone[i]), "an answer belongs to another thread's picture"

    def test_closing_twice_is_harmless(
        self,
        adapter: Adapter,
        pictures: Sequence[NDArray[np.uint8]],
        sent: Callable[[], int] | None,
    ) -> None:
        """After use; it sends nothing."""
        _answer(adapter, _encoded(adapter, pictures)[0])
        before = sent() if sent else 0
        adapter.close()
        adapter.close()
        assert (sent() if sent else 0) == before, "close() sent a request"

    def test_making_one_opens_no_connection(self, make: Make | None) -> None:
        """`smoothapi providers` makes each adapter and looks at it; it must not call anybody."""
        if make is None:
            pytest.skip("give a fixture `make`: a callable () -> adapter")
        with no_network() as attempts:
            adapter = make()
            look_at(adapter)
            adapter.close()
        assert not attempts, f"it tried to reach {attempts}"

    def test_importing_it_opens_no_connection(self, adapter: Adapter) -> None:
        """Nor does loading its module."""
        module = type(adapter).__module__
        script = (
            "import sys; sys.addaudithook(lambda event, details: sys.exit(event) "
            "if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto') else None); "
            f"import {module}"
        )
        done = subprocess.run(  # noqa: S603  the interpreter that runs the tests
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert done.returncode == 0, f"import {module}: {done.stderr[-500:]}"

    def test_nothing_secret_is_shown(self, adapter: Adapter, secrets: Sequence[str]) -> None:
        """Neither in its texts nor in what certificates and cache keys are made of."""
        self._check_told(look_at(adapter), secrets)

    def test_nothing_secret_is_logged(
        self,
        adapter: Adapter,
        pictures: Sequence[NDArray[np.uint8]],
        secrets: Sequence[str],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """Not even at level DEBUG, nor by a library beneath; and pictures are not logged either."""
        payloads = _encoded(adapter, pictures)[:2]
        with everything_logged() as logged:
            for payload in payloads:
                _answer(adapter, payload)
            adapter.close()
        self._check_logged(logged, secrets, payloads)
        self._check_told(list(capfd.readouterr()), secrets, payloads)

    def test_a_service_that_does_not_listen_is_transient(
        self,
        unreachable: Adapter | None,
        pictures: Sequence[NDArray[np.uint8]],
        secrets: Sequence[str],
    ) -> None:
        """It may listen again."""
        if unreachable is None:
            pytest.skip("give a fixture `unreachable`: an adapter whose service does not listen")
        payloads = _encoded(unreachable, pictures)[:1]
        with everything_logged() as logged:
            [outcome] = _outcomes(unreachable, payloads)
            unreachable.close()
        assert isinstance(outcome, TransientError), f"it became {outcome!r}"
        assert str(outcome), "an error says what happened"
        self._check_told([told(outcome)], secrets, payloads)
        self._check_logged(logged, secrets, payloads)

    @pytest.mark.parametrize("fault", list(Fault))
    def test_each_fault_becomes_the_right_error(
        self,
        fault: Fault,
        faulty: Callable[[Fault], Adapter] | None,
        pictures: Sequence[NDArray[np.uint8]],
        secrets: Sequence[str],
        sent: Callable[[], int] | None,
    ) -> None:
        """One of ours, of the class that says what to do; after one request and no more."""
        if faulty is None:
            pytest.skip("give a fixture `faulty`: a callable (Fault) -> adapter")
        adapter = faulty(fault)
        payloads = _encoded(adapter, pictures)[:1]
        before = sent() if sent else 0
        with everything_logged() as logged:
            [outcome] = _outcomes(adapter, payloads)
            adapter.close()
        assert (sent() - before if sent else 1) <= 1, "it was sent again: that is not for adapters"
        self._check_logged(logged, secrets, payloads)
        if isinstance(outcome, Answer):
            assert fault is Fault.slow, f"{fault}: an answer came of it: {outcome!r}"
            return
        meant = self.meant.get(fault, _MEANT[fault])
        assert isinstance(outcome, meant), f"{fault} became {outcome!r}, none of {meant}"
        if ThrottledError not in meant:
            assert not isinstance(outcome, ThrottledError), f"{fault} must not slow callers down"
        if fault in (Fault.throttled_wait, Fault.throttled_date):
            wait = getattr(outcome, "retry_after", None)
            assert wait is not None, "Retry-After was not handed on"
        assert str(outcome), "an error says what happened"
        self._check_told([told(outcome)], secrets, payloads)

    def test_without_credentials_it_says_where_it_looked(
        self,
        without_credentials: Adapter | None,
        pictures: Sequence[NDArray[np.uint8]],
        sent: Callable[[], int] | None,
    ) -> None:
        """At the first question, and nothing is sent."""
        if without_credentials is None:
            pytest.skip("give a fixture `without_credentials`: an adapter that found none")
        adapter = without_credentials
        assert isinstance(adapter, NeedsCredentials), "it has a method credentials()"
        before = sent() if sent else 0
        with no_network() as attempts:
            found = adapter.credentials()
            [outcome] = _outcomes(adapter, _encoded(adapter, pictures)[:1])
            adapter.close()
        assert found.found is False, "credentials() claims to have found some"
        assert found.where, "credentials().where says where it looked"
        assert isinstance(outcome, FatalError), f"it became {outcome!r}"
        assert not outcome.sent, "its error says sent=False, or what was not asked is charged"
        places = re.findall(r"[\w./~-]{6,}", found.where)
        assert any(place in str(outcome) for place in places), (
            f"the error ({outcome}) does not say where it looked ({found.where})"
        )
        assert not attempts, f"it tried to reach {attempts}"
        assert (sent() if sent else 0) == before, "it sent something all the same"

    def test_looking_for_credentials_sends_nothing(self, adapter: Adapter) -> None:
        """`smoothapi providers` looks for them."""
        if not isinstance(adapter, NeedsCredentials):
            pytest.skip("this adapter has no credentials()")
        with no_network() as attempts:
            found = adapter.credentials()
        assert isinstance(found, Credentials), "credentials() returns a smoothapi Credentials"
        assert isinstance(found.found, bool), "found is True or False"
        assert not attempts, f"it tried to reach {attempts}"

    def _check_told(
        self, texts: Sequence[str], secrets: Sequence[str], payloads: Sequence[bytes] = ()
    ) -> None:
        for text in texts:
            for secret in secrets:
                assert not any(form in text for form in forms(secret)), "a secret is shown"
            for payload in payloads:
                assert not any(form in text for form in excerpts(payload)), "a picture is shown"

    def _check_logged(
        self, logged: Sequence[tuple[str, str]], secrets: Sequence[str], payloads: Sequence[bytes]
    ) -> None:
        for logger, text in logged:
            allowed = any(logger.split(".")[0] == name for name in self.loggers_with_pictures)
            self._check_told([text], secrets, () if allowed else payloads)


def unused_port() -> int:
    """Return a port of the loopback interface on which nothing listens, nor does by chance soon."""
    first, end = _PORTS
    for port in [first + randbelow(end - first) for _ in range(100)] + [0]:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as server:
            return int(server.getsockname()[1])
    raise OSError("no port is free")


def _encoded(
    adapter: Adapter, pictures: Sequence[NDArray[np.uint8]], codec: str | None = None
) -> list[bytes]:
    limits = adapter.limits
    codec = codec or limits.formats[0]
    return [Codec(codec, min_side=limits.min_side).encode(picture) for picture in pictures]


def _outcomes(adapter: Adapter, payloads: Sequence[bytes]) -> list[Outcome]:
    """Ask; an error that is raised is every payload's outcome. One that is not ours fails."""
    try:
        outcomes = list(adapter.ask(payloads))
    except ProviderError as error:
        return [error] * len(payloads)
    except Exception as error:
        pytest.fail(f"ask() raised {type(error).__name__}, none of smoothapi's provider errors")
        raise  # not reached
    assert len(outcomes) == len(payloads), f"{len(outcomes)} outcomes for {len(payloads)} payloads"
    assert all(isinstance(outcome, (Answer, ProviderError)) for outcome in outcomes), (
        f"ask() returned {outcomes!r}: one Answer or ProviderError for each payload"
    )
    return outcomes


def _answer(adapter: Adapter, payload: bytes) -> Answer:
    [outcome] = _outcomes(adapter, [payload])
    assert isinstance(outcome, Answer), f"a good picture became {outcome!r}"
    return outcome


def _alike(one: Answer, other: Answer) -> bool:
    """Whether two answers are about the same picture: same best label, about the same score."""
    best = [max(a.labels, key=lambda b: b.score) if a.labels else None for a in (one, other)]
    if best[0] is None or best[1] is None:
        return best[0] is best[1]
    return best[0].name == best[1].name and abs(best[0].score - best[1].score) <= 1e-3
