"""Whole runs decide as a second implementation does: plain loops over all votes and all labels.

Levels are those before calibration (rules 2), which the oracle derives by itself; calibrated ones are
in `test_calibration`.
"""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import pytest

from smoothapi.certify import Reason, SequentialCertify, SequentialPredict, fixed_certify
from smoothapi.certify.futility import NEVER
from smoothapi.certify.presence import MostSpecificTest, PresenceTest
from smoothapi.certify.scores import ScoresTest
from smoothapi.certify.topk import TopKTest
from tests.statistics import oracle

SIGMA, ALPHA, CAP = 0.25, 0.02, 120
LEAST = 0.125 * SIGMA
LABELS = ("cat", "dog", "cow")


@cache
def passes(k, n, q, level):
    return bool(oracle.log_evalue(k, n, q) >= -math.log(level))


def when_passed(hits, q, level):
    """Return after how many of the votes E(q) first reaches 1 / level, 0 if it never does."""
    k, n = np.cumsum(hits), np.arange(1, len(hits) + 1)
    reached = oracle.log_evalue(k, n, q) >= -math.log(level)
    return int(np.argmax(reached)) + 1 if np.any(reached) else 0


def share(radius, delta=0.0):
    return float(oracle.normal_share(radius, SIGMA) + delta)


def streams(runs, seed, cap=CAP):
    """Return runs of votes of which some certify soon, some late, some less, some nothing."""
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        top = rng.uniform(0.4, 1.0)
        rest = (1.0 - top) * rng.dirichlet([1.0, 0.5, 0.5])
        votes = list(rng.choice([*LABELS, None], size=cap, p=[top, *rest]))
        if rng.random() < 0.15:  # another label is ahead at first, so far that it passes a radius
            votes[:17] = ["dog"] * 17
        yield votes


def feed(test, votes):
    used = []
    for vote in votes:
        if test.done:
            break
        test.add(vote)
        used.append(vote)
    return test.result(), used


# One label at the wanted radius, and at the largest.


def first_to_pass(votes, q, level):
    """Return the first label that passes q, and after how many votes; (None, 0) if none does."""
    ends = {label: when_passed([vote == label for vote in votes], q, level) for label in LABELS}
    return min(
        ((label, n) for label, n in ends.items() if n), key=lambda x: x[1], default=(None, 0)
    )


def bounds(votes, label, level):
    """Return the lower bound of the label's share after each vote."""
    n = np.arange(1, len(votes) + 1)
    return oracle.share_passed(np.cumsum([vote == label for vote in votes]), n, level)


@pytest.mark.parametrize("delta", [0.0, 7.5e-4])
@pytest.mark.parametrize("radius", [0.0, 0.02, 0.1, 0.2])
def test_certify_decides_as_the_oracle(radius, delta):
    least = share(min(radius, LEAST), delta)
    level = oracle.label_level(least, ALPHA)
    reasons = set()
    for votes in streams(25, 91):
        test = SequentialCertify(
            sigma=SIGMA,
            rules=2,
            alpha=ALPHA,
            max_votes=CAP,
            radius=radius,
            delta=delta,
            futility=NEVER,
        )
        decision, used = feed(test, votes)
        label, n = first_to_pass(votes, share(radius, delta), level)
        reasons.add(decision.reason)
        assert decision.level == pytest.approx(level, rel=1e-12)
        assert decision.label == label
        if label is not None:
            assert len(used) == n
            assert decision.radius == radius
        elif decision.reason is Reason.FUTILE:
            # Not even unbroken runs of what was left would have done.
            for best in LABELS:
                k = used.count(best) + CAP - len(used)
                assert not passes(k, CAP, share(radius, delta), level)
        else:
            assert len(used) == CAP
        assert_largest(decision, used, radius, least, level, delta)
    assert Reason.CERTIFIED in reasons
    assert len(reasons) > 1


def assert_largest(decision, used, radius, least, level, delta):
    robust, _ = first_to_pass(used, least, level)
    if decision.label is not None:
        robust = decision.label
    assert [claim.label for claim in decision.largest] == ([robust] if robust else [])
    for claim in decision.largest:
        p_low = max(bounds(used, robust, level))
        exact = float(oracle.normal_radius(max(p_low - delta, 0.5), SIGMA))
        expected = max(exact, decision.radius, min(radius, LEAST))
        # Never more than is proved; less by the rounding of a bound and of a radius.
        assert expected - 3e-6 <= claim.radius <= expected + 1e-12
        assert claim.p_lower <= max(p_low, share(claim.radius, delta)) + 1e-12


@pytest.mark.parametrize("or_less", [False, True])
def test_an_abstention_says_the_largest_radius_that_its_votes_certify(or_less):
    radius, level = 0.2, oracle.label_level(share(LEAST), ALPHA)
    less = 0
    for votes in streams(30, 92):
        test = SequentialCertify(
            sigma=SIGMA, rules=2, alpha=ALPHA, max_votes=CAP, radius=radius, or_less=or_less
        )
        decision, used = feed(test, votes)
        assert_largest(decision, used, radius, share(LEAST), level, 0.0)
        if decision.abstained and decision.largest:
            less += 1
            assert LEAST <= decision.largest[0].radius < radius
            assert not or_less or len(used) == CAP
    assert less > 3


def test_the_largest_radius_is_the_running_maximum():
    level = oracle.label_level(share(LEAST), ALPHA)
    fell = 0
    for votes in streams(25, 93):
        test = SequentialCertify(sigma=SIGMA, rules=2, alpha=ALPHA, max_votes=CAP, radius=None)
        decision, used = feed(test, votes)
        label, _ = first_to_pass(used, share(LEAST), level)
        assert decision.label == label
        if label is None:
            assert decision.radius == 0.0
            continue
        after_each = bounds(used, label, level)
        p_low = max(after_each)
        assert p_low - 2e-9 <= decision.p_lower <= max(p_low, share(LEAST))
        exact = max(float(oracle.normal_radius(p_low, SIGMA)), LEAST)
        assert exact - 3e-6 <= decision.radius <= exact
        # The mutant: a maximum that falls again, the bound of all votes alone.
        fell += after_each[-1] < p_low - 1e-3
    assert fell > 5


@pytest.mark.parametrize("mutant", ["of its own radius", "of the alpha", "one deduction"])
def test_mutants_of_the_rule_decide_otherwise(mutant):
    radius, delta = 0.2, 0.02
    least, q = share(LEAST, delta), share(radius, delta)
    level = oracle.label_level(least, ALPHA)
    if mutant == "of its own radius":
        level = oracle.label_level(q, ALPHA)
    elif mutant == "of the alpha":
        level = ALPHA
    else:
        q = share(radius, 0.5 * delta)
    differ = 0
    for votes in streams(25, 91):
        test = SequentialCertify(
            sigma=SIGMA,
            rules=2,
            alpha=ALPHA,
            max_votes=CAP,
            radius=radius,
            delta=delta,
            futility=NEVER,
        )
        decision, used = feed(test, votes)
        label, n = first_to_pass(votes, q, level)
        differ += label is not None and (decision.label is None or n != len(used))
    assert differ


# Predictions.


WEIGHTS = (0.9, 0.05, 0.025, 0.0125)


def named(votes):
    """Return the labels that took the lead, when and with which part of alpha; and the leader."""
    found, leader = {}, None
    for n, vote in enumerate(votes, 1):
        ahead = votes[:n].count(vote) > votes[:n].count(leader)
        if vote is not None and (leader is None or ahead):
            leader = vote
            found.setdefault(vote, (n, WEIGHTS[len(found)]))
    return found, leader


def predicted(votes, alpha, *, own_votes=False):
    """Return the first label that beats every other since it was named, and after how many."""
    found, _ = named(votes)
    for n in range(1, len(votes) + 1):
        for label, (since, weight) in found.items():
            if since >= n:
                continue
            counted = votes[:n] if own_votes else votes[since:n]
            k = counted.count(label)
            others = [counted.count(other) for other in {*votes, None} - {label}]
            if all(passes(k, k + other, 0.5, alpha * weight) for other in others):
                return label, n
    return None, 0


def test_predict_decides_as_the_oracle():
    found = set()
    for votes in streams(40, 94):
        test = SequentialPredict(alpha=ALPHA, max_votes=CAP, unlikely=0.0)
        decision, used = feed(test, votes)
        label, n = predicted(votes, ALPHA)
        found.add(label)
        assert decision.label == label
        assert label is None or len(used) == n
    assert {"cat", None} < found | {"dog"}
    # A mutant that counts the votes which named its label is told apart.
    assert any(
        predicted(votes, ALPHA) != predicted(votes, ALPHA, own_votes=True)
        for votes in streams(10, 94)
    )


# The fixed sample.


def test_the_fixed_sample_is_decided_by_exact_tails():
    from fractions import Fraction

    for votes in streams(12, 95):
        decision = fixed_certify(votes[:20], votes[20:], sigma=SIGMA, alpha=ALPHA, delta=1e-3)
        named = max(LABELS, key=votes[:20].count)
        k, n = votes[20:].count(named), CAP - 20
        half = Fraction(1, 2) + Fraction(1, 1000)
        assert decision.candidate_votes == (k, n)
        # It certifies some radius if and only if 1/2 and the deduction are refuted at alpha.
        assert decision.abstained == (oracle.binomial_tail(k, n, half) > Fraction(ALPHA))
        if not decision.abstained:
            p_low = Fraction(decision.p_lower)
            assert oracle.binomial_tail(k, n, p_low) <= Fraction(ALPHA)
            assert oracle.binomial_tail(k, n, p_low + Fraction(1, 10**8)) > Fraction(ALPHA)
            exact = oracle.normal_radius(decision.p_lower - 1e-3, SIGMA)
            assert exact - 2e-6 <= decision.radius <= exact


# Other targets.


def yes_no(runs, labels, seed):
    """Return, run by run, which labels each answer has; None where a variant failed."""
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        p = rng.choice([0.05, 0.1, 0.5, 0.9, 0.95], labels)
        here = rng.random((CAP, labels)) < p
        yield [None if rng.random() < 0.02 else list(row) for row in here]


@pytest.mark.parametrize("wanted", ["either", "present", "absent"])
def test_presence_decides_as_the_oracle(wanted):
    names, radius = ("a", "b"), 0.1
    level = oracle.label_level(share(LEAST), ALPHA / 2)
    outcomes, lost = set(), 0
    for answers in yes_no(15, 2, 96):
        test = PresenceTest(
            names, wanted, 0.5, sigma=SIGMA, alpha=ALPHA, max_votes=CAP, radius=radius, rules=2
        )
        for answer in answers:
            if test.done:
                break
            test.add(None if answer is None else presence_vote(names, answer))
        claims = {(c.label, c.relation, c.votes) for c in test.result().claims}
        expected = set()
        for place, name in enumerate(names):
            said = [None if a is None else ("absent", "present")[int(a[place])] for a in answers]
            for outcome in ("present", "absent"):
                hits = [one == outcome for one in said]
                n = when_passed(hits, share(radius), level)
                if wanted in ("either", outcome) and n:
                    expected.add((name, outcome, (sum(hits[:n]), n)))
        assert claims <= expected
        lost += len(expected - claims)
        outcomes |= {claim[:2] for claim in claims}
    assert len(outcomes) >= 2
    assert lost <= 2  # to giving up, which claims nothing


def presence_vote(names, answer):
    present = [name for name, here in zip(names, answer, strict=True) if here]
    return json.dumps([present, [name for name in names if name not in present], 0.5])


def test_scores_decide_as_the_oracle():
    names, radius, least = ("a", "b"), 0.1, 0.3
    level = oracle.label_level(share(LEAST), ALPHA / 2)
    rng = np.random.default_rng(97)
    reported = lesser = 0
    for _ in range(12):
        low = rng.uniform(-0.4, 0.5, 2)
        answers = np.round(np.maximum(rng.uniform(low, 1.0, (CAP, 2)), 0.0), 2)
        failed = rng.random(CAP) < 0.02
        test = ScoresTest(
            names, least, sigma=SIGMA, alpha=ALPHA, max_votes=CAP, radius=radius, rules=2
        )
        used = 0
        for row, lost in zip(answers, failed, strict=True):
            if test.done:
                break
            scores = dict(zip(names, map(float, row), strict=True))
            test.add(None if lost else json.dumps([scores, least]))
            used += 1
        decision = test.result()
        found = {claim.label: claim.score for claim in decision.claims}
        largest = {claim.label: claim for claim in decision.largest}
        for place, name in enumerate(names):
            scores = np.where(failed, -1.0, answers[:, place])[:used]
            passed = [
                float(t)
                for t in np.unique(scores[scores >= least])
                if when_passed(scores >= t, share(radius), level)
            ]
            best = max(passed, default=None)
            assert found.get(name) == best
            if best is not None:
                assert largest[name].score == best
                assert largest[name].radius == radius
            elif name in largest:  # at a smaller radius, the score asked for
                p_low = max(bounds(list(scores >= least), True, level))
                assert largest[name].score == least
                exact = max(float(oracle.normal_radius(max(p_low, 0.5), SIGMA)), LEAST)
                assert LEAST <= largest[name].radius <= exact
                lesser += 1
            reported += best is not None
    assert 5 < reported < 24
    assert lesser


def crossing(holds, low, high):
    """Return where, between a share that holds and one that does not, it ceases to."""
    for _ in range(45):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return 0.5 * (low + high)


def share_at_least(k, n, level):
    def passed(q):
        return oracle.log_evalue(k, n, q, oracle.UNIFORM) >= -math.log(level)

    return crossing(passed, 0.0, k / n) if k else 0.0


def share_at_most(k, n, level):
    """Return the upper bound of a share that has this part of the level for every unit of it."""

    def not_passed(u):
        return oracle.log_evalue(n - k, n, 1.0 - u, oracle.UNIFORM) < -math.log(level * u)

    return crossing(not_passed, k / n, 1.0)


def test_top_k_decides_as_the_oracle():
    delta, certified = 2e-3, 0
    for votes in streams(8, 99, 60):
        test = TopKTest(2, sigma=SIGMA, alpha=ALPHA, max_votes=60, radius=None, delta=delta)
        decision, used = feed(test, votes)
        found, leader = named(used)
        since, weight = found[leader]
        counted = used[since:]
        # Half of alpha for the lower bound, of which the label has its part; half for the others.
        p_low = share_at_least(counted.count(leader), len(counted), 0.5 * ALPHA * weight)
        counts = sorted((used.count(x) for x in {*LABELS, None} - {leader}), reverse=True)
        uppers = [share_at_most(k, len(used), 0.5 * ALPHA) for k in counts[:2]]
        terms = (SIGMA, p_low, uppers, 0.5 * delta, 0.5 * delta)
        if oracle.topk_margin(0.0, *terms) <= 0:
            assert decision.abstained
            continue
        certified += 1
        exact = crossing(lambda r, t=terms: oracle.topk_margin(r, *t) > 0, 0.0, 4.0 * SIGMA)
        claim, *_ = decision.claims
        assert claim.label == leader
        assert exact - 1e-5 <= claim.radius <= exact
        assert p_low - 1e-6 <= claim.p_lower <= p_low
    assert 2 < certified < 8


def test_the_most_specific_label_is_the_oracles():
    radius, rng = 0.1, np.random.default_rng(98)
    chain = ("vulture", "bird", "animal")
    votes = [json.dumps([list(chain[place:]), [], 0.5]) for place in range(3)]
    found = set()
    for _ in range(20):
        shares = rng.dirichlet([6.0, 2.0, 0.7])
        run = [0, *rng.choice(3, size=CAP - 1, p=shares)]
        test = MostSpecificTest(
            0.5, sigma=SIGMA, alpha=ALPHA, max_votes=CAP, radius=radius, unlikely=0.0
        )
        decision, used = feed(test, [votes[place] for place in run])
        if decision.candidate_votes[1] != len(used) - 1 or decision.label is None:
            continue  # another label had the lead meanwhile
        # Named by the first vote at 0.9 of alpha, a third of which is each label's of the chain.
        level, n = 0.9 * ALPHA / 3, len(used) - 1
        hits = [sum(place <= at for place in run[1 : n + 1]) for at in range(3)]
        q = share(radius)
        specific = next(at for at in range(3) if passes(hits[at], n, q, level))
        assert decision.label == chain[specific]
        if specific == 0:  # it ended the run: a vote before it had not passed
            assert not passes(hits[0] - 1, n - 1, q, level)
        found.add(decision.label)
        for claim in decision.largest:
            k = hits[chain.index(claim.label)]
            exact = oracle.normal_radius(max(float(oracle.share_passed(k, n, level)), 0.5), SIGMA)
            least = radius if passes(k, n, q, level) else LEAST
            assert max(exact, least) - 3e-6 <= claim.radius <= max(exact, least)
    assert len(found) > 1
