"""A photo that is somewhere else: one protocol, and which fetcher is for which kind of location."""

from __future__ import annotations

import io
import re
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from smoothapi.errors import ImageError
from smoothapi.photos.naming import shown_location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from smoothapi.image import PhotoSource
    from smoothapi.photos.limits import FetchLimits
    from smoothapi.photos.naming import RemoteFile

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


class Fetcher(Protocol):
    """Fetches photos from one kind of place. Threads share it."""

    def fetch(self, location: str) -> bytes:
        """Return the file at a location, such as "s3://bucket/photo.jpg".

        Raises:
            ImageError: it is not there, not allowed, too long or too slow. The message shows no
                part of a location that may be secret.
        """
        ...

    def below(self, location: str) -> Iterator[RemoteFile]:
        """Yield the files that a location stands for, in order of name: itself, or all below it.

        Raises:
            ImageError: as for `fetch`.
        """
        ...


class PhotoFetcher:
    """Fetches photos from the web and from buckets, by the scheme of their locations.

    Args:
        limits: of each photo.
        private: whether the web's addresses may be private, of this machine or of its own link.
        more: fetchers of other schemes, or in place of these: {"sftp": fetcher}.

    A location that nothing here is for is refused: a caller's text never reaches another protocol.
    """

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        private: bool = False,
        more: Mapping[str, Fetcher] | None = None,
    ) -> None:
        self._given = limits, private, more

    @cached_property
    def _fetchers(self) -> dict[str, Fetcher]:
        """By scheme; what speaks to them is loaded when a photo is elsewhere."""
        from smoothapi.photos.buckets import BUCKETS, BucketFetcher  # noqa: PLC0415
        from smoothapi.photos.limits import FetchLimits  # noqa: PLC0415
        from smoothapi.photos.web import WebFetcher  # noqa: PLC0415

        limits, private, more = self._given
        limits = limits or FetchLimits()
        web, buckets = WebFetcher(limits, private=private), BucketFetcher(limits)
        return {
            "https": web,
            "http": web,
            **dict.fromkeys(BUCKETS, buckets),
            **(more or {}),
        }

    def __reduce__(self) -> tuple[Callable[..., PhotoFetcher], tuple[Any, ...]]:
        """Have another process make one of the same arguments, without connections."""
        limits, private, more = self._given
        return partial(PhotoFetcher, private=private, more=more), (limits,)

    def fetch(self, location: str) -> bytes:
        """Return the file at a location; see `Fetcher`."""
        return self._for(location).fetch(location)

    def below(self, location: str) -> Iterator[RemoteFile]:
        """Yield the files that a location stands for; see `Fetcher`."""
        return self._for(location).below(location)

    def _for(self, location: str) -> Fetcher:
        found = _SCHEME.match(location)
        fetcher = self._fetchers.get(found[1].lower()) if found else None
        if fetcher is None:
            raise ImageError(
                f"{shown_location(location)!r} cannot be fetched: photos come from files, and from "
                f"{', '.join(f'{scheme}://' for scheme in self._fetchers)}."
            )
        return fetcher


def is_remote(source: object) -> bool:
    """Whether a photo is named by a location such as "https://host/photo.jpg"."""
    return isinstance(source, str) and _SCHEME.match(source) is not None


def opened(source: PhotoSource, fetcher: Fetcher) -> PhotoSource:
    """Return a photo that `load_image` takes: what is elsewhere is fetched, all else as it is.

    Raises:
        ImageError: it cannot be fetched.
    """
    if not (isinstance(source, str) and is_remote(source)):
        return source
    return _Fetched(fetcher.fetch(source), source)


def file_name(location: str) -> str:
    """Return what the file at a location is called."""
    if location.partition("://")[0].lower() in {"http", "https"}:
        parts = urlsplit(location)
        return PurePosixPath(unquote(parts.path)).name or parts.hostname or "photo"
    return PurePosixPath(shown_location(location)).name or "photo"


class _Fetched(io.BytesIO):
    """A file that was fetched, and what it is called."""

    def __init__(self, data: bytes, location: str) -> None:
        super().__init__(data)
        self.name = file_name(location)
