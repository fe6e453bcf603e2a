"""Variant i of an image is a pure function of (key, image digest, sigma, i).

The guarantee needs noise that an attacker cannot predict, so it is keyed: each variant's
generator is seeded with a keyed BLAKE2b of what the variant is. The same photo gets the same
variants again, so that a second run is answered from the cache and a killed run resumes.

The arithmetic follows Voracek and Hein, "Sound Randomized Smoothing in Floating-Point Arithmetic"
(ICLR 2023): the working image lies on the grid g = 2**-20; the noise is sigma * Phi^-1(u) with u
of 53 random bits, computed in float64 and rounded to the grid; their sum is exact, and so is its
cast to float32 below magnitude 16. Nothing of the photo can leak through rounding, because
nothing is rounded after the photo enters. What this costs is in `smoothapi.certify.arithmetic`.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from smoothapi._special import special
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from smoothapi.image import WorkingImage

MAX_SIGMA = 1.5
"""|Phi^-1(u)| < 8.3, so that values stay below 16, where float32 holds the grid exactly."""

_GRID = 2.0**20
_KEY_BYTES = 32
_FITS_THE_CACHE = 2**17  # numbers that are drawn together


@dataclass(frozen=True)
class NoiseKey:
    """The installation's secret that all noise is drawn from.

    Attributes:
        secret: 32 random bytes; never shown, never in a certificate.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != _KEY_BYTES:
            raise UsageError(f"A noise key has {_KEY_BYTES} bytes; this has {len(self.secret)}.")

    @property
    def id(self) -> str:
        """A public name of the key that tells nothing about it (16 hex digits)."""
        return hashlib.blake2b(
            b"key id", key=self.secret, digest_size=8, person=b"smoothapi"
        ).hexdigest()

    def stream(self, name: str) -> NoiseKey:
        """Return the key of a stream of its own, of which this one's noise tells nothing."""
        secret = hashlib.blake2b(
            name.encode(), key=self.secret, digest_size=_KEY_BYTES, person=b"smoothapi stream"
        )
        return NoiseKey(secret.digest())

    @classmethod
    def generate(cls) -> NoiseKey:
        """Draw a fresh key from the operating system's generator."""
        return cls(secrets.token_bytes(_KEY_BYTES))


def noisy_variants(
    image: WorkingImage, sigma: float, indices: Sequence[int], key: NoiseKey
) -> NDArray[np.float32]:
    """Return the working image under the noise of each index.

    Args:
        image: the working image, on the grid 2**-20.
        sigma: standard deviation per channel value, in units of the [0, 1] range.
        indices: which variants, 0-based.
        key: the installation's key.

    Returns:
        (len(indices), height, width, 3) float32, unclipped, exact multiples of 2**-20.
    """
    units = image.pixels * _GRID
    out = np.empty((len(indices), *units.shape), dtype=np.float32)
    seeds = variant_seeds(image, sigma, indices, key)
    together = max(1, _FITS_THE_CACHE // units.size)
    for begin in range(0, len(seeds), together):
        part = out[begin : begin + together]
        noise = _standard_normal(seeds[begin : begin + together], units.size)
        noise *= sigma * _GRID
        np.rint(noise, out=noise)
        total = noise.reshape(part.shape)
        total += units
        np.multiply(total, 1.0 / _GRID, out=part, casting="same_kind")
    return out


def variant_seeds(
    image: WorkingImage, sigma: float, indices: Sequence[int], key: NoiseKey
) -> list[int]:
    """Return the 128 bits that each variant's noise is drawn from; as secret as the key.

    Takes what `noisy_variants` takes, for whoever draws the noise elsewhere by the same rule.
    """
    if not (0.0 < sigma <= MAX_SIGMA):
        raise UsageError(f"sigma={sigma} is out of range: noise levels are in (0, {MAX_SIGMA}].")
    return [_seed(key, image.digest, sigma, index) for index in indices]


def _seed(key: NoiseKey, digest: str, sigma: float, index: int) -> int:
    context = struct.pack("<dQ", sigma, index) + digest.encode()
    hashed = hashlib.blake2b(context, key=key.secret, digest_size=16, person=b"smoothapi noise1")
    return int.from_bytes(hashed.digest(), "little")


def _standard_normal(seeds: Sequence[int], count: int) -> NDArray[np.float64]:
    """Return (len(seeds), count) values Phi^-1(u), u = (53 random bits + 1/2) / 2**53.

    That is never 0 or 1, so they are always finite.
    """
    raw = np.stack([np.random.Philox(key=seed).random_raw(count) for seed in seeds])
    raw >>= np.uint64(11)
    uniform = raw.astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-53
    np.minimum(uniform, 1.0 - 2.0**-53, out=uniform)  # the half is rounded, at the very top to 1
    normal: NDArray[np.float64] = special.ndtri(uniform, out=uniform)
    return normal
