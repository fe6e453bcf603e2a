"""Float variant -> the bytes that a provider is sent.

Encoding is part of the base classifier: it must be one and the same function for all votes of a
certificate, so the codec's name and version go into the cache key and the certificate.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image, features

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CODECS = ("png", "jpeg")


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
            version = features.version("zlib_ng") or features.version("zlib")
            parts += [f"jpeg-above-{self.jpeg_above}", f"zlib-{version}-rle"]
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
        image = Image.fromarray(picture)
        target = self.size_of(image.size)
        if target != image.size:
            image = image.resize(target, Image.Resampling.BICUBIC)
        data = _packed(image, self.name)
        if self.name == "png" and self.jpeg_above is not None and len(data) > self.jpeg_above:
            return _packed(image, "jpeg")
        return data


def _packed(image: Image.Image, name: str) -> bytes:
    stream = io.BytesIO()
    if name == "png":
        # Looking for runs alone: in 224 x 224 photos a quarter faster and a tenth smaller than
        # level 1 with its usual strategy.
        image.save(stream, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    else:
        image.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def _largest_png(size: tuple[int, int]) -> int:
    """Return more bytes than any PNG of a (width, height) has.

    A row is a filter's number and three bytes a pixel; zlib states that what cannot be compressed
    grows by up to an eighth and a 64th (deflateBound, for any of its settings); Pillow cuts the
    stream into chunks of at least 64 KiB, with 12 bytes beside.
    """
    width, height = size
    rows = (3 * width + 1) * height
    stream = rows + (rows + 7) // 8 + (rows + 63) // 64 + 64
    return stream + 12 * (stream // 65_536 + 1) + 256
