"""What the exceptions of Azure's SDK for 3.2 mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoothapi.errors import FatalError, ProviderError, TransientError
from smoothapi_adapters._common.errors import of_requests
from smoothapi_adapters.azure.errors import OF_PARSING, of_status
from smoothapi_adapters.azure.resource import ADVICE

if TYPE_CHECKING:
    from smoothapi_adapters.azure.resource import Resource


def mapped_error(error: Exception, resource: Resource, seen: Any = None) -> ProviderError | None:
    """Return the error of ours that one of the SDK's stands for; None if it is not the SDK's.

    Args:
        error: what was raised.
        resource: whose key must not be shown.
        seen: the last response of this thread, for what fails before its status is looked at.
    """
    import requests  # noqa: PLC0415
    from azure.core.exceptions import DeserializationError, SerializationError  # noqa: PLC0415
    from msrest import exceptions as msrest  # noqa: PLC0415

    if isinstance(error, requests.RequestException):
        return of_requests(error, "Azure")
    if isinstance(error, msrest.HttpOperationError):
        response = error.response
        return of_status(response.status_code, response.text, response.headers, resource)
    if isinstance(error, msrest.ClientRequestError):
        inner = error.__context__ or error.inner_exception
        return (
            of_requests(inner, "Azure")
            if isinstance(inner, requests.RequestException)
            else TransientError("The connection to Azure failed.")
        )
    if isinstance(error, (msrest.ClientException, SerializationError)):
        kind = type(error).__name__
        return FatalError(f"The request to Azure could not be made ({kind}). {ADVICE}")
    if isinstance(error, (DeserializationError, *OF_PARSING)):
        return _of_unread(error, resource, seen)
    return None


def _of_unread(error: Exception, resource: Resource, seen: Any) -> ProviderError:
    """Return what an answer that cannot be read means: its status, if that was not OK."""
    # A page of HTML, say: the SDK reads the body before it looks at the status.
    if seen is not None and seen.status_code != 200:
        return of_status(seen.status_code, "", seen.headers, resource)
    return TransientError(f"Azure's answer is malformed ({type(error).__name__}).")
