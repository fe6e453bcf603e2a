"""Predictions are wrong no more often than alpha, and what would break that is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from smoothapi.certify import SequentialPredict
from smoothapi.certify.evalue import boundary
from tests.statistics.harness import ALPHA, Rate, votes

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS = 400
CAP = 100
LONG = 1000


def two_labels(runs: int, seed: int) -> np.ndarray:
    """Return (runs, LONG) votes for label 0 or 1, each with share 1/2."""
    return np.random.default_rng(seed).integers(0, 2, (runs, LONG), dtype=np.int8)


def ever_predicted(
    drawn: np.ndarray, levels: tuple[float, float], *, own_votes: bool = False
) -> np.ndarray:
    """Return which runs of two labels end with a prediction, by the rule for many runs at once."""
    n = np.arange(1, drawn.shape[1] + 1, dtype=np.int32)
    result = np.zeros(len(drawn), dtype=bool)
    first = drawn[:, :1]
    lead = np.cumsum(np.where(drawn == first, 1, -1).astype(np.int32), axis=1)
    overtaken = np.where(np.any(lead < 0, axis=1), np.argmax(lead < 0, axis=1) + 1, n[-1])
    for wins, since, level in (
        (drawn == first, np.ones(len(drawn), dtype=np.int32), levels[0]),
        (drawn != first, overtaken.astype(np.int32), levels[1]),
    ):
        enough = np.append(boundary(0.5, level).upto(int(n[-1])), np.iinfo(np.int32).max)
        losses = np.cumsum(~wins, axis=1, dtype=np.int32)
        counted = n[None, :] - since[:, None]
        if not own_votes:
            losses -= np.take_along_axis(losses, since[:, None] - 1, axis=1)
        total = n[None, :] if own_votes else counted
        reached = enough[np.clip(losses, 0, len(enough) - 1)] <= total
        result |= np.any(reached & (counted > 0), axis=1)
    return result


def rate_of(*levels: float, own_votes: bool = False, seed: int = 20) -> Rate:
    wrong = sum(
        int(ever_predicted(two_labels(4000, seed + i), levels, own_votes=own_votes).sum())
        for i in range(4)
    )
    return Rate(wrong, 16_000)


def test_two_labels_alike_are_rarely_told_apart() -> None:
    rate = rate_of(0.9 * ALPHA, 0.05 * ALPHA)
    assert not rate.refutes, str(rate)
    assert rate.errors > 0.5 * ALPHA * rate.runs  # or this test could not fail


def test_mutant_alpha_not_split_over_candidates_is_refuted() -> None:
    assert rate_of(ALPHA, ALPHA).refutes


def test_mutant_counting_the_votes_that_named_the_candidate_is_refuted() -> None:
    # Then nothing tells the candidate from any other label, and splitting alpha means nothing.
    assert rate_of(ALPHA, ALPHA, own_votes=True).refutes


def test_the_class_decides_as_the_rule_does() -> None:
    drawn = two_labels(150, 28)
    drawn[:75] = np.random.default_rng(29).random((75, LONG)) < 0.4
    drawn = drawn[:, :CAP]
    expected = ever_predicted(drawn, (0.9 * ALPHA, 0.05 * ALPHA))
    for run, expect in zip(drawn, expected, strict=True):
        test = SequentialPredict(alpha=ALPHA, max_votes=CAP, unlikely=0.0)
        for label in run:
            test.add(("cat", "dog")[label])
            if test.done:
                break
        assert (test.result().label is not None) == expect
    assert 10 < expected.sum() < 140


def wrong_predictions(
    shares: Sequence[float], seed: int, top: int | None, runs: int = RUNS
) -> Rate:
    """Return how often a label other than `top` is returned (any label, if there is no top)."""
    wrong = 0
    names = [*(f"label {i}" for i in range(len(shares))), None]
    for run in votes(shares, CAP, runs, seed):
        test = SequentialPredict(alpha=ALPHA, max_votes=CAP, unlikely=0.0)
        for label in run:
            test.add(names[label])
            if test.done:
                break
        label = test.result().label
        wrong += label is not None and (top is None or label != names[top])
    return Rate(wrong, runs)


SCENARIOS = {
    "two alike": ([0.5, 0.5], None),
    "two alike and others": ([0.4, 0.4, 0.1, 0.1], None),
    "ten alike": ([0.1] * 10, None),
    "just above": ([0.48, 0.52], 1),
    "no answer is the top": ([0.45], None),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_wrong_predictions_are_rare(scenario: str) -> None:
    shares, top = SCENARIOS[scenario]
    rate = wrong_predictions(shares, 21, top)
    assert not rate.refutes, str(rate)


def test_mutant_failures_dropped_is_refuted() -> None:
    # "dog" leads, but three of four of its answers fail; a dropped failure makes "cat" the top.
    drawn = votes([0.4, 0.15], CAP, 200, 25)
    wrong = 0
    for run in drawn:
        test = SequentialPredict(alpha=ALPHA, max_votes=CAP)
        for label in run:
            if label < 2:
                test.add(("cat", "dog")[label])
            if test.done:
                break
        wrong += test.result().label == "cat"
    assert Rate(wrong, len(drawn)).refutes


def test_a_clear_top_is_found_soon() -> None:
    found = used = 0
    for run in votes([0.6, 0.1, 0.1], CAP, 200, 26):
        test = SequentialPredict(alpha=ALPHA, max_votes=CAP)
        for label in run:
            test.add(("a", "b", "c", None)[label])
            if test.done:
                break
        found += test.result().label == "a"
        used += test.result().votes
    assert found > 165
    assert used / 200 < 60


def test_predictions_are_symmetric_in_names() -> None:
    rng = np.random.default_rng(27)
    for run in rng.integers(0, 3, (50, CAP)):
        decisions = []
        for names in ("abc", "zxy"):
            test = SequentialPredict(alpha=ALPHA, max_votes=CAP)
            for label in run:
                test.add(names[label])
                if test.done:
                    break
            result = test.result()
            decisions.append((result.votes, result.reason, result.candidate_votes))
        assert decisions[0] == decisions[1]
