"""URLs that requests are sent to: read, checked, and told apart into what may be shown and not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from smoothapi.errors import UsageError
from smoothapi.hosts import bracketed
from smoothapi_adapters._common.options import text

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_QUOTES = frozenset("'\"`<>{}\\\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_exposed(url: str) -> bool:
    """Whether what is sent there can be read on the way: no TLS, to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    host = bracketed(parts.hostname or "")
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def read_endpoint(
    url: str | None,
    example: str,
    *,
    option: str = "endpoint",
    signed: bool = False,
    bare: bool = False,
) -> str:
    """Return where a provider is, without a slash at its end; "" if it is not given.

    Args:
        url: what was given.
        example: of what to give, for errors.
        option: where it was given, for errors.
        signed: whether requests are signed, and carry no key that could be read on the way.
        bare: whether it is a host alone, to which the SDK adds the path.

    Raises:
        UsageError: it cannot be called, holds what would be shown with it, or would send a key to
            another machine without TLS; says the right form.
    """
    if not url:
        return ""
    advice = f"Give {_right_form(url) or f'the URL of the service, such as {example}'}."
    if set(text(option, url)) & _QUOTES:
        raise UsageError(f"{option}: it holds quotes or brackets. {advice}")
    parts = _parts(option, url, advice)
    if not signed:
        _refuse_login(option, parts, advice)
        if is_exposed(url):
            raise UsageError(
                f"{option}: http://{parts.hostname} is not encrypted, and requests carry the "
                f"credentials. Use https:// for all but this machine. {advice}"
            )
    if bare and (parts.path.strip("/") or parts.query or parts.fragment or "?" in url):
        raise UsageError(
            f"{option}: it goes on after the host, where the SDK itself adds the path. {advice}"
        )
    return url.rstrip("/#")


def _right_form(given: object) -> str:
    """Return what was probably meant; "" where that cannot be told, or must not be shown."""
    cleaned = str(given).strip(" \t\r\n'\"`<>")
    try:
        parts = urlsplit(cleaned if "://" in cleaned else f"https://{cleaned}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    known = host in _LOOPBACK or (_HOST.fullmatch(host) and "." in host)
    if not known or "@" in cleaned or parts.scheme not in ("http", "https"):
        return ""
    scheme = "http" if host in _LOOPBACK and parts.scheme == "http" else "https"
    host = bracketed(host)
    return f"{scheme}://{host}" + (f":{port}" if port else "")


def split_url(option: str, url: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a URL without its query, and the query's names and values.

    Raises:
        UsageError: it cannot be called, or holds what would be shown with it.
    """
    parts = _parts(option, text(option, url), "Give the URL that requests are sent to.")
    _refuse_login(option, parts, 'Give them as headers = { Authorization = "env:..." }.')
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    return f"{origin(url)}{parts.path or '/'}", query


def _parts(option: str, url: str, advice: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{option}: the host or the port in it is malformed. {advice}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{option}: it must start with https:// (or http://) and name a host. {advice}"
        )
    if any(c.isspace() or not c.isprintable() for c in url):
        raise UsageError(f"{option}: it holds spaces or control characters. {advice}")
    return parts


def _refuse_login(option: str, parts: SplitResult, advice: str) -> None:
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{option}: it holds a name or a password, which would be shown with it. {advice}"
        )
