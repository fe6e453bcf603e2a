"""One request on its connection: ASGI's messages in, a reply out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from smoothapi.gateway.front import Incoming
from smoothapi.wires.wire import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from smoothapi.gateway.room import Room

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


_WITHOUT_BODY = (204, 304)


class GoneError(Exception):
    """The caller has left before its request was whole."""


class Line:
    """One request, as it comes in, and its reply.

    Attributes:
        request: as the wires read it, without its body.
        held: bytes of the body that are held.
        queued: seconds that it waited for its turn.
        let_in: seconds that it waited until it was known who calls.
        began: when it came, by `time.monotonic`.
        replied: whether its reply has begun.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._ended = False
        self.replied = False
        self.held = 0
        self.queued = self.let_in = 0.0
        self.began = time.monotonic()
        self._headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        )
        # A fragment is no part of a target (RFC 9112, 3.2): what sends it on leaves it out.
        query = scope.get("query_string", b"").decode("latin-1").partition("#")[0]
        self.request = Request(
            method=scope["method"],
            path=self._below(scope["path"]),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self._headers},
        )

    @property
    def mounted(self) -> bool:
        """Whether the application is a part of another one."""
        return bool(self._scope.get("root_path"))

    def incoming(self, body: bytes) -> Incoming:
        """Return the request with all that is sent on."""
        raw = self._scope.get("raw_path") or self._scope["path"].encode()
        query = self._scope.get("query_string", b"").decode("latin-1").partition("#")[0]
        target = self._below(raw.decode("latin-1").partition("?")[0])
        request = replace(self.request, body=body)
        return Incoming(request, f"{target}?{query}" if query else target, self._headers)

    async def body(self, most: int, room: Room) -> bytes | None:
        """Return the whole body; None if it is longer than `most`.

        Raises:
            GoneError: the caller left.
            NoRoomError: there is no room for it.
        """
        whole = BytesIO()  # gives what it holds without copying it
        while not self._ended:
            chunk = await self._next()
            if self.held + len(chunk) > most:
                await self.drain(most)
                return None
            room.hold(len(chunk))
            self.held += len(chunk)
            whole.write(chunk)
        return whole.getvalue()

    async def drain(self, most: int) -> None:
        """Read on, and forget it: callers read no reply while they send."""
        seen = 0
        try:
            while not self._ended and seen <= most:
                seen += len(await self._next())
        except GoneError:
            pass

    async def gone(self) -> bool:
        """Whether the caller has left, as far as is known without waiting."""
        looking = asyncio.ensure_future(self._receive())
        await asyncio.sleep(0)
        if looking.done():
            return bool(looking.result()["type"] == "http.disconnect")
        looking.cancel()
        return False

    async def reply(self, reply: Reply, more: tuple[tuple[str, str], ...] = ()) -> None:
        """Send a reply."""
        body, headers = reply.body, [*reply.headers, *more]
        if reply.status in _WITHOUT_BODY:
            body = b""
        else:
            headers.append(("content-length", str(len(body))))
        if self._scope["method"] == "HEAD":
            body = b""
        self.replied = True
        await self._send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers],
            }
        )
        await self._send({"type": "http.response.body", "body": body})

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._ended = True
            raise GoneError
        self._ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _below(self, path: str) -> str:
        """Return a path without that of what this application is mounted in."""
        root = self._scope.get("root_path", "")
        return path[len(root) :] if root and path.startswith(root) else path
