"""Whether what a denoiser returned can be pictures: the mistakes that are made with scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smoothapi.errors import DenoiserError


@dataclass(frozen=True, slots=True)
class Facts:
    """What a batch looks like.

    Attributes:
        low: the lowest value, before clipping.
        high: the highest.
        below: share of values below -0.1.
        noisy_below: the same of what the denoiser got.
    """

    low: float
    high: float
    below: float
    noisy_below: float


def judge(name: str, facts: Facts, sigma: float) -> None:
    """Refuse a batch that cannot be pictures on the scale [0, 1].

    Args:
        name: of the denoiser, for the message.
        facts: about the batch.
        sigma: noise level.

    Raises:
        DenoiserError: values are not finite, or lie on another scale.
    """
    who = f"The denoiser {name}"
    if not np.isfinite([facts.low, facts.high]).all():
        raise DenoiserError(
            f"{who} returned values that are not finite at sigma {sigma}. Its weights are "
            "damaged, or the precision is too low for it: try precision='fp32'."
        )
    if max(-facts.low, facts.high - 1) > 3 + 10 * sigma:
        raise DenoiserError(
            f"{who} returned values from {facts.low:.3g} to {facts.high:.3g}. Black is 0 and white "
            "is 1 here: does it work on the scale [0, 255]? Wrap it in a function that rescales."
        )
    if facts.below > facts.noisy_below + 0.1:
        raise DenoiserError(
            f"{who} returned values below black for {facts.below:.0%} of the pixels, more than "
            "the noise made. Black is 0 and white is 1 here: does it work on the scale "
            "[-1, 1], or return the noise in place of the picture? Wrap it in a function."
        )
