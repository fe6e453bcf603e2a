"""Plans agree with runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from smoothapi.answer import Answer, Label
from smoothapi.certify import (
    MostSpecific,
    Presence,
    QueryCount,
    SequentialCertify,
    Target,
    Top1,
    TopK,
    most_specific_queries,
    presence_queries,
    queries_needed,
    target_queries,
)
from smoothapi.errors import UnreachableRadiusError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    test = SequentialCertify(sigma=0.25, alpha=0.01, max_votes=300, radius=0.2, delta=delta)
    assert plan.at_least == test.needed()


def test_a_sure_label_needs_the_fewest_votes() -> None:
    plan = queries_needed(0.25, 0.25, 0.001, 1.0, max_votes=1000)
    assert plan.mean == plan.p90 == plan.at_least
    assert plan.certified == 1.0
    assert plan.mean > plan.floor


def test_a_share_that_does_not_suffice_has_no_floor() -> None:
    plan = queries_needed(0.25, 0.25, 0.001, 0.8, max_votes=1000)
    assert math.isinf(plan.floor)
    assert plan.certified < 0.001
    assert queries_needed(0.25, 0.25, 0.001, 0.0, max_votes=1000).mean < 5


def test_power_grows_with_the_share() -> None:
    shares = (0.85, 0.9, 0.95, 0.99)
    plans = [queries_needed(0.25, 0.25, 0.001, p, max_votes=500) for p in shares]
    certified = [plan.certified for plan in plans]
    assert certified == sorted(certified)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_impossible_shares_are_refused(p: float) -> None:
    with pytest.raises(UsageError):
        queries_needed(0.25, 0.25, 0.001, p)


def test_unreachable_plans_are_refused() -> None:
    with pytest.raises(UnreachableRadiusError):
        queries_needed(0.5, 0.25, 0.001, 0.99, max_votes=100)


def ran(target: Target, answers: Iterator[Answer], cap: int) -> tuple[int, bool]:
    test = target.start(sigma=0.25, alpha=0.01, max_votes=cap, radius=0.2)
    while not test.done:
        test.add(target.vote(next(answers)))
    return test.result().votes, not test.result().abstained


PARENTED = Label("Vulture", 0.9, ("Bird",))


@pytest.mark.parametrize(
    ("target", "names", "plan"),
    [
        (Presence("a", 0.5), "a", presence_queries(0.2, 0.25, 0.01, 0.95, max_votes=200)),
        (
            Presence(["a", "b", "c"], 0.5),
            "abc",
            presence_queries(0.2, 0.25, 0.01, 0.95, labels=3, max_votes=200),
        ),
        (MostSpecific(0.5), "v", most_specific_queries(0.2, 0.25, 0.01, 0.95, max_votes=200)),
        (
            MostSpecific(0.5),
            "V",
            most_specific_queries(0.2, 0.25, 0.01, 0.95, chain=2, max_votes=200),
        ),
        (
            Presence(["a", "b"], 0.5, wanted="present"),
            "ab",
            presence_queries(0.2, 0.25, 0.01, 0.95, labels=2, max_votes=200),
        ),
    ],
)
def test_plans_of_other_targets_are_what_runs_need(
    target: Target, names: str, plan: QueryCount
) -> None:
    rng = np.random.default_rng(52)

    def answers() -> Iterator[Answer]:
        # Where the label that comes first is what the plan says, the first answer names it.
        yield Answer(tuple(PARENTED if n == "V" else Label(n, 0.9) for n in names))
        while True:
            here = rng.random(len(names)) < 0.95
            yield Answer(
                tuple(
                    PARENTED if n == "V" else Label(n, 0.9)
                    for n, is_here in zip(names, here, strict=True)
                    if is_here
                )
            )

    def fresh() -> Iterator[Answer]:
        given = answers()
        if isinstance(target, Presence):
            next(given)
        return given

    runs = [ran(target, fresh(), 200) for _ in range(150)]
    used = np.array([votes for votes, _ in runs])
    assert used.mean() == pytest.approx(plan.mean, abs=4 * used.std() / math.sqrt(len(runs)) + 0.5)
    assert min(votes for votes, ok in runs if ok) >= plan.at_least
    assert np.mean(used <= plan.p90) >= 0.85
    if len(names) == 1:
        assert np.mean([ok for _, ok in runs]) == pytest.approx(plan.certified, abs=0.05)


def test_the_slowest_of_several_labels_ends_a_run() -> None:
    one, three = (presence_queries(0.2, 0.25, 0.01, 0.95, labels=n) for n in (1, 3))
    assert one == queries_needed(0.2, 0.25, 0.01, 0.95)
    assert three.mean > one.mean
    assert three.at_least > one.at_least
    lone, parented = (most_specific_queries(0.2, 0.25, 0.01, 0.95, chain=n) for n in (1, 3))
    assert parented.mean > lone.mean > one.mean


def test_a_target_is_planned_as_its_own_function_says() -> None:
    asked = (0.2, 0.25, 0.01, 0.95)
    assert target_queries(Top1(), *asked) == queries_needed(*asked)
    assert target_queries(Presence(["a", "b"], 0.5), *asked) == presence_queries(*asked, labels=2)
    assert target_queries(MostSpecific(0.5), *asked) == most_specific_queries(*asked)
    assert target_queries(TopK(2), *asked) is None


def test_plans_need_at_least_one_label() -> None:
    with pytest.raises(UsageError, match="at least one label"):
        presence_queries(0.2, 0.25, 0.01, 0.95, labels=0)
    with pytest.raises(UsageError, match="at least one"):
        most_specific_queries(0.2, 0.25, 0.01, 0.95, chain=0)
    with pytest.raises(UnreachableRadiusError):
        most_specific_queries(0.5, 0.25, 0.001, 0.99, max_votes=100)
