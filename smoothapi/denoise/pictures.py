"""What goes into a denoiser and comes out of it, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_noisy(noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.floating[Any]]:
    """Return noisy variants as an array.

    Raises:
        UsageError: they are not floating point (N, H, W, 3), or sigma is not above 0.
    """
    noisy = np.asarray(noisy)
    if noisy.ndim != 4 or noisy.shape[3] != 3 or not np.issubdtype(noisy.dtype, np.floating):
        raise UsageError(
            f"Variants are floating point (N, H, W, 3), not {noisy.dtype} {noisy.shape}."
        )
    if not sigma > 0:
        raise UsageError(f"sigma is {sigma}; it must be above 0.")
    return noisy


def to_8bit(pictures: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Clip to [0, 1] and round to 8 bit."""
    scaled = np.clip(pictures.astype(np.float32), 0, 1) * np.float32(255)
    rounded: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return rounded
