"""What is said of a location: never the parts of it that open a door."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from smoothapi.text import printable

LONGEST = 500
"""Characters of a location that are shown; what is hidden is not counted."""

_DIGITS = 8  # of the digest: enough to tell names apart, and too few to tell what is hidden
_QUERY = re.compile(r"[?#]")
_SIGNED = re.compile(r"\?(?=[^?]*=)")  # copied along; else a bucket's keys may have ? and #


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is elsewhere.

    Attributes:
        location: what it is fetched by.
        stamp: what changes with its content, "" if nothing is known that does.
    """

    location: str
    stamp: str = ""


def shown_location(location: str) -> str:
    """Return a location without its query, its fragment and a user's name and password.

    The query of a signed URL is a key to the file. In its place stands a digest of what is left
    out, as is done with what is too long: two locations have two names.
    """
    scheme, found, rest = location.partition("://")
    if not found:
        return _short(location)
    query = (_QUERY if scheme.lower() in {"http", "https"} else _SIGNED).search(rest)
    end = len(rest) if query is None else query.start()
    host, slash, path = rest[:end].partition("/")
    return _short(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}", rest[end:])


def _short(shown: str, hidden: str = "") -> str:
    mark, hidden = hidden[:1], shown[LONGEST:] + hidden
    if not hidden:
        return printable(shown)
    digest = hashlib.sha256(hidden.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{printable(shown[:LONGEST])}{mark}...{digest}"
