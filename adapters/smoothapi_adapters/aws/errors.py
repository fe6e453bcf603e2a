"""What botocore can raise, as smoothapi's errors.

AWS says with HTTP 400 that it throttles, that a key is wrong and that a picture is too large, so
the code decides, and only an unknown one is judged by its status. What cannot be told to concern
one picture alone ends the run: it would be stored as that picture's vote otherwise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from botocore import exceptions as b
from botocore.parsers import ResponseParserError

from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
)
from smoothapi.provider import Credentials, retry_after_seconds
from smoothapi.text import printable
from smoothapi_adapters._common.errors import of_bounds

if TYPE_CHECKING:
    from collections.abc import Callable

THROTTLED = frozenset({
    "BandwidthLimitExceeded", "EC2ThrottledException", "LimitExceededException",
    "PriorRequestNotComplete", "ProvisionedThroughputExceededException", "RequestLimitExceeded",
    "RequestThrottled", "RequestThrottledException", "SlowDown", "ThrottledException",
    "Throttling", "ThrottlingException", "TooManyRequestsException",
    "TransactionInProgressException",
})  # fmt: skip
TRANSIENT = frozenset({
    "InternalError", "InternalFailure", "InternalServerError", "InternalServerException",
    "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable",
    "ServiceUnavailableException",
})  # fmt: skip
PERMANENT = frozenset({
    "ImageTooLargeException", "InvalidImageFormatException", "InvalidParameterException",
    "InvalidS3ObjectException",
})  # fmt: skip

_KEYS = (
    "Check the access key, its secret and its session token, and that they have not expired "
    "(aws sts get-caller-identity says whom they belong to)."
)
_CLOCK = "AWS found the request's time wrong: set this machine's clock."
_POLICY = "The credentials may not do this: allow the operation in their IAM policy."
_OPTIONS = "AWS refuses the request's form whatever the picture: check the adapter's options."

FATAL = {
    "AccessDenied": _POLICY,
    "AccessDeniedException": _POLICY,
    "AuthFailure": _KEYS,
    "ExpiredToken": _KEYS,
    "ExpiredTokenException": _KEYS,
    "HumanLoopQuotaExceededException": "The quota of human loops is used up.",
    "IncompleteSignature": _KEYS,
    "IncompleteSignatureException": _KEYS,
    "InvalidAccessKeyId": _KEYS,
    "InvalidClientTokenId": _KEYS,
    "InvalidSignatureException": _KEYS,
    "MissingAuthenticationToken": _KEYS,
    "MissingAuthenticationTokenException": _KEYS,
    "NotAuthorized": _POLICY,
    "OptInRequired": "Enable the service, or its region, for the account.",
    "RequestExpired": _CLOCK,
    "RequestTimeTooSkewed": _CLOCK,
    "ResourceNotFoundException": "There is no such model version in this account and region.",
    "ResourceNotReadyException": "The model is not running: start it (start_project_version).",
    "SerializationException": _OPTIONS,
    "ServiceQuotaExceededException": "A quota of the account is used up: have it raised.",
    "SignatureDoesNotMatch": _KEYS,
    "SubscriptionRequiredException": "Enable the service for the account.",
    "UnknownOperationException": "The endpoint knows no such operation: check endpoint.",
    "UnrecognizedClientException": _KEYS,
    "ValidationException": _OPTIONS,
}

# Of one picture alone, where the code says nothing.
_PERMANENT_STATUS = (413, 415, 422)
_TRANSIENT_STATUS = (408, 425)
_QUOTED = 200
_SECRET = re.compile(r"[A-Za-z0-9+/=_%-]{40,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}")


def _newer(name: str) -> tuple[type[Exception], ...]:
    """Return a class that botocore 1.40, with which aioboto3 comes, has not got yet."""
    return tuple(filter(None, [getattr(b, name, None)]))


# Ways to the service that may be open again in a moment.
_WAY = (
    b.ConnectionError, b.HTTPClientError, b.IncompleteReadError, b.ChecksumError,
    b.FlexibleChecksumError, b.ResponseStreamingError, ResponseParserError,
)  # fmt: skip
_NO_CREDENTIALS = (
    b.NoCredentialsError, b.PartialCredentialsError, b.NoAuthTokenError, b.ProfileNotFound,
    b.UnknownCredentialError, *_newer("UnknownTokenProviderError"),
)  # fmt: skip
_LOST_CREDENTIALS = (
    b.CredentialRetrievalError, b.TokenRetrievalError, b.MetadataRetrievalError, b.SSOError,
    *_newer("LoginError"), b.RefreshWithMFAUnsupportedError, b.InfiniteLoopConfigError,
)  # fmt: skip
_NO_PLACE = (
    b.NoRegionError, b.UnknownRegionError, b.InvalidRegionError, b.BaseEndpointResolverError,
    b.EndpointProviderError, b.InvalidEndpointConfigurationError, b.ServiceNotInRegionError,
)  # fmt: skip


def mapped(error: Exception, credentials: Callable[[], Credentials]) -> ProviderError:
    """Return what an exception of botocore means for a run.

    Args:
        error: what a call or the making of a client raised.
        credentials: says where they were looked for; called only if they were not found.

    Returns:
        An error whose message holds neither secrets nor URLs nor any part of the request.
    """
    if isinstance(error, b.ClientError):
        return _refused(error)
    kind = type(error).__name__
    if isinstance(error, _NO_CREDENTIALS):
        return FatalError(
            f"Credentials for AWS were not found ({kind}): {credentials().where}. Set them as for "
            "any program that uses boto3, or name a profile.",
            sent=False,
        )
    if isinstance(error, _LOST_CREDENTIALS):
        return FatalError(
            f"The credentials for AWS could not be had from where they come from ({kind}). Sign "
            "in again (aws sso login, say), or have the role or command looked at that gives them.",
            sent=False,
        )
    if isinstance(error, _NO_PLACE):
        return FatalError(
            f"It is not clear where to send requests ({kind}). Give region, such as "
            '"eu-west-1", or set AWS_DEFAULT_REGION or a profile\'s region.',
            sent=False,
        )
    if isinstance(error, b.CapacityNotAvailableError):
        return ThrottledError(f"The client's own rate limit has no room ({kind}).")
    return of_bounds(error, "AWS") or _unreached(error, kind)


def malformed(what: str, request_id: str = "") -> TransientError:
    """Return the error for an answer that is not what Rekognition's model promises."""
    return TransientError(
        f"AWS sent status 200 and an answer that cannot be used: {what}. It was not stored.",
        request_id=request_id,
    )


def _unreached(error: Exception, kind: str) -> ProviderError:
    """Return what it means that no usable answer of the service came."""
    if isinstance(error, b.SSLError) and "certificate" in str(error).lower():
        return FatalError(
            "The server's certificate is not trusted. Behind a proxy that opens TLS, name its "
            "certificate in AWS_CA_BUNDLE."
        )
    if isinstance(error, b.ProxyConnectionError):
        return TransientError(
            "The proxy cannot be reached (ProxyConnectionError): check HTTPS_PROXY."
        )
    if isinstance(error, (b.ReadTimeoutError, b.ConnectTimeoutError)):
        return TransientError(f"AWS did not answer in time ({kind}).")
    if isinstance(error, _WAY):
        return TransientError(f"AWS could not be reached, or broke off ({kind}).")
    if isinstance(error, b.ParamValidationError):
        # Its text quotes the values, among them the picture.
        return FatalError(
            "botocore refuses the request (ParamValidationError): check the adapter's options.",
            sent=False,
        )
    return FatalError(
        f"boto3 cannot send this ({kind}): check its configuration files and the AWS_* variables."
    )


def _refused(error: b.ClientError) -> ProviderError:
    """Return what an error of the service means, by its code and else by its status."""
    response: dict[str, Any] = error.response if isinstance(error.response, dict) else {}
    body = response.get("Error") or {}
    metadata = response.get("ResponseMetadata") or {}
    status = metadata.get("HTTPStatusCode")
    status = status if isinstance(status, int) else 0
    request_id = str(metadata.get("RequestId") or "")
    # Old protocols write the name of a shape with its space before and more behind it.
    code = str(body.get("Code") or "").partition(":")[0].rpartition("#")[2]
    said = f"AWS refused it: {printable(code) or 'no code'} (HTTP {status or '?'})"
    text = _quote(body.get("Message"))
    wait = retry_after_seconds((metadata.get("HTTPHeaders") or {}).get("retry-after"))
    if code in THROTTLED or (code not in _KNOWN and status == 429):
        return ThrottledError(f"{said}.", retry_after=wait, request_id=request_id)
    if code in PERMANENT:
        return PermanentError(f"{said}{text}.", request_id=request_id)
    if code in FATAL:
        advice = FATAL[code]
        # Of a bad signature AWS quotes what was signed, session token included.
        text = "" if advice == _KEYS else text
        return FatalError(f"{said}{text}. {advice}", request_id=request_id)
    if code in TRANSIENT or status >= 500 or status in _TRANSIENT_STATUS:
        return TransientError(f"{said}.", retry_after=wait, request_id=request_id)
    if status in _PERMANENT_STATUS:
        return PermanentError(f"{said}{text}.", request_id=request_id)
    return FatalError(
        f"{said}{text}. What this means is not known, so nothing more is sent.",
        request_id=request_id,
    )


_KNOWN = THROTTLED | TRANSIENT | PERMANENT | frozenset(FATAL)


def _quote(message: object) -> str:
    """Return the service's own words, short, without what looks like a key or a picture."""
    if not isinstance(message, str) or not message.strip():
        return ""
    text = _SECRET.sub("***", printable(" ".join(message.split())))
    return f", {text[:_QUOTED].rstrip('. ')!r}"
