"""Plain smoothing: noise as it is, with nothing that cleans it (Cohen, Rosenfeld, Kolter 2019)."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from smoothapi.denoise.device import check_device, check_precision, choose_device, choose_precision
from smoothapi.denoise.pictures import check_noisy, to_8bit
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class NoDenoiser:
    """The runtime of `load("none")`: clips and rounds. Its members are those of `DenoiserRuntime`.

    Raises:
        DenoiserError: device or precision cannot be used.
    """

    name = "none"
    fingerprint = hashlib.sha256(b"smoothapi-denoiser|none").hexdigest()[:16]
    adaptation = None
    draws_noise = False
    takes_turns = False
    loaded = False

    def __init__(self, *, device: str, precision: str) -> None:
        check_device(device)
        check_precision(precision)
        self._wanted = (device, precision)

    def __repr__(self) -> str:
        return f"<NoDenoiser {self.fingerprint}>"

    @cached_property
    def device(self) -> str:
        """Where a classifier beside it would run."""
        return choose_device(self._wanted[0])

    @cached_property
    def precision(self) -> str:
        """As asked for, though nothing is computed in it."""
        wanted = self._wanted[1]
        return "fp32" if wanted == "auto" else choose_precision(wanted, self.device)

    def variants(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        """Clip to [0, 1] and round to 8 bit."""
        return to_8bit(check_noisy(noisy, sigma))

    def variants_of(
        self, pixels: NDArray[np.float64], sigma: float, seeds: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Refuse: there is no device to draw on."""
        del pixels, sigma, seeds
        raise UsageError("Without a denoiser there is no device to draw noise on.")
