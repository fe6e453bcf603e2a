"""HTTP as what listens here speaks it: with an end to how long callers take and how many they are.

Imported where a server is started, and nowhere else: it needs uvicorn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

_WITHIN = 60.0  # seconds that a request has to come in whole, and a caller to go on reading
_CONNECTIONS = 512  # at once; below the usual limit on a process's open files

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
        super().connection_made(transport)
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
