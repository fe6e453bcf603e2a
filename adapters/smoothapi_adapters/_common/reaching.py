"""What never left this machine: it costs nothing, and most of the time a setting is wrong."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any

from smoothapi.errors import FatalError, ProviderError, TransientError
from smoothapi.provider.chain import chain
from smoothapi.text import printable

# Words of gRPC for a call that got no connection; it has no class or code for them.
_GRPC = re.compile(
    r"failed to connect to all addresses|errors? resolving|DNS resolution failed|"
    r"name resolution|connections to all backends failing",
    re.IGNORECASE,
)
_OF_AIOHTTP = ("ClientConnectorError", "ClientHttpProxyError", "ConnectionTimeoutError")
_LONGEST = 200


def unsent(mapped: ProviderError, error: BaseException, who: str) -> ProviderError:
    """Return what `mapped` says, or that the service was not reached if no connection was made.

    Args:
        mapped: what an adapter makes of `error`.
        error: of requests, urllib3, aiohttp, botocore, azure-core or gRPC.
        who: the service in words.
    """
    # Not those of an earlier attempt, in whose handling this one was made.
    links = chain(error, short_of=(ProviderError,))
    connection = next((found for link in links if (found := _connecting(link))), None)
    if connection is not None:
        place, why = _place(connection), _why(links)
    elif type(error).__module__.startswith("google.api_core") and _GRPC.search(str(error)):
        place, why = "", printable(" ".join(str(error).split()))[:_LONGEST]
    else:
        return mapped
    if isinstance(mapped, FatalError) and not _broken_handshake(links):
        mapped.sent = False
        return mapped
    return TransientError(f"{who} could not be reached{place}: {why}.", sent=False)


def _broken_handshake(links: list[BaseException]) -> bool:
    """Whether TLS failed in another way than by a certificate: a busy server may do that, too."""
    return any(isinstance(link, ssl.SSLError) for link in links) and not any(
        isinstance(link, ssl.SSLCertVerificationError) for link in links
    )


def _connecting(error: BaseException) -> Any:
    """Return the connection of urllib3 in whose `connect` an error came up, None if in no such.

    The classes do not tell: a reset, or an SSLError, can meet a request that is half sent. Those of
    aiohttp do; there the error itself stands for the connection.
    """
    if any(
        kind.__name__ in _OF_AIOHTTP and kind.__module__.startswith("aiohttp.")
        for kind in type(error).__mro__
    ):
        return error
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        if (
            frame.f_code.co_name == "connect"
            and frame.f_globals.get("__name__") == "urllib3.connection"
        ):
            return frame.f_locals.get("self")
    return None


def _place(connection: Any) -> str:
    """Say where a connection was to lead, without what a URL may hold besides."""
    host, port = (getattr(connection, name, "") for name in ("host", "port"))
    if not host:
        return ""
    behind = getattr(connection, "_tunnel_host", None)
    if getattr(connection, "proxy", None) is None:
        return printable(f" at {host}:{port}")
    return printable(f"{f' at {behind}' if behind else ''} through the proxy {host}:{port}")


def _why(links: list[BaseException]) -> str:
    for link in links:
        if isinstance(link, socket.gaierror):
            return "the name of the host is not known (DNS)"
        if isinstance(link, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(link, ssl.SSLError) and getattr(link, "reason", None):  # aiohttp's has none
            return f"the TLS handshake failed ({link.reason})"
        if isinstance(link, TimeoutError):
            return "no connection came about in time"
        if isinstance(link, OSError) and str(link).startswith("Tunnel connection failed"):
            return f"the proxy refused ({printable(str(link).partition(': ')[2])[:_LONGEST]})"
    last = next((link for link in links if isinstance(link, OSError) and link.errno), links[-1])
    said = getattr(last, "strerror", None) or type(last).__name__
    return f"no connection came about ({said})"
