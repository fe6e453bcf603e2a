"""False certificates are no more frequent than alpha, and what would break that is noticed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import beta

from smoothapi.certify import (
    SequentialCertify,
    clopper_pearson_lower,
    label_level,
    p_lower,
    required_p,
)
from smoothapi.certify.evalue import PRIOR, boundary, log_evalue
from smoothapi.certify.futility import NEVER
from smoothapi.certify.sequential import SMALLEST_RADIUS, joint_level, needed_share
from tests.statistics.harness import ALPHA, RUNS, Rate, chance_to_certify, ever_certified, votes

CAP = 600
RATIOS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0)


def enough_for(q, level, cap=CAP):
    return boundary(q, level).upto(cap)


def false_rate(drawn, shares, q, level):
    """Return how often any label whose share is not above q is certified."""
    wrong = np.zeros(len(drawn), dtype=bool)
    enough = enough_for(q, level, drawn.shape[1])
    for label, share in enumerate(shares):
        if share <= q:
            wrong |= ever_certified(drawn == label, enough)
    return Rate(int(wrong.sum()), len(wrong))


SCENARIOS = {
    "one label at q": lambda q: [q],
    "one label at q, one rival": lambda q: [q, 1.0 - q],
    "just below q": lambda q: [q - 0.005, 1.005 - q],
    "many labels": lambda q: [q] + [(1.0 - q) / 20] * 20,
    "two near one half": lambda q: [0.5, 0.5],
    "three alike": lambda q: [1 / 3, 1 / 3, 1 / 3],
    "the rest is no answer": lambda q: [min(q, 0.6)],
}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_false_certificates_are_rare(scenario, ratio):
    q = required_p(ratio, 1.0)
    shares = SCENARIOS[scenario](q)
    drawn = votes(shares, CAP, RUNS, seed=7)
    rate = false_rate(drawn, shares, q, label_level(q, ALPHA))
    assert not rate.refutes, str(rate)


@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001, 1e-6])
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_union_over_labels_costs_what_the_derivation_says(ratio, alpha):
    # Exact: the worst corner (one label at q, one at 1 - q), and shares between.
    q = required_p(ratio, 1.0)
    enough = enough_for(q, label_level(q, alpha), 2000)
    worst = chance_to_certify(enough, q, 2000) + chance_to_certify(enough, 1.0 - q, 2000)
    assert worst <= alpha
    for share in np.linspace(1.0 - q, q, 7)[1:-1]:
        total = sum(chance_to_certify(enough, s, 500) for s in (share, 1.0 - share))
        assert total <= worst + 1e-15


@pytest.mark.parametrize("alpha", [math.exp(-1.0), 0.05, 0.001, 1e-9])
@pytest.mark.parametrize("ratio", RATIOS)
def test_what_the_derivation_uses_is_true_of_the_boundary(ratio, alpha):
    q = required_p(ratio, 1.0)
    enough = enough_for(q, alpha, 5000)
    losses = np.arange(len(enough))
    # Each further loss costs at least two votes more, so the margin is least without losses.
    assert np.all(np.diff(enough) >= 2)
    # q is more than one standard error below the share of votes at which a run certifies.
    share = (enough - losses) / enough
    error = np.sqrt(share * (1.0 - share) / (enough - 1))
    assert np.all(share - error >= q - 1e-12)


# What must be noticed. Each mutant is a plausible mistake; the same verdict as above refutes it.


def test_mutant_peeking_with_clopper_pearson_is_refuted():
    q = required_p(0.5, 1.0)
    enough = []
    for losses in range(400):
        n = max(losses + 1, enough[-1] if enough else 1)
        while n <= CAP and clopper_pearson_lower(n - losses, n, ALPHA) <= q:
            n += 1
        if n > CAP:
            break
        enough.append(n)
    drawn = votes([q], CAP, RUNS, seed=1)
    wrong = ever_certified(drawn == 0, np.array(enough))
    rate = Rate(int(wrong.sum()), RUNS)
    assert rate.refutes
    assert rate.errors > 3 * ALPHA * RUNS


def test_mutant_every_label_at_full_alpha_is_refuted():
    # Two labels share the votes and the share to exceed is 1/2: each may err.
    drawn = votes([0.5, 0.5], CAP, RUNS, seed=2)
    assert false_rate(drawn, [0.5, 0.5], required_p(0.0, 1.0), ALPHA).refutes


def test_mutant_threshold_of_twice_alpha_is_refuted():
    # A published betting test ran with threshold ln(1 / (2 alpha)).
    q = required_p(1.0, 1.0)
    drawn = votes([q], CAP, RUNS, seed=3)
    assert false_rate(drawn, [q], q, 2 * ALPHA).refutes


def test_mutant_dropping_failures_is_refuted():
    # The label is at q; three of four answers for others fail.
    q = required_p(0.5, 1.0)
    drawn = votes([q, (1.0 - q) / 4], CAP, 2000, seed=4)  # 2 stands for a failure
    enough = enough_for(q, label_level(q, ALPHA))
    kept = Rate(int(ever_certified(drawn == 0, enough).sum()), len(drawn))
    assert not kept.refutes
    wrong = 0
    for run in drawn:
        answered = run[run != 2]
        wrong += bool(ever_certified((answered == 0)[None, :], enough)[0])
    assert Rate(wrong, len(drawn)).refutes
    assert wrong > 0.9 * len(drawn)


def test_mutant_alpha_not_split_over_questions_is_refuted():
    # Five yes/no questions on the same answers, each at its share.
    q = required_p(0.5, 1.0)
    rng = np.random.default_rng(5)
    wins = [rng.random((RUNS // 2, 300), dtype=np.float32) < q for _ in range(5)]
    for level, refuted in ((ALPHA, True), (ALPHA / 5, False)):
        enough = enough_for(q, label_level(q, level), 300)
        wrong = np.any([ever_certified(one, enough) for one in wins], axis=0)
        assert Rate(int(wrong.sum()), len(wrong)).refutes is refuted


# The class decides exactly as the rule that was simulated.


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_the_class_decides_as_the_rule_does(ratio):
    cap = 200
    q = needed_share(ratio, 1.0, 0.0)
    enough = enough_for(q, joint_level(ratio, 1.0, ALPHA, 0.0), cap)
    drawn = votes([0.5 + 0.4 * ratio, 0.05], cap, 300, seed=6)
    expected = ever_certified(drawn == 0, enough)
    certified = 0
    for run, expect in zip(drawn, expected, strict=True):
        test = SequentialCertify(
            sigma=1.0, alpha=ALPHA, max_votes=cap, radius=ratio, futility=NEVER
        )
        for label in run:
            test.add(("cat", "dog", None)[label])
            if test.done:
                break
        assert (test.result().label == "cat") == expect
        certified += expect
    assert 10 < certified < 290 or ratio == 0.1


def test_the_class_is_valid_with_two_labels_near_one_half_and_switches():
    wrong, runs = 0, 1500
    rng = np.random.default_rng(8)
    for run in rng.integers(0, 2, (runs, 250)):
        test = SequentialCertify(sigma=1.0, alpha=ALPHA, max_votes=250, radius=0.0, futility=NEVER)
        for label in run:
            test.add(("cat", "dog")[label])
            if test.done:
                break
        wrong += not test.result().abstained
    assert not Rate(wrong, runs).refutes
    assert wrong > 0.2 * ALPHA * runs  # or this test could not fail


# The largest radius.


@pytest.mark.parametrize("p", [0.56, 0.75, 0.95])
def test_the_confidence_sequence_covers(p):
    # p_low(n) > p at some n if and only if E_n(p) reaches 1 / alpha at that n.
    drawn = votes([p], 1500, RUNS // 2, seed=9)
    wrong = ever_certified(drawn == 0, enough_for(p, ALPHA, 1500))
    rate = Rate(int(wrong.sum()), len(wrong))
    assert not rate.refutes
    assert rate.errors > 0.3 * ALPHA * rate.runs


@pytest.mark.parametrize("p", [0.55, 0.6, 0.8])
def test_the_largest_radius_is_rarely_too_large(p):
    wrong, runs = 0, 400
    rng = np.random.default_rng(10)
    for run in rng.random((runs, 120)) < p:
        test = SequentialCertify(sigma=1.0, alpha=ALPHA, max_votes=120, radius=None, futility=NEVER)
        for hit in run:
            test.add("cat" if hit else "dog")
            if test.done:
                break
        decision = test.result()
        assert decision.abstained == (decision.radius == 0.0)
        wrong += decision.p_lower > p or decision.label == "dog"
    assert not Rate(wrong, runs).refutes


@pytest.mark.parametrize("floor", [SMALLEST_RADIUS, 0.3])
def test_the_largest_radius_costs_one_alpha(floor):
    # A label between two radii: it may be wrong at the larger, its rival at the smallest.
    q = [required_p(ratio, 1.0) for ratio in (floor, floor + 0.2)]
    level = label_level(q[0], ALPHA)
    for share in np.linspace(q[0] + 1e-6, q[1], 4):
        own = chance_to_certify(enough_for(q[1], level), float(share), CAP)
        rival = chance_to_certify(enough_for(q[0], level), 1.0 - float(share), CAP)
        assert own + rival <= ALPHA


def test_the_bound_and_the_boundary_are_the_same_test():
    rng = np.random.default_rng(11)
    for _ in range(120):
        n = int(rng.integers(1, 3000))
        k = int(rng.integers(n // 2, n + 1))
        bound = p_lower(k, n, 0.01)
        if bound:
            below, above = bound - 1e-9, bound + 1e-6
            assert log_evalue(k, n, below) >= -math.log(0.01) - 1e-6
            assert log_evalue(k, n, above) < -math.log(0.01)
            assert boundary(above, 0.01)[n - k] > n
        else:
            assert log_evalue(k, n, 0.5) < -math.log(0.01) + 1e-6


@pytest.mark.parametrize("prior", [PRIOR, (1.0, 1.0)])
def test_the_evalue_falls_as_the_share_grows(prior):
    for k, n in ((3, 4), (50, 60), (999, 1000), (700, 1000), (5, 5)):
        q = np.linspace(0.5, min(k / n, 1 - 1e-9), 400)
        assert np.all(np.diff(log_evalue(k, n, q, prior)) <= 1e-9)


def test_its_slope_is_what_the_proof_of_that_starts_from():
    # dE/dq = h (E - 1) - E l', with the hazard of the prior and the likelihood's slope.
    step = 1e-6
    for k, n, q in ((40, 47, 0.6), (40, 47, 0.84), (990, 1000, 0.977), (7, 9, 0.7)):
        below, e, above = np.exp(log_evalue(k, n, [q - step, q, q + step]))
        hazard = beta.pdf(q, *PRIOR) / beta.sf(q, *PRIOR)
        slope = hazard * (e - 1.0) - e * (k / q - (n - k) / (1.0 - q))
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-4)


def test_the_evalue_is_a_martingale_at_the_share_and_shrinks_below_it():
    for k, n, q in ((0, 0, 0.6), (40, 47, 0.84), (990, 1000, 0.977), (10, 90, 0.5)):
        now = math.exp(log_evalue(k, n, q))
        win, loss = (math.exp(log_evalue(k + x, n + 1, q)) for x in (1, 0))
        assert q * win + (1 - q) * loss == pytest.approx(now, rel=1e-9)
        assert (q - 0.1) * win + (1.1 - q) * loss < now
        assert win > now > loss


def test_shares_match_the_theorem():
    assert required_p(0.25, 0.25) == pytest.approx(float(ndtr(1.0)), abs=1e-12)
