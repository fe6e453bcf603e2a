"""Secrets in text: which names they have, how they may look, and where a text tells one."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import string
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORTEST = 4  # characters of a secret; in fewer there is nothing to keep
_TOLD = 8  # so many in a row tell it; services do show a key's last four

LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SCHEMES = frozenset({"basic", "bearer", "key", "token", "apikey", "digest", "negotiate"})
_SIGNED = re.compile(r"(?:Credential|Signature)=([^/,\s]+)")  # AWS Signature Version 4
_CODED = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([0-7]{3}))")

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORDS = frozenset(
    {"auth", "authentication", "authorization", "bearer", "cookie", "credential", "credentials"}
    | {"jwt", "pass", "passphrase", "passwd", "password", "pat", "pwd"}
    | {"session", "sid", "sig", "sign", "signature"}
)
_SECRET_ENDS = ("key", "token", "secret", "password")


def is_secret_name(name: str) -> bool:
    """Whether a header, a parameter or an option of that name holds what must not be shown."""
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words)


def parts_of(value: str) -> Iterator[str]:
    """Yield what of a value is secret: not the scheme before it."""
    if value.startswith("AWS4-"):
        parts = _SIGNED.findall(value)
    else:
        parts = value.split()
        if len(parts) == 2 and parts[0].lower() == "basic":
            with suppress(ValueError, binascii.Error):
                login = base64.b64decode(parts[1] + "==").decode("utf-8", "replace")
                parts += [login, login.partition(":")[2]]
    for part in parts:
        if len(part) >= _SHORTEST and part.lower() not in _SCHEMES:
            yield part


def forms_of(secret: str, least: int = _TOLD) -> Iterator[tuple[str, int]]:
    """Yield how a secret may look in a text, and how much of that in a row tells it.

    Args:
        secret: the secret.
        least: how many of its own characters tell it; of a long one an eighth.
    """
    from html import escape  # noqa: PLC0415  it brings the names of all characters

    raw = secret.encode("utf-8", "surrogatepass")
    plain = {secret, quote(raw, safe=""), escape(secret), repr(secret)[1:-1]}
    plain |= {json.dumps(secret)[1:-1], repr(raw)[2:-1], secret[::-1]}
    told = max(min(least, len(secret)), len(secret) // 8)
    for form in plain:
        yield form, told
    spelt = {raw.hex(), "".join(f"%{byte:02x}" for byte in raw)}
    spelt |= {"".join(f"\\x{byte:02x}" for byte in raw)}
    spelt |= {"".join(f"{mark}{ord(c):04x}" for c in secret) for mark in ("\\u", "\\\\u")}
    spelt |= {"".join(f"&#{ord(c)};" for c in secret), "".join(f"&#x{ord(c):x};" for c in secret)}
    for form in spelt:
        yield form, math.ceil(len(form) * told / len(secret))
    for before in range(3):  # base64 of a longer text that holds it, wherever it begins
        coded = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        inner = coded[-(-before * 8 // 6) : -1 if (before + len(raw)) % 3 else None]
        for form in (inner, inner.translate(str.maketrans("+/", "-_"))):
            if len(form) >= _SHORTEST:
                yield form, min(math.ceil(told * 4 / 3) + 1, len(form))


def runs_of(text: str, form: str, least: int) -> Iterator[tuple[int, int]]:
    """Yield where `least` characters or more of a form stand in a row.

    Any such row holds a whole one of the form's pieces of half that length, cut from its start on.
    """
    piece = max(1, least // 2)
    for begin in range(0, len(form) - piece + 1, piece):
        at = text.find(form[begin : begin + piece])
        while at >= 0:
            left = right = 0
            while left < min(begin, at) and form[begin - left - 1] == text[at - left - 1]:
                left += 1
            rest = min(len(form) - begin, len(text) - at)
            while piece + right < rest and form[begin + piece + right] == text[at + piece + right]:
                right += 1
            if left + piece + right >= least:
                yield at - left, at + piece + right
            at = text.find(form[begin : begin + piece], at + 1)


def views_of(text: str) -> Iterator[str]:
    """Yield a text as others may read it."""
    yield "".join(text.split())
    if "%" in text:
        yield unquote(unquote(text))
    if "&" in text:
        from html import unescape  # noqa: PLC0415

        yield unescape(text)
    if "\\" in text:
        yield _ESCAPE.sub(lambda m: chr(int(m[1] or m[2] or m[3], 8 if m[3] else 16)), text)
    for run in _CODED.findall(text):
        with suppress(ValueError, binascii.Error):
            plain = run.translate(str.maketrans("-_", "+/"))
            yield base64.b64decode(plain + "=" * (-len(plain) % 4)).decode("latin-1")
        with suppress(ValueError):
            yield bytes.fromhex(run).decode("latin-1")


def secrets_in_url(url: str) -> Iterator[str]:
    """Yield the password in a URL, and the values of parameters whose names are secret."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.password:
            yield unquote(parts.password)
        yield from (value for name, value in parse_qsl(parts.query) if is_secret_name(name))
