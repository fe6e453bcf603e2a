"""Requests carried to a provider as they came: what the gateway's own calls are sent with.

Bytes go up and come down as they are, but for what concerns one connection alone (RFC 9110, 7.6.1)
and for what signs a request: that joins it in the moment it is written, as in `client`.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from smoothapi.errors import FatalError, ProviderError, TransientError, UsageError
from smoothapi.files import SyntaxOfJsonError, parse_json
from smoothapi.wires.wire import Reply
from smoothapi.wrapping import OwnCall
from smoothapi_adapters._common.bounds import CONNECT, MOST_BYTES, POOL, Exchange
from smoothapi_adapters._common.errors import of_bounds
from smoothapi_adapters._common.reaching import unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.provider import Adapter, Price

_CHUNK = 65_536
_PIECE = 16_384
_MOST_MEMBERS = 1_000
_MOST_CODINGS = 5  # one on the other, as urllib3 unpacks
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
        self._pool = self._pools.connection_from_url(self._endpoint)
        self._path = urlsplit(self._endpoint).path

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
        if identity or signature.secrets:
            # What is packed in another way could not be looked into (`_refuse_echo`).
            packed = "gzip" in sent.pop("accept-encoding", "") and not identity
            sent["Accept-Encoding"] = "gzip" if packed else "identity"
        try:
            pool = exchange.over(self._pool)
            response = pool.urlopen(
                method,
                f"{self._path}{target}",
                body=body or None,
                headers=sent,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=min(CONNECT, self._timeout), read=self._timeout),
                preload_content=False,
                decode_content=False,
            )
            whole = BytesIO()
            for chunk in response.stream(_CHUNK, decode_content=False):
                whole.write(chunk)
                exchange.check(whole.tell())
            response.release_conn()
            exchange.let_go()
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
        reply = Reply(response.status, whole.getvalue(), _down(response.headers.items()))
        self._refuse_echo(reply, signature)
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._pools.clear()

    def _refuse_echo(self, reply: Reply, signature: Signature) -> None:
        """Raise FatalError if the answer repeats a secret that is not the caller's own.

        AWS quotes all that was signed where a signature does not match, session token included.
        """
        long = [secret for secret in signature.secrets if len(secret) >= _SECRET_LEAST]
        if not long:
            return
        unpacked = _unpacked(reply)
        if unpacked is None:
            raise FatalError(
                f"{self._who} answered with status {reply.status}, and packed more than is looked "
                "through for credentials of the gateway. It is therefore not handed on."
            )
        values = (value.encode("latin-1") for _, value in reply.headers)
        said = b"\n".join([reply.body, unpacked, *values])
        if any(form.encode() in said for secret in long for form in _forms(secret)):
            raise FatalError(
                f"{self._who} answered with status {reply.status} and repeats credentials of the "
                "gateway in its answer, which is therefore not handed on."
            )


def read_body(body: bytes) -> Any:
    """Return the JSON of a request; None if it has none, which its provider will say.

    Raises:
        UsageError: it can be read in two ways, and the provider's need not be ours.
    """
    try:
        return parse_json(body)
    except SyntaxOfJsonError:
        return None
    except ValueError as error:
        raise UsageError(f"The body of this call is not plain JSON: {error}.") from None


def plain_path(path: str) -> str:
    """Return a path as the most lenient server could read it: in small letters, single slashes."""
    return re.sub(r"/{2,}", "/", path.replace("\\", "/")).rstrip("/ ").lower()


def uncertifiable(why: str) -> UsageError:
    """Return the error of a call that could be answered with labels which are not certified.

    Args:
        why: they cannot be, and what to do, in sentences.
    """
    return UsageError(f"This gateway certifies labels, and hands on no others. {why}")


class RelayedCall(OwnCall):
    """A caller's own call, whose response is a `Told`.

    Args:
        votes: asks about noisy copies.
        send: sends the caller's request once.
        means: what a reply with another status than 200 means; None where it is an answer.
        read: JSON of an answer -> Answer; raises ProviderError if it is malformed.
        who: the service in words.
        price: as for `OwnCall`.
        is_refused: JSON -> whether it says, under status 200, that the picture was refused.
    """

    def __init__(
        self,
        votes: Adapter,
        send: Callable[[], Reply],
        *,
        means: Callable[[Reply], ProviderError | None],
        read: Callable[[Any], Answer],
        who: str,
        price: Price | None = None,
        is_refused: Callable[[dict[str, Any]], bool] = lambda _: False,
    ) -> None:
        super().__init__(votes, send, lambda told: read(told.json), price=price)
        self._means = means
        self._is_refused = is_refused
        self._who = who

    def _make(self) -> Told:
        reply: Reply = super()._make()
        error = self._means(reply)
        if error is not None:
            self.refusal = reply
            raise error
        try:
            data = parse_json(reply.body)  # only what can be written again
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise TransientError(
                f"{self._who} sent status {reply.status} and {len(reply.body):,} bytes that are "
                "no JSON object. It was not stored."
            )
        if self._is_refused(data):
            self.refusal = reply
        return Told(reply, data)


def _down(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the headers of an answer that are handed on: those that can be written again."""
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() not in _NOT_DOWN
        and not name.lower().startswith(OWN)
        and _is_writable(name, value)
    )


def _unpacked(reply: Reply) -> bytes | None:
    """Return the body of an answer as any reader may unpack it; None if it is too much for one.

    What is packed in another way than by gzip or deflate, which nobody asked for, is left packed.
    """
    kinds = [
        kind.strip().lower()
        for name, value in reply.headers
        if name.lower() == "content-encoding"
        for kind in value.split(",")
    ]
    kinds = [kind for kind in kinds if kind not in {"", "identity"}]
    if len(kinds) > _MOST_CODINGS:
        return None
    body = reply.body
    for kind in reversed(kinds):
        if kind not in {"gzip", "x-gzip", "deflate"}:
            break
        found = _members(body, zlib.MAX_WBITS | 32)
        if found == b"" and kind == "deflate":  # some leave out zlib's header
            found = _members(body, -zlib.MAX_WBITS)
        if found is None:
            return None
        body = found
    return body


def _members(body: bytes, windows: int) -> bytes | None:
    """Unpack a body of one member, or of several; None if these are many, or hold too much.

    Readers differ in what they take behind the first, so all is unpacked that can be. It is given
    piece by piece: behind each member what is left of a piece is copied.
    """
    whole = bytearray()
    unpacker, members, between = zlib.decompressobj(windows), 1, False
    for start in range(0, len(body), _PIECE):
        piece = body[start : start + _PIECE]
        while piece := piece.lstrip(b"\0") if between else piece:  # zeros there some skip
            try:
                whole += unpacker.decompress(piece, MOST_BYTES + 1 - len(whole))
            except zlib.error:  # the rest is no member, or a broken one
                return bytes(whole)
            if len(whole) > MOST_BYTES:
                return None
            piece, between = unpacker.unused_data, unpacker.eof
            if between:
                unpacker, members = zlib.decompressobj(windows), members + 1
                if members > _MOST_MEMBERS:
                    return None
    return bytes(whole)


def _forms(secret: str) -> set[str]:
    """Return how a secret may be written in an answer."""
    in_json = json.dumps(secret)[1:-1]
    return {secret, in_json, in_json.replace("/", "\\/"), quote(secret, safe="")}


def _is_writable(name: str, value: str) -> bool:
    return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value))


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
        if not _is_writable(name, value):  # not every server that this is mounted in looks
            continue
        if lower.startswith(("x-forwarded-", OWN)):
            continue
        kept[lower] = f"{kept[lower]}, {value}" if lower in kept else value
    return kept
