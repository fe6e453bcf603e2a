"""What floating point costs, and rounding for people."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from smoothapi.certify import GRID, ceil_to, floor_to, noise_delta, rounding_radius
from smoothapi.certify import arithmetic as module
from smoothapi.errors import UsageError

NUMBERS = st.floats(-1e6, 1e6)
DECIMALS = st.integers(0, 9)


@given(NUMBERS, DECIMALS)
def test_rounding_goes_the_safe_way_once(value: float, decimals: int) -> None:
    low, high = floor_to(value, decimals), ceil_to(value, decimals)
    assert low <= value <= high
    assert high - low <= 10.0**-decimals * (1 + 1e-9) + 1e-9
    assert floor_to(low, decimals) == low
    assert ceil_to(high, decimals) == high
    assert len(f"{low!r}".partition(".")[2].partition("e")[0]) <= max(decimals, 1) or "e" in repr(
        low
    )


def test_rounding_keeps_what_people_write() -> None:
    for text in ("0.1", "0.25", "0.3", "0.7", "1.1", "0.123456"):
        assert floor_to(float(text), 6) == float(text) == ceil_to(float(text), 6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_rounded(bad: float) -> None:
    with pytest.raises(UsageError):
        floor_to(bad, 6)
    with pytest.raises(UsageError):
        ceil_to(bad, 6)


def test_noise_delta_is_small_and_grows_with_the_picture() -> None:
    one = noise_delta(1, 0.25)
    assert 1e-10 < one < 5e-9
    assert noise_delta(150_528, 0.25) == pytest.approx(150_528 * one)
    assert noise_delta(150_528, 1.0) > noise_delta(150_528, 0.25)
    assert noise_delta(10**12, 0.25) == 1.0


@pytest.mark.parametrize(("pixels", "sigma"), [(0, 0.25), (10, 0.0), (10, math.nan), (10, -1.0)])
def test_noise_delta_refuses_impossible_pictures(pixels: int, sigma: float) -> None:
    with pytest.raises(UsageError):
        noise_delta(pixels, sigma)


def test_the_normal_quantile_is_as_exact_as_noise_delta_assumes() -> None:
    rng = np.random.default_rng(41)
    u = np.concatenate([
        rng.random(300),
        10.0 ** -rng.uniform(0, 15.9, 300),
        1.0 - 10.0 ** -rng.uniform(0, 15.0, 300),
        math.exp(-2) + rng.uniform(-1e-3, 1e-3, 300),  # where its formulas change
        1.0 - math.exp(-2) + rng.uniform(-1e-3, 1e-3, 300),
    ])  # fmt: skip
    with mpmath.workdps(40):
        for share, z in zip(u, ndtri(u), strict=True):
            point = mpmath.mpf(float(z))
            if share < 0.5:
                off = mpmath.ncdf(point) - mpmath.mpf(float(share))
            else:
                off = (1 - mpmath.mpf(float(share))) - mpmath.ncdf(-point)
            error = abs(off / mpmath.npdf(point) / point)
            # The product with sigma adds half a unit in the last place.
            assert error + 2.0**-53 < module._NDTRI_ERROR / 2


def test_noise_that_is_rounded_differently_is_as_rare_as_noise_delta_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With 16 random bits and a coarse grid what is rare becomes frequent, and can be counted:
    # U uniform in the cell of i, against u = (i + 1/2) / 2^16.
    monkeypatch.setattr(module, "_STEP", 2.0**-16)
    monkeypatch.setattr(module, "_REACH", float(-ndtri(2.0**-15)))
    monkeypatch.setattr(module, "_NDTRI_ERROR", 0.0)
    monkeypatch.setattr(module, "GRID", 2.0**-8)
    rng = np.random.default_rng(42)
    exact = rng.random(4_000_000)
    used = (np.floor(exact * 2.0**16) + 0.5) * 2.0**-16
    for sigma in (0.25, 1.0):
        differ = np.rint(sigma * ndtri(exact) * 2**8) != np.rint(sigma * ndtri(used) * 2**8)
        bound = noise_delta(1, sigma)
        assert differ.mean() <= bound
        assert differ.mean() > bound / 50  # or the test could not fail


def test_rounding_radius_bounds_what_rounding_does() -> None:
    rng = np.random.default_rng(43)
    pixels = 3000
    bound = rounding_radius(pixels, resize_error=0.0)
    one = rng.random(pixels)
    on_grid = np.rint(one / GRID) * GRID
    # The worst case: every value is just beside a boundary, on opposite sides in the two photos.
    left, right = on_grid + 0.499 * GRID, on_grid + 0.501 * GRID
    apart = np.linalg.norm(np.rint(left / GRID) * GRID - np.rint(right / GRID) * GRID)
    assert 0.99 * bound < apart <= bound + np.linalg.norm(left - right)
    assert rounding_radius(pixels) > bound
    assert rounding_radius(150_528) < 1e-3


def test_rounding_radius_refuses_impossible_pictures() -> None:
    with pytest.raises(UsageError):
        rounding_radius(0)
    with pytest.raises(UsageError):
        rounding_radius(10, resize_error=-1.0)


def test_the_sum_of_photo_and_noise_is_exact_in_float32() -> None:
    rng = np.random.default_rng(44)
    photo = rng.integers(0, 2**20 + 1, 100_000)
    noise = np.rint(1.5 * ndtri(rng.random(100_000)) * 2**20)
    total = (photo + noise) * GRID
    assert np.array_equal(total.astype(np.float32).astype(np.float64) / GRID, photo + noise)
