"""Asynchronous clients as threads see them, and how those that use aiohttp are held to bounds."""

from __future__ import annotations

import functools
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from smoothapi_adapters._common.bounds import MOST_BYTES, BodyTooLongError, OverdueError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from smoothapi.wrapping import Portal

_PIECE = 65_536
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": -zlib.MAX_WBITS}
"""How azure-core unpacks each content encoding that it knows."""


class SeenFromThread:
    """An asynchronous client, some of whose methods block the thread that calls them.

    The adapters' code for the synchronous client of the same SDK serves for it: it has the same
    names. All else is the client's.

    Args:
        client: of the SDK.
        portal: to the event loop on which the methods run.
        methods: names of those that block.
        overdue: makes the error that the SDK itself would raise for an answer that is late.
        seconds: that a call may take; None for no end.
    """

    def __init__(
        self,
        client: Any,
        portal: Portal,
        methods: Collection[str],
        overdue: Callable[[str], Exception],
        seconds: float | None = None,
    ) -> None:
        self.client = client
        self.seconds = seconds
        self._portal = portal
        self._methods = methods
        self._overdue = overdue

    def holding(self, client: Any, seconds: float | None) -> SeenFromThread:
        """Return another client, seen through the same portal, within a time of its own."""
        return SeenFromThread(client, self._portal, self._methods, self._overdue, seconds)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if name not in self._methods:
            return method

        @functools.wraps(method)
        def blocking(*args: Any, **kwargs: Any) -> Any:
            try:
                return self._portal.call(functools.partial(method, *args, **kwargs), self.seconds)
            except TimeoutError:
                if self.seconds is None:
                    raise
                late = OverdueError(self.seconds)
                raise self._overdue(str(late)) from late

        return blocking


class BoundedSession:
    """aiohttp's session, which follows no redirect and reads no endless answer.

    A redirect would be a request that nobody counts, and send the picture to somebody else.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send as the session does."""
        kwargs["allow_redirects"] = False
        response = await self._session.request(*args, **kwargs)
        response.content = _BoundedBody(response.content, response.headers)
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class _BoundedBody:
    """The body of an answer, read whole up to a size, packed as well as unpacked."""

    def __init__(self, body: Any, headers: Mapping[str, str]) -> None:
        self._body = body
        self._packing = headers.get("Content-Encoding", "").lower()

    async def read(self, most: int = -1) -> bytes:
        from aiohttp import ClientPayloadError  # noqa: PLC0415

        if most >= 0:
            return bytes(await self._body.read(most))
        read = bytearray()
        try:
            while part := await self._body.readany():
                read += part
                _check_length(len(read))
            self._check_unpacked(read)
        except BodyTooLongError as error:
            raise ClientPayloadError(str(error)) from error
        return bytes(read)

    def _check_unpacked(self, packed: bytes | bytearray) -> None:
        """Refuse what would be too long unpacked: azure-core unpacks in one go.

        As it does, only the first stream is read: more may follow, and it has an end of its own.
        """
        if self._packing not in _WINDOWS:
            return
        unpacker = zlib.decompressobj(_WINDOWS[self._packing])
        length = 0
        with suppress(zlib.error):  # which the SDK will meet, too
            for start in range(0, len(packed), _PIECE):
                left = bytes(packed[start : start + _PIECE])
                while left and not unpacker.eof:
                    length += len(unpacker.decompress(left, _PIECE))
                    _check_length(length)
                    left = unpacker.unconsumed_tail
                if unpacker.eof:
                    return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


def _check_length(length: int) -> None:
    if length > MOST_BYTES:
        raise BodyTooLongError
