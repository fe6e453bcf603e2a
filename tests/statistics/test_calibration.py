"""Thresholds that use alpha in full: exact chances, by the oracle's e-values and walks.

Of the product only the shares and levels are used that a run really tests with.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smoothapi.certify import Presence, Scores, SequentialCertify, Top1
from smoothapi.certify.futility import NEVER
from smoothapi.certify.sequential import joint_level, levels, needed_share
from tests.statistics import oracle

SIGMA = 0.25
MOST = 250
RADII = (None, 0.0625, 0.25)


def walls_of(found, most=MOST):
    """Return, for each share that is tested, where it is certified."""
    return [oracle.first_wall([oracle.boundary(q, found.upto, most)], most) for q in found.shares]


def worst(found, most=MOST, *, above=()):
    """Return the chances of a wrong certificate of the worst shares of two labels, exactly.

    The largest share is one that is tested (there its chance is largest), or above them all; the
    other label has as much as the share before leaves.
    """
    walls = walls_of(found, most)
    chances = []
    for place, (q, wall) in enumerate(zip(found.shares, walls, strict=True)):
        chances.append(oracle.chance_of_two(q, wall, walls[0], most))
        # A little above the share before, the other label may have a little more.
        if place:
            p = np.nextafter(found.shares[place - 1], 1.0)
            chances.append(oracle.chance_of_two(p, wall, walls[0], most))
    for p in above:
        own = oracle.first_wall([oracle.boundary(p, found.beyond, most)], most)
        chances.append(oracle.chance_of_two(p, own, walls[0], most))
    return chances


def chances_at_any_share(q0, level, shares, most=MOST):
    """Return how likely anything is certified wrongly if every share from q0 up is tested."""
    rival = oracle.first_wall([oracle.boundary(q0, level, most)], most)
    return [
        oracle.chance_of_two(
            p, oracle.first_wall([oracle.boundary(max(p, q0), level, most)], most), rival, most
        )
        for p in map(float, shares)
    ]


@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001])
@pytest.mark.parametrize("smallest", [0.0, 0.125])
def test_one_level_does_for_every_share_at_once(smallest, alpha):
    q0 = needed_share(smallest * SIGMA, SIGMA, 0.0)
    level = joint_level(smallest * SIGMA, SIGMA, alpha, 0.0)
    shares = [0.5, q0, *np.linspace(q0, q0 + 0.09, 10)[1:], 0.75, 0.95]
    chances = chances_at_any_share(q0, level, shares)
    assert 0.5 * alpha < max(chances) <= alpha
    # The mutant: half as much again.
    assert max(chances_at_any_share(q0, 1.5 * level, shares)) > alpha


def test_what_comes_after_the_horizon_is_bounded():
    # Of the bound that the level was found by, more votes make nothing more.
    q0, alpha = needed_share(0.125 * SIGMA, SIGMA, 0.0), 0.05
    level = joint_level(None, SIGMA, alpha, 0.0)
    few, many = (chances_at_any_share(q0, level, [q0, 0.58], most) for most in (60, 1_500))
    assert few < many
    assert max(many) <= alpha


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("radius", RADII)
def test_all_radii_of_a_run_with_a_last_cap_hold_at_once(radius, alpha):
    found = levels(radius, SIGMA, alpha, 0.0, last_cap=MOST)
    above = np.nextafter(found.wanted, 1.0), 0.5 * (1.0 + found.wanted)
    chances = worst(found, above=above)
    assert 0.7 * alpha < max(chances) <= alpha


@pytest.mark.parametrize("radius", RADII)
def test_a_last_cap_is_never_stricter(radius):
    for alpha in (0.05, 1e-4):
        found = levels(radius, SIGMA, alpha, 0.0, last_cap=MOST)
        assert found.beyond <= found.upto
        assert found.upto > joint_level(radius, SIGMA, alpha, 0.0)
        assert list(found.shares) == sorted(set(found.shares))


def test_the_level_depends_neither_on_the_cap_nor_on_the_radius():
    # So a run may be asked on, or for another radius: it is the same test.
    found = {
        SequentialCertify(sigma=SIGMA, alpha=0.01, max_votes=cap, radius=radius).result().level
        for cap in (60, 4_000)
        for radius in (0.05, 0.1, None)
    }
    assert found == {joint_level(None, SIGMA, 0.01, 0.0)}


@pytest.mark.parametrize("radius", [0.0625, 0.25])
def test_mutant_a_larger_level_is_refuted(radius):
    good = levels(radius, SIGMA, 0.05, 0.0, last_cap=MOST)
    assert max(worst(good)) <= 0.05
    bad = replace(good, shares=(good.least, good.wanted), upto=1.15 * good.upto)
    assert max(worst(bad)) > 0.05


def test_mutant_taking_the_last_cap_for_granted_and_asking_on_is_refuted():
    # What `final` gives up: the test that is calibrated to 250 votes is not one for 2,000.
    alpha, radius = 0.05, 0.25
    final = levels(radius, SIGMA, alpha, 0.0, last_cap=MOST)
    assert final.upto > 1.1 * levels(radius, SIGMA, alpha, 0.0).upto
    assert max(worst(final)) <= alpha
    for found, valid in ((final, False), (levels(radius, SIGMA, alpha, 0.0), True)):
        wall = oracle.first_wall([oracle.boundary(found.wanted, found.upto, 2_000)], 2_000)
        chance = oracle.chance_of_two(found.wanted, wall, oracle.first_wall([], 2_000), 2_000)
        assert (chance <= alpha) is valid


def test_the_bound_is_a_share_that_was_tested_or_one_above_the_wanted():
    found = levels(0.2, SIGMA, 0.01, 0.0, last_cap=400)
    for k, n in [(30, 30), (60, 66), (150, 180), (900, 1_000)]:
        bound = found.exceeded([(k, n)])
        assert bound in found.shares or bound > found.wanted
        passed = [q for q in found.shares if oracle.log_evalue(k, n, q) >= -np.log(found.upto)]
        assert bound >= max(passed, default=0.0)
        assert bound in passed or oracle.log_evalue(k, n, bound) >= -np.log(found.beyond) - 1e-8
    assert found.exceeded([(1, 2), (60, 66)]) == found.exceeded([(60, 66)])
    assert found.exceeded([]) == 0.0
    assert not found.every


def decided(target, votes, **terms):
    test = target.start(sigma=SIGMA, alpha=0.01, radius=0.2, **terms)
    for vote in votes:
        if test.done:
            break
        test.add(vote)
    return test.result()


def test_a_last_cap_certifies_with_fewer_votes():
    votes = (["cat"] * 9 + ["dog"]) * 40
    usual = decided(Top1(), votes, max_votes=400, futility=NEVER)
    final = decided(Top1(), votes, max_votes=400, futility=NEVER, final=True)
    assert (usual.label, final.label) == ("cat", "cat")
    assert final.votes <= usual.votes
    assert (usual.final, final.final) == (False, True)
    for target in (Presence("cat", 0.5), Scores("cat", 0.5)):
        test = target.start(sigma=SIGMA, alpha=0.01, radius=0.2, max_votes=400, final=True)
        at = levels(0.2, SIGMA, 0.01, 0.0, last_cap=400)
        assert test.result().level == at.upto


def test_shares_need_a_deduction_of_two_digits_only():
    # Photos of nearly one size share what was worked out.
    deltas = (7.512e-4, 7.56e-4)
    near = [levels(0.1, SIGMA, 0.001, delta, last_cap=60).shares for delta in deltas]
    assert near[0] == near[1]
    assert near[0][-1] >= needed_share(0.1, SIGMA, 7.56e-4)
    exact = levels(0.1, SIGMA, 0.001, 7.512e-4)
    assert exact.wanted == needed_share(0.1, SIGMA, 7.512e-4)
    assert exact.every
    assert exact.upto == levels(0.1, SIGMA, 0.001, 7.56e-4).upto
