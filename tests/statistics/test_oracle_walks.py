"""Chances of a wrong certificate, exactly: walks over all votes, with the oracle's own e-values.

Of the product only levels, shares and bounds are used, those that it really tests with.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from smoothapi.certify import (
    SequentialCertify,
    SequentialPredict,
    clopper_pearson_lower,
    joint_level,
    label_level,
    p_lower,
    queries_needed,
)
from smoothapi.certify.futility import NEVER
from smoothapi.certify.presence import PresenceTest
from smoothapi.certify.sequential import needed_share
from smoothapi.certify.topk import share_lower, share_upper
from tests.statistics import oracle

ALPHA = 0.05
SIGMA = 0.25
RATIOS = tuple(0.125 * i for i in range(1, 19))  # 18 radii, from sigma / 8 up
LONG = pytest.param(4_000, marks=pytest.mark.slow)


def level_used(ratio, alpha=ALPHA, delta=0.0, rules=3):
    """Return the level that a run for this radius really has."""
    test = SequentialCertify(
        sigma=SIGMA,
        alpha=alpha,
        max_votes=10_000,
        radius=ratio and ratio * SIGMA,
        delta=delta,
        rules=rules,
    )
    return test.result().level


def quantiles(ratios=RATIOS, delta=0.0):
    return {ratio: needed_share(ratio * SIGMA, SIGMA, delta) for ratio in ratios}


class Walls:
    """Where a label of a given share is certified wrongly, at any of some radii."""

    def __init__(self, shares, levels, most):
        self.most = most
        self.tested = [(q, oracle.boundary(q, levels[r], most)) for r, q in shares.items()]

    def of(self, share):
        wrong = [wall for q, wall in self.tested if share <= q]
        return oracle.first_wall(wrong, self.most)


def joint_chance(walls, shares):
    """Return the chance that any label is certified wrongly at any radius."""
    if len(shares) == 2:
        return oracle.chance_of_two(shares[0], *map(walls.of, shares), walls.most)
    return oracle.chance_of_three(shares, [walls.of(share) for share in shares], walls.most)


def worst_chance(walls, shares):
    return max(joint_chance(walls, (p, 1.0 - p)) for p in shares)


# All radii at once.


def test_the_walk_sums_what_it_should():
    # Against the sum over all orders of votes.
    shares = (0.6, 0.3, 0.1)
    walls = [np.array(w) for w in ([3, 6, 8], [2, 5], [4])]
    walls = [oracle.first_wall([wall], 6) for wall in walls]
    total = 0.0
    orders = np.array(np.meshgrid(*[range(3)] * 6)).reshape(6, -1).T
    for order in orders:
        for n in range(1, 7):
            if any(walls[x][np.sum(order[:n] != x)] <= n for x in range(3)):
                total += float(np.prod(np.take(shares, order)))
                break
    assert oracle.chance_of_three(shares, walls, 6) == pytest.approx(total, abs=1e-14)
    two = oracle.chance_of_two(0.6, walls[0], walls[1], 6)
    three = oracle.chance_of_three((0.6, 0.4, 0.0), walls, 6)
    assert two == pytest.approx(three, abs=1e-14)


@pytest.mark.parametrize("delta", [0.0, 7.5e-4])
@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-6])
def test_one_level_serves_all_radii(alpha, delta):
    least = needed_share(0.125 * SIGMA, SIGMA, delta)
    derived = oracle.label_level(least, alpha)
    (used,) = {level_used(ratio, alpha, delta) for ratio in (None, *RATIOS)}
    assert derived <= used < alpha
    assert alpha == 1e-6 or used > 1.02 * derived
    for ratio in (None, *RATIOS):
        assert level_used(ratio, alpha, delta, rules=2) == pytest.approx(derived, rel=1e-12)
    smaller = needed_share(0.05 * SIGMA, SIGMA, delta)
    derived = oracle.label_level(smaller, alpha)
    assert level_used(0.05, alpha, delta, rules=2) == pytest.approx(derived, rel=1e-12)
    assert derived <= level_used(0.05, alpha, delta) < used


@pytest.mark.parametrize("most", [500, LONG])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_eighteen_radii_hold_at_once_between_two_labels(alpha, most):
    shares = quantiles()
    walls = Walls(shares, {ratio: level_used(ratio, alpha) for ratio in RATIOS}, most)
    own = sorted(shares.values())
    between = [0.5, *own, *(0.5 * (a + b) for a, b in itertools.pairwise(own))]
    worst = worst_chance(walls, between)
    assert 0.5 * alpha < worst <= alpha


@pytest.mark.parametrize("most", [90, pytest.param(300, marks=pytest.mark.slow)])
def test_eighteen_radii_hold_at_once_among_three_labels(most):
    shares = quantiles()
    walls = Walls(shares, {ratio: level_used(ratio) for ratio in RATIOS}, most)
    q = shares[0.125]
    for own in (q, 0.5, 1 / 3, shares[0.5], shares[1.0]):
        for part in (0.5, 0.9, 1.0):
            rest = 1.0 - own
            chance = joint_chance(walls, (own, rest * part, rest * (1.0 - part)))
            assert chance <= ALPHA
    assert joint_chance(walls, (q, 1.0 - q, 0.0)) > 0.3 * ALPHA


def test_a_share_of_ones_own_between_radii_is_covered_too():
    # The largest radius is any number, not one of eighteen: wrong is what passes the share itself.
    q0, most = needed_share(0.125 * SIGMA, SIGMA, 0.0), 500
    level = joint_level(None, SIGMA, ALPHA, 0.0)
    rival = oracle.first_wall([oracle.boundary(q0, level, most)], most)
    for p in np.linspace(q0, 0.99, 12):
        own = oracle.first_wall([oracle.boundary(float(p), level, most)], most)
        assert oracle.chance_of_two(float(p), own, rival, most) <= ALPHA


def provable_chance(levels, most=1_500):
    """Return what bounds the chance of a wrong label at any radius, for however many votes.

    A label with a share above that of the smallest radius is wronged at most by the largest level
    (Ville). All others are then its rival at best, and its chance is walked.
    """
    smallest, *_ = levels
    q0 = needed_share(smallest * SIGMA, SIGMA, 0.0)
    wall = oracle.first_wall([oracle.boundary(q0, levels[smallest], most)], most)
    rival = oracle.chance_of_two(1.0 - q0, wall, oracle.first_wall([], most), most)
    return max(levels.values()) + rival


@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-6])
def test_eighteen_radii_hold_at_once_for_however_many_votes(alpha):
    # By rules 2: the sums of later ones are finer than this bound.
    joint = {ratio: level_used(ratio, alpha, rules=2) for ratio in RATIOS}
    assert 0.8 * alpha < provable_chance(joint) <= alpha
    # The mutant: to each radius the level that it would have alone.
    alone = {ratio: label_level(q, alpha) for ratio, q in quantiles().items()}
    assert provable_chance(alone) > alpha


TWO = ("cat", "dog")


def claims_of(votes, radius, alpha, *, or_less, rules):
    """Return what the class claims after any of the votes: label and radius, each once."""
    test = SequentialCertify(
        sigma=SIGMA,
        alpha=alpha,
        max_votes=len(votes),
        radius=radius,
        or_less=or_less,
        futility=NEVER,
        rules=rules,
    )
    found = set()
    for vote in votes:
        if test.done:
            break
        test.add(vote)
        decision = test.result()
        found |= {(claim.label, claim.radius) for claim in decision.largest}
        if decision.label is not None:
            found.add((decision.label, decision.radius))
    return found


@pytest.mark.parametrize("rules", [2, 3])
@pytest.mark.parametrize(
    ("radius", "or_less", "most"),
    [(None, False, 8), (0.1, True, 8), (0.1, False, 8),
     *(pytest.param(r, True, 12, marks=pytest.mark.slow) for r in (None, 0.05, 0.1, 0.15))],
)  # fmt: skip
def test_the_class_itself_over_every_order_of_votes(radius, or_less, most, rules):
    # Not the rule but the code, looked at after every vote, all its radii together.
    alpha, shares = 0.3, np.array([0.5, *quantiles().values()][:12])
    chance = np.zeros_like(shares)
    for order in itertools.product(range(2), repeat=most):
        claims = claims_of(
            [TWO[vote] for vote in order], radius, alpha, or_less=or_less, rules=rules
        )
        if claims:
            truth = np.stack([shares, 1.0 - shares])
            wrong = [truth[TWO.index(x)] <= needed_share(r, SIGMA, 0.0) for x, r in claims]
            cats = order.count(0)
            chance += np.any(wrong, axis=0) * shares**cats * (1.0 - shares) ** (most - cats)
    assert np.max(chance) <= alpha
    # A label is wronged where it passes its own share, or that of the smallest radius.
    q0, level = quantiles()[0.125], joint_level(radius, SIGMA, alpha, 0.0, rules)
    walls = {q: oracle.boundary(q, level, most) for q in {q0, *shares, *(1.0 - shares)} if q >= q0}
    passed = [
        oracle.chance_of_two(
            p, *(oracle.first_wall([walls[max(s, q0)]], most) for s in (p, 1.0 - p)), most
        )
        for p in shares
    ]
    assert np.all(chance <= np.array(passed) + 1e-12)
    if radius is None:  # such a run ends with the last vote, and misses none of it
        assert chance == pytest.approx(passed, abs=1e-12)
        assert np.max(chance) > 0.05 * alpha


@pytest.mark.parametrize("times", [1.5, 2.0])
def test_mutant_a_larger_level_is_refuted(times):
    shares = quantiles()
    levels = {ratio: times * level_used(ratio) for ratio in RATIOS}
    assert worst_chance(Walls(shares, levels, 500), shares.values()) > ALPHA


def test_mutant_no_allowance_for_rivals_is_refuted():
    shares = quantiles((0.0,))
    good, wrong = ({0.0: level} for level in (level_used(0.0), ALPHA))
    assert worst_chance(Walls(shares, good, 500), [0.5]) <= ALPHA
    assert worst_chance(Walls(shares, wrong, 500), [0.5]) > ALPHA


def test_mutant_peeking_at_the_paper_s_bound_is_refuted():
    q, most = needed_share(0.5 * SIGMA, SIGMA, 0.0), 300
    for bound, wrong in ((clopper_pearson_lower, True), (p_lower, False)):
        level = level_used(0.5)
        wall = []
        for losses in range(most):
            n = max(losses + 1, wall[-1] + 1 if wall else 1)
            while n <= most and bound(n - losses, n, level) <= q:
                n += 1
            if n > most:
                break
            wall.append(n)
        own = oracle.first_wall([np.array(wall)], most)
        chance = oracle.chance_of_two(q, own, oracle.first_wall([], most), most)
        assert (chance > 3 * ALPHA) if wrong else (0.3 * ALPHA < chance <= ALPHA)


# Plans.


@pytest.mark.parametrize("p", [0.6, 0.75, 0.9, 0.99])
def test_a_plan_is_the_walk(p):
    most, ratio = 500, 0.5
    q = needed_share(ratio * SIGMA, SIGMA, 0.0)
    wall = oracle.boundary(q, level_used(ratio), most)
    plan = queries_needed(ratio * SIGMA, SIGMA, ALPHA, p, max_votes=most, futility=NEVER)
    certified = oracle.chance_of_two(
        p, oracle.first_wall([wall], most), oracle.first_wall([], most), most
    )
    assert plan.at_least == wall[0]
    assert plan.certified == pytest.approx(certified, abs=1e-12)


# Predictions.


@pytest.mark.parametrize("most", [150, pytest.param(500, marks=pytest.mark.slow)])
def test_two_labels_alike_are_rarely_told_apart(most):
    levels = []
    for votes in (["cat"], ["cat", "dog", "dog"]):
        test = SequentialPredict(alpha=ALPHA, max_votes=1_000)
        for vote in votes:
            test.add(vote)
        levels.append(test.result().level)
    assert levels == pytest.approx([0.9 * ALPHA, 0.05 * ALPHA])
    assert 0.4 * ALPHA < oracle.chance_to_tell_two_alike_apart(*levels, most) <= ALPHA


def test_mutant_predictions_at_full_alpha_are_refuted():
    assert oracle.chance_to_tell_two_alike_apart(ALPHA, ALPHA, 150) > ALPHA


# Presence of several labels, and bounds of several shares.


def test_presence_of_several_labels_shares_alpha():
    labels, most = ("a", "b", "c", "d"), 400
    q = needed_share(0.5 * SIGMA, SIGMA, 0.0)
    test = PresenceTest(
        labels, "either", 0.5, sigma=SIGMA, alpha=ALPHA, max_votes=most, radius=0.5 * SIGMA
    )
    level = test.result().level
    assert level == joint_level(0.5 * SIGMA, SIGMA, ALPHA / 4, 0.0)
    for used, valid in ((level, True), (ALPHA, False)):
        # Labels that vary independently, each present (or absent) just too rarely.
        walls = Walls({0.5: q}, {0.5: used}, most)
        one = worst_chance(walls, [q])
        assert (1.0 - (1.0 - one) ** 4 <= ALPHA) is valid


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.6, 0.3, 0.1), (0.9, 0.08, 0.02)])
def test_the_upper_bounds_of_all_labels_hold_at_every_vote(shares):
    most, level = 24, 0.2
    never = oracle.first_wall([], most)
    for share in shares:
        wall = first_passed(lambda k, n, p: share_lower(k, n, level) > p, share, most)
        assert oracle.chance_of_two(share, wall, never, most) <= level
    # An upper bound fails where a label has few votes: all others together reach a wall.
    total = 0.0
    for share in shares:
        wall = first_passed(lambda k, n, p: share_upper(n - k, n, level) < p, share, most)
        total += oracle.chance_of_two(1.0 - share, wall, never, most)
    assert 0.05 * level < total <= level


def first_passed(passed, share, most):
    """Return, by losses, the first number of votes at which (wins, votes, share) passes."""
    wall = np.full(most + 1, oracle.NEVER)
    for losses in range(most + 1):
        votes = range(max(losses, 1), most + 1)
        wall[losses] = next((n for n in votes if passed(n - losses, n, share)), oracle.NEVER)
    return wall
