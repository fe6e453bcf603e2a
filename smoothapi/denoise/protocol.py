"""What a denoiser is: to whoever writes one, to what makes variants, and to a certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeGuard

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from smoothapi.denoise.adaptation import Adaptation


@runtime_checkable
class Denoiser(Protocol):
    """What a denoiser of your own is: any callable, and so any torch module, of this shape."""

    def __call__(self, noisy: torch.Tensor, sigma: float, /) -> torch.Tensor:
        """Estimate the clean pictures.

        Args:
            noisy: float32 (N, 3, H, W), RGB, clean range [0, 1] plus noise, not clipped.
            sigma: the noise's standard deviation on that scale.

        Returns:
            Floating point, of the shape of `noisy`, on the scale [0, 1]; it is clipped afterwards.
        """
        ...


class DenoiserIdentity(Protocol):
    """Which denoiser it is: all that certificates and stored answers say of it."""

    @property
    def name(self) -> str:
        """For reports and certificates."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for all that decides a variant's bits."""
        ...

    @property
    def adaptation(self) -> Adaptation | None:
        """To which provider it was adapted, and by answers about which photos; None if to none."""
        ...


class DenoiserRuntime(DenoiserIdentity, Protocol):
    """A denoiser at work: float variants in, 8-bit variants out. Made by `load`.

    Safe to call from several threads. A variant gets the same bits whatever else is in the call.
    """

    @property
    def device(self) -> str:
        """`cpu`, `cuda:N` or `mps`."""
        ...

    @property
    def precision(self) -> str:
        """`bf16`, `fp16` or `fp32`: of the convolutions; sums outside the network are fp32."""
        ...

    @property
    def draws_noise(self) -> bool:
        """Whether noise is best drawn by `variants_of`, not by `smoothapi.noise`."""
        ...

    @property
    def takes_turns(self) -> bool:
        """Whether calls wait for one another, so that few large ones are better than many."""
        ...

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory."""
        ...

    def variants(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        """Denoise, clip to [0, 1] and round to 8 bit.

        Args:
            noisy: (N, H, W, 3), any floating type, clean range [0, 1] plus noise, not clipped.
            sigma: the noise's standard deviation on that scale, above 0.

        Returns:
            uint8 (N, H, W, 3).

        Raises:
            UsageError: `noisy` or `sigma` is not as above.
            DenoiserError: the weights cannot be used, what the denoiser returns cannot be
                pictures of the shape it got, or even one picture does not fit into memory.
        """
        ...

    def variants_of(
        self, pixels: NDArray[np.float64], sigma: float, seeds: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Draw the noise of some variants on the device, and denoise them as `variants` does.

        Args:
            pixels: the working image, (height, width, 3), multiples of 2**-20.
            sigma: standard deviation, in (0, 1.5].
            seeds: one a variant, from `smoothapi.noise.variant_seeds`.

        Returns:
            uint8 (len(seeds), height, width, 3).

        Raises:
            UsageError: there is no denoiser, so no device.
            DenoiserError: as for `variants`, or the device draws other noise than CPUs.
        """
        ...


def is_runtime(given: object) -> TypeGuard[DenoiserRuntime]:
    """Whether something is a denoiser at work already.

    Its type is asked, not the object: to read a fingerprint or a device may load torch.
    """
    return all(hasattr(type(given), name) for name in ("variants", "variants_of", "fingerprint"))
