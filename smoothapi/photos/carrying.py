"""A photo on its way to another process, perhaps on another machine: where it is, or itself."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smoothapi.image import WorkingImage, load_image
from smoothapi.photos.fetching import is_remote, opened
from smoothapi.photos.finding import stamp_of

if TYPE_CHECKING:
    from smoothapi.image import PhotoSource
    from smoothapi.photos.fetching import Fetcher


class NotHereError(Exception):
    """The file of a carried photo is not on this machine, or another one has its name here."""


@dataclass(frozen=True, slots=True)
class CarriedPhoto:
    """A photo as another process gets it. Made by `carried`.

    Attributes:
        place: the path (absolute) or the location; "" where the content goes along without one.
        stamp: of the file, so that another one of that path is not taken for it; "" for none.
        content: the file's bytes, or the working image; None if it is to be read at its place.
    """

    place: str
    stamp: str = ""
    content: bytes | WorkingImage | None = None

    def open(self, fetcher: Fetcher) -> PhotoSource:
        """Return what `load_image` takes, with the name that it would have had at its origin.

        Raises:
            NotHereError: there is no such file here; `with_content` of the origin has it.
            ImageError: it cannot be fetched.
        """
        if isinstance(self.content, WorkingImage):
            return self.content
        if self.content is not None:
            return _NamedFile(self.content, self.place) if self.place else self.content
        if is_remote(self.place):
            return opened(self.place, fetcher)
        path = Path(self.place)
        if self.stamp and stamp_of(path) != self.stamp:
            raise NotHereError(self.place)
        return path


def carried(source: PhotoSource, size: int | tuple[int, int]) -> CarriedPhoto:
    """Return a photo ready to be sent: files and locations by their place, all else itself.

    Args:
        source: the photo, or where it is.
        size: of the working image, which is made here of what has no file.

    Raises:
        ImageError: a photo that has no place cannot be read.
    """
    if isinstance(source, str) and is_remote(source):
        return CarriedPhoto(source)
    if isinstance(source, (str, Path)):
        path = Path(source).absolute()
        return CarriedPhoto(str(path), stamp_of(path))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return CarriedPhoto("", content=bytes(source))
    return CarriedPhoto("", content=load_image(source, size=size))


def with_content(photo: CarriedPhoto, size: int | tuple[int, int]) -> CarriedPhoto:
    """Return a photo whose file was not there, with the content of the file here.

    Raises:
        ImageError: it cannot be read here, either.
    """
    path = Path(photo.place)
    try:
        content: bytes | WorkingImage = path.read_bytes()
    except OSError:
        content = load_image(path, size=size)  # says why, in the words of any photo
    return CarriedPhoto(photo.place, content=content)


class _NamedFile(io.BytesIO):
    """The content of a file, and what the file is called."""

    def __init__(self, data: bytes, path: str) -> None:
        super().__init__(data)
        self.name = path
