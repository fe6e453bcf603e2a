"""Float variant -> the bytes that a provider is sent.

Encoding is part of the base classifier: it must be one and the same function for all votes of a
certificate, so the codec's name and version go into the cache key and the certificate.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
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
    """

    name: str = "png"
    min_side: int = 1

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise UsageError(f"codec={self.name!r} is unknown; choose from {', '.join(CODECS)}.")

    @property
    def version(self) -> str:
        """What decides the pixels that a decoder will see.

        PNG is lossless, so it stays the same whichever library packs it; a JPEG depends on its
        encoder. The enlargement is done by Pillow either way.
        """
        parts = [f"{self.name}/1"]
        if self.name == "jpeg":
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

    def encode(self, picture: NDArray[np.uint8]) -> bytes:
        """Return the bytes of an (H, W, 3) uint8 RGB picture."""
        image = Image.fromarray(picture)
        target = self.size_of(image.size)
        if target != image.size:
            image = image.resize(target, Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        if self.name == "png":
            image.save(stream, "PNG", compress_level=1)
        else:
            image.save(stream, "JPEG", quality=95, subsampling=0)
        return stream.getvalue()
