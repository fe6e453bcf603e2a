"""Pictures that a call names instead of holding them: fetched from places that were allowed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smoothapi.errors import ImageError, UsageError
from smoothapi.photos.limits import FetchLimits
from smoothapi.photos.naming import shown_location
from smoothapi.photos.places import NamedPlaces, place_of
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.wrapping import Remote
    from smoothapi.wrapping.policy import RemotePictures

WITHIN = 20.0
"""Seconds for one picture, redirects included; and after which no other one is begun."""

MOST = 16
"""Pictures that are fetched for one call: as many as Google takes."""


class Elsewhere:
    """The pictures that calls to one provider may name. Threads share it.

    Args:
        provider: its name.
        places: that the operator named, as for `NamedPlaces`.
        otherwise: what becomes of calls about pictures that are at another place.
        most_bytes: that the pictures of one call have together: as many as it could have held.
        within: seconds that a call has in all; None for no limit.

    Raises:
        UsageError: what is named is not a place.
        MissingExtraError: a bucket is named, and the extra `remote` is not installed.
    """

    def __init__(
        self,
        provider: str,
        places: Sequence[str],
        otherwise: RemotePictures,
        *,
        most_bytes: int,
        within: float | None,
    ) -> None:
        self._provider, self._otherwise, self.most_bytes = provider, otherwise, most_bytes
        self.within = WITHIN if within is None else min(WITHIN, within)
        self._places = NamedPlaces(places, FetchLimits(most_bytes, self.within))

    def of_one_call(self) -> PicturesOfCall:
        """Return what fetches the pictures of one call."""
        return PicturesOfCall(self)

    def fetch(self, remote: Remote) -> bytes | None:
        """Return a picture; None if the call is to be made as it is.

        Raises:
            UsageError: its place is not among those named, and calls about others are refused.
            ImageError: it cannot be fetched.
        """
        if self._places.allows(remote.location):
            return self._places.fetch(remote.location)
        if self._otherwise == "pass":
            return None
        raise UsageError(self.why_not(remote))

    def why_not(self, remote: Remote) -> str:
        """Say why a picture is not certified, and what can be done."""
        place = place_of(remote.location)
        named = f'name "{printable(place[:200])}" in fetch' if place else "name its place in fetch"
        return (
            f"This gateway certifies labels, and cannot add noise to {remote.what}. "
            f"{remote.instead}, or have the gateway's operator {named}, in the table "
            f"[providers.{self._provider}] of its configuration."
        )


class PicturesOfCall:
    """Fetches the pictures of one call, which are bounded together: in number, bytes and time."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere
        self._count = 0
        self._bytes = 0
        self._ends = time.monotonic() + elsewhere.within

    def __call__(self, remote: Remote) -> bytes | None:
        """Return a picture, as `Elsewhere.fetch` does; an ImageError once they are too many."""
        self._count += 1
        if self._count > MOST:
            raise self._refused(remote, f"of the pictures that a call names {MOST} are fetched")
        if time.monotonic() > self._ends:
            raise self._refused(
                remote, f"the pictures of a call have {self._elsewhere.within:g} s together"
            )
        photo = self._elsewhere.fetch(remote)
        self._bytes += len(photo or b"")
        if self._bytes > (most := self._elsewhere.most_bytes):
            raise self._refused(remote, f"the pictures of a call have {most:,} bytes together")
        return photo

    def _refused(self, remote: Remote, why: str) -> ImageError:
        return ImageError(f"Cannot fetch the photo {shown_location(remote.location)!r}: {why}.")
