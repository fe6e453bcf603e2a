"""One request over HTTPS, safely: what the adapters without an SDK share.

- Secrets join a request in the moment it is written to its connection. So no log of urllib3, no
  error, no redirect and no PreparedRequest ever holds one.
- A deadline holds for the whole of a request: headers and bodies that drip in meet it, too.
- No retries, no redirects, no cookies, no .netrc; a bounded answer; TLS always verified.
"""

from __future__ import annotations

import json
import re
import ssl
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.cookies import RequestsCookieJar
from requests.hooks import default_hooks

from smoothapi.errors import (
    FatalError,
    ProviderError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Mask, check_client
from smoothapi.provider.chain import chain
from smoothapi.provider.secrets import is_secret_name
from smoothapi_adapters._common.bounds import CONNECT
from smoothapi_adapters._common.errors import of_bounds
from smoothapi_adapters._common.reaching import unsent
from smoothapi_adapters._common.sessions import Bounds

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        timeout: seconds for a whole request, from its beginning to the last byte of its answer.
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
        self._timeout = timeout
        self._ca = ca
        self._bounds = Bounds(timeout, headers=secrets.headers, query=secrets.query)
        self._mask = Mask(secrets.values)
        self._signed: frozenset[str] = frozenset()  # what a caller's session signs with
        self._own = client is None
        if client is None:
            client = requests.Session()
            self._bounds.mount(client)
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
            request.hooks = default_hooks()  # those of digests send it again
            session = self._bounds.held(self._session)  # each time: it may be mocked by now
            session.cookies = RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))
            session.get_redirect_target = lambda _: None  # type: ignore[method-assign,assignment]
            options = session.merge_environment_settings(
                url, {}, stream=True, verify=self._ca, cert=None
            )
            timeout = (min(CONNECT, self._timeout), self._timeout)
            with session.send(request, timeout=timeout, **options) as response:
                return HttpResponse(response.status_code, response.headers, response.content)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise unsent(of_bounds(e, self._who) or self._meant_by(e), e, self._who) from e

    def close(self) -> None:
        """Close the connections; a caller's own session is left alone."""
        if self._own:
            self._session.close()

    def _meant_by(self, error: Exception) -> ProviderError:
        """Return what an exception of requests, urllib3 or a socket means for a caller."""
        kinds = [type(link) for link in chain(error)]
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
        UsageError: it is no session, retries by itself, or does not verify certificates.
    """
    check_client(client, "prepare_request", "get_adapter", wanted="a requests.Session")
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


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
