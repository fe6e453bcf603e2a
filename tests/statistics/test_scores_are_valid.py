"""Certified scores are wrong no more often than they say: exactly, and in simulation with mutants."""

import json
from functools import cache

import numpy as np
import pytest
from scipy.stats import beta

from smoothapi.certify.evalue import boundary
from smoothapi.certify.scores import ScoresTest
from smoothapi.certify.sequential import label_level, needed_share
from tests.statistics.harness import ALPHA, Rate, chance_to_certify

SIGMA, CAP = 0.25, 200


@pytest.mark.parametrize("radius", [0.03, 0.125, 0.25, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_one_null_of_a_label_exactly(radius, alpha):
    """Every wrong report is the rejection of "score > t*", whose share is at most q."""
    q = needed_share(radius, SIGMA, 0.0)
    enough = boundary(q, label_level(q, alpha)).upto(1500)
    wrong = chance_to_certify(enough, q, 1500)
    assert 0.3 * alpha < wrong <= alpha


class Peeking(ScoresTest):
    """Takes a bound for a sample of fixed size after each vote."""

    def _raise(self, scores):
        self._allowed = most_losses(self._tally.total(), self._alpha / 2, self._share)
        super()._raise(scores)


@cache
def most_losses(n, level, share):
    """Return the most losses at which Clopper and Pearson's lower bound still exceeds the share."""
    losses = np.arange(n)
    return int((beta.ppf(level, n - losses, losses + 1) > share).sum()) - 1


class DropsFailures(ScoresTest):
    """Forgets variants that failed."""

    def add(self, vote):
        if vote is not None:
            super().add(vote)


class Undivided(ScoresTest):
    """Gives each label all of alpha."""

    def __init__(self, labels, least, **terms):
        terms["alpha"] *= len(labels)
        super().__init__(labels, least, **terms)


def rate(draw, kind=ScoresTest, *, labels=2, runs=600, radius=0.125):
    """Return how often a report goes beyond what is true; draw gives (votes, highest true t)."""
    random = np.random.default_rng(0)
    q = needed_share(radius, SIGMA, 0.0)
    wrong = 0
    for _ in range(runs):
        votes, truth, least = draw(random, q)
        test = kind(
            [f"label {i}" for i in range(labels)], least,
            sigma=SIGMA, alpha=ALPHA, max_votes=CAP, radius=radius,
        )  # fmt: skip
        for scores in votes:
            if test.done:
                break
            test.add(None if scores is None else vote(scores, least))
        wrong += any(
            claim.relation == "at least" and claim.score > truth for claim in test.result().claims
        )
    return Rate(wrong, runs)


def vote(scores, least):
    return json.dumps([{f"label {i}": score for i, score in enumerate(scores)}, least])


def continuous(random, q):
    """Uniform scores: p_t = 1 - t crosses q at 1 - q. The second label keeps the run going."""
    scores = random.random((CAP, 2))
    return scores, 1.0 - q, 1.0 - q - 1e-9


def at_least_itself(random, q):
    """The share at the least score is q itself: any report from below is wrong."""
    present = random.random((CAP, 2)) < q
    return np.where(present, 0.8, 0.2), 0.5, 0.5


def correlated(random, q):
    """Two labels with the same score, and an atom where the share falls to q."""
    drawn = random.random(CAP)
    score = np.where(drawn < q, 0.9, np.where(drawn < 0.95, 0.6, 0.1))
    return np.stack([score, score], axis=1), 0.6, 0.3


def failing_where_low(random, q):
    """What would have had a low score fails instead."""
    present = random.random(CAP) < q
    return [(0.8, 0.8) if one else None for one in present], 0.5, 0.5


def many(random, q):
    present = random.random((CAP, 6)) < q
    return np.where(present, 0.8, 0.2), 0.5, 0.5


@pytest.mark.parametrize("draw", [continuous, at_least_itself, correlated, failing_where_low])
def test_reports_are_wrong_no_more_often_than_alpha(draw):
    assert not rate(draw).refutes


def test_several_labels_share_alpha():
    assert not rate(many, labels=6).refutes


@pytest.mark.parametrize(
    ("mutant", "draw", "labels"),
    [(Peeking, at_least_itself, 2), (DropsFailures, failing_where_low, 2), (Undivided, many, 6)],
)
def test_mutants_are_caught(mutant, draw, labels):
    assert rate(draw, mutant, labels=labels, runs=300).refutes
