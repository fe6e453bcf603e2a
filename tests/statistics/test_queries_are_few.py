"""The query figures that the project promises; benchmarks/queries.py prints them all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.special import bdtrc

from smoothapi.certify import queries_needed, required_p
from smoothapi.certify.futility import NEVER

ALPHA = 0.001
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "queries.py"


def test_mean_votes_are_close_to_the_floor() -> None:
    ratios = [
        count.mean / count.floor
        for ratio in (0.25, 0.5, 1.0, 1.5, 2.0)
        for p in (0.8, 0.9, 0.95, 0.99, 0.999)
        if p > required_p(ratio, 1.0) + 0.005
        for count in [queries_needed(ratio, 1.0, ALPHA, p, max_votes=8_000, futility=NEVER)]
    ]
    assert len(ratios) == 19
    assert np.mean(ratios) <= 1.16
    assert max(ratios) <= 1.28


@pytest.mark.parametrize(
    ("cap", "at_most"),
    [(1_000, 1 / 14), pytest.param(10_000, 1 / 45, marks=pytest.mark.slow)],
)
def test_published_photos_cost_a_fraction_of_the_fixed_sample(cap: int, at_most: float) -> None:
    spec = importlib.util.spec_from_file_location("queries", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
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
