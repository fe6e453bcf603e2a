"""What the exceptions of Azure's SDK for 4.0 mean."""

from __future__ import annotations

import ssl
import zlib
from typing import TYPE_CHECKING, Any

from smoothapi.errors import FatalError, ProviderError, TransientError
from smoothapi.provider.chain import chain
from smoothapi_adapters._common.errors import of_bounds, of_requests
from smoothapi_adapters.azure.errors import OF_PARSING, of_status
from smoothapi_adapters.azure.resource import ADVICE

if TYPE_CHECKING:
    from smoothapi_adapters.azure.resource import Resource


def mapped_error(error: Exception, resource: Resource) -> ProviderError | None:
    """Return the error of ours that one of the SDK's stands for; None if it is not the SDK's."""
    from azure.core import exceptions as core  # noqa: PLC0415

    kind = type(error).__name__
    mapped = of_bounds(error, "Azure")
    if mapped is not None:
        return mapped
    # An answer cut short has the status that it began with.
    if isinstance(error, core.HttpResponseError) and not isinstance(error, core.DecodeError):
        mapped = _of_answer(error, resource)
    elif isinstance(error, core.SerializationError):
        mapped = FatalError(f"The request to Azure could not be made ({kind}).")
    elif isinstance(error, (core.DecodeError, core.DeserializationError, zlib.error, *OF_PARSING)):
        mapped = _of_unread(error, kind, resource)
    elif isinstance(error, core.ServiceRequestError):
        mapped = _of_connection(error, resource)
    elif isinstance(error, core.ServiceResponseError):
        mapped = TransientError(f"The connection to Azure failed ({kind}).")
    elif isinstance(error, core.AzureError):
        mapped = FatalError(
            f"The request to Azure failed ({kind}): {resource.clean(error.message)}."
        )
    return mapped


def _of_answer(error: Any, resource: Resource) -> ProviderError:
    response = error.response
    if response is None:
        if type(error).__name__ == "ClientAuthenticationError":  # no token to send
            said = resource.clean(error.message)
            return FatalError(f"Signing in to Azure failed: {said}. {ADVICE}", sent=False)
        return TransientError(f"The connection to Azure failed ({type(error).__name__}).")
    try:
        body = response.text()
    except Exception:  # noqa: BLE001  whatever it is, the status says enough
        body = ""
    return of_status(error.status_code, body, response.headers, resource)


def _of_unread(error: Any, kind: str, resource: Resource) -> ProviderError:
    """Map a body that is not JSON: its status counts, if it is known and an error."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 200)
    if response is not None and status != 200:
        return of_status(status, "", response.headers, resource)
    return TransientError(f"Azure's answer is malformed ({kind}).")


def _of_connection(error: Any, resource: Resource) -> ProviderError:
    import requests  # noqa: PLC0415
    from azure.core.exceptions import ServiceRequestTimeoutError  # noqa: PLC0415

    inner = error.inner_exception
    if isinstance(inner, requests.RequestException):
        return of_requests(inner, "Azure")
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain(error)):
        return FatalError(
            "Azure shows a certificate that is not trusted here. Behind a proxy that opens TLS, "
            "give the client a file of certificates, as connection_verify=."
        )
    if inner is None and not isinstance(error, ServiceRequestTimeoutError):
        # The SDK itself would not send it: a token without TLS, say.
        return FatalError(
            f"The request to Azure was not sent: {resource.clean(error.message)}", sent=False
        )
    return TransientError(f"The connection to Azure failed ({type(error).__name__}).")
