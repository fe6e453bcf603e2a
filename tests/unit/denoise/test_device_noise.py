"""Noise drawn by torch: the same bits, the same formula, and the same pictures where it counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from smoothapi import Smoother
from smoothapi.certify.arithmetic import _NDTRI_ERROR
from smoothapi.denoise import device_noise, load
from smoothapi.denoise.device_noise import (
    check_generator,
    noisy_pictures,
    random_words,
    standard_normal,
)
from smoothapi.encode import Codec
from smoothapi.errors import DenoiserError, UsageError
from smoothapi.image import load_image
from smoothapi.noise import NoiseKey, _standard_normal, noisy_variants, variant_seeds
from tests.conftest import ScriptedAdapter

from .harness import random_unet

CPU = torch.device("cpu")
KEY = NoiseKey(bytes(range(32)))
IMAGE = load_image(np.random.default_rng(0).integers(0, 256, (20, 26, 3), dtype=np.uint8))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "seed", [0, 1, 2**63, 2**64 - 1, 2**64, 2**128 - 1, 0x0123456789ABCDEF_FEDCBA9876543210]
)
def test_random_bits_are_numpys(device: str, seed: int) -> None:
    seeds = [seed, 12345]
    words = random_words(seeds, 1003, torch.device(device)).cpu().numpy().view(np.uint64)
    for row, each in zip(words, seeds, strict=True):
        assert np.array_equal(row, np.random.Philox(key=each).random_raw(1003))


@given(seed=st.integers(0, 2**128 - 1), count=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_random_bits_are_numpys_for_any_seed(seed: int, count: int) -> None:
    words = random_words([seed], count, CPU).numpy().view(np.uint64)
    assert np.array_equal(words[0], np.random.Philox(key=seed).random_raw(count))


@pytest.mark.parametrize("device", DEVICES)
def test_normal_values_are_numpys_but_for_the_last_places(device: str) -> None:
    seed = 0x0123456789ABCDEF_0F1E2D3C4B5A6978
    ours = standard_normal([seed], 200_000, torch.device(device)).cpu().numpy()[0]
    theirs = _standard_normal([seed], 200_000)[0]
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=2 * _NDTRI_ERROR, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_the_error_is_what_certificates_pay_for(device: str) -> None:
    """`noise_delta` allows a relative error of 2^-48; the worst places are its formulas' seams."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(9)
    seam = np.exp(-2.0) + np.arange(-40, 40) * 2.0**-55
    far = np.exp(-32.0) * (1 + np.arange(-20, 20) * 2.0**-50)
    shares = np.concatenate(
        [rng.random(150), seam, 1 - seam, far, 2.0 ** -rng.uniform(2, 53, 60), [0.5 + 2.0**-53]]
    )
    uniform = torch.tensor(shares, device=device)
    given_ = device_noise.choose_generator(device).normal(uniform).cpu().numpy()
    with mpmath.workdps(40):
        for share, value in zip(shares.tolist(), given_.tolist(), strict=True):
            exact = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(share) - 1)
            assert abs(value - exact) <= _NDTRI_ERROR * abs(exact)


@pytest.mark.parametrize("at_once", [1, 4000, 2**23])
@pytest.mark.parametrize("sigma", [0.05, 0.25, 1.5])
def test_pictures_are_on_the_grid_and_numpys(
    sigma: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoothapi.denoise.device_noise._VALUES_AT_ONCE", at_once)
    seeds = variant_seeds(IMAGE, sigma, [3, 0, 11], KEY)
    drawn = noisy_pictures(torch.from_numpy(np.array(IMAGE.pixels)), sigma, seeds)
    units = drawn.double().numpy() * 2.0**20
    assert drawn.dtype == torch.float32
    assert np.array_equal(units, np.rint(units))
    expected = noisy_variants(IMAGE, sigma, [3, 0, 11], KEY).astype(np.float64) * 2.0**20
    moved = np.abs(units - expected)
    # About one value in 10^9 may be rounded the other way.
    assert moved.max() <= 1
    assert np.count_nonzero(moved) <= 1


def test_the_runtime_draws_and_denoises_in_one_go() -> None:
    runtime = load(random_unet(), device="cpu", name="tiny")
    seeds = variant_seeds(IMAGE, 0.25, range(5), KEY)
    once = runtime.variants_of(IMAGE.pixels, 0.25, seeds)
    assert once.dtype == np.uint8
    assert once.shape == (5, *IMAGE.pixels.shape)
    noisy = noisy_pictures(torch.from_numpy(np.array(IMAGE.pixels)), 0.25, seeds).numpy()
    assert np.array_equal(once, runtime.variants(noisy, 0.25))
    assert runtime.variants_of(IMAGE.pixels, 0.25, []).shape == (0, *IMAGE.pixels.shape)


def test_running_out_of_memory_while_drawing_halves_the_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = load(random_unet(), device="cpu", name="tiny")
    seeds = variant_seeds(IMAGE, 0.25, range(6), KEY)
    whole = runtime.variants_of(IMAGE.pixels, 0.25, seeds)

    draw = device_noise._draw

    def scarce(out: torch.Tensor, *rest: Any) -> None:
        if len(out) > 2:
            raise torch.OutOfMemoryError
        draw(out, *rest)

    monkeypatch.setattr("smoothapi.denoise.device_noise._draw", scarce)
    assert np.array_equal(runtime.variants_of(IMAGE.pixels, 0.25, seeds), whole)
    assert "out of memory" in caplog.text


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_that_draws_right_is_found_right(device: str) -> None:
    check_generator(torch.device(device))


def test_a_device_that_just_passes_errs_by_less_than_is_paid_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far from SciPy as is let through, away from the truth, and rounded once more by sigma."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(10)
    shares = np.concatenate([device_noise._special_points(), rng.random(200)])
    with mpmath.workdps(40):
        true = [mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(share) - 1) for share in shares]
        scipys = ndtri(shares)
        beyond = np.array([np.sign(x - float(z)) or 1.0 for x, z in zip(scipys, true, strict=True)])
        off = 1.0 + beyond * np.sign(scipys) * (2.0**-49 - 2.0**-52)
        for value, z in zip(scipys * off, true, strict=True):
            assert abs(value - z) <= (_NDTRI_ERROR - 2.0**-53) * abs(z)
    for sign in (1.0, -1.0):
        off = 1.0 + sign * (2.0**-49 - 2.0**-52)
        monkeypatch.setattr(
            device_noise, "_quantile", lambda u, off=off: torch.from_numpy(ndtri(u.numpy()) * off)
        )
        check_generator(CPU)


def _one_word(right: Any) -> Any:
    return lambda seeds, count, device: (
        right(seeds, count, device)
        ^ (torch.arange(count, device=device) == count - 2).to(torch.int64)
    )


def _at_the_seam(right: Any) -> Any:
    return lambda u: right(u) * (1 + ((u / np.exp(-2.0) - 1).abs() < 2.0**-51).double() * 2.0**-46)


def _in_the_tail(right: Any) -> Any:
    return lambda u: right(u) * (1 + (u < 1e-14).double() * 2.0**-47)


def _about_a_half(right: Any) -> Any:
    # What a formula gives that computes 1 - u in float32 or forgets how near 1/2 u can be.
    return lambda u: right(torch.where((u - 0.5).abs() < 2.0**-50, 0.5, u))


def _two_values(right: Any) -> Any:
    def draw(out: torch.Tensor, *rest: Any) -> None:
        right(out, *rest)
        out.view(-1)[5:7] += 2.0**-20

    return draw


def _another_picture(right: Any) -> Any:
    return lambda out, pixels, sigma, keys: right(out, pixels, sigma, keys.flip(0))


@pytest.mark.parametrize(
    ("wrong", "by"),
    [
        ("random_words", _one_word),
        ("_quantile", lambda right: lambda u: right(u) * (1.0 + 2.0**-47)),
        ("_quantile", _at_the_seam),
        ("_quantile", _in_the_tail),
        ("_quantile", _about_a_half),
        ("_draw", _two_values),
        ("_draw", _another_picture),
        ("_draw", lambda right: lambda out, x, sigma, keys: right(out, x, sigma * 1.000001, keys)),
    ],
)
def test_a_device_that_draws_something_else_draws_nothing(
    monkeypatch: pytest.MonkeyPatch, wrong: str, by: Any
) -> None:
    monkeypatch.setattr(device_noise, wrong, by(getattr(device_noise, wrong)))
    runtime = load(random_unet(), device="cpu", name="tiny")
    seeds = variant_seeds(IMAGE, 0.25, range(2), KEY)
    with pytest.raises(DenoiserError, match="Nothing was sent"):
        runtime.variants_of(IMAGE.pixels, 0.25, seeds)
    monkeypatch.undo()
    assert len(runtime.variants_of(IMAGE.pixels, 0.25, seeds)) == 2


def test_only_cuda_draws_and_its_answers_are_not_mixed_with_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = load(random_unet(), device="cpu", name="tiny")
    assert not here.draws_noise
    assert not load("none").draws_noise
    device_noise._fused_where_right.cache_clear()
    there = load(random_unet(), device="cpu", precision="fp32", name="tiny")
    monkeypatch.setattr(there, "device", "cuda:0")
    assert there.draws_noise
    drawn = there.fingerprint
    assert "the fused kernel cannot be used" in caplog.text
    fused = device_noise.Generator(
        "triton-philox/1", device_noise.random_words, device_noise._quantile, device_noise._draw
    )
    monkeypatch.setattr(device_noise, "_fused_where_right", lambda _device: fused)
    again = load(random_unet(), device="cpu", precision="fp32", name="tiny")
    monkeypatch.setattr(again, "device", "cuda:0")
    assert len({here.fingerprint, drawn, again.fingerprint}) == 3
    with pytest.raises(UsageError, match="no device"):
        load("none").variants_of(IMAGE.pixels, 0.25, [1])


def test_a_certificate_is_made_of_variants_that_the_device_drew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on CUDA: what a provider is sent is `variants_of`, and nothing is drawn by NumPy."""
    runtime = load(random_unet(), device="cpu", name="tiny")
    monkeypatch.setattr(type(runtime), "draws_noise", property(lambda _: True))
    monkeypatch.setattr("smoothapi.variants.noisy_variants", None)
    adapter = ScriptedAdapter()
    photo = np.asarray(IMAGE.to_uint8())
    with Smoother(adapter, sigma=0.25, denoiser=runtime, plain=False) as smoother:
        certificate = smoother.certify(photo, radius=0.25)
    assert certificate.label == "bus"
    key = NoiseKey(bytes(range(32)))  # of the tests' home
    image = load_image(photo)
    seeds = variant_seeds(image, 0.25, range(certificate.total_votes), key)
    wanted = {Codec().encode(x) for x in runtime.variants_of(image.pixels, 0.25, seeds)}
    assert set(adapter.attempts) == wanted
