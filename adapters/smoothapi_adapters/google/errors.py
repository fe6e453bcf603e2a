"""What each error of Google's packages, and each code of its answers, means for a variant."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
)
from smoothapi.provider import retry_after_seconds
from smoothapi_adapters._common.errors import of_requests

if TYPE_CHECKING:
    from collections.abc import Mapping

# As a unit (1/d/{project}), as a limit (RequestsPerDayPerProject), in words (requests per day).
_LONG = re.compile(r"/(d|day|mo|month)\b|per ?(day|month)|\b(daily|monthly)\b", re.IGNORECASE)

ADVICE = (
    "Set GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth application-default "
    "login`, or give the adapter an api_key; the Vision API must be enabled, with billing, in "
    "the project."
)
"""What to do where signing in failed."""

# What each canonical code means for a request, and for one picture in it.
_TRANSIENT = ("CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNAVAILABLE")
_CODES: Mapping[str, type[ProviderError]] = {
    **dict.fromkeys((*_TRANSIENT, "DATA_LOSS"), TransientError),
    "RESOURCE_EXHAUSTED": ThrottledError,
    **dict.fromkeys(("INVALID_ARGUMENT", "OUT_OF_RANGE", "ALREADY_EXISTS"), PermanentError),
    **dict.fromkeys(("PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"), FatalError),
    # No such method or project, billing switched off: not the picture's fault.
    **dict.fromkeys(("NOT_FOUND", "FAILED_PRECONDITION"), FatalError),
}
_OF_ONE_PICTURE = {"NOT_FOUND": PermanentError, "FAILED_PRECONDITION": PermanentError}

_OF_PARSING = (ValueError, AttributeError, TypeError, KeyError, RecursionError)
_FATAL_STATUSES = (401, 402, 403, 404, 405, 407, 410, 501, 505)
_TRANSIENT_STATUSES = (408, 409, 423, 425, 499)
# Reasons (google.rpc.ErrorInfo) that come with a status which is otherwise a picture's own fault.
_FATAL_REASONS = (
    "API_KEY_INVALID",
    "API_KEY_EXPIRED",
    "BILLING_DISABLED",
    "CONSUMER_INVALID",
    "CONSUMER_SUSPENDED",
    "SERVICE_DISABLED",
    "USER_PROJECT_DENIED",
)


def mapped_error(error: Exception, status: int | None = None) -> ProviderError | None:
    """Return the error of ours that one of the SDK's stands for; None if it is not the SDK's.

    Args:
        error: what was raised.
        status: of the answer over REST, if that is known, for what fails while it is read.
    """
    import requests  # noqa: PLC0415
    from google.api_core import exceptions as api  # noqa: PLC0415
    from google.auth import exceptions as auth  # noqa: PLC0415

    mapped: ProviderError | None = None
    if isinstance(error, api.GoogleAPICallError):
        mapped = _of_call(error)
    elif isinstance(error, api.RetryError):
        mapped = TransientError(f"Google could not be reached: {_one_line(error.message)}")
    elif isinstance(error, api.GoogleAPIError):
        mapped = FatalError(f"The request to Google could not be made: {_one_line(error)}")
    elif isinstance(error, auth.GoogleAuthError):
        mapped = _of_sign_in(
            _one_line(error),
            for_now=error.retryable or isinstance(error, (auth.TransportError, auth.TimeoutError)),
        )
    elif isinstance(error, requests.RequestException):
        mapped = of_requests(error, "Google")
    # JSON that is not a protobuf's, or an error that is not an object, fails in the SDK's parsing.
    elif isinstance(error, _OF_PARSING) or (type(error).__module__.startswith("google.protobuf")):
        kind = TransientError if status in (None, 200) else _of_status(status)
        mapped = kind(
            f"Google's answer is malformed ({type(error).__name__}), with status {status or '?'}."
        )
    return mapped


def of_picture(code: int, message: str) -> ProviderError:
    """Return the error of one picture in an answer that is otherwise fine (a google.rpc.Code)."""
    name = _code_name(code)
    kind = _OF_ONE_PICTURE.get(name) or _CODES.get(name, TransientError)
    if kind is ThrottledError and _LONG.search(message):
        kind = FatalError
    return kind(f"Google answered {name} for a picture: {message or 'no reason given'}.")


def _of_call(error: Any) -> ProviderError:
    """Map an error that Google answered with, over gRPC or over REST."""
    status = error.grpc_status_code
    name = status.name if status is not None else ""
    text = _one_line(error.message)
    http = int(error.code) if error.code is not None else None
    reason = error.reason or ""
    if "metadata from plugin failed" in text:  # how gRPC says that there was no token to send
        network = ("Timeout", "timed out", "Max retries", "onnection")
        return _of_sign_in(text, for_now=any(word in text for word in network))
    kind = _CODES.get(name) or _of_status(http)
    if kind is ThrottledError and "larger than max" in text:  # gRPC's word for too many bytes
        kind = PermanentError
    if reason in _FATAL_REASONS or (kind is ThrottledError and _spent_for_long(error)):
        kind = FatalError
    said = ", ".join(part for part in (name or f"HTTP {http}", reason) if part)
    message = f"Google answered {said}: {text}"
    if issubclass(kind, TransientError):
        return kind(message, retry_after=_retry_after(error))
    if kind is FatalError:
        return FatalError(f"{message} {ADVICE}")
    return kind(message)


def _of_sign_in(text: str, *, for_now: bool) -> ProviderError:
    if for_now:
        return TransientError(f"Signing in to Google failed for the moment: {text}", sent=False)
    return FatalError(f"Signing in to Google failed: {text}. {ADVICE}", sent=False)


def _of_status(status: int | None) -> type[ProviderError]:
    if status is None:
        return TransientError
    if status == 429:
        return ThrottledError
    if status in _FATAL_STATUSES or 300 <= status < 400:
        return FatalError
    if status in _TRANSIENT_STATUSES or status >= 500:
        return TransientError
    return PermanentError


def _spent_for_long(error: Any) -> bool:
    """Whether the quota that is used up is one of a day or longer: no retry outlasts that."""
    facts = dict(error.metadata or {})
    said = (facts.get("quota_unit", ""), facts.get("quota_limit", ""), error.message)
    return any(_LONG.search(str(text)) for text in said)


def _retry_after(error: Any) -> float | None:
    """Return the wait that an answer asks for: a header, gRPC metadata, or google.rpc.RetryInfo."""
    for detail in error.details:
        if isinstance(detail, dict):
            text = str(detail.get("retryDelay", ""))
            if text.endswith("s"):
                return retry_after_seconds(text[:-1])
        elif (delay := getattr(detail, "retry_delay", None)) is not None:
            return float(delay.seconds) + float(delay.nanos) / 1e9
    response = error.response
    if response is None:
        return None
    headers: Any = getattr(response, "headers", None)
    if headers is None:
        with suppress(Exception):  # a call that broke off has no metadata
            headers = {key.lower(): value for key, value in response.trailing_metadata() or ()}
    value = (headers or {}).get("retry-after")  # requests' headers know no case
    return retry_after_seconds(value if isinstance(value, str) else None)


def _code_name(code: int) -> str:
    import grpc  # noqa: PLC0415

    names: dict[int, str] = {status.value[0]: status.name for status in grpc.StatusCode}
    return names.get(code, f"code {code}")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
