"""A photo, one noisy copy of it and the same denoised, beside what its votes came to."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from smoothapi import notebook

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from smoothapi.certify.certificate import Certificate

_SIDE, _GALLERY = 224, 160  # pixels
_QUALITY = 60


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What `Smoother.look` shows; a notebook draws it.

    Attributes:
        name: of the photo.
        sigma: noise level.
        denoiser: its name.
        photo: the working image, (height, width, 3) uint8.
        noisy: one variant before the denoiser, clipped to [0, 255].
        denoised: the same, as the provider is shown it.
        certificate: what the votes came to; None if it was not given.
    """

    name: str
    sigma: float
    denoiser: str
    photo: NDArray[np.uint8] = field(repr=False)
    noisy: NDArray[np.uint8] = field(repr=False)
    denoised: NDArray[np.uint8] = field(repr=False)
    certificate: Certificate | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        """Return the three pictures for notebooks, and the certificate with its votes below."""
        shown = (
            (self.photo, "photo"),
            (self.noisy, f"noisy, sigma {self.sigma:g}"),
            (self.denoised, f"denoised, {self.denoiser}"),
        )
        figures = "".join(
            "<figure style='margin:0'>"
            f"<img alt='{notebook.escaped(f'{self.name}: {what}')}' "
            "style='width:100%;display:block' "
            f"src='data:image/webp;base64,{small_picture(pixels, _SIDE)}'>"
            f"<figcaption style='font-size:.85em'>{notebook.escaped(what)}</figcaption></figure>"
            for pixels, what in shown
        )
        row = (
            "<div style='display:grid;grid-template-columns:repeat(3,minmax(0,14em));gap:.5em'>"
            f"{figures}</div>"
        )
        return row + ("" if self.certificate is None else self.certificate._repr_html_())


def small_picture(pixels: NDArray[np.uint8], side: int = _GALLERY) -> str:
    """Return a picture as a small WebP in base64, its longer side at most `side`."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
