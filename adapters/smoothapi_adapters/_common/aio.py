"""Asynchronous clients as threads see them, and how those that use aiohttp are held to bounds."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from smoothapi_adapters._common.bounds import MOST_BYTES, BodyTooLongError, OverdueError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from smoothapi.wrapping import Portal


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
                late = OverdueError(self.seconds or 0.0)
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
        response.content = _BoundedBody(response.content)
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class _BoundedBody:
    """The body of an answer, read whole up to a size."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def read(self, most: int = -1) -> bytes:
        from aiohttp import ClientPayloadError  # noqa: PLC0415

        if most >= 0:
            return bytes(await self._body.read(most))
        read = bytearray()
        while part := await self._body.readany():
            read += part
            if len(read) > MOST_BYTES:
                long = BodyTooLongError()
                raise ClientPayloadError(str(long)) from long
        return bytes(read)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)
