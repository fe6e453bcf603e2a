"""One request to a host, without credentials: whether it answers, and by which clock."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import TYPE_CHECKING

from smoothapi._version import __version__

if TYPE_CHECKING:
    from email.message import Message
    from typing import Any

_SECONDS = 10.0


class Unreachable(Exception):  # noqa: N818  it is told as a result
    """The host gave no answer.

    Attributes:
        advice: what to check.
    """

    def __init__(self, said: str, advice: str) -> None:
        super().__init__(said)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Reached:
    """What an answer tells.

    Attributes:
        seconds: from the request to the headers of the answer.
        ahead: by how many seconds this machine's clock is ahead of the host's, None if the host
            does not tell the time.
    """

    seconds: float
    ahead: float | None


def reach(origin: str, *, seconds: float = _SECONDS) -> Reached:
    """Ask a host for the headers of its root, as any browser would; any status is an answer.

    Proxies are those of the environment. No redirect is followed.

    Args:
        origin: scheme, host and port.
        seconds: most time for the whole of it.

    Raises:
        Unreachable: there was no answer in time.
    """
    found: list[Reached | BaseException] = []

    def ask() -> None:
        try:
            found.append(_ask(origin, seconds))
        except BaseException as error:  # noqa: BLE001  told to who waits
            found.append(error)

    # A host that sends a byte now and then would outlast any timeout of a socket.
    thread = threading.Thread(target=ask, name="smoothapi-doctor", daemon=True)
    thread.start()
    thread.join(seconds)
    result = found[0] if found else TimeoutError()
    if isinstance(result, Reached):
        return result
    if isinstance(result, (OSError, HTTPException, ValueError)):
        raise _explained(result) from None
    raise result


def _ask(origin: str, seconds: float) -> Reached:
    request = urllib.request.Request(  # noqa: S310  http and https alone, as adapters take no other
        f"{origin}/", method="HEAD", headers={"User-Agent": f"smoothapi/{__version__}"}
    )
    began = time.monotonic()
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:  # of another status than 2xx
        with error:
            headers = error.headers
    return Reached(time.monotonic() - began, _ahead(headers))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _ahead(headers: Message) -> float | None:
    try:
        return time.time() - parsedate_to_datetime(headers["Date"]).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _explained(error: Exception) -> Unreachable:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return Unreachable("its name is not known (DNS)", "Check the region or the endpoint.")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Unreachable(
            "its TLS certificate is not accepted",
            "If a proxy of your company opens TLS, set SSL_CERT_FILE, REQUESTS_CA_BUNDLE and "
            "AWS_CA_BUNDLE to its certificate.",
        )
    if isinstance(reason, ssl.SSLError):
        return Unreachable("the TLS handshake failed", "Check that the port speaks TLS.")
    if isinstance(reason, ConnectionRefusedError):
        return Unreachable("the connection was refused", "Check host and port, and that it runs.")
    if isinstance(reason, TimeoutError):
        return Unreachable("no answer came in time", "Check the network, and HTTPS_PROXY.")
    # Whatever else: its class, since its text may hold the login of a proxy.
    return Unreachable(
        f"the connection broke ({type(reason).__name__})", "Check the network, and HTTPS_PROXY."
    )
