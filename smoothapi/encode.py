"""Float variant -> the bytes that a provider is sent.

Encoding is part of the base classifier: it must be one and the same function for all votes of a
certificate, so the codec's name and version go into the cache key and the certificate.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, features

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODECS = ("png", "jpeg")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = (8, 2, 0, 0, 0)
_AVERAGE = 3  # the filter's number


@dataclass(frozen=True)
class Codec:
    """How an 8-bit picture becomes bytes.

    Attributes:
        name: "png" (lossless, the default) or "jpeg" (quality 95, a quarter of the bytes).
        min_side: pictures with a shorter side are enlarged to it (bicubic), for providers that
            refuse small ones.
        jpeg_above: a PNG of more bytes is sent as the JPEG instead, for providers that refuse
            large files; None if it is sent all the same. Part of the function that the votes of a
            certificate share: whether a variant is above is decided by its pixels alone.
    """

    name: str = "png"
    min_side: int = 1
    jpeg_above: int | None = None

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise UsageError(f"codec={self.name!r} is unknown; choose from {', '.join(CODECS)}.")

    @property
    def version(self) -> str:
        """What decides the pixels that a decoder will see.

        PNG is lossless, so it stays the same whichever library packs it; a JPEG depends on its
        encoder, and so does the size of a PNG, where that decides. The enlargement is done by
        Pillow either way.
        """
        parts = [f"{self.name}/1"]
        if self.name == "png" and self.jpeg_above is not None:
            zlib_version = zlib.ZLIB_RUNTIME_VERSION
            parts += [f"jpeg-above-{self.jpeg_above}", f"average-zlib-{zlib_version}-rle"]
        if len(parts) > 1 or self.name == "jpeg":
            parts.append(f"libjpeg-{features.version('jpg')}")
        if self.min_side > 1:
            parts.append(f"min{self.min_side}")
        return "+".join(parts)

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) that a picture of `size` is sent with."""
        shorter = min(size)
        if shorter >= self.min_side:
            return size
        scale = self.min_side / shorter
        width, height = (max(self.min_side, round(side * scale)) for side in size)
        return width, height

    def for_size(self, size: tuple[int, int]) -> Codec:
        """Return the codec for pictures of a (width, height), with no rule that cannot apply.

        So a stored answer is found again, whatever is the most that a provider takes, as long as
        no PNG of that size could have more.
        """
        if self.jpeg_above is None or _largest_png(self.size_of(size)) > self.jpeg_above:
            return self
        return replace(self, jpeg_above=None)

    def encode(self, picture: NDArray[np.uint8]) -> bytes:
        """Return the bytes of an (H, W, 3) uint8 RGB picture."""
        size = (picture.shape[1], picture.shape[0])
        target = self.size_of(size)
        if target != size:
            enlarged = Image.fromarray(picture).resize(target, Image.Resampling.BICUBIC)
            picture = np.asarray(enlarged)
        if self.name == "png":
            data = _png(picture)
            if self.jpeg_above is None or len(data) <= self.jpeg_above:
                return data
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=95, subsampling=0)
        return stream.getvalue()


def _png(picture: NDArray[np.uint8]) -> bytes:
    """Return a PNG (ISO/IEC 15948) of an (H, W, 3) picture.

    Encoders try each of the five filters on each row. The average of left and above is near the
    best for denoised photos, and so are runs in place of a search for repeats: a third of
    Pillow's time, for 2% more bytes (`benchmarks/encoders.py`). Decoders see the same pixels.
    """
    height, width, channels = picture.shape
    rows = picture.reshape(height, width * channels)
    left, above = np.zeros_like(rows), np.zeros_like(rows)
    left[:, channels:] = rows[:, :-channels]
    above[1:] = rows[:-1]
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _AVERAGE
    # (left + above) // 2 that needs no ninth bit.
    np.subtract(rows, (left & above) + ((left ^ above) >> 1), out=filtered[:, 1:])
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    packed = packer.compress(filtered.data) + packer.flush()
    header = struct.pack(">II5B", width, height, *_EIGHT_BIT_RGB)
    return b"".join(
        (_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", packed), *_chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)


def _largest_png(size: tuple[int, int]) -> int:
    """Return more bytes than any PNG of a (width, height) has.

    A row is a filter's number and three bytes a pixel; zlib states that what cannot be compressed
    grows by up to an eighth and a 64th (deflateBound, for any of its settings). Signature and
    chunks take 57 bytes.
    """
    width, height = size
    rows = (3 * width + 1) * height
    return rows + (rows + 7) // 8 + (rows + 63) // 64 + 64 + 57
