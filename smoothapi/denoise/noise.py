"""The noise of `smoothapi.noise`, drawn by torch, so that on a GPU it never leaves the GPU.

The same random bits: Philox4x64-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As
Easy as 1, 2, 3" (SC 2011), as NumPy counts it, in integer arithmetic that is exact everywhere. The
same formula on them, u to sigma * Phi^-1(u) to the grid, in float64. Phi^-1 itself is torch's: it
may differ from SciPy's in the last place, which moves about one value in 10^9 to the neighbouring
multiple of the grid. A certificate pays for that with `noise_delta` whichever of the two draws; but
answers must not be mixed, so a runtime that draws its own noise says so in its fingerprint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from smoothapi.errors import DenoiserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_GRID = 2.0**20
_ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_WORD = 2**64
_LOW = 2**32 - 1

_TOLERANCE = 2.0**-47  # relative; `smoothapi.certify.arithmetic` pays for so much

_VALUES_AT_ONCE = 2**23
"""Enough to fill a GPU; the integers of so many values take about 1 GB."""


def noisy_pictures(pixels: Tensor, sigma: float, seeds: Sequence[int]) -> Tensor:
    """Return a working image under the noise of each seed.

    Args:
        pixels: float64 (height, width, 3), multiples of 2**-20, on the device that is to draw.
        sigma: standard deviation, in units of the [0, 1] range.
        seeds: 128 bits each, from `smoothapi.noise.variant_seeds`.

    Returns:
        float32 (len(seeds), height, width, 3), unclipped, exact multiples of 2**-20.
    """
    out = torch.empty((len(seeds), *pixels.shape), dtype=torch.float32, device=pixels.device)
    units = pixels * _GRID
    few = max(1, _VALUES_AT_ONCE // max(1, pixels.numel()))
    for start in range(0, len(seeds), few):
        lot = seeds[start : start + few]
        noise = standard_normal(lot, pixels.numel(), pixels.device).mul_(sigma * _GRID).round_()
        noisy = noise.reshape(len(lot), *pixels.shape).add_(units).mul_(1.0 / _GRID)
        out[start : start + few] = noisy  # float32 holds the sum exactly
    return out


def standard_normal(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Return Phi^-1(u), u = (53 random bits + 1/2) / 2**53, as float64 (len(seeds), count)."""
    bits = _shifted(random_words(seeds, count, device), 11)
    uniform = bits.double().add_(0.5).mul_(2.0**-53).clamp_(max=1.0 - 2.0**-53)
    normal: Tensor = torch.special.ndtri(uniform)
    return normal


def check_generator(device: torch.device) -> None:
    """Draw some noise that is known, and compare.

    The guarantee rests on the noise being what it is said to be, so a device or a build of torch
    that computes integers or Phi^-1 otherwise must not draw any.

    Raises:
        DenoiserError: it does.
    """
    seed, count = 0x0123456789ABCDEF_FEDCBA9876543210, 4_000
    words = random_words([seed], count, device).cpu().numpy()[0].view(np.uint64)
    expected = np.random.Philox(key=seed).random_raw(count)
    normal = standard_normal([seed], count, device).cpu().numpy()[0]
    exact = ndtri(((expected >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
    if not np.array_equal(words, expected) or np.abs(normal / exact - 1.0).max() > _TOLERANCE:
        raise DenoiserError(
            f"torch {torch.__version__} does not draw on {device} the noise that it draws on "
            "CPUs, which would void the guarantee. Nothing was sent. Use device='cpu', or another "
            "version of torch."
        )


def random_words(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Return what `numpy.random.Philox(key=seed).random_raw(count)` does, for each seed.

    Returns:
        int64 (len(seeds), count), whose bits are those of the unsigned words.
    """
    low, high = (
        torch.tensor([[_signed(word)] for word in words], dtype=torch.int64, device=device)
        for words in ([seed % _WORD for seed in seeds], [seed // _WORD for seed in seeds])
    )
    blocks = -(-count // 4)
    counter = torch.arange(1, blocks + 1, dtype=torch.int64, device=device).expand(len(seeds), -1)
    zero = torch.zeros_like(counter)
    words = (counter, zero, zero, zero)
    for _ in range(_ROUNDS):
        (high0, low0), (high1, low1) = (
            _product(words[place], factor)
            for place, factor in zip((0, 2), _MULTIPLIERS, strict=True)
        )
        words = (high1 ^ words[1] ^ low, low1, high0 ^ words[3] ^ high, low0)
        low, high = low + _signed(_WEYL[0]), high + _signed(_WEYL[1])
    return torch.stack(words, dim=2).flatten(1)[:, :count]


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the upper and lower 64 bits of an unsigned product, by halves of 32 bits."""
    high, low = _shifted(word, 32), word & _LOW
    factor_high, factor_low = factor >> 32, factor & _LOW
    # Products of halves fill 64 bits: they wrap to negative numbers, whose bits are right.
    lowest, first, second = low * factor_low, low * factor_high, high * factor_low
    middle = _shifted(lowest, 32) + (first & _LOW) + (second & _LOW)
    upper = high * factor_high + _shifted(first, 32) + _shifted(second, 32) + (middle >> 32)
    return upper, word * _signed(factor)


def _shifted(word: Tensor, by: int) -> Tensor:
    """Return an unsigned shift to the right."""
    shifted: Tensor = (word >> by) & (2 ** (64 - by) - 1)
    return shifted


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word
