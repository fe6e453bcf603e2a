"""What is done to a network's output before it is rounded to 8 bit: two knobs, neutral at 0.

A denoiser is trained for classifiers in general; one API may like pictures a little sharper than
it makes them, or with a little of the noise left. What helps one harms another, so the knobs are
set by asking the API (`smoothapi.adapting`), never by guessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

_LEAST_SHARP, _MOST_SHARP = -1.0, 4.0


@dataclass(frozen=True, slots=True)
class Knobs:
    """How the network's estimate d of a noisy picture n is changed.

    The result is d + sharpen * (d - soft(d)) + blend * (n - d), where soft is the 3x3 binomial
    filter (1 2 1) x (1 2 1) / 16 with the border repeated. It is clipped to [0, 1] afterwards.

    Attributes:
        blend: the share of the removed noise that is blended back, in [0, 1).
        sharpen: how much of the fine detail is added once more, in [-1, 4]; below 0 it is taken
            away.

    Raises:
        UsageError: a value is out of range.
    """

    blend: float = 0.0
    sharpen: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.blend < 1.0:
            raise UsageError(
                f"blend={self.blend}: it is the share of the removed noise that is blended back, "
                "from 0 up to, but not including, 1."
            )
        if not _LEAST_SHARP <= self.sharpen <= _MOST_SHARP:
            raise UsageError(
                f"sharpen={self.sharpen}: it is the share of fine detail that is added, from "
                f"{_LEAST_SHARP:g} to {_MOST_SHARP:g}."
            )

    @property
    def neutral(self) -> bool:
        """Whether they change nothing."""
        return self == NEUTRAL

    def __str__(self) -> str:
        parts = [f"{self.blend:.0%} of the noise blended back"] if self.blend else []
        if self.sharpen:
            parts.append(f"{'sharpened' if self.sharpen > 0 else 'softened'} by {self.sharpen:g}")
        return " and ".join(parts) or "as the network gives it"

    def apply(self, noisy: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """Return the changed estimate; neutral knobs return `denoised` itself.

        Args:
            noisy: (N, 3, H, W), what the network got.
            denoised: of the same shape, what it returned.

        Returns:
            float32 of the same shape, not clipped. A picture's result does not depend on the
            others.
        """
        if self.neutral:
            return denoised
        denoised = denoised.float()
        out = denoised
        if self.sharpen:
            out = out + self.sharpen * (denoised - _softened(denoised))
        if self.blend:
            out = out + self.blend * (noisy.float() - denoised)
        return out

    def after(
        self, network: Callable[[torch.Tensor, float], torch.Tensor]
    ) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Return `network` followed by these knobs."""
        if self.neutral:
            return network
        return lambda noisy, sigma: self.apply(noisy, network(noisy, sigma))


NEUTRAL = Knobs()
"""Nothing blended back, nothing sharpened."""


def _softened(pictures: torch.Tensor) -> torch.Tensor:
    """Return the pictures after the 3x3 binomial filter.

    Sums of shifted pictures and no convolution, whose library may add in another order for
    another number of pictures.
    """
    from torch.nn.functional import pad  # noqa: PLC0415 - a fully cached run never needs torch

    padded = pad(pictures, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    return (rows[..., :-2, :] + 2 * rows[..., 1:-1, :] + rows[..., 2:, :]) / 4
