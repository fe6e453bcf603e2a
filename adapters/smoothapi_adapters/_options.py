"""Options of the adapters without an SDK: read, checked, and told apart into secret and not."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from smoothapi.answer import printable
from smoothapi.encode import CODECS
from smoothapi.errors import FatalError, UsageError
from smoothapi.provider import Price

if TYPE_CHECKING:
    from collections.abc import Sequence

Table: TypeAlias = "Mapping[str, str] | str"
"""Names and values; or the same as JSON text, since a variable of the environment is text."""

PLACE = "{picture}"
TYPE = "{type}"

_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORDS = frozenset(
    {"auth", "authentication", "authorization", "bearer", "cookie", "credential", "credentials"}
    | {"jwt", "pass", "passphrase", "passwd", "password", "pat", "pwd"}
    | {"session", "sid", "sig", "sign", "signature"}
)
_SECRET_ENDS = ("key", "token", "secret", "password")
_OURS = frozenset({"content-length", "transfer-encoding", "host", "connection", "expect"})


def split_url(url: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a URL without its query, and the query's names and values.

    Raises:
        UsageError: it is none of HTTP, or holds what would be shown with it.
    """
    try:
        parts = urlsplit(text("url", url))
        _ = parts.port
    except ValueError as error:
        raise UsageError("The url cannot be read: it has a malformed host or port.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("The url must start with https:// (or http://) and name a host.")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "The url holds a name or a password, which would be shown with it. Give them as "
            'headers = { Authorization = "env:..." }.'
        )
    if any(c.isspace() or not c.isprintable() for c in url):
        raise UsageError("The url holds spaces or control characters.")
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    return f"{origin(url)}{parts.path or '/'}", query


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def read_table(option: str, value: Table | None) -> dict[str, str]:
    """Return names and values as texts."""
    table = read_json(option, value) if isinstance(value, str) else value or {}
    if not isinstance(table, Mapping) or not all(
        isinstance(k, str) and isinstance(v, (str, int, float)) for k, v in table.items()
    ):
        raise UsageError(f"{option} is a table of names and texts.")
    return {name: str(text) for name, text in table.items()}


def read_headers(value: Table | None) -> dict[str, str]:
    """Return headers, none of which can end its line and start another."""
    table = read_table("headers", value)
    for name, text in table.items():
        if not _TOKEN.fullmatch(name):
            raise UsageError(f"{printable(name)!r} is no name of a header.")
        if name.lower() in _OURS:
            raise UsageError(f"The header {name} is set by the adapter itself.")
        check_header(name, text, UsageError)
    if len({name.lower() for name in table}) < len(table):
        raise UsageError("A header is given twice.")
    return table


def check_header(name: str, value: str, kind: type[UsageError | FatalError]) -> None:
    """Refuse a value that no header can hold; it is not shown."""
    if not all(c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff" for c in value):
        raise kind(
            f"The value of the header {name} holds a line break or another character that headers "
            "cannot hold."
        )


def read_json(option: str, value: Any) -> Any:
    """Return what JSON text says; anything else is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise UsageError(f"{option} is a table; given as text it must be JSON.") from None


def text(option: str, value: str) -> str:
    """Return a text that is not empty; settings may hold anything."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{option}={value!r}: give a text.")
    return value


def short_name(value: str) -> str:
    """Return a provider's name, as it is typed on a command line."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text("name", value)):
        raise UsageError(f"name={value!r}: use small letters, digits, - and _.")
    return value


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """Return a value that is among the known ones."""
    if text(option, value) not in known:
        raise UsageError(f"{option}={value!r}: choose from {', '.join(known)}.")
    return value


def above_zero(option: str, value: float | str) -> float:
    """Return a finite number above 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise UsageError(f"{option}={value!r}: give a number above 0.")
    return number


def count(option: str, value: float | str) -> int:
    """Return a whole number from 1."""
    number = above_zero(option, value)
    if number != int(number):
        raise UsageError(f"{option}={value!r}: give a whole number from 1.")
    return int(number)


def share(option: str, value: float | str) -> float:
    """Return a number in [0, 1]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise UsageError(f"{option}={value!r}: give a number from 0 to 1.")
    return number


def read_price(value: float | str | Decimal, as_of: str) -> Price:
    """Return the price of 1,000 pictures in dollars, with the day it was looked up."""
    try:
        return Price(Decimal(str(value)), as_of=as_of)
    except ArithmeticError:
        raise UsageError(f"price={value!r}: give dollars for 1,000 pictures.") from None


def read_formats(value: Sequence[str] | str) -> tuple[str, ...]:
    """Return codecs, preferred first, from a list or from text such as "png, jpeg"."""
    texts = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    if not texts:
        raise UsageError(f"formats names none; choose from {', '.join(CODECS)}.")
    return tuple(one_of("formats", text, CODECS) for text in texts)


def switch(option: str, value: bool | str) -> bool:  # noqa: FBT001  an option's value
    """Return what an option says that is on or off."""
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "false": False,
        "0": False,
        "no": False,
        "": False,
    }
    if str(value).lower() not in words:
        raise UsageError(f"{option}={value!r}: write true or false.")
    return words[str(value).lower()]


def is_secret(name: str, value: str) -> bool:
    """Whether a value must not be shown: by its name, or as it comes from the environment."""
    words = [word.lower() for word in _WORD.findall(name)]
    return bool(_REFERENCE.search(value)) or any(
        word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words
    )


def without_secrets(part: Any, name: str = "") -> Any:
    """Return a structure of options without its secrets, to be hashed."""
    if isinstance(part, Mapping):
        return {key: without_secrets(value, str(key)) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [without_secrets(item, name) for item in part]
    return None if isinstance(part, str) and is_secret(name, part) else part


def references(*parts: Any) -> list[str]:
    """Return the names of the environment's variables that options refer to."""
    return sorted(set(_REFERENCE.findall(json.dumps(parts))))


def filled(text: str) -> str:
    """Return a text with the environment's variables in it."""
    return _REFERENCE.sub(lambda match: os.environ[match[1]].strip(), text)


class Template:
    """A JSON body with a place for each picture.

    Args:
        value: JSON, or its text, in which "{picture}" stands once: for a picture's base64. Where
            several go into a request, the outermost list of one element around it is repeated.

    Raises:
        UsageError: there is no place, or more than one.
    """

    def __init__(self, value: Any) -> None:
        self.value = read_json("template", value)
        places = json.dumps(self.value).count(PLACE)
        if places != 1:
            raise UsageError(
                f"The template has {places} places for the picture; write {PLACE!r} once, in a "
                'text: template = { image = "{picture}" }.'
            )

    @property
    def repeats(self) -> bool:
        """Whether several pictures fit in."""
        return _repeats(self.value)

    def filled(self, pictures: Sequence[tuple[str, str]]) -> Any:
        """Return the body for pictures as (base64, media type)."""
        return _packed(self.value, pictures)


def _repeats(part: Any) -> bool:
    if _is_place_list(part):
        return True
    inner = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
    return any(_repeats(item) for item in inner)


def _is_place_list(part: Any) -> bool:
    return isinstance(part, list) and len(part) == 1 and PLACE in json.dumps(part)


def _packed(part: Any, pictures: Sequence[tuple[str, str]]) -> Any:
    if isinstance(part, str):
        coded, kind = pictures[0]
        return filled(part).replace(TYPE, kind).replace(PLACE, coded)
    if isinstance(part, Mapping):
        return {name: _packed(item, pictures) for name, item in part.items()}
    if isinstance(part, list):
        if _is_place_list(part):
            return [_packed(part[0], [picture]) for picture in pictures]
        return [_packed(item, pictures) for item in part]
    return part
