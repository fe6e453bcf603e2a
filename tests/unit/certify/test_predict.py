"""Predicting one vote after another: what a run leads to."""

from __future__ import annotations

import pytest

from smoothapi.certify import SequentialPredict, replay
from smoothapi.errors import UnreachableRadiusError

ALPHA = 0.001


def test_a_prediction_names_each_label_once() -> None:
    test = SequentialPredict(alpha=ALPHA, max_votes=1000, unlikely=0.0)
    decision = replay(test, ["cat", "dog", "dog", "cat", "cat"])
    assert decision.candidate == "cat"
    assert decision.level == 0.9 * ALPHA
    assert decision.candidate_votes == (2, 4)
    decision = replay(test, ["dog", "dog"])
    assert decision.candidate == "dog"
    assert decision.level == pytest.approx(0.05 * ALPHA)
    assert decision.candidate_votes == (2, 4)


def test_predict_returns_the_leader_and_counts_no_answer_as_a_rival() -> None:
    test = SequentialPredict(alpha=ALPHA, max_votes=100)
    need = test.needed()
    decision = replay(test, ["cat"] * need)
    assert decision.label == "cat"
    assert decision.radius == 0.0
    test = SequentialPredict(alpha=ALPHA, max_votes=100)
    while not test.done:
        test.add(None if test.result().votes % 2 else "cat")
    assert test.result().abstained


def test_too_few_votes_for_any_prediction_are_refused() -> None:
    with pytest.raises(UnreachableRadiusError):
        SequentialPredict(alpha=ALPHA, max_votes=5)
