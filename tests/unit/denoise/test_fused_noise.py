"""The fused kernel of the noise, run by Triton's interpreter, which must be chosen at import."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from smoothapi.image import load_image
from smoothapi.noise import NoiseKey, noisy_variants, variant_seeds

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
inside = pytest.mark.skipif(not INTERPRETED, reason="runs inside of the first test of this file")
CPU = torch.device("cpu")
SEEDS = [0, 1, 2**63, 2**64 - 1, 2**64, 2**128 - 1, 0x0123456789ABCDEF_FEDCBA9876543210]


@pytest.mark.skipif(INTERPRETED, reason="starts itself")
def test_the_kernel_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__]
    run = subprocess.run(
        command,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "7 passed" in run.stdout, run.stdout


@inside
def test_random_bits_are_numpys() -> None:
    from smoothapi.denoise import fused_noise
    from smoothapi.denoise.device_noise import keys_of

    words = fused_noise.words(torch.from_numpy(keys_of(SEEDS)), 1003).numpy().view(np.uint64)
    for row, seed in zip(words, SEEDS, strict=True):
        assert np.array_equal(row, np.random.Philox(key=seed).random_raw(1003))


@inside
def test_normal_values_are_scipys_to_2_to_the_minus_49() -> None:
    from smoothapi.denoise import fused_noise
    from smoothapi.denoise.device_noise import _special_points

    rng = np.random.default_rng(3)
    shares = np.concatenate(
        [_special_points(), rng.random(20_000), 2.0 ** -rng.uniform(1, 53, 5_000)]
    )
    shares = shares[shares != 0.5]
    normal = fused_noise.normal(torch.from_numpy(shares)).numpy()
    assert np.abs(normal / ndtri(shares) - 1.0).max() <= 2.0**-49


@inside
@pytest.mark.parametrize("sigma", [0.05, 0.25, 1.5])
def test_pictures_are_on_the_grid_and_numpys(sigma: float) -> None:
    from smoothapi.denoise.device_noise import fused_generator

    key = NoiseKey(bytes(range(32)))
    image = load_image(np.random.default_rng(0).integers(0, 256, (20, 26, 3), dtype=np.uint8))
    seeds = variant_seeds(image, sigma, [3, 0, 11], key)
    pixels = torch.from_numpy(np.array(image.pixels))
    units = fused_generator().pictures(pixels, sigma, seeds).double().numpy() * 2.0**20
    assert np.array_equal(units, np.rint(units))
    moved = np.abs(units - noisy_variants(image, sigma, [3, 0, 11], key).astype(float) * 2.0**20)
    assert moved.max() <= 1
    assert np.count_nonzero(moved) <= 1


@inside
def test_it_passes_the_check_without_a_warning() -> None:
    from smoothapi.denoise.device_noise import check_generator, fused_generator

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_generator(CPU, fused_generator())


@inside
def test_a_kernel_that_draws_something_else_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from smoothapi.denoise.device_noise import check_generator, fused_generator
    from smoothapi.errors import DenoiserError

    right = fused_generator()
    wrong = replace(right, normal=lambda u: right.normal(u) * (1 + 2.0**-47))
    with pytest.raises(DenoiserError, match="triton-philox/1"):
        check_generator(CPU, wrong)
