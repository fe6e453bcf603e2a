"""Who connects and then does nothing, or next to nothing, is not waited for, and keeps nobody out."""

from __future__ import annotations

import http.client
import select
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from smoothapi import grpc_protocol, http_protocol
from smoothapi.services import serve
from tests.unit.services.conftest import picture
from tests.waiting import PATIENCE, until

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: RekognitionService.DetectLabels\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WAITED = 20.0  # seconds: far more than a hasty service waits, and less than others do

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def within(monkeypatch):
    """Say how long a service waits, in seconds: one over HTTP from the next thing that it awaits."""

    def say(seconds):
        for module in (http_protocol, grpc_protocol):
            monkeypatch.setattr(module, "_WITHIN", seconds)

    return say


@contextmanager
def held(service):
    """Hold a service over HTTP, which then finds all at once what came meanwhile, however slowly."""
    go_on = threading.Event()
    service._transport._server._loop.call_soon_threadsafe(go_on.wait, PATIENCE)
    try:
        yield
    finally:
        go_on.set()


def connected(service):
    host, port = service.address.split(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def send(sock, data):
    """Send, unless this was so slow that the other end has closed the connection already."""
    with suppress(ConnectionError):
        sock.sendall(data)


def closed(sock):
    """Wait until the other end closes a connection; whether it did."""
    sock.settimeout(WAITED)
    try:
        while sock.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def drip(sock, data):
    with suppress(OSError):
        for at in range(len(data)):
            sock.sendall(data[at : at + 1])
            time.sleep(0.05)


SLOW = {
    "nothing": b"",
    "half a head": HEAD[:20],
    "a head without an end": HEAD + b"X: ",
    "half a body": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("dripping", [False, True])
@pytest.mark.parametrize("sent", SLOW)
def test_half_a_request_is_not_waited_for(sent, dripping, within, calling):
    within(0.5)
    with serve("aws", lambda _: "bus") as service:
        with connected(service) as sock:
            send(sock, SLOW[sent])
            if dripping:
                threading.Thread(target=drip, args=(sock, b"x" * 10_000), daemon=True).start()
            assert closed(sock)
        assert not service.received
        within(PATIENCE)
        assert calling(service).ask(picture())


@pytest.mark.parametrize("sent", [b"", PREFACE[:10]])
def test_nor_half_a_handshake_of_grpc(sent, within):
    within(0.5)
    with serve("google-grpc", lambda _: "bus") as service, connected(service) as sock:
        send(sock, sent)
        assert closed(sock)


def test_nor_half_of_the_second_request_on_a_connection(within):
    with serve("aws", lambda _: "bus") as service, connected(service) as sock:
        sock.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
        assert sock.recv(65_536).startswith(b"HTTP/1.1 ")
        within(0.5)
        sock.sendall(HEAD[:20])
        assert closed(sock)


def test_who_does_not_read_is_not_waited_for(within, monkeypatch):
    labels = [(f"{number:05}{'x' * 2_000}", 0.9) for number in range(5_000)]
    lost = threading.Event()
    forget = http_protocol.PatientProtocol.connection_lost

    def connection_lost(protocol, exc):
        lost.set()
        forget(protocol, exc)

    def label(_):
        within(0.5)  # from now on: the request is here
        return labels

    monkeypatch.setattr(http_protocol.PatientProtocol, "connection_lost", connection_lost)
    with serve("azure4", label) as service, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        host, port = service.address.split(":")
        sock.connect((host, int(port)))
        sock.sendall(
            b"POST /computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags "
            b"HTTP/1.1\r\nHost: x\r\nOcp-Apim-Subscription-Key: emulated\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % len(picture())
        )
        sock.sendall(picture())
        assert lost.wait(WAITED)  # kept, it would be open for a minute
        assert closed(sock)
        assert service.received[0].pictures == 1


def test_who_waits_for_a_slow_answer_or_comes_back_later_is_not_cut_off(within):
    within(0.5)
    with serve("aws", lambda _: "bus", latency=0.9) as service:
        line = http.client.HTTPConnection(service.address, timeout=PATIENCE)
        with held(service):
            line.request("POST", "/", b"{}", {"X-Amz-Target": "RekognitionService.DetectLabels"})
        assert line.getresponse().read()
        kept = line.sock
        time.sleep(0.7)
        line.request("GET", "/nothing")
        assert line.getresponse().read()
        time.sleep(0.7)
        line.request("GET", "/nothing")
        assert line.getresponse().read()
        assert line.sock is kept
        line.close()


@pytest.mark.parametrize("provider", ["aws", "google-grpc"])
def test_there_is_an_end_to_how_many_connect(provider, monkeypatch, within):
    for module in (http_protocol, grpc_protocol):
        monkeypatch.setattr(module, "_CONNECTIONS", 4)
    within(PATIENCE)
    with serve(provider, lambda _: "bus") as service, ExitStack() as stack:
        socks = [stack.enter_context(connected(service)) for _ in range(12)]
        kept = set(socks)

        def refused():
            for sock in select.select(list(kept), [], [], 0)[0]:
                with suppress(ConnectionError):
                    if sock.recv(65_536):
                        continue  # what a server of gRPC says first
                kept.remove(sock)
            return len(socks) - len(kept) >= 8

        until(refused)
        assert len(kept) == 4
    within(0.5)
    with serve(provider, lambda _: "bus") as service, ExitStack() as stack:
        for sock in [stack.enter_context(connected(service)) for _ in range(12)]:
            assert closed(sock)


@pytest.mark.parametrize("provider", ["aws", "google-grpc"])
def test_closing_does_not_wait_for_them(provider):
    with ExitStack() as stack:
        service = serve(provider, lambda _: "bus")
        for sent in (*SLOW.values(), PREFACE, PREFACE[:5]):
            stack.enter_context(connected(service)).sendall(sent)
        time.sleep(0.1)
        closing = threading.Thread(target=service.close, daemon=True)
        closing.start()
        closing.join(WAITED)
        assert not closing.is_alive()
