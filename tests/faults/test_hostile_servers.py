"""Each adapter, before a server that does what no service should, ends in time with one error."""

from __future__ import annotations

import gc
import re
import threading
import time
import tracemalloc
import warnings

import numpy as np
import pytest

from smoothapi.encode import Codec
from smoothapi.errors import FatalError, ProviderError, TransientError
from tests.contract.tls import authority
from tests.faults.awaited import AWAITED
from tests.faults.callers import CALLERS, SECRET
from tests.faults.hostile import BEHAVIOURS, Hostile

EVERY = CALLERS | AWAITED
PICTURE = Codec("png").encode(np.full((96, 96, 3), 90, np.uint8))
LIMIT = 0.4  # seconds of an exchange
PATIENCE = 30.0  # seconds, however busy this machine is: what hangs takes for ever
# On a busy machine to connect, or a handshake, alone takes so long; then nothing was sent yet.
IN_TIME = f"no whole answer in {LIMIT:g} s|no connection came about in time"
DRIPPING = [name for name in BEHAVIOURS if "drip" in name or "pauses" in name or name == "silence"]
LARGE = ("endless", "bomb", "gzip in gzip", "nested", "digits", "extension")


@pytest.fixture(scope="module")
def hostile():
    with Hostile() as server:
        yield server


@pytest.fixture
def over_tls(tmp_path, monkeypatch):
    """Return the context of a server whose certificate is trusted here."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with authority(tmp_path, "127.0.0.1") as (pem, context):
        for name in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
            monkeypatch.setenv(name, pem)
        yield context


@pytest.fixture
def adapters_at(monkeypatch):
    """Return what makes all that speak HTTP for a URL."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    made = {}

    def make(url, limit=LIMIT):
        made.update({n: make(url, limit) for n, make in EVERY.items() if "grpc" not in n})
        return made

    yield make
    close(made)


def close(adapters):
    for adapter in adapters.values():
        getattr(adapter, "close", lambda: None)()


@pytest.fixture(scope="module")
def adapters(hostile):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        made = {name: make(hostile.url, LIMIT) for name, make in EVERY.items()}
        yield made
        close(made)


def outcomes(adapters, picture=PICTURE):
    """Ask all at once; return name -> what came of it, and after how many seconds."""
    found = {}

    def ask(name, adapter):
        began = time.monotonic()
        try:
            outcome = adapter.ask([picture])[0]
        except BaseException as error:  # noqa: BLE001  whatever it is, it is looked at
            outcome = error
        found[name] = outcome, time.monotonic() - began

    threads = [
        threading.Thread(target=ask, args=item, name=item[0], daemon=True)
        for item in adapters.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    gc.collect()  # what was left open says so in the test that left it
    return found


def posted(hostile):
    """Return what was asked over HTTP: gRPC, which comes back by itself, does not POST in text."""
    return [line for line in hostile.requests if line.startswith((b"POST ", b"GET "))]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_each_adapter_ends_in_time_with_one_error_and_no_secret_in_it(behaviour, hostile, adapters):
    hostile.become(BEHAVIOURS[behaviour])
    watched = any(word in behaviour for word in LARGE)
    if watched:
        tracemalloc.start()
    try:
        found = outcomes(adapters)
        peak = tracemalloc.get_traced_memory()[1] if watched else 0
    finally:
        tracemalloc.stop()
    assert not set(adapters) - set(found), "still waiting"
    assert peak < len(adapters) * 100 * 2**20
    wrong = {
        name: outcome
        for name, (outcome, _) in found.items()
        if not isinstance(outcome, ProviderError)
    }
    assert not wrong
    for name, (error, seconds) in found.items():
        assert SECRET not in f"{error} {error!r}", name
        assert len(str(error)) < 1_500, name
        if behaviour in DRIPPING and "grpc" not in name:
            assert type(error) is TransientError, name
            assert re.search(IN_TIME, str(error)), name
            assert seconds >= LIMIT * 0.9, name
    assert len(posted(hostile)) <= sum("grpc" not in name for name in adapters), (
        "sent more than once"
    )


@pytest.mark.timeout(90)
@pytest.mark.usefixtures("adapters")
def test_no_caller_works_on_after_its_answer(hostile):
    """What a server sent must not keep a thread, or the caller's event loop, busy for ever."""
    hostile.become(lambda line: None)
    for _ in range(60):  # what was given up may still have to notice
        before = time.process_time()
        time.sleep(0.5)
        if time.process_time() - before < 0.1:
            return
    pytest.fail("a thread is still busy")


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("status", "target"), [(301, "elsewhere"), (302, "no host"), (307, "no port"), (308, "itself")]
)
def test_no_redirect_is_followed_and_none_leaves_a_connection(status, target, hostile, adapters_at):
    to = {
        "elsewhere": hostile.url.replace("127.0.0.1", "localhost"),
        "no host": "http://a b*.example/",
        "no port": "http://a:b/",
        "itself": hostile.url,
    }[target]
    head = b"HTTP/1.1 %d Found\r\nLocation: %s\r\nConnection: close\r\n" % (status, to.encode())
    hostile.become(lambda line: line.whole(b"{}", head))
    adapters = adapters_at(hostile.url, PATIENCE)
    gc.collect()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        found = outcomes(adapters)
        assert all(isinstance(error, ProviderError) for error, _ in found.values())
        found.clear()
        gc.collect()
    assert not [str(warning.message) for warning in seen]
    assert len(posted(hostile)) == len(adapters), "followed, or sent again"


@pytest.mark.timeout(90)
def test_what_is_refused_is_not_sent_again_with_another_token(hostile, adapters_at):
    hostile.become(lambda line: line.whole(b"{}", b"HTTP/1.1 401 No\r\n"))
    adapters = adapters_at(hostile.url, PATIENCE)
    found = outcomes(adapters)
    assert {
        name for name, (error, _) in found.items() if not isinstance(error, FatalError)
    } == set()
    assert len(posted(hostile)) == len(adapters)


def all_overdue(found, adapters, said=f"no whole answer in {LIMIT:g} s"):
    assert not set(adapters) - set(found), "still waiting"
    for name, (error, _) in found.items():
        assert type(error) is TransientError, name
        assert re.search(said, str(error)), name


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "behaviour", ["headers that drip in", "a body that drips", "endless 100 Continue"]
)
def test_the_deadline_holds_under_tls(behaviour, over_tls, adapters_at):
    with Hostile(BEHAVIOURS[behaviour], tls=over_tls) as server:
        adapters = adapters_at(server.url)
        all_overdue(outcomes(adapters), adapters, IN_TIME)


@pytest.mark.timeout(90)
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # so aiohttp advises
@pytest.mark.parametrize("tls", [False, True])
def test_the_deadline_holds_while_a_request_is_sent(tls, over_tls, adapters_at):
    with Hostile(tls=over_tls if tls else None, reads=False) as server:
        adapters = adapters_at(server.url)
        all_overdue(outcomes(adapters, PICTURE + bytes(8 * 2**20)), adapters, IN_TIME)


@pytest.mark.timeout(90)
@pytest.mark.smoothapi_network
@pytest.mark.usefixtures("over_tls")
@pytest.mark.parametrize("behaviour", ["headers that drip in", "a status line that drips"])
def test_the_deadline_holds_for_a_proxy_on_the_way(behaviour, adapters_at, monkeypatch):
    with Hostile(BEHAVIOURS[behaviour]) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        # aiohttp does not say whether it was still connecting: then it counts as sent.
        every = adapters_at("https://service.example").items()
        adapters = {name: adapter for name, adapter in every if name not in AWAITED}
        found = outcomes(adapters)
        assert not set(adapters) - set(found), "still waiting"
        for name, (error, _) in found.items():
            assert type(error) is TransientError, name
            assert "no connection came about in time" in str(error), name
            assert not error.sent, name
        assert all(line.startswith(b"CONNECT ") for line in proxy.requests)
        assert proxy.requests
