"""A server that answers in every way that no service should, one way at a time."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable

from tests.faults.callers import answer

PAUSE = 0.02  # seconds between drops: far below any time limit, so that only a deadline ends it
MIB = 2**20
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\n"


class Line:
    """One caller's connection, with the request that came."""

    def __init__(self, sock: socket.socket, head: bytes, leaving: threading.Event) -> None:
        self._sock = sock
        self._leaving = leaving
        self.head = head

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def drip(self, drops, pause: float = PAUSE) -> None:
        for drop in drops:
            if self._leaving.wait(pause):
                raise ConnectionAbortedError
            self.send(drop)

    def pour(self, drops) -> None:
        for drop in drops:
            if self._leaving.is_set():
                raise ConnectionAbortedError
            self.send(drop)

    def whole(self, body: bytes, head: bytes = JSON) -> None:
        self.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def silence(self) -> None:
        self._leaving.wait()

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


Behaviour = Callable[[Line], object]


def each(data: bytes):
    return (data[at : at + 1] for at in range(len(data)))


def again(data: bytes):
    return itertools.repeat(data)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = JSON + b"Content-Encoding: gzip\r\n"
BOMB = gzip.compress(bytes(MIB)) * 1_000  # each member is unpacked to a MiB
NUMBERS = iter(range(10**9))


def number() -> bytes:
    return b"X-%d: 1\r\n" % next(NUMBERS)


def echo(line: Line) -> None:
    said = {"error": {"code": "403", "message": line.head.decode("latin-1")}}
    said |= {"status": {"code": 11009, "description": line.head.decode("latin-1")}}
    said |= {"message": line.head.decode("latin-1"), "__type": "AccessDeniedException"}
    line.whole(json.dumps(said).encode(), JSON.replace(b"200 OK", b"403 Forbidden"))


MARKUP = "<script>alert(1)</script>\x1b[31m\x9b31m\u202egnp\u2066\x00"


def markup(line: Line) -> None:
    said = {"error": {"code": "InvalidImageFormat", "message": MARKUP}}
    said |= {"status": {"code": 30002, "description": MARKUP}}
    said |= {"message": MARKUP, "__type": "InvalidImageFormatException"}
    line.whole(json.dumps(said).encode(), JSON.replace(b"200 OK", b"400 Bad Request"))


def redirect(to: bytes):
    head = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: " + to + b"\r\n"
    return lambda line: line.whole(b"", head)


def retry_after(value: bytes, status: bytes = b"503 Service Unavailable"):
    head = b"HTTP/1.1 " + status + b"\r\nRetry-After: " + value + b"\r\n"
    return lambda line: line.whole(b"{}", head)


def score(value: bytes):
    """Answer well, in all protocols, but for the score."""
    return lambda line: line.whole(answer(value))


NESTED = b'{"labels": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"

BEHAVIOURS = {
    "silence": Line.silence,
    "a status line that drips": lambda line: line.drip(each(b"HTTP/1.1 200 " + b"O" * 60_000)),
    "headers that drip in": lambda line: (
        line.send(JSON),
        line.drip(number() for _ in range(10**6)),
    ),
    "a header that drips in": lambda line: (line.send(JSON), line.drip(each(b"X: " * 20_000))),
    "endless headers": lambda line: (line.send(OK), line.pour(iter(number, None))),
    "endless 100 Continue, with pauses": lambda line: line.drip(
        again(b"HTTP/1.1 100 Continue\r\n\r\n")
    ),
    "endless 100 Continue": lambda line: line.pour(again(b"HTTP/1.1 100 Continue\r\n\r\n" * 99)),
    "endless headers of 100 Continue": lambda line: (
        line.send(b"HTTP/1.1 100 Continue\r\n"),
        line.drip(number() for _ in range(10**6)),
    ),
    "a header line of 1 MiB": lambda line: line.whole(b"{}", OK + b"X: " + b"x" * MIB + b"\r\n"),
    "a body that drips": lambda line: (
        line.send(JSON + b"Content-Length: 90000\r\n\r\n"),
        line.drip(each(b" " * 90_000)),
    ),
    "a body without an end that drips": lambda line: (
        line.send(JSON + b"\r\n"),
        line.drip(again(b" ")),
    ),
    "chunks that drip": lambda line: (line.send(CHUNKED), line.drip(again(chunk(b" ")))),
    "the length of a chunk that drips": lambda line: (line.send(CHUNKED), line.drip(again(b"0"))),
    "trailers that drip": lambda line: (
        line.send(CHUNKED + b"0\r\n"),
        line.drip(number() for _ in range(10**6)),
    ),
    "chunk extensions of 60 KB": lambda line: (
        line.send(CHUNKED),
        line.pour(again(chunk(b" ", b";" + b"x" * 60_000))),
    ),
    "an endless chunk extension": lambda line: (
        line.send(CHUNKED + b"1;"),
        line.pour(again(b"x" * 65_536)),
    ),
    "a gzip bomb": lambda line: line.whole(BOMB, GZIP),
    "a gzip bomb that drips": lambda line: (
        line.send(GZIP + b"\r\n"),
        line.drip(again(gzip.compress(b""))),
    ),
    "gzip in gzip": lambda line: line.whole(
        gzip.compress(BOMB), JSON + b"Content-Encoding: gzip, gzip\r\n"
    ),
    "5,000 content encodings": lambda line: line.whole(
        b"{}", JSON + b"Content-Encoding: " + b"gzip, " * 5_000 + b"gzip\r\n"
    ),
    "an endless body": lambda line: (line.send(JSON + b"\r\n"), line.pour(again(b" " * 65_536))),
    "broken gzip": lambda line: line.whole(b"nope", GZIP),
    "a redirect to elsewhere": redirect(b"http://127.0.0.2:1/elsewhere"),
    "a redirect to a file": redirect(b"file:///etc/passwd"),
    "a redirect to nothing": redirect(b"http://[::1"),
    "the secret echoed in an error": echo,
    "a picture refused with markup and escape codes": markup,
    "a negative length": lambda line: line.send(JSON + b"Content-Length: -5\r\n\r\n{}"),
    "half of its length": lambda line: line.send(JSON + b"Content-Length: 500\r\n\r\n{"),
    "JSON nested 200,000 deep": lambda line: line.whole(NESTED),
    "an error nested 200,000 deep": lambda line: line.whole(
        NESTED.replace(b"labels", b"error"), JSON.replace(b"200 OK", b"400 Bad Request")
    ),
    "a number of 100,000 digits": score(b"9" * 100_000),
    "NaN": score(b"NaN"),
    "infinity": score(b"1e999"),
    "Retry-After of infinity": retry_after(b"inf"),
    "Retry-After of -1": retry_after(b"-1", b"429 Too Many Requests"),
    "Retry-After of 10^12": retry_after(b"1000000000000", b"429 Too Many Requests"),
    "a reset": Line.reset,
    "nothing": lambda line: None,
    "HTTP/0.9": lambda line: line.send(b"<html>It works!</html>"),
    "status 999": lambda line: line.whole(b"{}", b"HTTP/1.1 999 Request denied\r\n"),
    "101 Switching Protocols": lambda line: (
        line.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
        line.silence(),
    ),
    "a cookie of 60 KB": lambda line: line.whole(
        b"[]", OK + b"Set-Cookie: a=" + b"x" * 60_000 + b"\r\n"
    ),
}
"""Name -> what is sent once a request was read; the connection ends with it."""


class Hostile:
    """Behaves in one way on a port of its own until it is closed.

    Args:
        behaviour: once a request was read.
        tls: to speak TLS.
        reads: whether requests are read as they come; else a few bytes at a time.

    Attributes:
        requests: the request lines of those that were read since the behaviour changed.
        url: where it is.
    """

    def __init__(
        self,
        behaviour: Behaviour = Line.silence,
        *,
        tls: ssl.SSLContext | None = None,
        reads: bool = True,
    ) -> None:
        self._behaviour = behaviour
        self._tls = tls
        self._reads = reads
        self.requests: list[bytes] = []
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []
        self._last: object = None  # address of a connection that says: up to here
        self._caught_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096 if not reads else MIB)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def become(self, behaviour: Behaviour) -> None:
        """End what is under way, and behave otherwise from now on."""
        self._leaving.set()
        self._accept_what_waits()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self.requests.clear()
        self._leaving = threading.Event()
        self._behaviour = behaviour

    def _accept_what_waits(self) -> None:
        """Have all connections taken that came so far: one that was given up may still wait."""
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.connect(self._listener.getsockname())
            assert self._caught_up.wait(60)
        self._last = None
        self._caught_up.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.become(Line.silence)
        self._leaving.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, address = self._listener.accept()
                if address == self._last:
                    sock.close()
                    self._caught_up.set()
                    continue
                sock.settimeout(20)
                thread = threading.Thread(target=self._serve, args=(sock, self._leaving))
                thread.start()
                self._threads.append(thread)

    def _serve(self, sock: socket.socket, leaving: threading.Event) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            stack.enter_context(sock)
            if self._tls:
                sock = stack.enter_context(self._tls.wrap_socket(sock, server_side=True))
            while not self._reads:
                if leaving.wait(PAUSE) or not sock.recv(64):
                    return
            head = _read_request(sock)
            self.requests.append(head.partition(b"\r\n")[0])
            self._behaviour(Line(sock, head, leaving))
            sock.shutdown(socket.SHUT_WR)


def _read_request(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    if found := re.search(rb"content-length: *(\d+)", head, re.IGNORECASE):
        while len(body) < int(found[1]):
            body += _some(sock)
    elif b"chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += _some(sock)
    return head


def _some(sock: socket.socket) -> bytes:
    if not (data := sock.recv(65_536)):
        raise ConnectionAbortedError
    return data
