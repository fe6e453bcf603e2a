"""How SDKs that speak through requests are held to a time limit and to a size.

The timeout of requests is one for each read: an answer that drips in, a byte a second, never meets
it. Here it is the time for the whole answer.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from smoothapi.errors import FatalError, ProviderError, TransientError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

POOL = 256
"""Connections kept: the largest concurrency, so that no thread's is thrown away after use."""

MOST_BYTES = 16 * 2**20
"""The longest answer that is read; labels of 16 pictures are a hundredth of it."""

_CHUNK = 65_536


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
            body = _read(response.raw, limit)
        except requests.RequestException:
            response.close()
            raise
        except Exception as error:  # urllib3's own, and a socket's: each an answer cut short
            response.close()
            raise requests.exceptions.ChunkedEncodingError(
                f"the answer ended too early ({type(error).__name__})", request=request
            ) from error
        response._content = body  # noqa: SLF001  where requests itself puts what it has read
        response._content_consumed = True  # noqa: SLF001
        self._seen.response = response
        return response


def _read(raw: BaseHTTPResponse, limit: float) -> bytes:
    """Return the whole body, decoded."""
    body = bytearray()
    while chunk := raw.read1(_CHUNK, decode_content=True):
        body += chunk
        if len(body) > MOST_BYTES:
            raise requests.exceptions.ContentDecodingError(
                f"the answer is longer than {MOST_BYTES:,} bytes"
            )
        if time.monotonic() > limit:
            raise requests.exceptions.ReadTimeout("the answer drips in, and took too long")
    raw.release_conn()
    return bytes(body)


def of_requests(error: Exception, who: str) -> ProviderError:
    """Return what an error of requests means: mostly that the same may work in a moment."""
    wrong = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidHeader,
        requests.exceptions.URLRequired,
        requests.exceptions.SSLError,
        requests.exceptions.TooManyRedirects,
    )
    kind = type(error).__name__
    if isinstance(error, wrong):
        return FatalError(
            f"{who} cannot be reached as configured ({kind}: {error}). Check the endpoint, the "
            "proxy and the certificates of this machine."
        )
    return TransientError(f"The connection to {who} failed ({kind}).")
