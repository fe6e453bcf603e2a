"""How all that speaks through requests is held to one attempt, a time limit and a size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from smoothapi.errors import FatalError
from smoothapi_adapters._common.bounds import (
    POOL,
    BodyTooLongError,
    Exchange,
    OverdueError,
)
from smoothapi_adapters._common.twins import twin_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK = 65_536

SessionT = TypeVar("SessionT", bound=requests.Session)


def connections() -> HTTPAdapter:
    """Return what to mount on a session: a connection for each thread, and nothing sent twice."""
    return HTTPAdapter(pool_connections=4, pool_maxsize=POOL, max_retries=0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a thread remembers of its last answer: not the request, in which the picture is.

    Attributes:
        status_code: of HTTP.
        headers: of the answer.
    """

    status_code: int
    headers: Mapping[str, str]


class Bounds:
    """What the exchanges of one client are held to. Threads share it.

    Args:
        seconds: of each, from the request to the last byte of its answer.
        headers: added to each request as it is written.
        query: names and values, added to each URL likewise.
    """

    def __init__(
        self,
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        query: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.seconds = seconds
        self.headers = headers or {}
        self.query = query
        self._seen = threading.local()
        self._connections = BoundedAdapter(connections(), self)

    def last(self) -> Seen | None:
        """Return the last answer that the calling thread got; None if its last request got none."""
        return getattr(self._seen, "answer", None)

    def saw(self, response: requests.Response | None) -> None:
        """Remember what the calling thread's last request got."""
        seen = None if response is None else Seen(response.status_code, response.headers)
        self._seen.answer = seen

    def mount(self, session: requests.Session) -> None:
        """Give a session the connections that all which are mounted here share: one a thread."""
        for scheme in ("https://", "http://"):
            session.mount(scheme, self._connections)

    def close(self) -> None:
        """Close the connections that are shared."""
        self._connections.close()

    def held(self, session: SessionT) -> SessionT:
        """Return a session that does as another does, with its connections, but within bounds."""
        twin: SessionT = twin_of(session)
        vars(twin).pop("get_adapter", None)  # left by requests-mock; it looks in the other session
        twin.adapters = OrderedDict(session.adapters)
        self.hold(twin)
        return twin

    def hold(self, session: requests.Session) -> None:
        """Hold a session to these bounds, whatever is mounted on it."""
        for prefix, mounted in list(session.adapters.items()):
            if not isinstance(mounted, BoundedAdapter):
                session.adapters[prefix] = BoundedAdapter(mounted, self)


class BoundedAdapter(BaseAdapter):
    """Sends through another adapter, and reads an answer in time or not at all.

    Args:
        inner: whose connections are used.
        bounds: of each exchange.
    """

    def __init__(self, inner: BaseAdapter, bounds: Bounds) -> None:
        super().__init__()
        self._inner = inner
        self._bounds = bounds

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send as the other adapter does, and read the body too.

        Raises:
            requests.RequestException: as the other adapter; ReadTimeout also for an answer that
                takes too long, and ContentDecodingError for one that is too long.
        """
        bounds = self._bounds
        bounds.saw(None)
        exchange = Exchange(bounds.seconds)
        response = self._sender(request, exchange).send(request, **options)
        try:
            body = _whole(response, exchange)
        except BaseException:
            response.close()
            raise
        exchange.let_go()
        response._content = body  # noqa: SLF001  where requests itself puts what it has read
        response._content_consumed = True  # noqa: SLF001
        bounds.saw(response)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _sender(self, request: requests.PreparedRequest, exchange: Exchange) -> BaseAdapter:
        """Return the other adapter as it is for one exchange, which signs the request."""
        inner, bounds = self._inner, self._bounds
        if type(inner) is HTTPAdapter:
            exchange.headers, exchange.query = bounds.headers, bounds.query
        else:  # whoever wrote it may send in a way of their own
            if bounds.query:
                raise FatalError(
                    "The session given as client= has a transport of its own, so that secrets in "
                    "the URL would be logged. Put the secret into a header.",
                    sent=False,
                )
            request.headers.update(bounds.headers)
        if not isinstance(inner, HTTPAdapter):
            return inner
        once: Any = twin_of(inner)

        def lend(*arguments: Any, **options: Any) -> Any:
            return exchange.over(inner.get_connection_with_tls_context(*arguments, **options))

        once.get_connection_with_tls_context = lend
        sender: BaseAdapter = once
        return sender


def _whole(response: requests.Response, exchange: Exchange) -> bytes:
    """Return the whole body of an answer, unpacked."""
    body = bytearray()
    try:
        for chunk in response.iter_content(_CHUNK):
            body += chunk
            exchange.check(len(body))
    except BodyTooLongError as error:
        raise requests.exceptions.ContentDecodingError(
            str(error), request=response.request
        ) from error
    except OverdueError as error:
        raise requests.exceptions.ReadTimeout(str(error), request=response.request) from error
    return bytes(body)
