"""How SDKs that speak through requests are held to one attempt, a time limit and a size."""

from __future__ import annotations

import threading
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from smoothapi_adapters._common.bounds import POOL, BodyTooLongError, read_body


class BoundedHTTPAdapter(HTTPAdapter):
    """Sends once, with a connection for each thread, and reads an answer in time or not at all.

    Args:
        seconds: from the request to the last byte of its answer.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(pool_connections=4, pool_maxsize=POOL, max_retries=0)
        self._seconds = seconds
        self._seen = threading.local()

    def last(self) -> requests.Response | None:
        """Return the last answer that the calling thread got; None if its last request got none."""
        return getattr(self._seen, "response", None)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send as HTTPAdapter does, and read the body too.

        Raises:
            requests.RequestException: as HTTPAdapter; ReadTimeout and ContentDecodingError also
                for an answer that takes too long or is too long.
        """
        limit = time.monotonic() + self._seconds
        self._seen.response = None
        response = super().send(request, **options)
        try:
            body = read_body(response.raw, limit)
        except Exception as error:
            response.close()
            raise _cut_short(error, request) from error
        response._content = body  # noqa: SLF001  where requests itself puts what it has read
        response._content_consumed = True  # noqa: SLF001
        self._seen.response = response
        return response


def _cut_short(error: Exception, request: Any) -> requests.RequestException:
    """Return what requests would raise for an answer that was not read to its end."""
    if isinstance(error, BodyTooLongError):
        return requests.exceptions.ContentDecodingError(str(error), request=request)
    if isinstance(error, TimeoutError):
        return requests.exceptions.ReadTimeout(str(error), request=request)
    return requests.exceptions.ChunkedEncodingError(  # urllib3's own, and a socket's
        f"the answer ended too early ({type(error).__name__})", request=request
    )
