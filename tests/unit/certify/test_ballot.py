"""The votes so far, and the labels that have led them."""

from __future__ import annotations

import pytest

from smoothapi.certify.ballot import Ballot, Candidates, candidate_weight


def test_a_label_is_named_once_and_its_test_counts_only_later_votes() -> None:
    ballot = Ballot(100)
    candidates = Candidates(ballot, 0.01)
    named = []
    for vote in ("cat", "dog", "dog", None, "cat", "cat"):
        ballot.add(vote)
        candidate = candidates.name_leader()
        if candidate is not None:
            named.append(candidate)
    assert [(one.label, one.since) for one in named] == [("cat", 1), ("dog", 3)]
    assert [one.level for one in named] == pytest.approx([0.01 * 0.9, 0.01 * 0.05])
    cat, dog = candidates
    assert candidates.get("cat") is cat
    assert candidates.get("cow") is candidates.get(None) is None
    assert (candidates.count(cat, "cat"), candidates.count(cat, "dog")) == (2, 2)
    assert (candidates.count(dog, "dog"), candidates.count(dog, None)) == (0, 1)
    assert (candidates.total(cat), candidates.total(dog)) == (5, 3)


def test_an_unnamed_label_needs_one_vote_more_than_the_leader() -> None:
    ballot = Ballot(100)
    candidates = Candidates(ballot, 0.01)
    assert candidates.votes_to_name() == 1
    for vote in ("cat", "cat", "cat", "dog", None):
        ballot.add(vote)
        candidates.name_leader()
    assert candidates.votes_to_name() == 3  # dog: 4 to 3
    ballot.add("dog")
    assert candidates.votes_to_name() == 2


def test_the_weights_of_all_candidates_sum_to_one() -> None:
    weights = [candidate_weight(earlier) for earlier in range(60)]
    assert weights[:3] == pytest.approx([0.9, 0.05, 0.025])
    assert 1.0 - 1e-9 < sum(weights) <= 1.0
