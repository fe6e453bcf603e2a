"""One request over HTTPS, safely: what the adapters without an SDK share.

- Secrets join a request in the moment it is written to its connection. So no log of urllib3, no
  error, no redirect and no PreparedRequest ever holds one.
- A deadline holds for the whole of a request: headers and bodies that drip in meet it, too.
- No retries, no redirects, no cookies, no .netrc; a bounded answer; TLS always verified.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import ssl
import time
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from smoothapi.errors import (
    FatalError,
    ProviderError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Mask
from smoothapi.provider.secrets import is_secret_name
from smoothapi_adapters._common.bounds import MOST_BYTES, POOL, BodyTooLongError, read_body

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

CONNECT = 10.0  # seconds; a host that is up answers sooner

# Few: some of Python's codecs take a time that grows with the square of what they decode.
_CHARSETS = frozenset({"utf-16", "utf-32", "iso-8859-1", "latin-1", "windows-1252", "us-ascii"})
_CHARSET = re.compile(r"""charset=["']?([\w.:-]+)""", re.IGNORECASE)
_WRONG_SETTING = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidProxyURL,
    UnicodeError,
)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a request is signed with. Its repr shows names only.

    Attributes:
        headers: name -> value, added to each request.
        query: names and values, added to each request's URL.
        others: values that are in the body; known here to be masked.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    query: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Secrets(headers={sorted(self.headers)}, query={[name for name, _ in self.query]})"

    @property
    def empty(self) -> bool:
        """Whether nothing secret is sent."""
        return not (self.headers or self.query or self.others)

    @property
    def values(self) -> tuple[str, ...]:
        """All that is secret."""
        return (*self.headers.values(), *(value for _, value in self.query), *self.others)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A service's answer to one request, read to its end. It may repeat what it was sent.

    Attributes:
        status: of HTTP.
        headers: by name, in any case.
        body: unpacked.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self, who: str) -> Any:
        """Return the body as JSON.

        Raises:
            TransientError: it is something else, such as a proxy's page: the next attempt may do
                better.
        """
        found = _CHARSET.search(self.headers.get("content-type", ""))
        charset = found[1].lower() if found else ""
        try:
            text = self.body.decode(charset if charset in _CHARSETS else "utf-8-sig")
            return json.loads(text.removeprefix("\ufeff"), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise TransientError(
                f"{who} answered with status {self.status} and a body of {len(self.body):,} bytes "
                f"that is not JSON ({type(error).__name__})."
            ) from None


class HttpClient:
    """The way to one service. Threads share it.

    Args:
        who: the service in words, for errors.
        secrets: what signs the requests.
        timeout: seconds for a whole request, from connected to read.
        ca: file or folder of certificates to trust instead of the usual ones.
        client: a session of the caller's, whose headers, auth, proxies, certificates and mounted
            transports are used (see `refuse_unsafe`).
    """

    def __init__(
        self,
        who: str,
        secrets: Secrets,
        *,
        timeout: float,
        ca: str | None = None,
        client: requests.Session | None = None,
    ) -> None:
        self._who = who
        self._secrets = secrets
        self._timeout = timeout
        self._ca = ca
        self._mask = Mask(secrets.values)
        self._signed: frozenset[str] = frozenset()  # what a caller's session signs with
        self._own = client is None
        self._transport = _Transport(secrets, timeout)
        if client is None:
            client = requests.Session()
            client.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            client.auth = _as_it_is  # keeps .netrc out: it would replace what was configured
        self._session = client

    @property
    def mask(self) -> Mask:
        """Masks the secrets, and what a caller's session has signed requests with so far."""
        self._mask = self._mask.knowing(self._signed)
        return self._mask

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> HttpResponse:
        """Send one request and read its answer to the end.

        Raises:
            TransientError: no answer, or half of one.
            FatalError: it can't be sent as it is configured.
        """
        try:
            request = self._session.prepare_request(
                requests.Request(method, url, headers=dict(headers), data=body)
            )
            self._signed |= {
                str(value) for name, value in request.headers.items() if is_secret_name(name)
            }
            transport = self._transport_for(url, request)
            options = self._session.merge_environment_settings(
                url, {}, stream=True, verify=self._ca, cert=None
            )
            began = time.monotonic()
            timeout = (min(CONNECT, self._timeout), self._timeout)
            with transport.send(request, timeout=timeout, **options) as response:
                answered = read_body(response.raw, began + self._timeout)
                return HttpResponse(response.status_code, response.headers, answered)
        except BodyTooLongError as e:
            raise FatalError(
                f"{self._who} answers with more than {MOST_BYTES:,} bytes. Labels are shorter: "
                "check the URL, and that it asks for labels alone."
            ) from e
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise self._meant_by(e) from e

    def close(self) -> None:
        """Close the connections; a caller's own session is left alone."""
        self._transport.close()
        if self._own:
            self._session.close()

    def _transport_for(self, url: str, request: requests.PreparedRequest) -> HTTPAdapter:
        mounted = self._session.get_adapter(url)
        if type(mounted) is HTTPAdapter:
            return self._transport
        if self._secrets.query:
            raise FatalError(
                "The session given as client= has a transport of its own, so that secrets in the "
                "URL would be logged. Put the secret into a header.",
                sent=False,
            )
        request.headers.update(self._secrets.headers)
        return mounted  # type: ignore[return-value]  # any BaseAdapter will do

    def _meant_by(self, error: Exception) -> ProviderError:
        """Return what an exception of requests, urllib3 or a socket means for a caller."""
        kinds = [type(link) for link in _chain(error)]
        kind = type(error).__name__
        if any(issubclass(k, ssl.SSLCertVerificationError) for k in kinds):
            return FatalError(
                f"{self._who} shows a certificate that is not trusted here. If it is signed by an "
                "authority of your own, give its file as ca= (or in REQUESTS_CA_BUNDLE)."
            )
        if isinstance(error, _WRONG_SETTING):
            return FatalError(
                f"{self._who} cannot be reached as it is configured ({kind}). Check the URL, the "
                "headers and the proxies (HTTPS_PROXY)."
            )
        if isinstance(error, OSError) and "invalid path" in str(error):
            return FatalError(f"The file of certificates for {self._who} does not exist.")
        if any(
            issubclass(k, (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError))
            for k in kinds
        ):
            return TransientError(f"{self._who} gave no whole answer in {self._timeout:g} s.")
        if isinstance(error, requests.exceptions.ProxyError) and "407" in str(error):
            return FatalError(
                f"The proxy on the way to {self._who} asks for a password (407). Write it into "
                "HTTPS_PROXY."
            )
        return TransientError(f"The connection to {self._who} failed ({kind}).")


def refuse_unsafe(client: requests.Session, url: str) -> None:
    """Refuse a session of a caller's that would send to `url` twice, or to anybody.

    Raises:
        UsageError: it retries by itself, or does not verify certificates.
    """
    if client.verify is False:
        raise UsageError(
            "The session given as client= does not verify certificates: anybody on the way could "
            "answer. Set its verify to a file of certificates instead."
        )
    if getattr(getattr(client.get_adapter(url), "max_retries", None), "total", 0):
        raise UsageError(
            "The session given as client= retries by itself: requests would be sent, and paid for, "
            "that nobody counts. Mount HTTPAdapter(max_retries=0) on it."
        )


def check_header(name: str, value: str, kind: type[UsageError | FatalError]) -> None:
    """Refuse a value that no header can hold; it is not shown."""
    if not all(c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff" for c in value):
        raise kind(
            f"The value of the header {name} holds a line break or another character that headers "
            "cannot hold."
        )


def media_type(payload: bytes) -> str:
    """Return the media type of an encoded picture, by its first bytes."""
    if payload.startswith(b"\x89PNG"):
        return "image/png"
    return "image/jpeg" if payload.startswith(b"\xff\xd8") else "application/octet-stream"


class _Transport(HTTPAdapter):
    """Connections that add the secrets, and that know when a request must be over."""

    def __init__(self, secrets: Secrets, timeout: float) -> None:
        self._schemes = _schemes(secrets, timeout)
        super().__init__(pool_connections=4, pool_maxsize=POOL, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._schemes

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy.lower().startswith("socks"):
            raise requests.exceptions.InvalidSchema("proxies that speak SOCKS are not supported")
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._schemes
        return manager


def _schemes(secrets: Secrets, timeout: float) -> dict[str, Any]:
    """Return urllib3's pools by scheme, with connections that are ours."""

    class Signed(HTTPConnection):
        deadline = 0.0

        def connect(self) -> None:
            self.deadline = time.monotonic() + timeout  # for what is said to a proxy
            super().connect()

        def putrequest(self, method: str, url: str, *arguments: Any, **options: Any) -> None:
            self.deadline = time.monotonic() + timeout
            if secrets.query:
                url += ("&" if "?" in url else "?") + urlencode(secrets.query)
            super().putrequest(method, url, *arguments, **options)
            for name, value in secrets.headers.items():
                self.putheader(name, value)

        def send(self, data: Any) -> None:
            if self.sock is not None:
                self.sock.settimeout(_left(self.deadline))
            super().send(data)

        def response_class(  # type: ignore[override]  # a class there, made by a method here
            self, sock: Any, *arguments: Any, **options: Any
        ) -> Any:
            return http.client.HTTPResponse(
                _Dated(sock, self.deadline),  # type: ignore[arg-type]  # all it needs is makefile
                *arguments,
                **options,
            )

    class SignedTLS(Signed, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Signed

    class PoolTLS(HTTPSConnectionPool):
        ConnectionCls = SignedTLS

    return {"http": Pool, "https": PoolTLS}


class _Dated(io.RawIOBase):
    """What is read from a socket until a deadline; in place of the socket, as far as it is read."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise TimeoutError("the request took too long")
    return left


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it wraps: urllib3 keeps what happened in `args` and `reason`."""
    found: list[BaseException] = []
    ahead: list[Any] = [error]
    while ahead:
        link = ahead.pop()
        if isinstance(link, BaseException) and link not in found:
            found.append(link)
            ahead += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return found


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
