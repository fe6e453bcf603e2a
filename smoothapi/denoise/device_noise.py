"""The noise of `smoothapi.noise`, drawn by torch, so that on a GPU it never leaves the GPU.

Two generators draw it: one fused kernel (`smoothapi.denoise.fused_noise`) where triton is there,
compiles and passes `check_generator`; else plain torch, which is the rest of this module. Both are
the same random bits: Philox4x64-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As
Easy as 1, 2, 3" (SC 2011), as NumPy counts it, in integer arithmetic that is exact everywhere. The
same formula on them, u to sigma * Phi^-1(u) to the grid, in float64. Phi^-1 itself may differ from
SciPy's in the last place, which moves about one value in 10^9 to the neighbouring multiple of the
grid. A certificate pays for that with `noise_delta` whoever draws; but answers must not be mixed,
so a runtime that draws its own noise has the generator's name in its fingerprint.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from smoothapi._special import special
from smoothapi.errors import DenoiserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_logger = logging.getLogger("smoothapi")

NOISE_GENERATOR = "torch-philox/1"
"""Of plain torch: a change of any bit needs another name."""

_GRID = 2.0**20
_ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_WORD = 2**64
_LOW = 2**32 - 1

_TOLERANCE = 2.0**-49
"""Relative, to SciPy's Phi^-1, which errs by 2^-49.8: together less than the 2^-48 that
`smoothapi.certify.arithmetic` pays for."""

_CHECKED_SIGMA = 0.25

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
    return plain_generator().pictures(pixels, sigma, seeds)


def _added(noise: Tensor, pixels: Tensor, sigma: float) -> Tensor:
    units = noise.mul_(sigma * _GRID).round_().reshape(len(noise), *pixels.shape)
    return units.add_(pixels * _GRID).mul_(1.0 / _GRID)  # float32 holds the sum exactly


def _draw(out: Tensor, pixels: Tensor, sigma: float, keys: Tensor) -> None:
    few = max(1, _VALUES_AT_ONCE // max(1, pixels.numel()))
    for lot, part in zip(torch.split(keys, few), torch.split(out, few), strict=True):
        noise = _normal(_words(lot[:, :1], lot[:, 1:], pixels.numel()))
        part.copy_(_added(noise, pixels, sigma))


def standard_normal(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Return Phi^-1(u), u = (53 random bits + 1/2) / 2**53, as float64 (len(seeds), count)."""
    return _normal(random_words(seeds, count, device))


def _normal(words: Tensor) -> Tensor:
    bits = _shifted(words, 11)
    uniform = bits.double().add_(0.5).mul_(2.0**-53).clamp_(max=1.0 - 2.0**-53)
    return _quantile(uniform)


def _quantile(uniform: Tensor) -> Tensor:
    normal: Tensor = torch.special.ndtri(uniform)
    return normal


@dataclass(frozen=True, slots=True)
class Generator:
    """What draws noise on a device.

    Attributes:
        name: goes into fingerprints: a change of any bit needs another name.
        words: (seeds, count, device) -> int64 (len(seeds), count), as `random_words`.
        normal: float64 (N,) in (0, 1) -> its Phi^-1.
        draw: (out, pixels, sigma, keys) fills the float32 (N, height, width, 3) `out`, contiguous,
            with the float64 (height, width, 3) `pixels` under the noise of each of N keys.
    """

    name: str
    words: Callable[[Sequence[int], int, torch.device], Tensor]
    normal: Callable[[Tensor], Tensor]
    draw: Callable[[Tensor, Tensor, float, Tensor], None]

    def pictures(self, pixels: Tensor, sigma: float, seeds: Sequence[int]) -> Tensor:
        """Return a working image under the noise of each seed, as `noisy_pictures` does."""
        out = torch.empty((len(seeds), *pixels.shape), dtype=torch.float32, device=pixels.device)
        if seeds:
            self.draw(out, pixels, sigma, torch.from_numpy(keys_of(seeds)).to(pixels.device))
        return out


def plain_generator() -> Generator:
    """Return the generator of torch's own operations, which runs on every device."""
    return Generator(NOISE_GENERATOR, random_words, _quantile, _draw)


def fused_generator() -> Generator:
    """Return the generator that is one Triton kernel.

    Raises:
        ImportError: triton is not there.
    """
    from smoothapi.denoise import fused_noise  # noqa: PLC0415 - triton is not everywhere

    def words(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
        return fused_noise.words(torch.from_numpy(keys_of(seeds)).to(device), count)

    def draw(out: Tensor, pixels: Tensor, sigma: float, keys: Tensor) -> None:
        scale = torch.full((1,), sigma * _GRID, dtype=torch.float64, device=out.device)
        fused_noise.draw(out, pixels, scale, keys)

    return Generator(fused_noise.NAME, words, fused_noise.normal, draw)


def choose_generator(device: str) -> Generator:
    """Return what draws noise on a device: the fused kernel where it is right, else plain torch.

    The plain one is not checked here. That the kernel cannot be used is logged, once a device.
    """
    fused = _fused_where_right(device) if device.startswith("cuda") else None
    return fused or plain_generator()


@cache
def _fused_where_right(device: str) -> Generator | None:
    where = torch.device(device)
    try:
        with torch.cuda.device(where):
            fused = fused_generator()
            check_generator(where, fused)
    except Exception as error:  # noqa: BLE001 - triton fails in many ways: no compiler, no driver
        _logger.warning(
            "The noise on %s is drawn by plain torch, which is slower, since the fused kernel "
            "cannot be used: %s: %s",
            device,
            type(error).__name__,
            (str(error).strip().splitlines() or ["no reason given"])[0],
        )
        return None
    return fused


def check_generator(device: torch.device, generator: Generator | None = None) -> None:
    """Draw some noise that is known, and compare.

    The guarantee rests on the noise being what it is said to be, so a device or a build of torch
    that computes integers or Phi^-1 otherwise must not draw any. Compared are the random words,
    bit for bit; Phi^-1 of what they stand for, of both sides of the places where its formulas
    change, and of the ends of the range; and whole pictures, of which at most one value may be
    the neighbouring multiple of the grid.

    Args:
        device: that is to draw.
        generator: that is to draw; None stands for plain torch.

    Raises:
        DenoiserError: it does.
    """
    generator = generator or plain_generator()
    seeds, count = (0x0123456789ABCDEF_FEDCBA9876543210, 2**128 - 1), 3 * 31 * 43
    words = generator.words(seeds, count, device).cpu().numpy().view(np.uint64)
    expected = np.stack([np.random.Philox(key=seed).random_raw(count) for seed in seeds])
    uniform = ((expected >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    given = np.concatenate([uniform.ravel(), _special_points()])
    normal = generator.normal(torch.from_numpy(given).to(device)).cpu().numpy()
    exact = special.ndtri(given)
    clean = np.arange(count, dtype=np.float64).reshape(31, 43, 3) * (257.0 / _GRID)
    drawn = generator.pictures(torch.from_numpy(clean).to(device), _CHECKED_SIGMA, seeds)
    rounded = np.rint(special.ndtri(uniform) * (_CHECKED_SIGMA * _GRID)).reshape(2, *clean.shape)
    moved = np.abs(drawn.double().cpu().numpy() * _GRID - (rounded + clean * _GRID))
    right = (
        np.array_equal(words, expected)
        and bool((np.abs(normal - exact) <= _TOLERANCE * np.abs(exact)).all())
        and moved.max() <= 1
        and np.count_nonzero(moved) <= 1
    )
    if not right:
        raise DenoiserError(
            f"torch {torch.__version__} does not draw on {device} the noise that it draws on "
            "CPUs, which would void the guarantee. Nothing was sent. Use device='cpu', or another "
            f"version of torch. (Generator {generator.name}.)"
        )


def _special_points() -> NDArray[np.float64]:
    """Return where Phi^-1 is hardest: at its formulas' seams, about 1/2, and at the far ends."""
    steps = np.arange(-64.0, 64.0)
    seam, far = np.exp(-2.0), np.exp(-32.0)
    ends = 2.0 ** -np.arange(2.0, 55.0)
    # The numbers that noise is made from are odd multiples of 2^-54: 1/2 is not among them.
    middle = 0.5 + (2.0 * np.arange(-8.0, 8.0) + 1.0) * 2.0**-54
    points = np.concatenate(
        [seam + steps * 2.0**-55, seam * (1.0 + steps * 2.0**-12), far * (1.0 + steps * 2.0**-52),
         middle, ends]
    )  # fmt: skip
    both = np.concatenate([points, 1.0 - points])
    inside: NDArray[np.float64] = both[(both > 0.0) & (both < 1.0) & (both != 0.5)]
    return inside


def keys_of(seeds: Sequence[int]) -> NDArray[np.int64]:
    """Return the lower and the upper 64 bits of each seed, (len(seeds), 2)."""
    halves = [(seed % _WORD, seed // _WORD) for seed in seeds]
    return np.array(halves, dtype=np.uint64).reshape(-1, 2).view(np.int64)


def random_words(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Return what `numpy.random.Philox(key=seed).random_raw(count)` does, for each seed.

    Returns:
        int64 (len(seeds), count), whose bits are those of the unsigned words.
    """
    keys = torch.from_numpy(keys_of(seeds)).to(device)
    return _words(keys[:, :1], keys[:, 1:], count)


def _words(low: Tensor, high: Tensor, count: int) -> Tensor:
    blocks = -(-count // 4)
    counter = torch.arange(1, blocks + 1, dtype=torch.int64, device=low.device)
    counter = counter.expand(len(low), -1)
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
