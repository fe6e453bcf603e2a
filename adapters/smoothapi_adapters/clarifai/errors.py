"""What Clarifai's status codes mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
)
from smoothapi.provider import retry_after_seconds
from smoothapi.text import printable
from smoothapi_adapters._common.errors import error_of_status

if TYPE_CHECKING:
    from smoothapi.provider import Mask
    from smoothapi_adapters._common.client import HttpResponse

_HOUR = 3600.0

# Clarifai's published status codes (clarifai/api/status/status_code.proto) by what can be done
# about them: the first range that holds a code decides.
MEANING: tuple[tuple[int, int, type[ProviderError]], ...] = (
    (10030, 10030, TransientError),  # try again
    (11003, 11003, ThrottledError),  # limit of the hour
    (11005, 11006, ThrottledError),  # throttled, above limits
    (10040, 11999, FatalError),  # account, key, limit of the month, scopes, path, format
    (21313, 21313, TransientError),  # the prediction failed
    (21351, 21355, TransientError),  # deploying, queued, not deployed for now, busy, loading
    (21000, 21999, FatalError),  # no such model, no permission, untrained, wrong arguments
    (25604, 25608, TransientError),  # a runner needs another try
    (30001, 30001, TransientError),  # inputs that are pending or in progress
    (30003, 30003, TransientError),
    (30000, 31999, PermanentError),  # inputs: format, size, bytes
    (39996, 39997, TransientError),  # connection failed, maintenance
    (39999, 39999, PermanentError),  # invalid request for an input
    (40001, 40001, PermanentError),  # invalid request for a prediction
    (40016, 40016, ThrottledError),  # too many clients
    (40030, 40030, ThrottledError),  # queue full
    (40033, 40033, PermanentError),  # message too large
    (40036, 40036, FatalError),  # unknown method
    (40010, 41999, TransientError),  # databases, remote calls, queues
    (43000, 43999, TransientError),  # clusters
    (45000, 45999, TransientError),  # caches
    (46003, 46003, PermanentError),  # file type
    (47100, 47199, PermanentError),  # decoding and processing of media
    (47000, 47999, TransientError),
    (63001, 63001, TransientError),  # maintenance
    (90400, 90400, PermanentError),
    (98014, 98014, ThrottledError),  # resources exhausted
    (90500, 99999, TransientError),  # internal
)


def said_of(status: Any, mask: Mask) -> tuple[int | None, str]:
    """Return the code and the words of a status."""
    if not isinstance(status, dict) or type(status.get("code")) is not int:
        return None, ""
    words = [status.get(name) for name in ("description", "details")]
    said = ": ".join(word for word in words if isinstance(word, str) and word)
    return status["code"], mask.quoted(said, 400)


def error_of_code(
    code: int | None, said: str, response: HttpResponse | None, request_id: str
) -> ProviderError:
    """Return what a code of Clarifai means; one that is not published, as the HTTP status says."""
    text = f"Clarifai answered with code {code}" + (f" ({said})" if said else "")
    kind = next((kind for first, last, kind in MEANING if first <= (code or 0) <= last), None)
    if kind is None:
        error = (
            error_of_status(response, "Clarifai", said, request_id=request_id) if response else None
        )
        return error or FatalError(f"{text}, which is unknown.", request_id=request_id)
    wait = retry_after_seconds(response.headers.get("retry-after")) if response else None
    if kind is ThrottledError:
        if code == 11003 and wait is None:
            wait = _HOUR
        return ThrottledError(f"{text}: slow down.", retry_after=wait, request_id=request_id)
    if kind is TransientError:
        return TransientError(f"{text}.", retry_after=wait, request_id=request_id)
    if kind is PermanentError:
        return PermanentError(f"{text}: it does not take this picture.", request_id=request_id)
    return FatalError(
        f"{text}. Check the token, its scopes and plan, and the ids of user, app and model.",
        request_id=request_id,
    )


def shown(value: Any) -> str:
    """Return a text of Clarifai's, fit to be shown; "" if it is something else."""
    return printable(value)[:200] if isinstance(value, str) else ""
