"""Variants: a pure function of key, photo, sigma and index; exact; Gaussian; secret."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smoothapi.errors import UsageError
from smoothapi.image import load_image
from smoothapi.noise import MAX_SIGMA, NoiseKey, noisy_variants

KEY = NoiseKey(bytes(range(32)))
PINNED = [184859, 564760, 640278, 510248, 150221, 619881]
IMAGE = load_image(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
OTHER = load_image(np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def noise(image=IMAGE, sigma=0.25, index=0, key=KEY):
    return noisy_variants(image, sigma, [index], key)[0].astype(np.float64) - image.pixels


def test_a_variant_depends_on_its_index_alone_not_on_its_company():
    together = noisy_variants(IMAGE, 0.25, [3, 7, 11], KEY)
    assert np.array_equal(together[1], noisy_variants(IMAGE, 0.25, [7], KEY)[0])


def test_variants_do_not_change_between_versions():
    """Stored answers belong to these bits: a change here must be announced as breaking."""
    first = noisy_variants(IMAGE, 0.25, [0], KEY)[0]
    units = (first[0, :2].astype(np.float64) * 2**20).astype(int).ravel().tolist()
    assert units == PINNED


@pytest.mark.parametrize(
    "other",
    [
        {"index": 1},
        {"image": OTHER},
        {"sigma": 0.26},
        {"key": NoiseKey(bytes(32))},
    ],
)
def test_whatever_differs_gives_independent_noise(other):
    one = noise().ravel() / 0.25
    two = noise(**other).ravel() / other.get("sigma", 0.25)
    correlation = np.corrcoef(one, two)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(one.size)


def test_noise_is_gaussian():
    values = np.concatenate([noise(index=i).ravel() for i in range(20)]) / 0.25
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert stats.kurtosis(values) == pytest.approx(0.0, abs=0.05)
    assert np.abs(values).max() > 4.0  # the tail is not clipped


@pytest.mark.parametrize("sigma", [0.05, 0.25, 1.0, MAX_SIGMA])
def test_the_sum_is_exact(sigma):
    """In float32 as in integers: what leaves here is a multiple of the grid."""
    variants = noisy_variants(IMAGE, sigma, range(5), KEY)
    units = variants.astype(np.float64) * 2.0**20
    assert variants.dtype == np.float32
    assert np.array_equal(units, np.rint(units))
    drawn = units - IMAGE.pixels * 2.0**20
    assert np.array_equal(drawn, np.rint(drawn))


def test_the_low_bits_tell_nothing_of_the_photo():
    """A labeller that looks at low-order bits sees the same for two photos: the published attack.

    It breaks noise that is added in float32: there the sum is rounded, and how depends on the
    photo's own bits.
    """
    black = load_image(np.zeros((64, 64, 3)))
    grey = load_image(np.full((64, 64, 3), 0.5))

    def fine_share(values):
        return float(np.mean(values.astype(np.float64) * 2.0**25 % 1.0 != 0.0))

    ours = [fine_share(noisy_variants(image, 0.25, range(8), KEY)) for image in (black, grey)]
    generator = np.random.default_rng(0)
    naive = [
        fine_share(
            np.float32(level)
            + generator.standard_normal((8, 64, 64, 3), dtype=np.float32) * np.float32(0.25)
        )
        for level in (0.0, 0.5)
    ]
    assert abs(naive[0] - naive[1]) > 0.1  # the naive noise gives the photo away
    assert ours == [0.0, 0.0]


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), MAX_SIGMA * 1.01])
def test_impossible_sigma(sigma):
    with pytest.raises(UsageError, match="sigma"):
        noisy_variants(IMAGE, sigma, [0], KEY)


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(UsageError, match="32 bytes"):
        NoiseKey(b"x")
