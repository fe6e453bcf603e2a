"""Low-order bits give a photo away under naive noise, and tell nothing under smoothapi's.

After Voracek and Hein (ICLR 2023): a classifier that looks at how finely noisy values are rounded
knows on which side of 1/2 the photo was, because the noise that cancels a value above 1/2 has
float32 steps of 2^-24, below 1/2 of 2^-25. So two photos at L2 distance 0.375 get different labels
with certainty, and naive smoothing certifies one of them at a radius that holds the other.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from smoothapi.certify import Decision, SequentialCertify, noise_delta
from smoothapi.image import WorkingImage
from smoothapi.noise import NoiseKey, noisy_variants

SIDE = 192
SIGMA = 0.25
RADIUS = 0.4
STEP = 2.0**-10
NEAR = 0.95 * STEP
KEY = NoiseKey(bytes(range(32)))


def photo(shift: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 1), 0.5 + shift)


def sees_fine_steps(noisy: np.ndarray) -> str:
    """The attacker's classifier: does any value near 0 use steps below 2^-24?"""
    near = noisy[np.abs(noisy) < NEAR].astype(np.float64)
    return "fine" if np.any(np.rint(near * 2.0**24) != near * 2.0**24) else "coarse"


def sees_odd_steps(noisy: np.ndarray) -> str:
    """The same idea on smoothapi's own grid: are values near 0 mostly odd multiples of it?"""
    near = np.rint(noisy[np.abs(noisy) < NEAR].astype(np.float64) * 2.0**20)
    return "odd" if np.mean(near % 2) > 0.5 else "even"


def naive(pixels: np.ndarray, index: int) -> np.ndarray:
    rng = np.random.default_rng([7, index])
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(SIGMA)
    return pixels.astype(np.float32) + noise


def sound(pixels: np.ndarray, index: int) -> np.ndarray:
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    image = WorkingImage(pixels, digest, (SIDE, SIDE), 1.0, "attack")
    return noisy_variants(image, SIGMA, [index], KEY)[0]


def certify(noise, classifier, pixels: np.ndarray) -> Decision:
    test = SequentialCertify(
        sigma=SIGMA,
        alpha=0.001,
        max_votes=300,
        radius=RADIUS,
        delta=noise_delta(pixels.size, SIGMA),
    )
    index = 0
    while not test.done:
        test.add(classifier(noise(pixels, index)))
        index += 1
    return test.result()


def test_the_two_photos_are_within_the_radius() -> None:
    assert np.linalg.norm(photo(STEP) - photo(-STEP)) < RADIUS


def test_naive_float32_noise_gives_a_false_certificate() -> None:
    above = certify(naive, sees_fine_steps, photo(STEP))
    below = certify(naive, sees_fine_steps, photo(-STEP))
    assert above.label == "coarse"
    assert below.label == "fine"
    assert above.radius == below.radius == RADIUS  # both cannot be true


def test_smoothapis_noise_gives_the_same_answer_for_both() -> None:
    above = certify(sound, sees_fine_steps, photo(STEP))
    below = certify(sound, sees_fine_steps, photo(-STEP))
    assert above.label == below.label == "coarse"


@pytest.mark.parametrize("shift", [STEP, -STEP])
def test_an_attack_on_the_grid_itself_learns_nothing(shift: float) -> None:
    decision = certify(sound, sees_odd_steps, photo(shift))
    assert decision.abstained
    # And the odd steps are as frequent as the even ones.
    near = [sound(photo(shift), i) for i in range(60)]
    steps = [np.rint(one[np.abs(one) < NEAR].astype(float) * 2.0**20) for one in near]
    odd = np.concatenate(steps) % 2
    assert abs(odd.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(len(odd))
