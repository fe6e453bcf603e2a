"""HTTP as what listens here speaks it: with an end to how long callers take and how many they are.

Imported where a server is started, and nowhere else: it needs uvicorn.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

_WITHIN = 60.0  # seconds that a request has to come in whole, and a caller to go on reading
_FAREWELL = 1.0  # seconds for a caller to close its end, too
_CONNECTIONS = 512  # at once; below the usual limit on a process's open files
_SELDOM = 60.0  # seconds between two words on it
_SHORT_OF = {
    errno.EMFILE: "This process has as many files open as its limit allows: raise that, to 4,096 "
    "or more (`ulimit -n`, LimitNOFILE= of systemd, ulimits: nofile: of Compose)",
    errno.ENFILE: "This machine has as many files open as it can: raise fs.file-max",
    errno.ENOBUFS: "This machine has no memory left for connections",
    errno.ENOMEM: "This machine has no memory left for connections",
}

_log = logging.getLogger("smoothapi")

BACKLOG = 2048
"""Connections that wait to be taken."""


class PatientProtocol(H11Protocol):
    """Cuts off callers that keep a connection and do not use it.

    Requests that drip in, connections on which none comes, and callers that do not read what they
    asked for are cut off after a time, and there is an end to how many there are. So nobody who
    connects and does no more can keep the others out for good.
    """

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and wait for its first request."""
        super().connection_made(cast("asyncio.Transport", _Joining(transport, self.loop)))
        # Nagle's algorithm would hold a write back until the one before it is acknowledged: 40 ms.
        # asyncio turns it off for sockets that name their protocol, which those of
        # `socket.create_server` do not.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Wait no longer once a request is here, but for the next one."""
        super().data_received(data)
        if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:
            self._unexpect()
        elif self._overdue is None:  # the next request on a connection that was kept
            self._expect()

    def pause_writing(self) -> None:
        """Wait for the caller to read."""
        super().pause_writing()
        self._expect()

    def resume_writing(self) -> None:
        """Wait no longer: the caller reads."""
        super().resume_writing()
        self._unexpect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was waited for."""
        self._unexpect()
        super().connection_lost(exc)

    def _expect(self) -> None:
        """Cut the connection off if what its caller is to do has not happened in time."""
        self._unexpect()
        self._overdue = self.loop.call_later(_WITHIN, self.transport.abort)

    def _unexpect(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


class _Joining:
    """A transport that sends at once what is written in one turn of the loop.

    uvicorn writes head and body of a reply one after the other: two calls of the system, which two
    packets carry, for which the caller wakes twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        # uvicorn closes once more what is lost, or not closed yet when it stops: a transport of TLS
        # that is closed twice answers nothing any longer.
        if self._transport.is_closing():
            return
        self._send()
        self._transport.close()
        if self._tls:
            self._loop.call_later(_FAREWELL, self._part)

    def abort(self) -> None:
        self._written.clear()
        self._transport.abort()

    def _part(self) -> None:
        """Wait for no goodbye of TLS, which asyncio does for 30 s: idle callers give none."""
        if self._unsent():
            self._loop.call_later(_FAREWELL, self._part)
        else:
            self._transport.abort()

    def _unsent(self) -> int:
        """Return how many bytes the caller has not taken yet."""
        unsent = self._transport.get_write_buffer_size()
        # Below the buffer of TLS is the connection's own, which asyncio shows nobody.
        below = getattr(getattr(self._transport, "_ssl_protocol", None), "_transport", None)
        return unsent if below is None else unsent + below.get_write_buffer_size()

    def _send(self) -> None:
        if self._written and not self._transport.is_closing():
            # Not `writelines`, by which Python 3.12.0 to 3.12.8 and 3.13.0 tell nobody that a
            # caller does not read (CVE-2024-12254).
            self._transport.write(b"".join(self._written))
        self._written.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class TellsOfShortages:
    """An event loop's handler of exceptions: says in a line why no connection can be taken.

    asyncio goes on by itself a second later, but until then shows a traceback for each connection
    that might wait: thousands.
    """

    def __init__(self) -> None:
        self._told = -_SELDOM

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Tell of it, at most once a minute; leave all else to asyncio."""
        error = context.get("exception")
        if (
            not isinstance(error, OSError)
            or error.errno not in _SHORT_OF
            or "accept" not in context.get("message", "")
        ):
            loop.default_exception_handler(context)
        elif (now := time.monotonic()) >= self._told + _SELDOM:
            self._told = now
            _log.error(
                "No connection can be taken. %s. What is under way goes on, and who connects waits "
                "until some are free.",
                _SHORT_OF[error.errno],
            )


async def take_no_more(servers: Iterable[asyncio.Server]) -> None:
    """Take no new connections, and let begin what was taken just now, before servers are closed.

    A connection that is taken a turn of the loop before its server closes is never begun and never
    closed: python/cpython#109564.
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for listener in server.sockets:
            loop.remove_reader(listener)
    await asyncio.sleep(0)


def quiet_config(app: Any, protocol: type[PatientProtocol], **more: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for a server that says nothing by itself.

    Args:
        app: of ASGI 3.
        protocol: what speaks to callers.
        more: options of uvicorn besides.
    """
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        **more,
    )
