"""Plans agree with runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smoothapi.certify import (
    SequentialCertify,
    expected_queries,
    fewest_votes,
    power_curve,
    queries_needed,
    radius_reachable,
)
from smoothapi.errors import UnreachableRadiusError, UsageError


@pytest.mark.parametrize(("p", "delta"), [(0.99, 0.0), (0.93, 0.0), (0.9, 0.01), (0.7, 0.0)])
def test_the_plan_is_what_runs_need_on_average(p: float, delta: float) -> None:
    plan = queries_needed(0.2, 0.25, 0.01, p, max_votes=300, delta=delta)
    rng = np.random.default_rng(51)
    runs = 400
    used, certified = [], 0
    for run in rng.random((runs, 300)) < p:
        test = SequentialCertify(sigma=0.25, alpha=0.01, max_votes=300, radius=0.2, delta=delta)
        for hit in run:
            test.add("cat" if hit else "dog")
            if test.done:
                break
        used.append(test.result().votes)
        certified += not test.result().abstained
    assert np.mean(used) == pytest.approx(plan.mean, abs=4 * np.std(used) / math.sqrt(runs) + 0.5)
    assert certified / runs == pytest.approx(plan.certified, abs=0.08)
    assert np.mean(np.array(used) <= plan.p90) >= 0.85
    assert plan.at_least == fewest_votes(0.2, 0.25, 0.01, delta)


def test_a_sure_label_needs_the_fewest_votes() -> None:
    plan = queries_needed(0.25, 0.25, 0.001, 1.0, max_votes=1000)
    assert plan.mean == plan.p90 == plan.at_least
    assert plan.certified == 1.0
    assert plan.mean > plan.floor
    assert expected_queries(0.25, 0.25, 0.001, 1.0) == plan.mean


def test_a_share_that_does_not_suffice_has_no_floor() -> None:
    plan = queries_needed(0.25, 0.25, 0.001, 0.8, max_votes=1000)
    assert math.isinf(plan.floor)
    assert plan.certified < 0.001
    assert queries_needed(0.25, 0.25, 0.001, 0.0, max_votes=1000).mean < 5


@pytest.mark.parametrize("delta", [0.0, 3e-4])
@pytest.mark.parametrize("queries", [20, 100, 1000, 10_000])
def test_a_reachable_radius_is_reached_and_a_larger_one_is_not(queries: int, delta: float) -> None:
    radius = radius_reachable(queries, 0.25, 0.001, delta=delta)
    assert fewest_votes(radius, 0.25, 0.001, delta) <= queries
    assert fewest_votes(radius * 1.01 + 1e-4, 0.25, 0.001, delta) > queries


def test_too_few_queries_reach_nothing() -> None:
    assert radius_reachable(3, 0.25, 0.001) == 0.0
    with pytest.raises(UsageError):
        radius_reachable(0, 0.25, 0.001)


def test_power_grows_with_the_share() -> None:
    curve = power_curve(0.25, 0.25, 0.001, (0.85, 0.9, 0.95, 0.99), max_votes=500)
    certified = [count.certified for _, count in curve]
    assert certified == sorted(certified)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_impossible_shares_are_refused(p: float) -> None:
    with pytest.raises(UsageError):
        queries_needed(0.25, 0.25, 0.001, p)


def test_unreachable_plans_are_refused() -> None:
    with pytest.raises(UnreachableRadiusError):
        queries_needed(0.5, 0.25, 0.001, 0.99, max_votes=100)
