"""Photos from the web, where whoever names an address must not steer this machine by it.

A location may come from a stranger (a gateway's caller, a list that was sent), and may lead to a
service that only this machine can reach: a cloud's metadata at 169.254.169.254, a router, a
database. So, for the first location and for each one that it redirects to:

- the name is resolved once, and the connection is made to an address that was looked at, so that
  a name that changes meanwhile (DNS rebinding) changes nothing;
- only public addresses are connected to, unless private ones are allowed;
- no password, cookie or .netrc is sent, and nothing but http and https is spoken.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from smoothapi._version import __version__
from smoothapi.errors import ImageError
from smoothapi.hosts import bracketed
from smoothapi.photos.naming import RemoteFile, shown_location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi.photos.limits import FetchLimits

_CONNECT = 10.0  # seconds; a host that is up answers sooner
_PIECE = 2**16
_ATTEMPTS = 3
_WAIT = 0.5  # seconds before the second attempt; twice as long before the third
_PASSING = frozenset({429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_OF_THE_CLOUD = frozenset({ipaddress.ip_address("168.63.129.16")})  # Azure's WireServer


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also if it stands for another one.

    IPv6 addresses that a router or this machine turns into one of IPv4 count as that one.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    if ip in _OF_THE_CLOUD:  # public by its number, and answered by this machine's own host
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class WebFetcher:
    """Fetches photos over https and http: a `Fetcher`.

    Args:
        limits: of each photo.
        private: whether addresses may be private, of this machine or of its own link.
        allows: whether a location may be fetched, asked of the first and of each that it redirects
            to; None for all.
        context: how TLS is verified; by default by the system's authorities (or SSL_CERT_FILE).

    The proxy that the environment names (HTTPS_PROXY, NO_PROXY) is used for https, and is asked for
    the address that was looked at. Connections over http go without one.
    """

    def __init__(
        self,
        limits: FetchLimits,
        *,
        private: bool = False,
        allows: Callable[[str], bool] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._private = private
        self._allows = allows
        self._given = context

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return self._given or ssl.create_default_context()

    def fetch(self, location: str) -> bytes:
        """Return the file at a location.

        Raises:
            ImageError: it is not there, not allowed, too long or too slow.
        """
        clock = _Clock(self._limits.seconds)
        url, shown = location, shown_location(location)
        for _ in range(self._limits.redirects + 1):
            if self._allows is not None and not self._allows(url):
                raise _refused(shown, "it leads to a place that is not among those named")
            found = self._asked_until_answered(url, shown, clock)
            if isinstance(found, bytes):
                return found
            if urlsplit(url).scheme.lower() == "https" and not found.lower().startswith("https:"):
                raise _refused(shown, "it redirects from https to another protocol")
            url = found
        raise _refused(shown, f"it redirects more than {self._limits.redirects} times")

    def below(self, location: str) -> Iterator[RemoteFile]:
        """Yield the location: the web has no folders."""
        yield RemoteFile(location)

    def _asked_until_answered(self, url: str, shown: str, clock: _Clock) -> bytes | str:
        """Return the file, or where it is said to be; ask again what may pass."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask(url, shown, clock)
            except _PassingError as error:
                if clock.is_over:
                    raise self._too_slow(shown) from error.__cause__
                wait = _WAIT * 2**attempt
                if attempt + 1 == _ATTEMPTS or clock.remaining <= wait:
                    raise _refused(shown, str(error)) from error.__cause__
                time.sleep(wait)
        raise AssertionError

    def _ask(self, url: str, shown: str, clock: _Clock) -> bytes | str:
        parts = _split(url, shown)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        connection: http.client.HTTPConnection | None = None
        try:
            addresses = self._addresses(host, port, shown)
            connection = self._connection(parts.scheme, host, port, addresses, clock)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", _quoted(path), headers=_headers(parts))
            with connection.getresponse() as response:
                return self._read(response, url, shown, clock)
        except ssl.SSLCertVerificationError as error:
            raise _refused(
                shown, f"its certificate is not trusted ({error.verify_message})"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            if clock.is_over:
                raise self._too_slow(shown) from error
            raise _PassingError(f"no answer came ({_reason(error)})") from error
        finally:
            if connection is not None:
                connection.close()
            clock.unwatch()

    def _too_slow(self, shown: str) -> ImageError:
        return _refused(shown, f"it took longer than {self._limits.seconds:g} s")

    def _addresses(self, host: str, port: int, shown: str) -> list[str]:
        """Return the addresses of a host that may be connected to."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, ValueError) as error:  # a ValueError: no host has such a name
            raise _PassingError("the name of the host is not known (DNS)") from error
        addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
        allowed = [address for address in addresses if self._private or is_public(address)]
        if not allowed:
            raise _refused(
                shown,
                "its host has an address that is private, or of this machine. If it is one of your "
                "own servers, allow that: --allow-private, PhotoFetcher(private=True)",
            )
        return allowed

    def _connection(
        self, scheme: str, host: str, port: int, addresses: list[str], clock: _Clock
    ) -> http.client.HTTPConnection:
        context = self._context if scheme == "https" else None
        proxy = None if context is None else _proxy_for(host, port)
        if proxy is not None:  # http.client of Python 3.11 names no address of IPv6 rightly
            addresses = sorted(addresses, key=lambda address: ":" in address)
        return _Checked(host, port, addresses, clock, context=context, proxy=proxy)

    def _read(
        self, response: http.client.HTTPResponse, url: str, shown: str, clock: _Clock
    ) -> bytes | str:
        status = response.status
        if status in _REDIRECTS and (target := response.headers.get("location")):
            try:
                return urljoin(url, target)
            except ValueError:
                raise _refused(shown, "it redirects to what is not a URL") from None
        if status in _PASSING:
            raise _PassingError(f"the server answered with status {status}")
        if status != 200:
            known = {401: "you may not read it", 403: "you may not read it", 404: "it is not there"}
            raise _refused(shown, f"{known.get(status, 'the server refused')} (status {status})")
        most = self._limits.most_bytes
        if (response.length or 0) > most:
            raise _refused(shown, f"it has {response.length:,} bytes, and {most:,} are allowed")
        data = bytearray()
        while piece := response.read1(_PIECE):
            data += piece
            if len(data) > most:
                raise _refused(shown, f"it has more than the {most:,} bytes that are allowed")
            clock.left()
        clock.left()  # what a socket that was shut down in time gives looks like the end
        if response.length:  # what was announced and did not come
            raise _PassingError("the connection ended before the file did")
        return bytes(data)


class _PassingError(Exception):
    """What may be otherwise in a second."""


class _Checked(http.client.HTTPConnection):
    """A connection to one of the addresses that were looked at, whatever its host's name means now.

    Args:
        context: of TLS; None for http.
        proxy: that is asked for the address; None for none.
    """

    def __init__(
        self,
        host: str,
        port: int,
        addresses: list[str],
        clock: _Clock,
        *,
        context: ssl.SSLContext | None,
        proxy: _Proxy | None,
    ) -> None:
        super().__init__(host, port)
        self._addresses = addresses
        self._clock = clock
        self._tls = context
        self._proxy = proxy

    def connect(self) -> None:
        """Connect to the first address that answers."""
        for number, address in enumerate(self._addresses, 1):
            try:
                plain = self._connected(address)
                break
            except OSError:
                if number == len(self._addresses):
                    raise
        self.sock = plain
        self._clock.watch(plain)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)

    def _connected(self, address: str) -> socket.socket:
        seconds = min(_CONNECT, self._clock.left())
        if self._proxy is None:
            found = socket.create_connection((address, self.port), seconds)
        else:
            way = http.client.HTTPConnection(self._proxy.host, self._proxy.port, timeout=seconds)
            way.set_tunnel(address, self.port, headers=dict(self._proxy.headers))
            way.connect()
            found = way.sock
        found.settimeout(self._clock.left())
        return found


class _Clock:
    """The time that a fetch has; what is still read from its socket when it is over, ends.

    A time limit of a socket is for each read, which a server that sends a byte now and then never
    meets.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._timer: threading.Timer | None = None
        self._watched: socket.socket | None = None

    @property
    def remaining(self) -> float:
        """The seconds that are left; none, or less, when the time is over."""
        return self._deadline - time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.remaining <= 0.0

    def left(self) -> float:
        """Return the seconds that are left; raises TimeoutError if none are."""
        left = self.remaining
        if left <= 0.0:
            raise TimeoutError
        return left

    def watch(self, connected: socket.socket) -> None:
        """End what is done with a socket, under TLS too, when the time is over."""
        self._watched = connected.dup()
        self._timer = threading.Timer(self.left(), self._end)
        self._timer.daemon = True
        self._timer.start()

    def unwatch(self) -> None:
        """Leave the socket alone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None
        if self._watched is not None:
            self._watched.close()
            self._watched = None

    def _end(self) -> None:
        if self._watched is not None:
            with contextlib.suppress(OSError):
                self._watched.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    headers: tuple[tuple[str, str], ...]


def _proxy_for(host: str, port: int) -> _Proxy | None:
    """Return the proxy that the environment names for https."""
    given = getproxies_environment().get("https")
    if not given or proxy_bypass(f"{host}:{port}"):
        return None
    parts = urlsplit(given if "://" in given else f"http://{given}")
    headers: tuple[tuple[str, str], ...] = ()
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        told = base64.b64encode(pair.encode()).decode()
        headers = (("Proxy-Authorization", f"Basic {told}"),)
    return _Proxy(parts.hostname or "", parts.port or 80, headers)


def _split(url: str, shown: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
        _host_header(parts)
    except ValueError:  # a UnicodeError, too
        raise _refused(shown, "it is not a URL") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _refused(shown, "it is not a URL of https or http")
    if parts.username is not None or parts.password is not None:
        raise _refused(shown, "a name or a password in a URL is not sent to anyone")
    return parts


def _headers(parts: SplitResult) -> dict[str, str]:
    return {
        "Host": _host_header(parts),
        "User-Agent": f"smoothapi/{__version__}",
        "Accept": "image/*, */*;q=0.1",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def _host_header(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = bracketed(host) if ":" in host else host.encode("idna").decode()
    return host if parts.port in (None, _PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _quoted(path: str) -> str:
    """Return a path as HTTP has it: what is not ASCII, or would end the line, percent-encoded."""
    return "".join(
        c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "replace"))
        for c in path
    )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _refused(shown: str, why: str) -> ImageError:
    return ImageError(f"Cannot fetch the photo {shown!r}: {why}.")
