"""A photo in: decoded safely, oriented, resized to the working size, rounded to the grid.

The certificate speaks of the *working image*. Everything up to it that is not linear (decoding,
colour conversion, compositing over white, EXIF rotation) defines the *native photo*: upright
8-bit or float RGB at full resolution in [0, 1]. From there on only a linear resize, a clip and a
rounding follow, so that a radius can be carried back:

    ||working(x) - working(y)|| <= gain * ||x - y|| + rounding

with `gain` the resize's operator norm (a clip to [0, 1] never lengthens a difference).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import struct
from dataclasses import dataclass, field
from errno import EACCES, EISDIR
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from smoothapi.decoding import decoding
from smoothapi.errors import ImageError, UsageError
from smoothapi.files import shown_name
from smoothapi.metadata import has_exif, less_metadata
from smoothapi.worked_out import worked_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PhotoSource: TypeAlias = (
    "str | Path | bytes | BinaryIO | Image.Image | NDArray[np.generic] | WorkingImage"
)
"""What a photo may be given as: path, encoded bytes, binary file, PIL image, (H, W, 3) uint8 or
float array, or a working image that was loaded before."""

GRID_BITS = 20
"""Working pixels are multiples of 2**-20, so that adding noise on the same grid is exact."""

MAX_PIXELS = 89_478_485
"""More are refused as a decompression bomb (a quarter of a gibibyte as 8-bit RGB)."""

MAX_SIDE = 4096
"""Longest side of a working image: each of its many variants is denoised and sent."""

# Formats that people's photos come in. Pillow would try all it knows, some through other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
_AT_A_TIME = 2**19  # pixels that are converted and resized together
_FILTER = Image.Resampling.BICUBIC
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Rows of what these give are columns before; and of those, rows that are counted from the end.
_SIDEWAYS = frozenset({
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
})  # fmt: skip
_FROM_THE_END = frozenset({
    Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
})  # fmt: skip

_TURNED = "turned upright as its EXIF orientation says"
_AS_IT_LIES = "taken as it lies, since its EXIF data cannot be read"
_EXIF_IS_OUT = "smoothapi: EXIF left out"  # in the `info` of an image

# A camera's progressive JPEG has about ten scans, and decoding takes time for each over all pixels.
_MOST_SCANS = 100
_MOST_SCANNED = 2**31  # pixels times scans
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within a scan, none but the end of it

_HEIF = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class WorkingImage:
    """The picture that a certificate speaks of.

    Attributes:
        pixels: (height, width, 3) float64 in [0, 1], multiples of 2**-20, read-only.
        digest: SHA-256 (hex) of the pixels and their shape.
        native_size: (width, height) of the upright photo before the resize.
        gain: operator norm of the resize; 1.0 if the photo was not resized.
        name: the file's name, or what kind of object the photo was given as.
        notes: what was done to the photo that its owner may not expect, in words.
    """

    pixels: NDArray[np.float64] = field(repr=False)
    digest: str
    native_size: tuple[int, int]
    gain: float
    name: str
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def resized(self) -> bool:
        """Whether working and native size differ."""
        return self.size != self.native_size

    def to_uint8(self) -> NDArray[np.uint8]:
        """Return the picture as (height, width, 3) 8-bit, as a provider is shown it."""
        return np.rint(self.pixels * 255.0).astype(np.uint8)


def load_image(source: PhotoSource, *, size: int | tuple[int, int] = 224) -> WorkingImage:
    """Make the working image of a photo.

    Args:
        source: a path, the bytes of an image file, a file open in binary mode (read from where it
            is), a PIL image, or an (H, W, 3) RGB array of uint8, or of float32/float64 within
            [0, 1]. Nothing else is guessed at. A working image is returned as it is.
        size: an int shortens the photo so that its *shorter* side has that many pixels, keeping
            the aspect ratio; a smaller photo stays as it is. (width, height) is taken exactly.

    Raises:
        ImageError: the photo cannot be read or is nothing that can be certified.
        UsageError: `size` is not positive.
    """
    if isinstance(source, WorkingImage):
        return source
    _check_size(size)
    resized = _decoded_and_resized(source, size)
    pixels = resized.pixels
    # In place: of a working image of 4096 x 4096 each copy has 400 MB.
    pixels /= resized.scale
    np.clip(pixels, 0.0, 1.0, out=pixels)
    pixels *= 2.0**GRID_BITS
    np.rint(pixels, out=pixels)
    digest = _digest(pixels)
    pixels *= 2.0**-GRID_BITS
    pixels.setflags(write=False)
    height, width, _ = pixels.shape
    return WorkingImage(
        pixels=pixels,
        digest=digest,
        native_size=resized.native_size,
        gain=resize_gain(resized.native_size, (width, height)),
        name=resized.name,
        notes=resized.notes,
    )


class _Resized(NamedTuple):
    """Pixels (height, width, 3) at the working size, in the scale of a photo that is let go."""

    pixels: NDArray[np.float64]
    scale: float
    native_size: tuple[int, int]
    name: str
    notes: tuple[str, ...]


def _decoded_and_resized(
    source: str | Path | bytes | BinaryIO | Image.Image | NDArray[np.generic],
    size: int | tuple[int, int],
) -> _Resized:
    if isinstance(source, np.ndarray):
        return _resized(_array_photo(source), size, f"array {source.dtype}")
    opened, name = _open(source)
    with decoding(opened.width * opened.height):
        photo = _image_photo(opened, name)
        del opened  # which may be another image than is resized
        return _resized(photo, size, name)


def _target(native: tuple[int, int], size: int | tuple[int, int], name: str) -> tuple[int, int]:
    """Return the working size of a photo, if it can be worked with."""
    target = working_size(native, size)
    if max(target) > MAX_SIDE:
        raise ImageError(
            f"The working image of {name!r} would be {target[0]} x {target[1]}; sides up to "
            f"{MAX_SIDE:,} can be worked with. Give size=(width, height), or crop the photo."
        )
    return target


def _resized(photo: _NativePhoto, size: int | tuple[int, int], name: str) -> _Resized:
    """Resize a photo to its working size, one colour after another.

    As floats one colour takes as much as the whole photo of 8 bits. Pillow resizes it whole: in
    which order it takes width and height, which the last bit depends on, is its own affair.
    """
    target = _target(photo.size, size, name)
    pixels = np.empty((target[1], target[0], 3))
    for channel in range(3):
        pixels[:, :, channel] = np.asarray(_resized_plane(photo, channel, target))
    return _Resized(pixels, photo.scale, photo.size, name, tuple(photo.notes))


def _resized_plane(photo: _NativePhoto, channel: int, target: tuple[int, int]) -> Image.Image:
    plane = Image.new("F", photo.size)
    for first, last in _parts(photo.size):
        plane.paste(photo.floats(first, last, channel), (0, first))
    return plane if target == photo.size else plane.resize(target, _FILTER)


def _parts(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the rows that are taken together: the first, and the one behind the last."""
    width, height = size
    step = max(1, _AT_A_TIME // width)
    for first in range(0, height, step):
        yield first, min(first + step, height)


def resize_gain(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return the operator norm of the resize of a picture, sizes being (width, height)."""
    return resize_norm(before[0], after[0]) * resize_norm(before[1], after[1])


@lru_cache(maxsize=256)
def resize_norm(before: int, after: int) -> float:
    """Return the largest singular value of the 1-D resize from `before` to `after` samples.

    The operator is the one that is really used: Pillow's bicubic filter with antialiasing, read
    off by resizing impulses. Rounded up by a part in 10^6, more than its float32 weights
    are off. A 2-D resize is the Kronecker product of two such operators, so its norm is the
    product of theirs.
    """
    if before == after:
        return 1.0
    return worked_out("resize", (before, after), lambda: _resize_norm(before, after))


def _resize_norm(before: int, after: int) -> float:
    first, weights = _resize_weights(before, after)
    reach = weights.shape[1]
    padded = np.pad(weights, ((0, 0), (0, 1)))
    bands: list[NDArray[np.float64]] = []  # of the symmetric operator M M^T, which is banded
    for offset in range(after):
        shift = first[offset:] - first[: after - offset]
        columns = np.minimum(np.arange(reach) + shift[:, None], reach)
        others = np.take_along_axis(padded[: after - offset], columns, axis=1)
        band = np.einsum("ij,ij->i", others, weights[offset:])
        if not band.any():
            break
        bands.append(np.pad(band, (0, offset)))
    from scipy.linalg import eigvals_banded  # noqa: PLC0415  a tenth of a second to import

    top = eigvals_banded(
        np.stack(bands), lower=True, select="i", select_range=(after - 1, after - 1)
    )
    return float(np.sqrt(top[0])) * (1.0 + 1e-6)


def _resize_weights(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return, of each sample after the 1-D resize, what it weighs the samples before with.

    Impulses that are too far apart to meet in one sample are resized together: not one picture for
    each of 30,000 pixels, but a hundredth of that.

    Returns:
        The first sample before that may count, (after,), and the weights of it and of those behind
        it, (after, reach): all that are not 0.
    """
    scale = before / after
    support = 2.0 * max(scale, 1.0)  # of the bicubic filter, to either side
    reach = min(math.ceil(2.0 * support) + 3, before)
    found = np.empty((reach, after))
    block = max(1, 2**24 // before)
    for start in range(0, reach, block):
        combs = np.zeros((min(block, reach - start), before), dtype=np.float32)
        for row, comb in enumerate(combs):
            comb[start + row :: reach] = 1.0
        resized = Image.fromarray(combs).resize((after, len(combs)), _FILTER)
        found[start : start + len(combs)] = np.asarray(resized)
    center = (np.arange(after) + 0.5) * scale
    first = np.clip(np.floor(center - support).astype(np.int64) - 1, 0, before - reach)
    columns = first[:, None] + np.arange(reach)
    return first, found[columns % reach, np.arange(after)[:, None]]


def _check_size(size: int | tuple[int, int]) -> None:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in sides):
        raise UsageError(
            f"size={size!r} cannot be used: give the shorter side in pixels, such as 224, or "
            f"(width, height); up to {MAX_SIDE:,}."
        )


def working_size(native: tuple[int, int], size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) of the working image of a photo of some (width, height).

    Args:
        native: the photo's.
        size: as for `load_image`.
    """
    if not isinstance(size, int):
        width, height = size
        return width, height
    shorter = min(native)
    if shorter <= size:
        return native
    width, height = (max(size, round(side * size / shorter)) for side in native)
    return width, height


def _open(source: str | Path | bytes | BinaryIO | Image.Image) -> tuple[_Opened, str]:
    if isinstance(source, Image.Image):
        return source, "PIL image"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "image bytes"), "image bytes"
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            raise _cannot_read(path, error) from error
        name = shown_name(path.name)
        return _decode(data, name), name
    if hasattr(source, "read"):
        return _read(source)
    raise ImageError(
        "A photo is a path, bytes, a binary file, a PIL image or a numpy array, not "
        f"{type(source).__name__}."
    )


def check_readable(path: str | Path) -> None:
    """Raise ImageError if a photo's file cannot be read; it is not opened, as it may be a pipe."""
    path = Path(path)
    try:
        if path.stat() and path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if not os.access(path, os.R_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: OSError | ValueError) -> ImageError:
    """Return what it means; a ValueError says that no file has such a name."""
    hint = ""
    if isinstance(error, FileNotFoundError) and not path.is_absolute():
        try:
            hint = f" It was looked for in {shown_name(str(Path.cwd()))!r}."
        except OSError:
            hint = " The working folder is there no more: change into another."
    elif isinstance(error, IsADirectoryError):
        hint = " Name the photos in it, or take all: `smoothapi certify FOLDER`, `certify_many`."
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ImageError(f"Cannot read the photo {shown_name(str(path))!r}: {reason}.{hint}")


def _read(file: BinaryIO) -> tuple[_Opened, str]:
    given = getattr(file, "name", None)
    name = shown_name(Path(given).name) if isinstance(given, (str, Path)) else "image file"
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # a ValueError: it is closed, or its text is not UTF-8
        raise ImageError(f"Cannot read the photo {name!r}: {error}.") from error
    if not isinstance(data, bytes):
        raise ImageError(f"{name!r} is open as text: open it in binary mode, open(path, 'rb').")
    if not data and file.seekable() and file.tell():
        raise ImageError(f"{name!r} has been read to its end: go back with seek(0) first.")
    return _decode(data, name), name


def _decode(data: bytes, name: str) -> _Opened:
    """Return the image, open but not loaded."""
    if not data:
        raise ImageError(f"{name!r} is empty (0 bytes): nothing to decode.")
    if _HEIF.match(data):
        return _decode_heif(data, name)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_bomb(name)) from error
    except Exception as error:  # a damaged header can raise almost anything in a decoder
        if (plain := less_metadata(data)) != data:
            return _decode_less(data, plain, name)
        if isinstance(error, UnidentifiedImageError):
            raise ImageError(
                f"{name!r} is not an image that smoothapi reads ({', '.join(_FORMATS)}, HEIC)."
            ) from error
        raise ImageError(f"{name!r} cannot be decoded: its header is damaged.") from error
    if image.format in ("JPEG", "MPO"):
        scans = _count_scans(data)
        if scans > _MOST_SCANS or scans * image.width * image.height > _MOST_SCANNED:
            raise ImageError(
                f"{name!r} is a JPEG of {scans:,} scans, each over {image.width * image.height:,} "
                "pixels, which would take minutes to decode. It was not decoded: write it anew as "
                "a plain JPEG or PNG."
            )
    return image


def _decode_less(data: bytes, plain: bytes, name: str) -> _Opened:
    """Return the image in a file that was left with less metadata."""
    image = _decode(plain, name)
    if isinstance(image, Image.Image) and has_exif(data) and not has_exif(plain):
        image.info[_EXIF_IS_OUT] = True
    return image


@dataclass(frozen=True)
class _Heif:
    """A HEIC photo that was opened and not decoded."""

    file: Any
    name: str

    @property
    def width(self) -> int:
        return int(self.file.size[0])

    @property
    def height(self) -> int:
        return int(self.file.size[1])

    def image(self) -> Image.Image:
        """Return it as an image, which the decoder has turned upright."""
        try:
            image: Image.Image = self.file.to_pillow()
        except Exception as error:
            raise ImageError(_cut_off(self.name)) from error
        return image


_Opened: TypeAlias = Image.Image | _Heif


def _decode_heif(data: bytes, name: str) -> _Heif:
    try:
        import pillow_heif  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ImageError(
            f"{name!r} is a HEIC photo, which needs another package to be read: pip install "
            "'smoothapi-vision[heic]'. Or convert it to JPEG."
        ) from error
    try:
        heif = _Heif(pillow_heif.open_heif(data, convert_hdr_to_8bit=True), name)
        pixels, frames = heif.width * heif.height, len(heif.file)
    except Exception as error:
        raise ImageError(_cut_off(name)) from error
    if frames > 1:
        raise ImageError(_frames(name))
    if pixels > MAX_PIXELS:
        raise ImageError(_bomb(name))
    return heif


def _cut_off(name: str) -> str:
    return f"{name!r} is damaged or cut off: it cannot be decoded."


def _count_scans(jpeg: bytes) -> int:
    """Count the scans of the first image in a JPEG file, up to one more than are decoded."""
    scans, position = 0, 2
    while scans <= _MOST_SCANS and (marker := _MARKER.search(jpeg, position)):
        kind, start = jpeg[marker.end() - 1], marker.end()
        if kind == 0xD9:  # end of image
            break
        # What follows a segment is the next marker, or a scan's data up to the next marker.
        position = start + int.from_bytes(jpeg[start : start + 2])
        scans += kind == 0xDA
    return scans


def _bomb(name: str) -> str:
    return (
        f"{name!r} would decode to more than {MAX_PIXELS:,} pixels: a decompression bomb or a "
        "picture to be made smaller first. It was not decoded."
    )


class _NativePhoto(Protocol):
    """A photo before its resize.

    Attributes:
        size: (width, height), upright.
        scale: value of white.
        notes: what was done to it.
    """

    size: tuple[int, int]
    scale: float
    notes: list[str]

    def floats(self, first: int, last: int, channel: int) -> Image.Image:
        """Return a channel of RGB, rows from `first` to before `last`, as a float image."""


class _Upright:
    """A decoded image that is to be turned: it is not, as a whole, for that would be another one.

    Attributes:
        size: (width, height), when it is turned.
    """

    def __init__(self, image: Image.Image, turn: Image.Transpose | None) -> None:
        self.image = image
        self._turn = turn
        self.size = (image.height, image.width) if turn in _SIDEWAYS else image.size

    def rows(self, first: int, last: int) -> Image.Image:
        """Return rows from `first` to before `last`, turned."""
        (width, height), turn = self.image.size, self._turn
        if turn in _FROM_THE_END:
            length = width if turn in _SIDEWAYS else height
            first, last = length - last, length - first
        if turn in _SIDEWAYS:
            part = self.image.crop((first, 0, last, height))
        else:
            part = self.image.crop((0, first, width, last))
        return part if turn is None else part.transpose(turn)


class _ImagePhoto:
    """A photo that was decoded, row by row."""

    def __init__(self, upright: _Upright, name: str, notes: list[str]) -> None:
        self._upright = upright
        self._name = name
        self.size = upright.size
        self.notes = notes


class _RgbPhoto(_ImagePhoto):
    """A photo of 8 bits in any mode that can be shown as RGB."""

    scale = 255.0

    def floats(self, first: int, last: int, channel: int) -> Image.Image:
        rows = self._upright.rows(first, last)
        try:
            rgb = rows if rows.mode == "RGB" else rows.convert("RGB")
        except ValueError as error:
            raise ImageError(_not_rgb(self._name, rows.mode)) from error
        return rgb.getchannel(channel).convert("F")


def _on_white(upright: _Upright, name: str) -> tuple[Image.Image, bool]:
    """Return a photo as RGB, put on white, and whether any of it was transparent."""
    was_clear = False
    whole = Image.new("RGB", upright.size)
    for first, last in _parts(upright.size):
        rows = upright.rows(first, last)
        try:
            rgba = rows.convert("RGBA")
        except ValueError as error:
            raise ImageError(_not_rgb(name, rows.mode)) from error
        was_clear = was_clear or rgba.getchannel("A").getextrema() != (255, 255)
        white = Image.new("RGBA", rgba.size, "white")
        whole.paste(Image.alpha_composite(white, rgba).convert("RGB"), (0, first))
    return whole, was_clear


def _not_rgb(name: str, mode: str) -> str:
    return f"{name!r} is in mode {mode}, which is not RGB."


class _GreyPhoto(_ImagePhoto):
    """A grey photo of 16 bits, also where Pillow has it as 32: each channel is the same."""

    scale = 65535.0

    def floats(self, first: int, last: int, channel: int) -> Image.Image:
        del channel
        grey = np.asarray(self._upright.rows(first, last)).astype(np.float32)
        if grey.min() < 0 or grey.max() > 65535:
            raise ImageError(
                f"{self._name!r} has 32-bit samples outside 0..65535; convert it first."
            )
        return Image.fromarray(grey)


class _ArrayPhoto:
    """A photo that was given as an array."""

    def __init__(self, array: NDArray[np.generic], scale: float) -> None:
        self._array = array
        self.size = (array.shape[1], array.shape[0])
        self.scale = scale
        self.notes: list[str] = []

    def floats(self, first: int, last: int, channel: int) -> Image.Image:
        part = self._array[first:last, :, channel]
        return Image.fromarray(np.ascontiguousarray(part, dtype=np.float32))


def _image_photo(opened: _Opened, name: str) -> _NativePhoto:
    upright, notes = _decoded(opened if isinstance(opened, Image.Image) else opened.image(), name)
    mode, kind = upright.image.mode, upright.image.format
    if mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        if mode == "I" and kind not in ("PNG", "PPM", "JPEG2000"):
            raise ImageError(
                f"{name!r} has 32-bit samples, whose range cannot be known: convert it to 8 bit, "
                "or pass an (H, W, 3) float array within [0, 1]."
            )
        return _GreyPhoto(upright, name, [*notes, "16-bit grey, shown as RGB"])
    if mode == "F":
        raise ImageError(
            f"{name!r} has floating-point samples, whose range cannot be known: pass them as an "
            "(H, W, 3) float array within [0, 1]."
        )
    if upright.image.has_transparency_data:
        whole, was_clear = _on_white(upright, name)
        upright = _Upright(whole, None)
        notes += ["transparency put on white"] if was_clear else []
    elif mode == "CMYK":
        notes.append("converted from CMYK")
    return _RgbPhoto(upright, name, notes)


def _decoded(image: Image.Image, name: str) -> tuple[_Upright, list[str]]:
    """Return the one picture in the file, decoded whole, to be turned as its EXIF data says."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(_bomb(name))
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{name!r} has no pixels: it is {image.width} x {image.height}.")
    try:
        # A camera's MPO is one photo with a preview or a stereo twin behind it.
        several = image.format != "MPO" and _has_second_frame(image)
    except Exception as error:
        raise ImageError(f"{name!r} cannot be decoded: its header is damaged.") from error
    if several:
        raise ImageError(_frames(name))
    # Pillow turns these itself, and forgets that it did.
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    turned = tags.get(_ORIENTATION) in _TURNS
    fp = getattr(image, "fp", None)
    try:
        image.load()
    except Exception as error:
        data = fp.getvalue() if isinstance(fp, io.BytesIO) else b""
        if (plain := less_metadata(data)) != data:
            again = _decode_less(data, plain, name)
            assert isinstance(again, Image.Image)  # noqa: S101  as it was with all of it
            return _decoded(again, name)
        raise ImageError(
            f"{name!r} is damaged or cut off: its pixels cannot be decoded completely."
        ) from error
    if image.info.get(_EXIF_IS_OUT):
        return _Upright(image, None), [_AS_IT_LIES]
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  whatever is in it, the pixels are good
        return _Upright(image, None), [_AS_IT_LIES]
    if orientation in _TURNS:
        return _Upright(image, _TURNS[orientation]), [_TURNED]
    return _Upright(image, None), [_TURNED] if turned else []


def _has_second_frame(image: Image.Image) -> bool:
    """Whether there is a second picture; to count them all could take long."""
    if not hasattr(image, "n_frames") and not hasattr(image, "is_animated"):
        return False
    if image.format in ("WEBP", "AVIF"):  # their headers say it
        return int(getattr(image, "n_frames", 1)) > 1
    here = image.tell()
    if here:
        return True
    try:
        image.seek(1)
    except EOFError:
        return False
    image.seek(0)
    return True


def _frames(name: str) -> str:
    return (
        f"{name!r} has several frames, and a certificate is about one picture: pass the frame you "
        "mean as a PIL image, e.g. frame = image.copy() after image.seek(k)."
    )


def _array_photo(array: NDArray[np.generic]) -> _NativePhoto:
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            f"A photo as an array has shape (height, width, 3) and RGB order; this one has shape "
            f"{array.shape}."
        )
    height, width, _ = array.shape
    if height == 0 or width == 0:
        raise ImageError(f"The array has no pixels: its shape is {array.shape}.")
    if height * width > MAX_PIXELS:
        raise ImageError(f"The array has more than {MAX_PIXELS:,} pixels; make it smaller first.")
    if array.dtype == np.uint8:
        scale = 255.0
    elif array.dtype in (np.float32, np.float64):
        scale = 1.0
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):
            raise ImageError(
                f"A float array must be within [0, 1]; this one spans {low:.4g}..{high:.4g}. If "
                "it is 0..255, divide by 255 or pass it as uint8."
            )
    else:
        raise ImageError(
            f"An array photo is uint8, or float32/float64 within [0, 1]; this one is {array.dtype}."
        )
    return _ArrayPhoto(array, scale)


def _digest(units: NDArray[np.float64]) -> str:
    """Return the digest of pixels in whole units of the grid."""
    height, width, _ = units.shape
    hashed = hashlib.sha256(b"smoothapi image 1")
    hashed.update(struct.pack("<QQ", height, width))
    for first, last in _parts((width, height)):
        hashed.update(units[first:last].astype("<u4").tobytes())
    return hashed.hexdigest()
