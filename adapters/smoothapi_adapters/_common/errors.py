"""What errors of HTTP and of requests mean, whatever the provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
)
from smoothapi.provider import retry_after_seconds
from smoothapi.provider.chain import chain
from smoothapi.text import printable
from smoothapi_adapters._common.bounds import MOST_BYTES, BodyTooLongError, OverdueError

if TYPE_CHECKING:
    from smoothapi.provider import Mask
    from smoothapi_adapters._common.client import HttpResponse

_PERMANENT = frozenset({400, 413, 415, 422})
_TRANSIENT = frozenset({408, 409, 423, 424, 425})
_ONLY_FATAL_5XX = frozenset({501, 505, 511})


def error_of_status(
    response: HttpResponse, who: str, detail: str = "", *, request_id: str = ""
) -> ProviderError | None:
    """Return what a status of HTTP means, None for one of success.

    Args:
        response: the answer.
        who: the service in words.
        detail: what the service says of it, already fit to be shown.
        request_id: the service's id of the request.
    """
    status = response.status
    if 200 <= status < 300:
        return None
    said = f"{who} answered with status {status}" + (f" ({detail})" if detail else "")
    wait = retry_after_seconds(response.headers.get("retry-after"))
    if status == 429 or (status == 503 and wait is not None):
        return ThrottledError(f"{said}: slow down.", retry_after=wait, request_id=request_id)
    if status in _TRANSIENT or (status >= 500 and status not in _ONLY_FATAL_5XX):
        return TransientError(f"{said}.", retry_after=wait, request_id=request_id)
    if status in _PERMANENT:
        return PermanentError(f"{said}: it does not take this picture.", request_id=request_id)
    advice = "Check the URL, the method and the credentials."
    if status in (401, 403, 407):
        advice = "The credentials are missing, wrong, or not allowed to do this."
    elif 300 <= status < 400:
        to = _host_of(response.headers.get("location", ""))
        advice = (
            f"It redirects{f' to {to}' if to else ''}, which is not followed: pictures "
            "and credentials go to the configured host only. Configure the URL it leads to."
        )
    return FatalError(f"{said}. {advice}", request_id=request_id)


def detail_of(response: HttpResponse, mask: Mask) -> str:
    """Return what a service says of a status other than success, fit to be shown; or ""."""
    if 200 <= response.status < 300:
        return ""
    try:
        return said_in(response.json(""), mask)
    except TransientError:
        return ""


def said_in(body: Any, mask: Mask) -> str:
    """Return the words that a service has for an error, short and fit to be shown; or ""."""
    for name in ("message", "detail", "details", "description", "error", "msg", "title"):
        found = body.get(name) if isinstance(body, dict) else None
        if isinstance(found, dict):
            found = said_in(found, mask)
        if isinstance(found, str) and found:
            return mask.quoted(found, 200)
    return ""


def _host_of(url: str) -> str:
    try:
        return printable(urlsplit(url).hostname or "")[:100]
    except ValueError:
        return ""


def of_bounds(error: BaseException, who: str) -> ProviderError | None:
    """Return what it means that an exchange was cut off by its bounds; None if it was not."""
    for link in chain(error):
        if isinstance(link, OverdueError):
            return TransientError(
                f"{who} gave no whole answer in {link.seconds:g} s, the time limit of a request. "
                "It may be answered, and billed, all the same."
            )
        if isinstance(link, BodyTooLongError):
            return FatalError(
                f"{who} answers with more than {MOST_BYTES:,} bytes. Labels are shorter: check the "
                "URL, and that it asks for labels alone."
            )
    return None


def of_requests(error: Exception, who: str) -> ProviderError:
    """Return what an error of requests means: mostly that the same may work in a moment."""
    import requests  # noqa: PLC0415  0.1 s: where something has gone wrong

    if (bounded := of_bounds(error, who)) is not None:
        return bounded
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
