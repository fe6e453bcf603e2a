"""Which photos are meant: files, folders with all below them, patterns, buckets, addresses.

They are found one by one as they are asked for, so that ten million take no more memory than ten.
"""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.errors import ImageError
from smoothapi.files import shown_name
from smoothapi.photos.fetching import is_remote
from smoothapi.photos.naming import shown_location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.image import PhotoSource
    from smoothapi.photos.fetching import Fetcher

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif"}
    | {".tiff", ".ppm", ".pgm", ".jp2", ".j2k"}
)
"""Of a folder's or a bucket's files those with other suffixes are not taken for photos."""


@dataclass(frozen=True, slots=True)
class FoundPhoto:
    """A photo that was found.

    Attributes:
        name: what it is called in results: its path or location, without what is secret in it.
        source: the photo, or where it is.
        stamp: what changes with its content, "" where nothing is known that does.
    """

    name: str
    source: PhotoSource
    stamp: str = ""


def find(
    given: Iterable[PhotoSource | FoundPhoto] | Mapping[str, PhotoSource] | PhotoSource,
    fetcher: Fetcher,
) -> Iterator[FoundPhoto]:
    """Yield the photos that are meant, each thing given in its turn.

    A folder stands for all photos below it, and so does a bucket's prefix; hidden files and folders
    are left out, links to folders not followed. A pattern (photos/*.jpg, **) stands for the files
    that match, unless a file has just that name. All else is a photo itself, of any suffix.

    Args:
        given: one of these, or several; other photos (bytes, arrays, images) are taken as they are,
            and so are those that were found before, and {name: photo}.
        fetcher: for what is elsewhere.

    A folder below that cannot be read stands in the place of its photos, as one that fails.

    Raises:
        ImageError: a folder, a pattern or a prefix has no photo, or the folder cannot be read.
    """
    several: Iterable[Any]
    if isinstance(given, Mapping):
        several = (FoundPhoto(shown_name(str(name)), photo) for name, photo in given.items())
    elif isinstance(given, Iterable) and not _is_one(given):
        several = given
    else:
        several = [given]
    for number, item in enumerate(several, 1):
        if isinstance(item, FoundPhoto):
            yield item
        elif not isinstance(item, (str, Path)):
            name = getattr(item, "name", None)
            yield FoundPhoto(shown_name(str(name or f"photo {number}")), item)
        elif is_remote(item):
            yield from _elsewhere(str(item), fetcher)
        else:
            yield from _here(str(item))


def below(folder: Path) -> Iterator[Path]:
    """Yield the visible files below a folder, each folder's in order of name.

    Raises:
        OSError: the folder, or one below it, cannot be read.
    """
    for path, error in _walked(folder):
        if error is not None:
            raise error
        yield path


def _walked(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """Yield the visible files below a folder; of a folder that cannot be read it, and the error."""
    try:
        entries = _entries(folder)
    except OSError as error:
        yield folder, error
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walked(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path), None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(seen, key=lambda entry: entry.name)


def _is_one(given: object) -> bool:
    """Whether something that can be iterated over is one photo."""
    kinds = (str, Path, bytes, bytearray, memoryview)
    return isinstance(given, kinds) or hasattr(given, "read") or hasattr(given, "shape")


def _here(path: str) -> Iterator[FoundPhoto]:
    if os.path.isdir(path):  # noqa: PTH112  Path's own raises where a name is too long
        none, folder = True, Path(path)
        for file, error in _walked(folder):
            if error is not None and file == folder:
                raise _unread(file, error) from error
            if error is not None:
                none = False
                yield FoundPhoto(shown_name(str(file)), _Unreadable(_unread(file, error)))
            elif file.suffix.lower() in SUFFIXES:
                none = False
                yield _file(file)
        if none:
            raise ImageError(
                f"There are no photos in the folder {shown_name(path)!r}. Files with these "
                f"suffixes are taken: {' '.join(sorted(SUFFIXES))}."
            )
    elif glob.has_magic(path) and not os.path.lexists(path):
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path's cannot be absolute
        files = [match for match in matches if not os.path.isdir(match)]  # noqa: PTH112
        if not files:
            raise ImageError(f"No file matches {shown_name(path)!r}.")
        yield from map(_file, map(Path, files))
    else:
        yield _file(Path(path), path)


class _Unreadable(io.BytesIO):
    """A folder that cannot be read, in the place of its photos: one that fails."""

    def __init__(self, error: ImageError) -> None:
        super().__init__()
        self._error = error

    def read(self, _: int | None = -1, /) -> bytes:
        """Raise what is wrong."""
        raise self._error


def _unread(folder: Path, error: OSError) -> ImageError:
    return ImageError(
        f"Cannot read the folder {shown_name(str(folder))!r}: {error.strerror or error}."
    )


def _file(path: Path, given: str | None = None) -> FoundPhoto:
    return FoundPhoto(shown_name(given or str(path)), path, stamp_of(path))


def stamp_of(path: Path) -> str:
    """Return what changes with a file's content; "" of what is no file, or cannot be looked at."""
    try:
        about = path.stat()
        return f"{about.st_size}-{about.st_mtime_ns}" if path.is_file() else ""
    except (OSError, ValueError):  # whoever reads it says why
        return ""


def _elsewhere(location: str, fetcher: Fetcher) -> Iterator[FoundPhoto]:
    none = True
    for file in fetcher.below(location):
        alone = file.location == location
        if not alone and Path(file.location).suffix.lower() not in SUFFIXES:
            continue
        none = False
        yield FoundPhoto(shown_location(file.location), file.location, file.stamp)
    if none:
        raise ImageError(f"There are no photos below {shown_location(location)!r}.")
