"""Signature Version 4, as far as Rekognition's JSON protocol needs it.

botocore's is made for all services of AWS, takes longer than all else that the gateway does with a
request, and has the session token in what it logs. The tests hold this one to it.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNED = ("content-type", "x-amz-target")  # of the caller's headers
_PORTS = {"http": 80, "https": 443}


class Credentials(Protocol):
    """What botocore calls frozen credentials."""

    access_key: str
    secret_key: str
    token: str | None


class Signer:
    """Signs requests to one endpoint. Threads share it.

    Args:
        endpoint: URL; requests go to / below it.
        region: of AWS, such as "eu-west-1".
        service: its name in credential scopes, such as "rekognition".
    """

    def __init__(self, endpoint: str, region: str, service: str) -> None:
        url = urlsplit(endpoint)
        self._path = quote(f"{url.path.rstrip('/')}/", safe="/~")
        host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        usual = url.port is None or url.port == _PORTS.get(url.scheme)
        self._host = f"{host}" if usual else f"{host}:{url.port}"
        self._scope = region, service, "aws4_request"
        self._key: tuple[str, str, bytes] = ("", "", b"")  # of a secret and a day

    def headers(
        self,
        credentials: Credentials,
        method: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> dict[str, str]:
        """Return the headers that sign a request.

        Args:
            credentials: with which it is signed.
            method: of HTTP.
            query: of its URL, as it is sent.
            headers: of the request, by lower-case name.
            body: of the request.
        """
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        own = {"X-Amz-Date": time}
        if credentials.token:
            own["X-Amz-Security-Token"] = credentials.token
        signed = {name: headers[name] for name in _SIGNED if name in headers}
        signed |= {"host": self._host, **{name.lower(): value for name, value in own.items()}}
        names = sorted(signed)
        canonical = "\n".join([
            method.upper(),
            self._path,
            _sorted(query),
            *(f"{name}:{' '.join(signed[name].split())}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ])  # fmt: skip
        scope = "/".join((time[:8], *self._scope))
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"{_ALGORITHM}\n{time}\n{scope}\n{digest}"
        signature = hmac.digest(self._key_of(credentials, time[:8]), to_sign.encode(), "sha256")
        own["Authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature.hex()}"
        )
        return own

    def _key_of(self, credentials: Credentials, day: str) -> bytes:
        secret, at, key = self._key
        if (secret, at) != (credentials.secret_key, day):
            secret, key = credentials.secret_key, f"AWS4{credentials.secret_key}".encode()
            for part in (day, *self._scope):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = secret, day, key
        return key


def _sorted(query: str) -> str:
    """Return a query by name and value: those without a value with an empty one."""
    if not query:
        return ""
    pairs = sorted(tuple(pair.partition("=")[::2]) for pair in query.split("&"))
    return "&".join(f"{name}={value}" for name, value in pairs)
