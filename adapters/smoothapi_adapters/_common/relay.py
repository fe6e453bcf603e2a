"""Requests carried to a provider as they came: what the gateway's own calls are sent with.

Bytes go up and come down as they are, but for what concerns one connection alone (RFC 9110, 7.6.1)
and for what signs a request: that joins it in the moment it is written, as in `client`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from smoothapi.errors import FatalError, ProviderError, TransientError
from smoothapi.wires.wire import Reply
from smoothapi.wrapping import OwnCall
from smoothapi_adapters._common.bounds import CONNECT, POOL, Exchange
from smoothapi_adapters._common.errors import of_bounds
from smoothapi_adapters._common.reaching import unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.provider import Adapter, Price

_CHUNK = 65_536
OWN = "x-smoothapi-"
"""What the names of the gateway's own headers begin with."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_SECRET_LEAST = 8  # characters; shorter ones could be anything

# Of one connection, or of the way to the gateway; what frames and signs a request is made anew.
_NOT_UP = frozenset({
    "connection", "content-length", "expect", "forwarded", "host", "keep-alive",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "via",
})  # fmt: skip
_NOT_DOWN = frozenset({
    "connection", "content-length", "date", "keep-alive", "proxy-authenticate", "proxy-connection",
    "set-cookie", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
# About the bytes of a body that is no longer the provider's own.
_OF_THE_BYTES = frozenset({
    "content-digest", "content-encoding", "content-md5", "digest", "etag", "repr-digest",
    "x-amz-crc32",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """What signs one request. Its repr shows names only.

    Attributes:
        headers: name -> value, in place of the caller's of that name.
        query: names and values, added to the URL.
        secrets: what no answer to the caller may repeat.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: Collection[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Told:
    """A reply of status 200, and its JSON."""

    reply: Reply
    json: dict[str, Any]

    def written(self) -> Reply:
        """Return the reply with the JSON as it is now."""
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False)
        headers = tuple(
            (name, value) for name, value in self.reply.headers if name.lower() not in _OF_THE_BYTES
        )
        return replace(self.reply, body=text.encode(), headers=headers)


class Relay:
    """The way to one service. Threads share it.

    Args:
        who: the service in words, for errors.
        endpoint: URL to whose path a request's target is added.
        timeout: seconds for a whole request, from its beginning to the last byte of its answer.
        ca: file of certificates to trust instead of the usual ones.
    """

    def __init__(self, who: str, endpoint: str, *, timeout: float, ca: str | None = None) -> None:
        self._who = who
        self._endpoint = endpoint.rstrip("/")
        self._timeout = timeout
        pooled: dict[str, Any] = {"maxsize": POOL, "block": False}
        proxy = None
        if urlsplit(endpoint).scheme == "https":
            trusted = ca or os.environ.get("REQUESTS_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
            pooled |= {"cert_reqs": "CERT_REQUIRED", "ca_certs": trusted}
            proxy = select_proxy(endpoint, get_environ_proxies(endpoint))
        self._pools = (
            urllib3.ProxyManager(proxy, **pooled) if proxy else urllib3.PoolManager(**pooled)
        )

    @property
    def endpoint(self) -> str:
        """Where it leads, without a slash at the end."""
        return self._endpoint

    def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        signature: Signature,
        *,
        identity: bool = False,
    ) -> Reply:
        """Send one request, once, and read its answer to the end.

        Args:
            method: of HTTP.
            target: path and query, as the caller wrote them.
            headers: the caller's.
            body: the caller's.
            signature: of the request.
            identity: whether the answer has to come uncompressed.

        Raises:
            TransientError: no answer, or half of one.
            FatalError: it cannot be sent as it is configured, or the answer repeats what signed it.
        """
        exchange = Exchange(self._timeout)
        exchange.headers, exchange.query = signature.headers, signature.query
        sent = _up(headers, signature)
        if identity:
            sent["Accept-Encoding"] = "identity"
        try:
            pool = exchange.over(self._pools.connection_from_url(self._endpoint))
            response = pool.urlopen(
                method,
                f"{urlsplit(self._endpoint).path}{target}",
                body=body or None,
                headers=sent,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=min(CONNECT, self._timeout), read=self._timeout),
                preload_content=False,
                decode_content=False,
            )
            whole = bytearray()
            for chunk in response.stream(_CHUNK, decode_content=False):
                whole += chunk
                exchange.check(len(whole))
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            exchange.leave()
            mapped = of_bounds(error, self._who) or TransientError(
                f"The connection to {self._who} failed ({type(error).__name__})."
            )
            raise unsent(mapped, error, self._who) from None
        except BaseException:
            exchange.leave()
            raise
        if not 200 <= response.status < 600:
            raise TransientError(
                f"{self._who} answered with status {response.status}, which ends no request."
            )
        reply = Reply(response.status, bytes(whole), _down(response.headers.items()))
        self._refuse_echo(reply, signature)
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._pools.clear()

    def _refuse_echo(self, reply: Reply, signature: Signature) -> None:
        """Raise FatalError if the answer repeats a secret that is not the caller's own.

        AWS quotes all that was signed where a signature does not match, session token included.
        """
        said = b"\n".join([reply.body, *(value.encode("latin-1") for _, value in reply.headers)])
        if any(
            secret.encode() in said for secret in signature.secrets if len(secret) >= _SECRET_LEAST
        ):
            raise FatalError(
                f"{self._who} answered with status {reply.status} and repeats credentials of the "
                "gateway in its answer, which is therefore not handed on."
            )


def own_call(
    votes: Adapter,
    send: Callable[[], Reply],
    *,
    means: Callable[[Reply], ProviderError | None],
    read: Callable[[Any], Answer],
    who: str,
    price: Price | None = None,
    is_refused: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> OwnCall:
    """Return a caller's own call, whose response is a `Told`.

    Args:
        votes: asks about noisy copies.
        send: sends the caller's request once.
        means: what a reply with another status than 200 means; None where it is an answer.
        read: JSON of an answer -> Answer; raises ProviderError if it is malformed.
        who: the service in words.
        price: as for `OwnCall`.
        is_refused: JSON -> whether it says, under status 200, that the picture was refused.
    """

    def once() -> Told:
        reply = send()
        error = means(reply)
        if error is not None:
            own.refusal = reply
            raise error
        try:
            data = json.loads(reply.body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise TransientError(
                f"{who} sent status {reply.status} and {len(reply.body):,} bytes that are no JSON "
                "object. It was not stored."
            )
        if is_refused(data):
            own.refusal = reply
        return Told(reply, data)

    own = OwnCall(votes, once, lambda told: read(told.json), price=price)
    return own


def _down(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the headers of an answer that are handed on: those that can be written again."""
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() not in _NOT_DOWN
        and not name.lower().startswith(OWN)
        and _NAME.fullmatch(name)
        and _VALUE.fullmatch(value)
    )


def _up(headers: Sequence[tuple[str, str]], signature: Signature) -> dict[str, str]:
    """Return the headers that are carried on; of several of one name, the values in order."""
    signed = {name.lower() for name in signature.headers}
    named = {
        option.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for option in value.split(",")
    }
    kept: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _NOT_UP or lower in signed or lower in named:
            continue
        if lower.startswith(("x-forwarded-", OWN)):
            continue
        kept[lower] = f"{kept[lower]}, {value}" if lower in kept else value
    return kept
