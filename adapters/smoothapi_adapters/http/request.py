"""What an HttpAdapter sends: tables of options, the secrets they refer to, and the template."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from smoothapi.errors import UsageError
from smoothapi.provider.secrets import is_secret_name
from smoothapi.text import printable
from smoothapi_adapters._common.client import check_header

if TYPE_CHECKING:
    from collections.abc import Sequence

NamedValues: TypeAlias = "Mapping[str, str] | str"
"""Names and values; or the same as JSON text, since a variable of the environment is text."""

PLACE = "{picture}"
TYPE = "{type}"

_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_OURS = frozenset({"content-length", "transfer-encoding", "host", "connection", "expect"})


def read_table(option: str, value: NamedValues | None) -> dict[str, str]:
    """Return names and values as texts."""
    table = read_json(option, value) if isinstance(value, str) else value or {}
    if not isinstance(table, Mapping) or not all(
        isinstance(k, str) and isinstance(v, (str, int, float)) for k, v in table.items()
    ):
        raise UsageError(f"{option}: give a table of names and texts.")
    return {name: str(text) for name, text in table.items()}


def read_headers(value: NamedValues | None) -> dict[str, str]:
    """Return headers, none of which can end its line and start another."""
    table = read_table("headers", value)
    for name, text in table.items():
        if not _TOKEN.fullmatch(name):
            raise UsageError(f"headers: {printable(name)!r} cannot be the name of a header.")
        if name.lower() in _OURS:
            raise UsageError(f"headers: {name} is set by the adapter itself. Leave it out.")
        check_header(name, text, UsageError)
    if len({name.lower() for name in table}) < len(table):
        raise UsageError("headers: a name is given twice.")
    return table


def read_json(option: str, value: Any) -> Any:
    """Return what JSON text says; anything else is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise UsageError(f"{option}: give a table; as text it must be JSON.") from None


def is_secret(name: str, value: str) -> bool:
    """Whether a value must not be shown: by its name, or as it comes from the environment."""
    return bool(_REFERENCE.search(value)) or is_secret_name(name)


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
        UsageError: the place is missing, or there are several.
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
