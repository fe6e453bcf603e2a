"""What is said of a location: never the parts of it that open a door."""

from __future__ import annotations

from dataclasses import dataclass

from smoothapi.text import printable

_LONGEST = 500


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

    The query of a signed URL is a key to the file.
    """
    scheme, found, rest = location.partition("://")
    if not found:
        return printable(location[:_LONGEST])
    path, asked = rest, ""
    for mark in "?#":
        path, cut, _ = path.partition(mark)
        asked = asked or (f"{mark}..." if cut else "")
    host, slash, path = path.partition("/")
    return printable(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"[:_LONGEST]) + asked
