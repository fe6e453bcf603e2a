"""Denoising for several photos at once: small lots that wait become one large batch."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from smoothapi.denoise.adaptation import Adaptation
    from smoothapi.denoise.protocol import DenoiserRuntime


class Gathering:
    """A denoiser whose batches are filled from several photos.

    The thread that holds the lock denoises, in one call, every waiting lot of the same size and
    sigma. All else is as of the denoiser itself: its members are those of `DenoiserRuntime`.
    """

    def __init__(self, inner: DenoiserRuntime) -> None:
        self._inner = inner
        self._turn = threading.Lock()
        self._waiting: deque[_Lot] = deque()

    def __repr__(self) -> str:
        return f"<Gathering {self._inner!r}>"

    @property
    def name(self) -> str:
        """As of the denoiser itself."""
        return self._inner.name

    @property
    def adaptation(self) -> Adaptation | None:
        """As of the denoiser itself."""
        return self._inner.adaptation

    @property
    def device(self) -> str:
        """As of the denoiser itself."""
        return self._inner.device

    @property
    def precision(self) -> str:
        """As of the denoiser itself."""
        return self._inner.precision

    @property
    def fingerprint(self) -> str:
        """As of the denoiser itself: who else is in a batch changes nothing."""
        return self._inner.fingerprint

    @property
    def draws_noise(self) -> bool:
        """As of the denoiser itself."""
        return self._inner.draws_noise

    @property
    def takes_turns(self) -> bool:
        """As of the denoiser itself."""
        return self._inner.takes_turns

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory."""
        return self._inner.loaded

    @property
    def loading(self) -> bool:
        """Whether the network is being read now."""
        return bool(getattr(self._inner, "loading", False))

    def variants_of(
        self, pixels: NDArray[np.float64], sigma: float, seeds: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Draw and denoise on the device, as the denoiser itself does."""
        return self._inner.variants_of(pixels, sigma, seeds)

    def variants(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        """Denoise as the denoiser itself does, together with others that wait."""
        lot = _Lot(noisy, sigma)
        self._waiting.append(lot)
        with self._turn:
            if not lot.ended:
                self._denoise_with(lot)
        if lot.error is not None:
            raise lot.error
        assert lot.pictures is not None  # noqa: S101
        return lot.pictures

    def _denoise_with(self, lot: _Lot) -> None:
        together: list[_Lot] = []
        for other in [self._waiting.popleft() for _ in range(len(self._waiting))]:
            alike = other.noisy.shape[1:] == lot.noisy.shape[1:] and other.sigma == lot.sigma
            (together if alike else self._waiting).append(other)
        try:
            pictures = self._inner.variants(_joined([one.noisy for one in together]), lot.sigma)
            start = 0
            for one in together:
                one.pictures = pictures[start : start + len(one.noisy)]
                start += len(one.noisy)
        except Exception as error:  # noqa: BLE001  it is everyone's
            for one in together:
                one.error = error
        finally:
            for one in together:
                one.ended = True


def gathered(runtime: DenoiserRuntime) -> DenoiserRuntime:
    """Return a denoiser for several photos at once: few large batches where it takes turns."""
    return Gathering(runtime) if runtime.takes_turns else runtime


class _Lot:
    """Variants of one photo that wait for the denoiser."""

    def __init__(self, noisy: NDArray[np.floating[Any]], sigma: float) -> None:
        self.noisy = noisy
        self.sigma = sigma
        self.pictures: NDArray[np.uint8] | None = None
        self.error: Exception | None = None
        self.ended = False


def _joined(arrays: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.floating[Any]]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
