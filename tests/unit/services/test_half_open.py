"""Who connects and then does nothing, or next to nothing, is not waited for, and keeps nobody out."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import ExitStack, suppress

import pytest

from smoothapi import grpc_protocol, http_protocol
from smoothapi.services import serve
from tests.unit.services.conftest import AwsCaller, picture

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: RekognitionService.DetectLabels\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 20.0  # seconds: far more than the service's, whatever else this machine does

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def hasty(monkeypatch):
    for module in (http_protocol, grpc_protocol):
        monkeypatch.setattr(module, "_WITHIN", 0.5)


def connected(service):
    host, port = service.address.split(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def closed(sock):
    """Wait until the other end closes a connection; whether it did."""
    sock.settimeout(PATIENCE)
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


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("dripping", [False, True])
@pytest.mark.parametrize("sent", SLOW)
def test_half_a_request_is_not_waited_for(sent, dripping):
    with serve("aws", lambda _: "bus") as service, connected(service) as sock:
        sock.sendall(SLOW[sent])
        if dripping:
            threading.Thread(target=drip, args=(sock, b"x" * 10_000), daemon=True).start()
        assert closed(sock)
        assert not service.received
        assert AwsCaller(service).ask(picture())


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [b"", PREFACE[:10]])
def test_nor_half_a_handshake_of_grpc(sent):
    with serve("google-grpc", lambda _: "bus") as service, connected(service) as sock:
        sock.sendall(sent)
        assert closed(sock)


@pytest.mark.usefixtures("hasty")
def test_nor_half_of_the_second_request_on_a_connection():
    with serve("aws", lambda _: "bus") as service, connected(service) as sock:
        sock.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
        assert sock.recv(65_536).startswith(b"HTTP/1.1 ")
        sock.sendall(HEAD[:20])
        assert closed(sock)


@pytest.mark.usefixtures("hasty")
def test_who_does_not_read_is_not_waited_for():
    labels = [(f"{number:05}{'x' * 2_000}", 0.9) for number in range(5_000)]
    with serve("azure4", lambda _: labels) as service, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        host, port = service.address.split(":")
        sock.connect((host, int(port)))
        sock.sendall(
            b"POST /computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags "
            b"HTTP/1.1\r\nHost: x\r\nOcp-Apim-Subscription-Key: emulated\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % len(picture())
        )
        sock.sendall(picture())
        time.sleep(2.0)
        assert closed(sock)  # kept, it would be open for a minute
        assert service.received[0].pictures == 1


@pytest.mark.usefixtures("hasty")
def test_who_waits_for_a_slow_answer_or_comes_back_later_is_not_cut_off():
    with serve("aws", lambda _: "bus", latency=0.9) as service:
        assert AwsCaller(service).ask(picture())
        line = http.client.HTTPConnection(service.address, timeout=PATIENCE)
        for _ in range(2):
            line.request("GET", "/nothing")
            assert line.getresponse().read()
            kept = line.sock
            time.sleep(0.7)
        assert line.sock is kept
        line.close()


@pytest.mark.parametrize("provider", ["aws", "google-grpc"])
def test_there_is_an_end_to_how_many_connect(provider, monkeypatch):
    for module in (http_protocol, grpc_protocol):
        monkeypatch.setattr(module, "_CONNECTIONS", 4)
        monkeypatch.setattr(module, "_WITHIN", 2.0)
    with serve(provider, lambda _: "bus") as service, ExitStack() as stack:
        socks = [stack.enter_context(connected(service)) for _ in range(12)]
        refused = 0
        for sock in socks:
            sock.settimeout(0.05)
            with suppress(TimeoutError):
                try:
                    refused += not sock.recv(1)
                except ConnectionError:
                    refused += 1
        assert refused >= 8
        for sock in socks:
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
        closing.join(PATIENCE)
        assert not closing.is_alive()
