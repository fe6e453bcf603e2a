"""Bands, bounds, choices and projections: against what they should be, and by simulation."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from scipy.special import bdtr
from scipy.stats import binomtest

from smoothapi.certify import queries_needed
from smoothapi.errors import UnreachableRadiusError, UsageError
from smoothapi.provider import Price
from smoothapi.study import Shares, band, choices, expect, figures, highprob, project
from smoothapi.study.figures import RHO
from tests.unit.study.conftest import synthetic

PRICE = Price(Decimal("1.00"), "2026-11-01", 1000, ((100_000, Decimal("0.80")),))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (117, 490)])
def test_bands_are_clopper_pearson(k, n):
    reference = binomtest(k, n).proportion_ci(0.95, method="exact")
    found = band(k, n)
    assert found.low == pytest.approx(reference.low, abs=1e-8)
    assert found.high == pytest.approx(reference.high, abs=1e-8)


def test_what_is_unknown_widens_a_band_both_ways():
    assert band(5, 20, unknown=4).low == band(5, 20).low
    assert band(5, 20, unknown=4).high == band(9, 20).high


def test_highprob_takes_off_what_chance_could_have_got_wrong_and_no_more():
    for count, total, alpha in ((400, 490, 0.001), (90, 100, 0.05), (2, 100, 0.05), (0, 10, 0.01)):
        wrong = count - round(highprob(count, total, alpha) * total)
        assert bdtr(wrong, total, alpha) >= 1 - RHO or wrong == count
        assert wrong == 0 or bdtr(wrong - 1, total, alpha) < 1 - RHO
        # The paper's bound, by Bernstein's inequality, is never better.
        log = math.log(1 / RHO)
        bernstein = alpha + math.sqrt(2 * alpha * (1 - alpha) * log / total) + log / (3 * total)
        assert highprob(count, total, alpha) >= min(count / total, count / total - bernstein)


def test_figures_count_what_the_outcomes_say():
    result = synthetic(30)
    found = {(f.sigma, f.radius, f.max_votes, f.method): f for f in figures(result)}
    assert len(found) == 2 * 3 * 3 * 2
    rows = [row for row in result.records() if row["method"] == "sequential"]
    for (sigma, radius, cap, method), figure in found.items():
        if method == "fixed":
            assert figure.mean_queries == cap
            continue
        mine = [
            r for r in rows if (r["sigma"], r["radius"], r["max_votes"]) == (sigma, radius, cap)
        ]
        certified = sum(r["certified"] for r in mine)
        assert figure.photos == 30
        assert figure.certified.share == certified / 30
        assert figure.agreeing.share == sum(r["agreeing"] is True for r in mine) / 30
        assert figure.accuracy.share == sum(r["right"] for r in mine) / 30
        assert sum(figure.abstained.values()) == 30 - certified
        assert figure.mean_queries == pytest.approx(np.mean([r["votes"] for r in mine]))
        if right := sum(r["right"] for r in mine):
            total = sum(r["votes"] for r in mine)
            assert figure.queries_per_success == pytest.approx(total / right)
            assert figure.dollars_per_success == pytest.approx(total / right / 1000)
        else:
            assert figure.queries_per_success is None


def test_estimated_fixed_samples_are_near_those_that_are_bought():
    """Estimates from 300 votes a photo, against fixed samples of fresh votes with the same p."""
    import threading
    from dataclasses import replace

    from smoothapi.certify import Top1, runs_of
    from smoothapi.study import Rules
    from smoothapi.study.collect import Collector

    random = np.random.default_rng(3)
    whole = synthetic(80, pictures=0)
    rules = Rules((0.25,), (100,), 0.001, complete=300, selection=10)
    bought, cut = [], []
    for cell in whole.cells:
        p = random.beta(8, 1)
        collector = Collector(rules, Top1(), sigma=cell.sigma, delta=0.0, stop=threading.Event())
        for top in random.random(300) < p:
            collector.add("a" if top else None)
        full = replace(
            cell, votes=runs_of(collector.votes), plain="a", outcomes=collector.outcomes(None)
        )
        bought.append(full)
        cut.append(
            replace(full, outcomes=tuple(o for o in full.outcomes if o.method == "sequential"))
        )
    shares = []
    for cells in (bought, cut):
        found = figures(replace(whole, rules=rules, cells=tuple(cells)))
        fixed = [f for f in found if f.method == "fixed"]
        assert [f.estimated for f in fixed] == [cells is cut] * 2
        shares.append([f.certified.share for f in fixed])
    for real, estimate in zip(*shares, strict=True):
        assert estimate == pytest.approx(real, abs=0.07)


def test_sigma_is_chosen_on_one_half_and_judged_on_the_other():
    result = synthetic(40)
    calibration = {photo.name for photo in result.photos if photo.calibration}
    halves = figures(result, [p for p in result.photos if p.name in calibration])
    for (_, _, radius), choice in choices(result, 200).items():
        costs = {
            f.sigma: f.mean_queries / f.agreeing.share
            for f in halves
            if (f.radius, f.max_votes, f.method) == (radius, 200, "sequential") and f.agreeing.share
        }
        if not costs:
            assert choice.chosen is None
            assert choice.judged is None
            continue
        assert costs[choice.chosen.sigma] == min(costs.values())
        assert choice.judged.sigma == choice.chosen.sigma
        assert choice.judged.photos == 20
    swapped = choices(synthetic(2, pictures=0), 200)
    assert set(swapped) == {("aws", "default", radius) for radius in (0.1, 0.25, 0.5)}


def test_projections_cover_what_comes():
    """Studies of 40 photos project 500 others; the interval has to hold nearly as often as said.

    Costs as of real studies: most photos take some 50 votes, a few the cap.
    """
    random = np.random.default_rng(11)
    costs = np.concatenate([np.full(600, 47), random.integers(10, 300, 330), np.full(70, 1000)])
    held = 0
    runs = 300
    for _ in range(runs):
        projected = project(random.choice(costs, 40).tolist(), 1000, 500, PRICE)
        held += projected.low <= random.choice(costs, 500).sum() <= projected.high
    assert held / runs > 0.91
    assert projected.dollars_low <= projected.dollars <= projected.dollars_high
    assert projected.dollars_high <= projected.dollars_at_most == float(PRICE.of(500_000))
    few = project([47] * 5, 1000, 500, PRICE)
    assert few.low is None
    assert few.dollars == float(PRICE.of(23_500)) == 22.5


def test_expectations_are_those_of_the_planning_functions():
    for p in (0.8, 0.9, 0.97, 0.999):
        found = expect(
            0.25,
            0.25,
            alpha=0.001,
            max_votes=1000,
            photos=2000,
            price=PRICE,
            shares=Shares.of(p),
            pixels=3,
        )
        count = queries_needed(0.25, 0.25, 0.001, p, max_votes=1000)
        assert found.queries == pytest.approx(2000 * count.mean, rel=1e-3)
        assert found.certified == pytest.approx(count.certified, abs=1e-6)
        assert found.dollars == float(PRICE.of(found.queries))
        assert found.at_most == 2_000_000
    with pytest.raises(UnreachableRadiusError):
        expect(0.9, 0.25, alpha=0.001, max_votes=100, photos=1, price=PRICE, shares=Shares.of(0.9))
    with pytest.raises(UsageError):
        expect(0.25, 0.25, alpha=0.001, max_votes=100, photos=0, price=PRICE, shares=Shares.of(0.9))


def test_the_grid_is_as_good_as_each_photo_by_itself():
    shares = Shares.shipped()
    found = expect(0.25, 0.25, alpha=0.001, max_votes=500, photos=1000, price=PRICE, shares=shares)
    values = shares.at(0.25)
    each = [queries_needed(0.25, 0.25, 0.001, float(p), max_votes=500) for p in values[::5]]
    assert found.per_photo == pytest.approx(np.mean([c.mean for c in each]), rel=0.06)
    assert found.certified == pytest.approx(np.mean([c.certified for c in each]), abs=0.03)


def test_shares_between_and_beyond_what_was_measured(tmp_path):
    shares = Shares.shipped()
    assert set(shares.counts) == {0.12, 0.25, 0.5}
    assert "held out" in shares.source
    means = [float(shares.at(sigma).mean()) for sigma in (0.12, 0.18, 0.25, 0.35, 0.5)]
    assert means == sorted(means, reverse=True)
    with pytest.raises(UsageError, match="--distribution"):
        shares.at(1.0)
    path = tmp_path / "shares.json"
    import json

    path.write_text(json.dumps(shares.to_dict()))
    assert Shares.load(path) == shares
    study = tmp_path / "result.json"
    study.write_text(synthetic(10).to_json())
    assert len(Shares.load(study).counts[0.25]) == 10
    for text in ("[]", "{}", '{"schema": "smoothapi.shares/1"}', "no"):
        path.write_text(text)
        with pytest.raises(UsageError):
            Shares.load(path)
    for counts in ({}, {0.25: ()}, {0.25: ((3, 2),)}, {-1.0: ((1, 2),)}):
        with pytest.raises(UsageError):
            Shares("x", counts)
