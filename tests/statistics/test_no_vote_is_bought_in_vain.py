"""Runs with many requests in flight decide as runs one by one, and buy nothing needlessly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from smoothapi.certify import SequentialCertify, SequentialPredict, TopK
from smoothapi.certify.futility import NEVER

if TYPE_CHECKING:
    from smoothapi.certify import Decision, VoteTest

NAMES = ("cat", "dog", "cow", None)


def run_with(test: VoteTest, stream: np.ndarray, window: int, seed: int) -> tuple[Decision, int]:
    """Dispatch as `needed` allows, let answers arrive in any order, count them by index."""
    rng = np.random.default_rng(seed)
    sent, counted = 0, 0
    in_flight: list[int] = []
    arrived: set[int] = set()
    while not test.done:
        while sent - counted < min(window, test.needed()):
            in_flight.append(sent)
            sent += 1
        arrived.add(in_flight.pop(int(rng.integers(len(in_flight)))))
        while counted in arrived and not test.done:
            test.add(NAMES[stream[counted]])
            counted += 1
    return test.result(), sent


def kinds() -> dict[str, VoteTest]:
    common = {"alpha": 0.01, "max_votes": 120}
    return {
        "radius": SequentialCertify(sigma=1.0, radius=0.5, **common),
        "larger radius": SequentialCertify(sigma=1.0, radius=0.8, **common),
        "largest": SequentialCertify(sigma=1.0, radius=None, **common),
        "predict": SequentialPredict(**common),
        "top k": TopK(2).start(sigma=1.0, radius=0.2, **common),
    }


@pytest.mark.parametrize("kind", ["radius", "larger radius", "largest", "predict", "top k"])
def test_concurrency_changes_nothing(kind: str) -> None:
    rng = np.random.default_rng(31)
    for seed in range(8 if kind == "top k" else 40):
        p = rng.uniform(0.4, 1.0)
        stream = rng.choice(4, size=120, p=[p, (1 - p) / 2, (1 - p) / 4, (1 - p) / 4])
        alone, _ = run_with(kinds()[kind], stream, 1, seed)
        for window in (3, 1000):
            crowd, _ = run_with(kinds()[kind], stream, window, seed)
            assert crowd == alone


@pytest.mark.parametrize("kind", ["radius", "larger radius", "predict", "top k"])
def test_an_unbroken_run_wastes_nothing(kind: str) -> None:
    test = kinds()[kind]
    decision, sent = run_with(test, np.zeros(120, dtype=int), 1000, 1)
    assert not decision.abstained
    assert sent == decision.votes


@pytest.mark.parametrize("kind", ["radius", "larger radius", "predict", "top k"])
def test_needed_is_the_best_case_after_any_history(kind: str) -> None:
    # That many votes for the best label end the run well, and no label could do with fewer.
    rng = np.random.default_rng(32)
    checked = 0
    for _ in range(25 if kind == "top k" else 60):
        history = rng.choice(4, size=int(rng.integers(0, 25)), p=[0.6, 0.2, 0.1, 0.1])
        fewest = []
        need = None
        for label in ("cat", "dog", "cow", "new"):
            test = kinds()[kind]
            for vote in history:
                if not test.done:
                    test.add(NAMES[vote])
            if test.done:
                break
            need = test.needed()
            before = test.result().votes
            while not test.done:
                test.add(label)
            result = test.result()
            if not result.abstained and result.radius == (result.radius_requested or 0.0):
                fewest.append(result.votes - before)
        else:
            if fewest:
                assert min(fewest) == need
                checked += 1
    assert checked > 10


def test_a_vote_for_the_best_label_always_brings_the_end_one_nearer() -> None:
    test = SequentialCertify(sigma=1.0, alpha=0.01, max_votes=500, radius=0.5, futility=NEVER)
    for vote in ("cat", "dog", "cat", "cat", None, "cat"):
        test.add(vote)
    while not test.done:
        before = test.needed()
        test.add("cat")
        assert test.needed() == before - 1
