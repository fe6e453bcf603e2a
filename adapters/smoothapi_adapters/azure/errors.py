"""What Azure's error codes and statuses mean, in both versions of its Image Analysis."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
)
from smoothapi.provider import retry_after_seconds
from smoothapi_adapters.azure.resource import ADVICE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi_adapters.azure.resource import Resource

_FATAL_CODES = (
    # These are about the options, which are the same for every picture.
    "InvalidModel",
    "InvalidDetails",
    "NotSupportedFeature",
    "NotSupportedLanguage",
    "NotSupportedVisualFeature",
    # And these about the account.
    "InvalidApiKey",
    "InvalidSubscriptionKey",
    "PermissionDenied",
    "Unauthorized",
    "AuthenticationFailed",
    "ResourceNotFound",
    "CustomDomainRequired",
    "QuotaExceeded",
)
_TRANSIENT_CODES = (
    "CancelledRequest",
    "FailedToProcess",
    "InternalServerError",
    "ServerBusy",
    "ServiceUnavailable",
    "StorageException",
    "Timeout",
    "Unspecified",
)
_PERMANENT_CODES = (
    "BadArgument",
    "DetectFaceError",
    "InvalidImageDimension",
    "InvalidImageFormat",
    "InvalidImageSize",
    "InvalidImageUrl",
    "InvalidThumbnailSize",
    "NotSupportedImage",
    "UnsupportedMediaType",
)
CODES: Mapping[str, type[ProviderError]] = {
    **dict.fromkeys(_FATAL_CODES, FatalError),
    **dict.fromkeys(_TRANSIENT_CODES, TransientError),
    **dict.fromkeys(_PERMANENT_CODES, PermanentError),
}
"""What an error's code means, the inner one before the outer one, both before the status.

InvalidRequest and InvalidArgument are not in it: they say no more than status 400.
"""

_FATAL_STATUSES = (401, 402, 403, 404, 405, 407, 410, 501, 505)
_TRANSIENT_STATUSES = (408, 409, 423, 425, 499)
_SPENT = re.compile(r"out of call volume quota|quota.{0,40}(exceeded|exhausted)", re.IGNORECASE)


OF_PARSING = (ValueError, ArithmeticError, AttributeError, TypeError, KeyError, RecursionError)
"""How JSON that is not an object of theirs fails in the SDKs' own reading of it."""


def of_status(
    status: int | None, body: str, headers: Mapping[str, str] | None, resource: Resource
) -> ProviderError:
    """Return what an answer with an error status means.

    Args:
        status: the HTTP status.
        body: what came with it; JSON, if the service itself answered.
        headers: of the answer.
        resource: whose key must not be shown.
    """
    codes, message = _said(body)
    kind = next((CODES[code] for code in codes if code in CODES), None) or _of_number(status)
    if status == 429:
        kind = ThrottledError
    elif status in (401, 403):
        kind = FatalError
    if _SPENT.search(message):
        kind = FatalError
    found = headers or {}
    request = _header(found, "apim-request-id") or _header(found, "x-ms-request-id")
    said = " ".join(("HTTP", str(status), *dict.fromkeys(codes)))
    text = resource.clean(f"Azure answered {said}: {message or 'no reason given'}")
    if issubclass(kind, TransientError):
        wait = retry_after_seconds(_header(found, "Retry-After"))
        return kind(text, retry_after=wait, request_id=request)
    if kind is FatalError:
        return FatalError(f"{text} {ADVICE}", request_id=request)
    return kind(text, request_id=request)


def _of_number(status: int | None) -> type[ProviderError]:
    if status is None or status in _TRANSIENT_STATUSES or status >= 500:
        return FatalError if status in _FATAL_STATUSES else TransientError
    if status in _FATAL_STATUSES or status < 400:
        return FatalError
    return ThrottledError if status == 429 else PermanentError


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name) or headers.get(name.lower())
    return value if isinstance(value, str) else ""


def _said(body: str) -> tuple[list[str], str]:
    """Return the codes of an error, inner ones first, and its message."""
    try:
        level: Any = json.loads(body)
    except (ValueError, RecursionError):
        return [], ""
    codes: list[str] = []
    messages: list[str] = []
    if isinstance(level, dict) and isinstance(level.get("error"), dict):
        level = level["error"]
    while isinstance(level, dict) and len(codes) < 8:
        codes.insert(0, str(level.get("code", "")))
        if level.get("message"):
            messages.append(str(level["message"]))
        level = level.get("innererror")
    return [code for code in codes if code], " ".join(dict.fromkeys(messages))
