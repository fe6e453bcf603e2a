"""What bounds an exchange, which is a request and its answer: one deadline and one size for it all.

The time limits of requests, urllib3 and botocore are for each read from the socket, which an answer
that drips in, a byte a second, never meets: in its status line, its headers, before them (100
Continue), its chunks or its body. Here the connection itself looks at the clock before all that it
reads and writes, whatever is read or written. So the libraries above stay as they are, and
others' tools that take their place in tests find what they know.
"""

from __future__ import annotations

import ssl
import time
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from io import BufferedReader, RawIOBase
from threading import RLock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence

    from urllib3.connectionpool import HTTPConnectionPool

POOL = 256
"""Connections kept: the largest concurrency, so that no thread's is thrown away after use."""

CONNECT = 10.0  # seconds; a host that is up answers sooner

MOST_BYTES = 16 * 2**20
"""The longest answer that is read, unpacked; labels of 128 pictures are a hundredth of it."""

_AROUND = 2**20  # headers, and what chunks come in
_CLASSES = 64  # few: recording tools make one for each recording
_PATCHED = RLock()
"""Held while a connection is taken, and while one of vcrpy's is at work: for that time it takes off
its patches, and a connection that another thread made meanwhile would pass it by."""
_TICK = 0.01  # seconds; a socket may find that its time is over a little sooner
_RECORD = 16_384  # bytes: a write over TLS of more is several, each with a time limit of its own
_WRITE = 65_536  # bytes that are written at once without TLS


class OverdueError(TimeoutError):
    """An exchange was not over at its deadline.

    Attributes:
        seconds: that it had.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no whole answer came within {seconds:g} s")
        self.seconds = seconds


class BodyTooLongError(OSError):
    """An answer has more than `MOST_BYTES`."""

    def __init__(self) -> None:
        super().__init__(f"the answer is longer than {MOST_BYTES:,} bytes")


class Exchange:
    """One request and its answer: how long and how large they may be, and what signs the request.

    Args:
        seconds: from now to the last byte of the answer.

    Attributes:
        headers: added to the request as it is written: no log and no error above knows them.
        query: names and values, added to its URL likewise.
        answer: urllib3's response, once its headers are here.
        joins: whether what is sent next is a head that waits for its body.
        head: that waits.
    """

    def __init__(self, seconds: float) -> None:
        self.headers: Mapping[str, str] = {}
        self.query: Sequence[tuple[str, str]] = ()
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._received = 0
        self.answer: Any = None
        self.joins = False
        self.head = b""

    def leave(self) -> None:
        """Close an answer that could not be read to its end, and its connection."""
        if self.answer is not None:
            self.answer.close()
            self.let_go()

    def let_go(self) -> None:
        """Forget an answer that was read: it holds the pool that holds this."""
        self.answer = None

    def left(self) -> float:
        """Return the seconds that are left, above 0.

        Raises:
            OverdueError: none are.
        """
        left = self._deadline - time.monotonic()
        if left <= 0.0:
            raise OverdueError(self._seconds)
        return left

    @contextmanager
    def clocked(self, sock: socket.socket, each: float | None = None) -> Iterator[None]:
        """Have what is done with a socket end in time, and within `each` seconds if they are given.

        Raises:
            OverdueError: it did not.
        """
        left = self.left()
        sock.settimeout(left if each is None else min(left, each))
        with self.named():
            yield

    @contextmanager
    def named(self) -> Iterator[None]:
        """Have a time-out of a socket say that it was this exchange's, if it was."""
        try:
            yield
        except TimeoutError as error:
            if self._deadline - time.monotonic() < _TICK:
                raise OverdueError(self._seconds) from error
            raise

    def receive(self, count: int) -> None:
        """Count bytes that came, whatever they belong to.

        Raises:
            BodyTooLongError: they are more than any answer has.
        """
        self._received += count
        if self._received > MOST_BYTES + _AROUND:
            raise BodyTooLongError

    def check(self, unpacked: int) -> None:
        """Say whether there may be more of an answer, of which so many bytes are unpacked.

        Raises:
            BodyTooLongError, OverdueError: there may not.
        """
        if unpacked > MOST_BYTES:
            raise BodyTooLongError
        self.left()

    def over(self, pool: HTTPConnectionPool) -> HTTPConnectionPool:
        """Return a view of a pool of urllib3, whose connections are held to this exchange.

        Connections are shared with the pool, and go back to it as they were.
        """
        kind: Any = type(pool)
        view: Any = object.__new__(_view_of(kind))
        view.__dict__ = pool.__dict__
        view.exchange, view.lender = self, pool  # a pool that is dropped closes its connections
        return view  # type: ignore[no-any-return]


class _View:
    """Mixed into the class of a pool: lends its connections to one exchange."""

    exchange: Exchange

    # Views of one pool are one pool to who counts its connections, as vcrpy does.
    def __eq__(self, other: object) -> bool:
        return getattr(other, "__dict__", None) is self.__dict__

    def __hash__(self) -> int:
        return id(self.__dict__)

    def urlopen(self, *arguments: Any, **options: Any) -> Any:
        # Not followed by a caller's other settings either, but those are looked at too late: a
        # redirect to what is no URL would raise before that, and leave the answer open.
        answer = super().urlopen(*arguments, **{**options, "redirect": False})  # type: ignore[misc]
        self.exchange.answer = answer
        return answer

    def _get_conn(self, *arguments: Any, **options: Any) -> Any:
        with _PATCHED:
            connection = super()._get_conn(*arguments, **options)  # type: ignore[misc]
        # Past any __setattr__: a recording tool's connection hands on what it is given.
        object.__setattr__(connection, "_exchange", self.exchange)
        object.__setattr__(connection, "__class__", _held(connection.__class__))
        return connection

    def _put_conn(self, connection: Any) -> None:
        if isinstance(connection, _Held):
            object.__setattr__(connection, "__class__", type(connection).__bases__[1])
            del connection.__dict__["_exchange"]
        super()._put_conn(connection)  # type: ignore[misc]


class _Held:
    """Mixed into the class of a connection while it is lent to an exchange."""

    _exchange: Exchange
    sock: Any
    timeout: Any
    response_class: Any

    def connect(self) -> None:
        left = self._exchange.left()
        self.timeout = min(self.timeout, left) if isinstance(self.timeout, (int, float)) else left
        with self._exchange.named(), self._reading():  # a proxy's answer, too
            super().connect()  # type: ignore[misc]
        self._exchange.left()

    def request(
        self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any
    ) -> None:
        exchange = self._exchange
        if exchange.query:
            url += ("&" if "?" in url else "?") + urlencode(exchange.query)
        if exchange.headers:
            headers = {**(headers or {}), **exchange.headers}
        # Who expects "100 Continue" reads before the body goes out.
        exchange.joins = not any(name.lower() == "expect" for name in headers or ())
        super().request(method, url, body, headers, **options)  # type: ignore[misc]
        exchange.joins = False
        if exchange.head:
            self.send(b"")

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        exchange = self._exchange
        if exchange.joins and isinstance(data, bytes):
            exchange.head, exchange.joins = data, False
            return
        head, exchange.head = exchange.head, b""
        most = _RECORD if isinstance(self.sock, ssl.SSLSocket) else _WRITE
        for piece in _pieces(head, data, most):
            with exchange.clocked(self.sock):
                super().send(piece)  # type: ignore[misc]

    def getresponse(self, *arguments: Any, **options: Any) -> Any:
        with self._reading():
            return super().getresponse(*arguments, **options)  # type: ignore[misc]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Have responses read from the socket by the clock of the exchange."""
        recorded = getattr(self, "cassette", None) is not None
        plain, exchange = self.response_class, self._exchange

        def clocked(sock: Any, *arguments: Any, **options: Any) -> Any:
            return plain(_Clocked(sock, exchange), *arguments, **options)

        self.response_class = clocked
        try:
            with _PATCHED if recorded else nullcontext():
                yield
        finally:
            self.response_class = plain


class _Clocked(RawIOBase):
    """In place of a socket, as far as it is read: reads until the exchange must be over."""

    def __init__(self, sock: socket.socket, exchange: Exchange) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._each = sock.gettimeout()  # of one read, as whoever set up the connection wishes
        self._exchange = exchange

    def makefile(self, _mode: str, *_: Any) -> BufferedReader:
        return BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        with self._exchange.clocked(self._socket, self._each):
            count = self._raw.readinto(buffer)
        self._exchange.receive(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _pieces(head: bytes, data: Any, most: int) -> Iterator[Any]:
    """Yield what is written one after the other: the head with what of a body fits beside it.

    One call of the system and one packet for most requests, and no copy of a large body.
    """
    if isinstance(data, (bytes, bytearray)):
        whole = memoryview(data)
        first = max(0, most - len(head))
        if head:
            yield b"".join((head, whole[:first]))
            whole = whole[first:]
        for start in range(0, len(whole), most):
            yield whole[start : start + most]
        return
    if head:
        yield head
    yield data


@lru_cache(_CLASSES)
def _view_of(pool: Any) -> type:
    return type(pool.__name__, (_View, pool), {"__slots__": ("exchange", "lender")})


@lru_cache(_CLASSES)
def _held(connection: Any) -> type:
    return type(connection.__name__, (_Held, connection), {})
