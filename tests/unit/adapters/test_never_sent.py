"""What never left this machine, through every SDK: not charged, not called a time-out, soon over."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import closing, contextmanager, suppress
from functools import partial

import numpy as np
import pytest

from smoothapi import Budget, Smoother
from smoothapi.errors import FatalError, ProviderError, TransientError
from smoothapi.provider import make_adapter
from smoothapi.testing import unused_port
from tests.faults.awaited import AWAITED
from tests.waiting import PATIENCE

# No name below leads anywhere: .invalid and .example are reserved for that.
pytestmark = [pytest.mark.smoothapi_network, pytest.mark.timeout(200)]

PNG = b"\x89PNG\r\n\x1a\n"
KEY = "0123456789abcdef"
PHOTO = np.zeros((80, 80, 3), np.uint8)


def aws(url):
    return make_adapter("aws", endpoint=url, region="eu-west-1")


def google(transport):
    def make(url):
        return make_adapter("google", endpoint=url, transport=transport, api_key=KEY)

    return make


ADAPTERS = {
    "aws": aws,
    "google REST": google("rest"),
    "google gRPC": google("grpc"),
    "azure": lambda url: make_adapter("azure", endpoint=url, key=KEY),
    "azure4": lambda url: make_adapter("azure4", endpoint=url, key=KEY),
    "clarifai": lambda url: make_adapter("clarifai", endpoint=url, pat=KEY),
    "http": lambda url: make_adapter("http", url=f"{url}/label", labels="labels[*]"),
    **{name: partial(make, timeout=30.0, secret=KEY) for name, make in AWAITED.items()},
}


@contextmanager
def listener(meet):
    """Serve each connection with `meet` on a port of this machine; yields the port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(PATIENCE)
                    with suppress(OSError):
                        meet(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


def reset(connection):
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def plain(connection):
    connection.recv(200)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def hang_up(connection):
    connection.recv(200)


def refuse_tunnel(connection):
    connection.recv(2000)
    connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)


@contextmanager
def way(kind, monkeypatch):
    """Yield an endpoint that cannot be reached, in one of the ways there are."""
    if kind == "refused":
        yield f"http://127.0.0.1:{unused_port()}"
    elif kind == "refused, TLS":
        yield f"https://localhost:{unused_port()}"
    elif kind == "unknown host":
        yield "https://no-such-host.invalid"
    elif kind == "proxy refused":
        _through(monkeypatch, unused_port())
        yield "https://vision.example"
    elif kind == "proxy forbids":
        with listener(refuse_tunnel) as port:
            _through(monkeypatch, port)
            yield "https://vision.example"
    else:
        meets = {"TLS reset": reset, "no TLS there": plain, "TLS hangs up": hang_up}
        with listener(meets[kind]) as port:
            yield f"https://localhost:{port}"


def _through(monkeypatch, port):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")


KINDS = [
    "refused", "refused, TLS", "unknown host", "TLS reset", "no TLS there", "TLS hangs up",
    "proxy refused", "proxy forbids",
]  # fmt: skip


def matrix():
    """All kinds for one adapter of each way to send, and the commonest for the others."""
    for name in ADAPTERS:
        full = name in ("aws", "google gRPC", "azure4", "http", "aws, awaited")
        for kind in KINDS if full else ("refused", "unknown host", "no TLS there"):
            yield name, kind


@pytest.mark.parametrize(("name", "kind"), list(matrix()))
def test_it_is_known_that_nothing_was_sent(name, kind, monkeypatch):
    with way(kind, monkeypatch) as endpoint, closing(ADAPTERS[name](endpoint)) as adapter:
        with pytest.raises(TransientError) as caught:
            adapter.ask([PNG])
    said = str(caught.value)
    assert not caught.value.sent
    assert "could not be reached" in said
    assert "in time" not in said
    assert "whole answer" not in said
    assert KEY not in said


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "google gRPC"])
def test_a_reset_of_what_was_sent_may_have_been_billed(name):
    with listener(reset) as port, closing(ADAPTERS[name](f"http://127.0.0.1:{port}")) as adapter:
        with pytest.raises(TransientError) as caught:
            adapter.ask([PNG])
        assert caught.value.sent


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "google gRPC"])
def test_an_earlier_attempt_that_was_not_sent_says_nothing_of_this_one(name):
    """Errors are chained to what was being handled when they came up."""
    with listener(reset) as port, closing(ADAPTERS[name](f"http://127.0.0.1:{port}")) as adapter:
        with closing(ADAPTERS[name](f"http://127.0.0.1:{unused_port()}")) as unreachable:
            try:
                unreachable.ask([PNG])
            except TransientError:
                with pytest.raises(TransientError) as caught:
                    adapter.ask([PNG])
        assert caught.value.sent


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aws", "refused"),
        ("google gRPC", "unknown host"),
        ("http", "proxy forbids"),
        ("azure4", "TLS hangs up"),
    ],
)
def test_a_run_ends_within_seconds_and_says_where_it_was_to_go(name, kind, monkeypatch):
    if name != "aws":
        monkeypatch.setattr("smoothapi.dispatch.sending._PATIENCE", 0.2)
    began = time.monotonic()
    with way(kind, monkeypatch) as endpoint:
        budget = Budget(attempts=500, per="day")
        with Smoother(
            ADAPTERS[name](endpoint), denoiser="none", budget=budget, partial=True
        ) as smoother:
            with pytest.raises(FatalError) as caught:
                smoother.certify(PHOTO, radius=0.1)
            assert smoother.session.dispatcher.room() == 500
    error = caught.value
    assert time.monotonic() - began < PATIENCE  # the deadline of its retries is 300 s
    assert (error.attempts, error.cost, error.sent) == (0, 0.0, False)
    assert isinstance(error, ProviderError)
    assert error.exit_code == 4
    said = str(error)
    assert endpoint.split("://")[1] in said
    if name == "aws":
        assert "region eu-west-1" in said
    for word in ("endpoint", "region", "proxy", "nothing is charged"):
        assert word in said
