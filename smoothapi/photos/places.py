"""Photos from places that were named beforehand, and from nowhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from smoothapi.errors import ImageError, UsageError
from smoothapi.hosts import bracketed
from smoothapi.photos.buckets import BUCKETS, BucketFetcher, require_obstore
from smoothapi.photos.naming import shown_location
from smoothapi.photos.web import WebFetcher, is_public
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.photos.limits import FetchLimits

_PORTS = {"https": 443, "http": 80}
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")


class NamedPlaces:
    """Fetches photos from buckets and hosts that were named, for others who name the photos.

    A location that a stranger sends could lead anywhere. What is fetched is at a place that was
    named, and so is each location that it redirects to; a host's addresses are public besides, and
    the one that was looked at is connected to. Threads share it.

    Args:
        places: "s3://bucket", "gs://bucket", "az://container", "https://host", with a port
            where it is another one than usual; all that is there may be fetched.
        limits: of each photo.

    Raises:
        UsageError: what is named is not a place.
        MissingExtraError: a bucket is named, and the extra `remote` is not installed.
    """

    def __init__(self, places: Sequence[str], limits: FetchLimits) -> None:
        self._places = frozenset(map(_named, places))
        if any(place.partition(":")[0] in BUCKETS for place in self._places):
            require_obstore()
        self._buckets = BucketFetcher(limits)
        self._web = WebFetcher(limits, allows=self.allows)

    def allows(self, location: str) -> bool:
        """Whether a location is at one of the places."""
        return place_of(location) in self._places

    def fetch(self, location: str) -> bytes:
        """Return the file at a location.

        Raises:
            ImageError: it is not there, not allowed, too long or too slow.
        """
        if not self.allows(location):
            raise ImageError(
                f"Cannot fetch the photo {shown_location(location)!r}: its place is not among "
                "those named."
            )
        in_bucket = urlsplit(location).scheme in BUCKETS
        return (self._buckets if in_bucket else self._web).fetch(location)


def place_of(location: str) -> str:
    """Return the bucket or host that a location leads to, "" if it is not one of either."""
    try:
        parts = urlsplit(location)
        if parts.scheme in BUCKETS:
            return f"{parts.scheme}://{parts.netloc}"
        if parts.scheme not in _PORTS or not parts.hostname:
            return ""
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        return ""
    usual = "" if port == _PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{bracketed(parts.hostname)}{usual}"


def _named(place: str) -> str:
    """Return a place as `place_of` words it."""
    found = place_of(place)
    rest = place.partition("://")[2]
    if not found or found.endswith("://") or any(mark in rest.rstrip("/") for mark in "/?#@*"):
        raise UsageError(
            f"{printable(place[:200])!r} is not a place that photos are fetched from: name a "
            'bucket ("s3://bucket", "gs://bucket") or a host ("https://images.example.com"), and '
            "nothing below it."
        )
    host = urlsplit(place).hostname or ""
    if urlsplit(place).scheme in _PORTS and _is_private(host):
        raise UsageError(
            f"{printable(place[:200])!r}: photos that callers name are never fetched from an "
            "address that is private, or of this machine. Have callers send their bytes."
        )
    return found


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return bool(_ADDRESS.fullmatch(host)) and not is_public(host)
    except ValueError:  # not an address after all
        return False
