"""Numbers of `smoothapi.certify` against a second implementation; mutants show that it would tell."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import mpmath
import numpy as np
import pytest
from scipy.special import ndtr

from smoothapi.certify import arithmetic as arithmetic_module
from smoothapi.certify import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    label_level,
    log_evalue,
    noise_delta,
    p_lower,
    radius_from_p,
    required_p,
    share_deduction,
)
from smoothapi.certify.evalue import Boundary, log_evalue_lower
from smoothapi.certify.sequential import needed_share
from smoothapi.certify.topk import share_lower, share_upper, topk_holds
from tests.statistics import oracle

ALPHAS = (0.05, 0.001, 1e-6)
SHARES = tuple(float(ndtr(z)) for z in (0.0, 0.125, 0.5, 1.0, 2.0, 3.0, 4.0))
EXACT = 1e-12  # relative above 1
WIDE = pytest.param(10_000, marks=pytest.mark.slow)


def off(ours, exact):
    return np.max(np.abs(ours - exact) / np.maximum(1.0, np.abs(exact)))


def some_votes(most, q, seed=0, size=400):
    """Return (k, n): all kinds, and those about the boundary, where it matters."""
    rng = np.random.default_rng(seed)
    n = np.unique(np.rint(most ** rng.random(size))).astype(int)
    spread = np.sqrt(n * q * (1.0 - q))
    near = [n * q + s * spread for s in (-6, -1, 0, 1, 2, 3, 4, 6)]
    k = np.concatenate([rng.random(len(n)) * n, 0 * n, n, n - 1, *near])
    n = np.tile(n, len(k) // len(n))
    return np.clip(np.rint(k), 0, n).astype(int), n


# The oracle itself.


@pytest.mark.parametrize("q", [0.5, 0.55, float(ndtr(1)), float(ndtr(4))])
@pytest.mark.parametrize(
    ("k", "n"),
    [(0, 0), (0, 1), (3, 3), (40, 47), (995, 1000), (0, 10_000), (5100, 10_000), (8500, 10_000),
     (9999, 10_000), (10_000, 10_000)],
)  # fmt: skip
def test_the_oracle_is_exact(k, n, q):
    exact = float(oracle.exact_log_evalue(k, n, q))
    assert off(oracle.log_evalue(k, n, q), exact) < EXACT / 10


@pytest.mark.parametrize("q", [0.5, 0.75, 0.984375])
def test_the_oracle_is_exact_with_the_other_prior(q):
    for k, n in ((0, 4), (3, 3), (40, 47), (60, 90), (299, 300)):
        exact = oracle.rational_evalue(k, n, Fraction(q))
        log_exact = math.log(exact.numerator) - math.log(exact.denominator)
        assert off(oracle.log_evalue(k, n, q, oracle.UNIFORM), log_exact) < EXACT


def test_the_oracles_evalue_is_a_martingale():
    # Which no integral of the wrong density, and no likelihood of the wrong votes, would be.
    for q in SHARES:
        k, n = some_votes(300, q, size=60)
        win, loss, now = (oracle.log_evalue(k + w, n + m, q) for w, m in ((1, 1), (0, 1), (0, 0)))
        mean = q * np.exp(win - now) + (1.0 - q) * np.exp(loss - now)
        assert off(mean, np.ones_like(mean)) < EXACT


# E-values.


@pytest.mark.parametrize("most", [3_000, WIDE])
@pytest.mark.parametrize("prior", [oracle.ARCSINE, oracle.UNIFORM])
@pytest.mark.parametrize("q", SHARES)
def test_evalues_agree_and_what_is_compared_is_never_above(q, prior, most):
    k, n = some_votes(most, q, size=60 if most < 10_000 else 2_000)
    exact = oracle.log_evalue(k, n, q, prior)
    ours, below = log_evalue(k, n, q, prior), log_evalue_lower(k, n, q, prior)
    rounding = EXACT * np.maximum(1.0, np.abs(exact))
    assert np.all(np.abs(ours - exact) < 2e-14 * (n + 100) + rounding)
    assert np.all(below < exact + rounding)
    assert np.all(exact - below < 2e-13 * (n + 100) + rounding)


@pytest.mark.parametrize("mutant", [(0.5, 1.0), (1.0, 0.5), (0.5, 0.51)])
def test_mutant_another_prior_is_noticed(mutant):
    k, n = some_votes(1_000, 0.75, size=60)
    assert off(log_evalue(k, n, 0.75, mutant), oracle.log_evalue(k, n, 0.75)) > 1e-4


@pytest.mark.parametrize("most", [400, WIDE])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("q", SHARES)
def test_boundaries_agree_to_the_vote(q, alpha, most):
    ours, exact = Boundary(q, alpha), oracle.boundary(q, alpha, most).tolist()
    assert ours.upto(most).tolist() == exact
    assert [ours[losses] for losses in range(len(exact))] == exact
    assert ours[len(exact)] > most
    assert [ours.most_losses(n) for n in exact] == list(range(len(exact)))


@pytest.mark.parametrize("mutant", [(0.0, 2.0), (0.0, 1.05), (1e-3, 1.0), (-1e-3, 1.0)])
def test_mutant_another_boundary_is_noticed(mutant):
    # Half of alpha, a little of it, and a share that is off.
    further, times = mutant
    ours = Boundary(0.75 + further, 0.001 * times).upto(600)
    assert ours.tolist() != oracle.boundary(0.75, 0.001, 600).tolist()


@pytest.mark.parametrize("alpha", [0.9, *ALPHAS])
@pytest.mark.parametrize("q", SHARES[:-1])
def test_levels_of_labels_agree(q, alpha):
    assert label_level(q, alpha) == pytest.approx(oracle.label_level(q, alpha), rel=EXACT)


@pytest.mark.parametrize("most", [2_000, WIDE])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_lower_bounds_are_the_roots_of_the_evalue(alpha, most):
    k, n = some_votes(most, 0.9, size=10 if most < 10_000 else 200)
    k, n = k[k < n], n[k < n]  # of an unbroken run below
    k, n = np.append(k, [3, 30, 900]), np.append(n, [3, 30, 900])
    roots = oracle.share_passed(k, n, alpha)
    ours = np.array([p_lower(int(a), int(b), alpha) for a, b in zip(k, n, strict=True)])
    assert np.all(ours <= roots + 1e-14)
    assert np.all(roots - ours < 2e-10)
    assert np.any(ours > 0.0)
    # And no larger share is passed: what is above the root fails, wherever one looks.
    for share in np.linspace(0.5, 1.0, 60, endpoint=False):
        passes = oracle.log_evalue(k, n, share) >= -math.log(alpha)
        assert not np.any(passes & (share > roots + 1e-12))


def test_mutant_another_lower_bound_is_noticed():
    # Clopper and Pearson's is above it everywhere: it holds for one n only.
    k, n = some_votes(1_000, 0.9, size=10)
    roots = oracle.share_passed(k, n, 0.001)
    ours = [clopper_pearson_lower(int(a), int(b), 0.001) for a, b in zip(k, n, strict=True)]
    assert np.all((np.array(ours) > roots + 1e-4)[roots > 0.0])


# From shares to radii.


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_shares_and_radii_are_those_of_forty_digits(sigma):
    for ratio in (0.0, 1e-9, 0.125, 0.3, 0.5, 1.0, 1.7, 3.0, 4.0):
        exact = oracle.normal_share(ratio * sigma, sigma)
        ours = required_p(ratio * sigma, sigma)
        assert exact <= ours <= exact + 2e-14
    for p in (0.5 + 1e-9, 0.55, 0.75, 0.9, 0.999, float(ndtr(4))):
        exact = oracle.normal_radius(p, sigma)
        ours = radius_from_p(p, sigma)
        assert exact - EXACT * sigma <= ours <= exact
    assert radius_from_p(0.5, sigma) == 0.0


# The fixed sample.


@pytest.mark.parametrize("alpha", ALPHAS)
def test_clopper_pearson_is_where_the_binomial_tail_is_alpha(alpha):
    for k, n in ((1, 1), (1, 7), (6, 7), (7, 7), (60, 100), (99, 100), (100, 100), (250, 300)):
        low = Fraction(clopper_pearson_lower(k, n, alpha))
        assert oracle.binomial_tail(k, n, low) <= Fraction(alpha)
        assert oracle.binomial_tail(k, n, low * (1 + Fraction(1, 10**10))) > Fraction(alpha)
        high = Fraction(clopper_pearson_upper(n - k, n, alpha))
        assert oracle.binomial_tail(k, n, 1 - high) <= Fraction(alpha)
        missing = (1 - high) * (1 + Fraction(1, 10**10)) + Fraction(1, 2**52)
        assert oracle.binomial_tail(k, n, missing) > Fraction(alpha)
    assert clopper_pearson_lower(0, 50, alpha) == 0.0
    assert clopper_pearson_upper(50, 50, alpha) == 1.0


def wrong_bounds(bound, n, p):
    """Return the exact chance of a lower bound above p."""
    wrong = [k for k in range(n + 1) if Fraction(bound(k)) > p]
    return oracle.binomial_tail(min(wrong), n, p) if wrong else Fraction(0)


@pytest.mark.parametrize("n", [1, 30, 100])
def test_clopper_pearson_covers_exactly(n):
    alpha = 0.05
    shares = [Fraction(i, 40) for i in range(1, 40)]
    # Just below a bound is where it errs most often.
    shares += [Fraction(clopper_pearson_lower(k, n, alpha) * (1 - 1e-9)) for k in range(1, n + 1)]
    rates = [wrong_bounds(lambda k: clopper_pearson_lower(k, n, alpha), n, p) for p in shares]
    assert Fraction(alpha) * Fraction(999, 1000) < max(rates) <= Fraction(alpha)


def test_mutant_the_share_of_one_vote_more_is_noticed():
    p = Fraction(clopper_pearson_lower(20, 30, 0.05) * (1 - 1e-9))
    assert wrong_bounds(lambda k: clopper_pearson_lower(min(k + 1, 30), 30, 0.05), 30, p) > 0.05


# Top-k.


def test_bounds_of_single_shares_are_never_beyond_the_exact_ones():
    rng = np.random.default_rng(3)
    for _ in range(60):
        n = int(rng.integers(1, 120))
        k = int(rng.integers(0, n + 1))
        level = float(rng.choice([0.05, 0.001]))
        low, high = Fraction(share_lower(k, n, level)), Fraction(share_upper(k, n, level))
        if low > 0:  # still passed there, and no more a little above
            assert oracle.rational_evalue(k, n, low) >= 1 / Fraction(level)
            above = low + Fraction(1, 10**6)
            assert oracle.rational_evalue(k, n, above) < 1 / Fraction(level)
        if high < 1:  # the mirrored vote, at the level of a label with that share
            passed = 1 / (Fraction(level) * high)
            assert oracle.rational_evalue(n - k, n, 1 - high) >= passed
            below = high - Fraction(1, 10**6)
            passed = 1 / (Fraction(level) * below)
            assert oracle.rational_evalue(n - k, n, 1 - below) < passed


def test_the_radius_of_top_k_is_that_of_forty_digits():
    rng = np.random.default_rng(4)
    found = 0
    p_lows = (0.02, 0.07, 0.2, 0.3, 0.5, 0.7, 0.9)
    for p_low in p_lows:
        sigma, here, there = rng.choice([0.25, 1.0]), *rng.choice([0.0, 1e-3], 2)
        uppers = list(rng.uniform(0.1, 0.3, int(rng.integers(1, 5))))
        low, high = 0.0, 4.0 * sigma
        for _ in range(40):
            middle = 0.5 * (low + high)
            holds = oracle.topk_margin(middle, sigma, p_low, uppers, here, there) > 0
            low, high = (middle, high) if holds else (low, middle)
        if low == 0.0:
            assert not topk_holds(0.0, sigma, p_low, uppers, here=here, there=there)
            continue
        found += 1
        assert topk_holds(low - 1e-9, sigma, p_low, uppers, here=here, there=there)
        assert not topk_holds(low + 1e-9, sigma, p_low, uppers, here=here, there=there)
    assert 3 < found < len(p_lows)


# The deduction for computed noise.

STEP, ERROR, GRID = 2.0**-53, 2.0**-48, 2.0**-20


@pytest.mark.parametrize("sigma", [0.12, 0.25, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_deduction_is_the_sum_over_all_boundaries(sigma):
    exact = oracle.noise_moves(sigma, STEP, ERROR, GRID)
    assert exact <= noise_delta(1, sigma) < exact * (1.0 + 1e-4)
    assert noise_delta(150_528, sigma) == pytest.approx(150_528 * noise_delta(1, sigma), rel=EXACT)


@pytest.mark.parametrize("mutant", [{"step": STEP * 2}, {"error": ERROR * 2}, {"grid": GRID / 2}])
def test_mutant_another_deduction_is_noticed(mutant):
    # What would be right for half the random bits' fineness, for a worse Phi^-1, a finer grid.
    exact = oracle.noise_moves(0.12, **{"step": STEP, "error": ERROR, "grid": GRID} | mutant)
    assert noise_delta(1, 0.12) < exact * 0.9


@pytest.mark.parametrize(
    ("bits", "error", "grid"), [(12, 0.0, 0.05), (12, 2e-3, 0.1), (14, 1e-4, 0.01)]
)
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_the_deduction_covers_the_worst_in_every_cell(monkeypatch, sigma, bits, error, grid):
    # What is rare becomes frequent with few random bits, a bad Phi^-1 and a coarse grid.
    monkeypatch.setattr(arithmetic_module, "_STEP", 2.0**-bits)
    monkeypatch.setattr(arithmetic_module, "_REACH", -NormalDist().inv_cdf(2.0 ** (1 - bits)))
    monkeypatch.setattr(arithmetic_module, "_NDTRI_ERROR", error)
    monkeypatch.setattr(arithmetic_module, "GRID", grid)
    exact = oracle.noise_moves_cell_by_cell(sigma, bits, error, grid)
    assert noise_delta(1, sigma) / 4 < exact <= noise_delta(1, sigma)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("d", [1e-4, 1e-3, 0.02])
def test_the_deduction_is_enough_at_both_photos(d, times):
    """A label certified at the photo has more than half of the noise drawn at the moved one.

    The worst: the noise drawn flatters the label by d at the photo, and fails it by d at the other,
    where the label's region is the half-space that loses most. One deduction is the mutant.
    """
    for ratio in (0.0, 0.125, 0.5, 1.0, 1.5):
        share = needed_share(ratio * 0.25, 0.25, times * d)
        with mpmath.workdps(40):
            real = mpmath.mpf(share) - d
            moved = mpmath.ncdf(oracle.normal_radius(real, 1) - ratio) - d
            assert (moved >= 0.5) == (times == 2)


def test_the_deduction_is_the_one_of_both_photos():
    assert share_deduction(150_528, 0.25) == 2.0 * noise_delta(150_528, 0.25)
    assert share_deduction(10**12, 0.25) == 1.0


@pytest.mark.parametrize("delta", [0.0, 7.5e-4])
def test_the_shares_of_a_run_are_exact_and_rounded_up(delta):
    for ratio in (0.0, 0.125, 1.0, 2.0, 4.0):
        exact = oracle.normal_share(ratio * 0.25, 0.25) + mpmath.mpf(delta)
        if exact < 1:
            assert exact <= needed_share(ratio * 0.25, 0.25, delta) <= exact + 2e-14
