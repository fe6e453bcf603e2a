"""The query figures that the project promises; benchmarks/queries.py prints them all."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.special import bdtrc

from smoothapi.certify import joint_level, queries_needed, required_p
from smoothapi.certify.evalue import boundary
from smoothapi.certify.futility import NEVER, ChanceRule, PriceRule

ALPHA = 0.001
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "queries.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("queries", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mean_votes_are_close_to_the_floor() -> None:
    ratios = [
        count.mean / count.floor
        for ratio in (0.25, 0.5, 1.0, 1.5, 2.0)
        for p in (0.8, 0.9, 0.95, 0.99, 0.999)
        if p > required_p(ratio, 1.0) + 0.005
        for count in [queries_needed(ratio, 1.0, ALPHA, p, max_votes=8_000, futility=NEVER)]
    ]
    assert len(ratios) == 19
    assert np.mean(ratios) <= 1.15
    assert max(ratios) <= 1.272


@pytest.mark.parametrize(
    ("cap", "at_most"),
    [(1_000, 1 / 14), pytest.param(10_000, 1 / 45, marks=pytest.mark.slow)],
)
def test_published_photos_cost_a_fraction_of_the_fixed_sample(
    benchmark: ModuleType, cap: int, at_most: float
) -> None:
    shares, counts = np.unique(benchmark.published_shares(), return_counts=True)
    assert counts.sum() == 427
    q = required_p(0.25, 0.25)
    fixed = bdtrc(benchmark.fewest_wins(cap, q, ALPHA) - 1, cap, shares)
    runs = [queries_needed(0.25, 0.25, ALPHA, float(p), max_votes=cap) for p in shares]
    certified = np.array([run.certified for run in runs])
    mean = counts @ np.array([run.mean for run in runs]) / counts.sum()
    assert counts @ certified >= 0.99 * (counts @ fixed)
    # Of those photos that the fixed sample certifies, by an independent run of votes.
    assert counts @ (certified * fixed) >= 0.99 * (counts @ (fixed * fixed))
    assert mean <= at_most * cap


@pytest.mark.parametrize(("radius", "share", "fewer"), [(0.25, 0.672, 0.09), (0.5, 0.498, 0.02)])
def test_a_mix_of_shares_saves_queries_on_photos_that_it_was_not_learnt_from(
    benchmark: ModuleType, radius: float, share: float, fewer: float
) -> None:
    found = benchmark.learnt_on_the_other_half(radius)
    before, learnt = found["chance below 1%"], found["price, mix learnt"]
    assert round(learnt[0], 3) >= share
    assert learnt[0] >= before[0] - 0.0005
    assert learnt[1] <= (1.0 - fewer) * before[1]
    # The mix that is assumed where none was learnt does no worse than the rule it replaced.
    assumed = found["price, mix assumed"]
    assert assumed[0] >= before[0] - 0.0006
    assert assumed[1] <= 0.98 * before[1]


def test_the_planned_walk_is_the_benchmarks(benchmark: ModuleType) -> None:
    p = np.array([0.8, 0.9, 0.97])
    for rule in (NEVER, ChanceRule(), PriceRule()):
        certified, votes = benchmark.given_up_by(rule, 0.25, p, 300)
        plans = [
            queries_needed(0.25, 0.25, ALPHA, share, max_votes=300, futility=rule) for share in p
        ]
        assert [plan.certified for plan in plans] == pytest.approx(certified, abs=1e-9)
        assert [plan.mean for plan in plans] == pytest.approx(votes, rel=1e-9)


def test_the_benchmark_of_other_tests_knows_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    other = importlib.import_module("other_tests")
    level = joint_level(1.0, 1.0, ALPHA, 0.0)
    ours = boundary(required_p(1.0, 1.0), level).upto(200)
    test = other.Test(1.0, other.beta_half, 200)
    assert test.boundary(-np.log(level))[: len(ours)].tolist() == ours.tolist()
    # A threshold of its own uses alpha, and no more, whenever votes end.
    threshold, beyond = test.exact()
    ends, _ = other.walk(test.boundary(threshold), np.array([test.q]), 200)
    assert 0.9 * ALPHA < ends.sum() + beyond * ALPHA < 1.05 * ALPHA
    assert -np.log(level) - 0.2 < threshold < -np.log(level)
