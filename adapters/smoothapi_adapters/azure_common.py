"""What the two Azure adapters share: where the key is, what is charged, what errors mean."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Credentials, Price, retry_after_seconds
from smoothapi_adapters.secrets import checked_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ENDPOINT_VARIABLES = ("VISION_ENDPOINT", "COMPUTER_VISION_ENDPOINT")
KEY_VARIABLES = ("VISION_KEY", "COMPUTER_VISION_SUBSCRIPTION_KEY", "COMPUTER_VISION_KEY")
"""Where Azure's own quickstarts, the present and the older ones, have their readers put them."""

_LONGEST = 900  # characters of an error

RETIRES = "2028-09-25"
"""The day on which Azure ends both versions of its Image Analysis."""

PRICES_OF = "2026-11-01"

_PIN = re.compile(r"(latest|\d{4}-\d{2}-\d{2})(-preview)?")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Assumed, for the tier S1 (not checked against a bill): each feature is a transaction.
_PER_THOUSAND = Decimal("1.00")
_PER_THOUSAND_SENTENCES = Decimal("1.50")
_SENTENCES = ("description", "caption", "denseCaptions")

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

ADVICE = (
    "Give endpoint and key, or set VISION_ENDPOINT and VISION_KEY to what the Azure portal shows "
    'under "Keys and Endpoint" of the resource.'
)


@dataclass(frozen=True)
class Account:
    """Endpoint and key, and where each is from.

    Attributes:
        endpoint: without a slash at its end; "" if there is none.
        key: never shown.
        where: in words, for `Credentials`.
    """

    endpoint: str
    key: str
    where: str

    def __repr__(self) -> str:
        return f"Account(endpoint={self.endpoint!r})"

    @property
    def complete(self) -> bool:
        """Whether there is both."""
        return bool(self.endpoint and self.key)

    @property
    def credentials(self) -> Credentials:
        """Whether both were found, and where."""
        return Credentials(found=self.complete, where=self.where)

    def required(self) -> Account:
        """Return this, if it is complete.

        Raises:
            FatalError: says what is missing, and where it was looked for.
        """
        if not self.complete:
            raise FatalError(
                f"There are no credentials for Azure: {self.where}. {ADVICE}", sent=False
            )
        return self

    def clean(self, text: object) -> str:
        """Return a message in one line without the key, in case the provider repeats it."""
        line = " ".join(str(text).split())
        return (line.replace(self.key, "********") if self.key else line)[:_LONGEST]


def account(endpoint: str | None, key: str | None) -> Account:
    """Return endpoint and key: what was given, else from the environment.

    Raises:
        UsageError: the endpoint is no URL, or would send the key unencrypted; or the key cannot
            be one.
    """
    url, url_from = _first(endpoint, "endpoint", ENDPOINT_VARIABLES)
    secret, secret_from = _first(key, "key", KEY_VARIABLES)
    secret = checked_secret("key", secret)
    return Account(_checked(url), secret, f"endpoint {url_from}; key {secret_from}")


def _first(given: str | None, option: str, variables: Sequence[str]) -> tuple[str, str]:
    if given:
        return given, f"from the option {option}"
    for name in variables:
        if os.environ.get(name):
            return os.environ[name], f"from {name}"
    return "", f"not found (the option {option}, {', '.join(variables)})"


def _checked(endpoint: str) -> str:
    if not endpoint:
        return ""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise UsageError(
            "endpoint: give the URL that the Azure portal shows, such as "
            "https://NAME.cognitiveservices.azure.com, with no user name in it."
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(
            f"endpoint: http://{parts.hostname} is not encrypted, and the request carries the "
            "key. Use https:// for all but this machine."
        )
    return endpoint.rstrip("/")


def chosen_features(features: str | Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the features asked for, in the order of `known`.

    Args:
        features: names, or their text with commas between.
        known: those that there are.

    Raises:
        UsageError: none is named, or one that is not known.
    """
    names = features.split(",") if isinstance(features, str) else list(features)
    asked = {str(name).strip() for name in names} - {""}
    if not asked or not asked <= set(known):
        raise UsageError(f"features={features!r}: choose one or more of {', '.join(known)}.")
    return tuple(name for name in known if name in asked)


def checked_pin(model_version: str) -> str:
    """Return the model version, if it can be one."""
    if not _PIN.fullmatch(model_version):
        raise UsageError(
            f"model_version={model_version!r}: 'latest', or a date such as '2021-04-01'."
        )
    return model_version


def checked_timeout(timeout: float | str) -> float:
    """Return the seconds of a timeout, which may come as text."""
    seconds = float(timeout)
    if not 0.0 < seconds <= 3600.0:
        raise UsageError(f"timeout={timeout}: seconds above 0, up to 3,600.")
    return seconds


def price(features: Sequence[str]) -> Price:
    """Return the price of one picture: each feature is charged for."""
    of_each = (
        _PER_THOUSAND_SENTENCES if name in _SENTENCES else _PER_THOUSAND for name in features
    )
    return Price(per_thousand=sum(of_each, Decimal(0)), as_of=PRICES_OF)


def of_status(
    status: int | None, body: str, headers: Mapping[str, str] | None, owner: Account
) -> ProviderError:
    """Return what an answer with an error status means.

    Args:
        status: the HTTP status.
        body: what came with it; JSON, if the service itself answered.
        headers: of the answer.
        owner: whose key must not be shown.
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
    text = owner.clean(f"Azure answered {said}: {message or 'no reason given'}")
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
    except ValueError:
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
