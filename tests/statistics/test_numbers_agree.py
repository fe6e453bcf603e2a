"""Agreement with SciPy and with sixty digits, at ordinary and at extreme numbers of votes.

`test_oracle_numbers` holds the same functions against a second implementation.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smoothapi.certify import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    fixed_certify,
    log_evalue,
    p_lower,
    radius_from_p,
    required_p,
)
from smoothapi.certify.evalue import Boundary
from smoothapi.errors import UsageError


def counts(most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(1, most).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts(3000), st.sampled_from([1e-6, 0.001, 0.05, 0.5]))
@settings(max_examples=60, deadline=None)
def test_clopper_pearson_agrees_with_scipy(votes: tuple[int, int], alpha: float) -> None:
    k, n = votes
    for ours, side in ((clopper_pearson_lower, "greater"), (clopper_pearson_upper, "less")):
        interval = stats.binomtest(k, n, alternative=side).proportion_ci(1.0 - alpha, "exact")
        theirs = interval.low if side == "greater" else interval.high
        assert ours(k, n, alpha) == pytest.approx(theirs, rel=1e-7, abs=1e-9)


def test_fixed_certify_is_the_papers() -> None:
    # 100,000 votes for one label: published ImageNet radii at sigma 0.25 top out at 0.978, so their
    # alpha was 0.01. At 0.001 it would have been 0.953.
    for alpha, radius in ((0.01, 0.978), (0.001, 0.953)):
        unbroken = fixed_certify(["cat"] * 100, ["cat"] * 100_000, sigma=0.25, alpha=alpha)
        assert round(unbroken.radius, 3) == radius
        bound = alpha ** (1 / 100_000)
        assert unbroken.radius == pytest.approx(0.25 * stats.norm.ppf(bound), abs=2e-5)
    split = fixed_certify(
        ["cat"] * 6 + ["dog"] * 4, ["cat"] * 55 + ["dog"] * 45, sigma=1, alpha=0.01
    )
    assert split.abstained
    assert split.candidate == "cat"
    none = fixed_certify([None] * 5, ["cat"] * 100, sigma=1, alpha=0.01)
    assert none.abstained
    with pytest.raises(UsageError):
        fixed_certify([], ["cat"], sigma=1, alpha=0.01)


def exact(k: int, n: int, q: float) -> float:
    """Return log E_n(q) with 60 digits."""
    with mpmath.workdps(60):
        half, share = mpmath.mpf(1) / 2, mpmath.mpf(q)

        def log_tail(a: mpmath.mpf, b: mpmath.mpf) -> mpmath.mpf:
            series = mpmath.hyp2f1(1, a + b, b + 1, 1 - share, maxterms=10**6)
            return (
                a * mpmath.log(share)
                + b * mpmath.log(1 - share)
                - mpmath.log(b)
                + mpmath.log(series)
            )

        ratio = log_tail(k + half, n - k + half) - log_tail(half, half)
        return float(ratio - k * mpmath.log(share) - (n - k) * mpmath.log(1 - share))


@pytest.mark.parametrize("q", [0.5 + 1e-9, 0.8413, 0.9772, 0.99865, 1 - 1e-7])
@pytest.mark.parametrize("n", [1, 1000, 20_000])
def test_the_evalue_agrees_with_sixty_digits(n: int, q: float) -> None:
    spread = int(4 * math.sqrt(n * q * (1 - q)))
    for k in {0, n // 2, min(n, int(n * q)), min(n, int(n * q) + spread), n - 1, n}:
        value = float(log_evalue(k, n, q))
        assert abs(value - exact(k, n, q)) < 1e-13 * (n + 100)


@pytest.mark.parametrize("n", [10**6, 10**7])
@pytest.mark.parametrize("q", [0.5 + 1e-9, 0.8413, 0.99865, 1 - 1e-7])
def test_nothing_breaks_at_millions_of_votes(n: int, q: float) -> None:
    near = [int(n * q) + step * int(math.sqrt(n * q * (1 - q)) + 1) for step in range(-8, 9)]
    k = np.unique(np.clip([0, 1, n // 2, *near, n - 1, n], 0, n))
    values = log_evalue(k, n, q)
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values) > 0)  # a vote more for the label is always better
    assert values[0] < -1.0
    for label in k:
        bound = p_lower(int(label), n, 0.001)
        assert 0.0 <= bound <= max(label / n, 0.5)
        assert clopper_pearson_lower(int(label), n, 0.001) <= label / n


def test_an_unbroken_run_in_closed_form() -> None:
    # With a uniform mixture E_n = (1 - q^(n+1)) / ((n + 1) (1 - q) q^n).
    q, n = 0.8, np.arange(1, 200)
    closed = np.log((1 - q ** (n + 1)) / ((n + 1) * (1 - q) * q**n))
    assert log_evalue(n, n, q, prior=(1.0, 1.0)) == pytest.approx(closed, abs=1e-11)


@given(st.floats(0.5, 0.999), st.sampled_from([0.2, 0.05, 1e-3, 1e-9]), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_a_boundary_is_exactly_where_the_evalue_passes(q: float, alpha: float, losses: int) -> None:
    n = Boundary(q, alpha)[losses]
    assert log_evalue(n - losses, n, q) >= -math.log(alpha)
    if n - 1 >= losses:
        assert log_evalue(n - 1 - losses, n - 1, q) < -math.log(alpha) + 1e-9


@given(counts(10**7), st.floats(1e-9, 0.5))
@settings(max_examples=60, deadline=None)
def test_bounds_are_below_the_share_and_move_with_alpha(
    votes: tuple[int, int], alpha: float
) -> None:
    k, n = votes
    bound = p_lower(k, n, alpha)
    assert bound <= k / n
    assert bound == 0.0 or bound >= 0.5
    assert p_lower(k, n, alpha / 2) <= bound
    # A sequence cannot be tighter than what is exact for one n.
    assert bound <= clopper_pearson_lower(k, n, alpha) + 1e-9


@given(st.floats(0.0, 7.0), st.floats(0.01, 1.5))
@settings(max_examples=100, deadline=None)
def test_radius_and_share_are_inverse_and_rounded_to_the_safe_side(
    ratio: float, sigma: float
) -> None:
    radius = ratio * sigma
    share = required_p(radius, sigma)
    assert share >= stats.norm.cdf(ratio) - 1e-16
    if ratio < 6:
        assert radius_from_p(share, sigma) == pytest.approx(radius, abs=1e-7 * sigma)
    with mpmath.workdps(30):
        exact_share = mpmath.ncdf(mpmath.mpf(radius) / mpmath.mpf(sigma))
        assert share >= exact_share
        p_low = min(max(share - 1e-3, 0.0), 1 - 1e-9)
        claimed = mpmath.mpf(radius_from_p(p_low, sigma)) / mpmath.mpf(sigma)
        assert mpmath.ncdf(claimed) <= mpmath.mpf(max(p_low, 0.5))


@pytest.mark.parametrize(
    ("k", "n", "alpha"),
    [
        (101, 100, 0.001), (-1, 100, 0.001), (1, 0, 0.001), (0.5, 10, 0.001),
        (math.nan, 10, 0.001), (5, math.nan, 0.001), (5, math.inf, 0.001),
        (5, 10, 0.0), (5, 10, 1.0), (5, 10, -0.1), (5, 10, math.nan),
    ],
)  # fmt: skip
def test_impossible_votes_raise(k: float, n: float, alpha: float) -> None:
    # A published code base let more votes than n into Clopper-Pearson and printed radius NaN.
    for bound in (clopper_pearson_lower, clopper_pearson_upper, p_lower):
        with pytest.raises(UsageError):
            bound(k, n, alpha)  # type: ignore[arg-type]


@pytest.mark.parametrize("p_low", [math.nan, -0.1, 1.1])
def test_impossible_shares_raise(p_low: float) -> None:
    with pytest.raises(UsageError):
        radius_from_p(p_low, 0.25)
