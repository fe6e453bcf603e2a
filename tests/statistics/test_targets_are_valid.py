"""Presence, most specific and top-k claims are wrong no more often than alpha."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from smoothapi.certify import required_p
from smoothapi.certify.evalue import log_evalue
from smoothapi.certify.presence import MostSpecificTest, PresenceTest
from smoothapi.certify.topk import TopKTest, share_lower, share_upper, topk_holds
from tests.statistics.harness import ALPHA, Rate

CAP = 100


def test_claims_of_presence_are_rarely_wrong() -> None:
    # Two labels are present, one is absent, each exactly as often as does not suffice.
    q = required_p(0.3, 1.0)
    rng = np.random.default_rng(71)
    runs = 600
    wrong = 0
    for run in rng.random((runs, CAP, 3)) < q:
        test = PresenceTest(
            ("a", "b", "c"), "either", 0.5, sigma=1.0, alpha=ALPHA, max_votes=CAP, radius=0.3
        )
        for a, b, no_c in run.tolist():
            said = {"a": a, "b": b, "c": not no_c}
            lists = [[x for x, here in said.items() if here is which] for which in (True, False)]
            test.add(json.dumps([*lists, 0.5]))
            if test.done:
                break
        wrong += bool(test.result().claims)
    assert not Rate(wrong, runs).refutes
    assert wrong > 0


def chains(shares: tuple[float, float], runs: int, seed: int) -> list[str]:
    """Return votes: the leaf with its parent, the parent through another leaf, or neither."""
    leaf, parent = shares
    kinds = (
        '[["leaf", "parent"], [], 0.5]',
        '[["twin", "parent"], [], 0.5]',
        '[["rock"], [], 0.5]',
    )
    rng = np.random.default_rng(seed)
    drawn = rng.choice(3, size=(runs, CAP), p=[leaf, parent - leaf, 1.0 - parent])
    return [[kinds[i] for i in run] for run in drawn]  # type: ignore[misc]


@pytest.mark.parametrize("shares", ["leaf", "both"])
def test_the_most_specific_claim_is_rarely_wrong(shares: str) -> None:
    q = required_p(0.3, 1.0)
    given = {"leaf": (q, 0.99), "both": (q - 0.02, q)}[shares]
    runs = 400
    wrong = 0
    for run in chains(given, runs, 72):
        test = MostSpecificTest(
            0.5, sigma=1.0, alpha=ALPHA, max_votes=CAP, radius=0.3, unlikely=0.0
        )
        for vote in run:
            test.add(vote)
            if test.done:
                break
        label = test.result().label
        wrong += label is not None and (label != "parent" or shares == "both")
    assert not Rate(wrong, runs).refutes
    if shares == "both":
        assert wrong > 0


@pytest.mark.parametrize(
    "shares", [[0.5, 0.3, 0.2], [0.04] * 25, [0.9, 0.05, 0.05], [0.3, 0.3, 0.2, 0.1, 0.1]]
)
def test_the_bounds_of_all_shares_hold_at_once_and_always(shares: list[float]) -> None:
    # The upper bound of a label fails at some n if and only if its e-value at its share does.
    runs, n = 2000, 200
    rng = np.random.default_rng(73)
    drawn = rng.choice(len(shares), size=(runs, n), p=shares)
    votes = np.arange(1, n + 1)
    low = np.zeros(runs, dtype=bool)
    high = np.zeros(runs, dtype=bool)
    for label, share in enumerate(shares):
        wins = np.cumsum(drawn == label, axis=1)
        table = {}
        for against in (False, True):
            k, m = np.meshgrid(np.arange(n + 1), votes)
            hits = np.where(k <= m, m - k if against else k, 0)
            q = 1.0 - share if against else share
            table[against] = log_evalue(hits, m, q, (1.0, 1.0))
        rows = np.arange(n)[None, :]
        high |= np.any(table[True][rows, wins] >= -np.log(ALPHA * share), axis=1)
        low |= np.any(table[False][rows, wins] >= -np.log(ALPHA * share), axis=1)
    assert not Rate(int(high.sum()), runs).refutes
    assert not Rate(int(low.sum()), runs).refutes


def test_mutant_upper_bounds_without_a_union_are_refuted() -> None:
    # Fifty labels, each at full alpha: some bound fails in most runs.
    runs, n, share = 1000, 600, 0.02
    rng = np.random.default_rng(74)
    drawn = rng.choice(50, size=(runs, n))
    votes = np.arange(1, n + 1)
    wrong = np.zeros(runs, dtype=bool)
    for label in range(50):
        wins = np.cumsum(drawn == label, axis=1)
        for at in (99, 299, 599):
            k = wins[:, at]
            wrong |= log_evalue(votes[at] - k, votes[at], 1 - share, (1.0, 1.0)) >= -np.log(ALPHA)
    assert Rate(int(wrong.sum()), runs).refutes


def test_the_bounds_are_where_the_evalues_pass() -> None:
    rng = np.random.default_rng(75)
    for _ in range(60):
        n = int(rng.integers(1, 2000))
        k = int(rng.integers(0, n + 1))
        lower, upper = share_lower(k, n, 0.01), share_upper(k, n, 0.01)
        assert 0.0 <= lower <= k / n <= upper <= 1.0
        if 0 < k < n:
            assert log_evalue(k, n, lower, (1, 1)) == pytest.approx(-np.log(0.01), abs=1e-3)
            if upper < 1.0:
                threshold = -np.log(0.01 * upper)
                assert log_evalue(n - k, n, 1 - upper, (1, 1)) == pytest.approx(threshold, abs=1e-3)
    assert share_upper(0, 0, 0.01) == 1.0
    assert share_lower(0, 0, 0.01) == 0.0


def test_top_1_of_the_top_k_formula_is_cohens_theorem() -> None:
    # With one label to beat, whose share is all the rest, the radius is sigma * Phi^-1(p).
    for p in (0.6, 0.9, 0.99):
        radius = 0.25 * float(ndtri(p))
        assert topk_holds(radius - 1e-6, 0.25, p, [1.0])
        assert not topk_holds(radius + 1e-6, 0.25, p, [1.0])
        # A runner-up known to be smaller: (Phi^-1(p_A) - Phi^-1(p_B)) / 2.
        wide = 0.125 * float(ndtri(p) - ndtri((1 - p) / 2))
        assert topk_holds(wide - 1e-6, 0.25, p, [(1 - p) / 2])
        assert not topk_holds(wide + 1e-6, 0.25, p, [(1 - p) / 2])


def test_top_k_holds_for_the_worst_classifier_it_allows() -> None:
    # Jia et al. 2020: with t = k the single k-th rival decides, with t = 1 all k together.
    own, uppers, sigma = 0.3, [0.25, 0.2, 0.1], 1.0
    radius = 0.1
    mine = ndtr(ndtri(own) - radius)
    third = ndtr(ndtri(0.1) + radius)
    assert mine > third
    assert topk_holds(radius, sigma, own, uppers)
    assert topk_holds(radius, sigma, own, uppers[::-1])
    assert not topk_holds(radius, sigma, own, uppers[:1])
    assert not topk_holds(0.0, sigma, 0.2, [0.2])


def test_top_k_claims_are_rarely_wrong() -> None:
    # Three labels alike and k = 2: whichever is returned need not be among the two best.
    runs, wrong = 100, 0
    rng = np.random.default_rng(76)
    for run in rng.integers(0, 3, (runs, 40)):
        test = TopKTest(2, sigma=1.0, alpha=ALPHA, max_votes=40, radius=0.0, unlikely=0.0)
        for label in run:
            test.add("abc"[label])
            if test.done:
                break
        wrong += not test.result().abstained
    assert not Rate(wrong, runs).refutes


def test_a_label_with_two_parents_lends_neither_the_presence_of_the_other() -> None:
    """X is under P1 and under P2. Each is present in 7 of 10 answers, below the share asked for."""
    rng = np.random.default_rng(5)
    votes = [
        json.dumps(v) for v in ([["X", "P1", "P2"], [], 0.5], [["P1"], [], 0.5], [["P2"], [], 0.5])
    ]
    wrong = 0
    for _ in range(200):
        test = MostSpecificTest(0.5, sigma=0.25, alpha=ALPHA, max_votes=150, radius=0.25)
        for index in rng.choice(3, size=150, p=[0.4, 0.3, 0.3]):
            test.add(votes[index])
            if test.done:
                break
        wrong += not test.result().abstained
    assert not Rate(wrong, 200).refutes
