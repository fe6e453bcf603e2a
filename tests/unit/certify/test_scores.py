"""Certified scores: what is reported is what the same votes certify at each threshold alone."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi.answer import Answer, Label
from smoothapi.certify import Scores, parse_target
from smoothapi.certify.evalue import boundary
from smoothapi.certify.scores import ScoresTest
from smoothapi.certify.sequential import label_level, needed_share
from smoothapi.errors import UnreachableRadiusError, UsageError

TERMS = {"sigma": 0.25, "alpha": 0.001, "max_votes": 200, "radius": 0.1}
SHARE = needed_share(0.1, 0.25, 0.0)


def answer(**scores):
    return Answer(labels=tuple(Label(name, score) for name, score in scores.items()))


def run(target, answers, **terms):
    test = target.start(**(TERMS | terms))
    for given_ in answers:
        if test.done:
            break
        test.add(target.vote(given_))
    return test.result()


def ever_passed(scores, level, keeps):
    """Whether the test of one event, looked at after every vote, has ever passed."""
    losses = 0
    for n, score in enumerate(scores, 1):
        losses += score is None or not keeps(score)
        if n >= boundary(SHARE, level)[losses]:
            return True
    return False


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from([None, 0.0, 0.2, 0.5, 0.6, 0.8, 0.9, 1.0]), min_size=1, max_size=90)
)
def test_the_score_is_the_largest_whose_own_test_has_passed(scores):
    target = Scores("Weapon", 0.5)
    test = target.start(**TERMS)
    seen = []
    for score in scores:
        if test.done:
            break
        seen.append(score)
        test.add(None if score is None else target.vote(answer(Weapon=score)))
    decision = test.result()
    level = label_level(SHARE, 0.001)
    grid = sorted({s for s in seen if s is not None and s >= 0.5})
    passed = [t for t in grid if ever_passed(seen, level, lambda s, t=t: s >= t)]
    assert [claim.score for claim in decision.claims] == ([max(passed)] if passed else [])
    assert decision.abstained == (not passed)
    for claim in decision.claims:
        assert claim.votes[0] <= claim.votes[1] <= decision.votes
        assert claim.p_lower <= SHARE  # no more is proved of the score that is reported


def test_it_ends_when_the_presence_at_the_least_score_is_decided():
    from smoothapi.certify import Presence

    answers = [answer(Weapon=0.9 - 0.005 * (i % 40)) for i in range(200)]
    scores, presence = run(Scores("Weapon", 0.5), answers), run(Presence("Weapon", 0.5), answers)
    assert scores.votes == presence.votes
    assert scores.label == f"Weapon at least {scores.claims[0].score!r}"


def test_other_labels_votes_raise_a_score_that_was_certified_before():
    """One early low score; the second label needs more votes, which the first may use."""
    answers = [answer(A=0.6 if i == 0 else 0.9, B=0.8 if i % 7 else 0.1) for i in range(200)]
    alone = run(Scores("A", 0.5), answers)
    both = run(Scores(["A", "B"], 0.5), answers)
    assert alone.claims[0].score == 0.6
    assert both.claims[0].score == 0.9
    assert both.votes > alone.votes


def test_a_failed_variant_counts_against():
    some = [None if i % 2 else answer(Weapon=0.9) for i in range(200)]
    assert run(Scores("Weapon", 0.5), some).abstained


def test_a_label_that_does_not_occur_has_the_score_0_and_its_children_lend_theirs():
    target = Scores(["vehicle", "Kite"], 0.5)
    bus = Answer(labels=(Label("Bus", 0.9, ("Vehicle",)), Label("Vehicle", 0.7)))
    assert json.loads(target.vote(bus)) == [{"vehicle": 0.9, "Kite": 0.0}, 0.5]
    found = run(target, [bus] * 200)
    assert [(c.label, c.relation, c.score) for c in found.claims] == [("vehicle", "at least", 0.9)]
    assert target.agrees(bus, found)
    assert not target.agrees(answer(Vehicle=0.8), found)
    assert target.vote(None) is None


def test_its_description_makes_the_same_target():
    target = Scores(["a", "b"], 0.25)
    assert parse_target(target.description) == target
    assert json.loads(json.dumps(target.description)) == target.description


def test_without_parents_a_label_has_what_the_provider_says_of_it_itself():
    said = Answer((Label("Bus", 0.97, ("Vehicle",)), Label("Vehicle", 0.6)))
    alone = Scores("Vehicle", parents=False)
    assert json.loads(alone.vote(said)) == [{"Vehicle": 0.6}, 0.5]
    assert json.loads(Scores("Vehicle").vote(said)) == [{"Vehicle": 0.97}, 0.5]
    assert parse_target(json.loads(json.dumps(alone.description))) == alone
    assert "parents" not in Scores("Vehicle").description
    with pytest.raises(UsageError, match="parents"):
        Scores("Vehicle", parents=1)


@pytest.mark.parametrize(
    ("labels", "least"),
    [((), 0.5), (("a", "A"), 0.5), (("a",), 0.0), (("a",), 1.5), (("a",), float("nan")), (("a",), None),
     (("a",), "0.5")],
)  # fmt: skip
def test_impossible_targets(labels, least):
    with pytest.raises(UsageError):
        Scores(labels, least)


@pytest.mark.parametrize(
    "vote",
    ["bus", "[]", '[{"a": 0.5}, 0.25]', '[{"b": 0.5}, 0.5]', '[{"a": 0.5, "b": 0.5}, 0.5]', "[{}, 0.5]",
     '[{"a": 1.5}, 0.5]', '[{"a": -0.1}, 0.5]', '[{"a": NaN}, 0.5]', '[{"a": "0.9"}, 0.5]',
     '[{"a": true}, 0.5]', '[{"a": null}, 0.5]', "[[0.9], 0.5]", "[0.5, 0.5]", '[{"a": 0.9}, true]',
     '[{"a": 0.9}]', "[" * 100_000],
)  # fmt: skip
def test_votes_of_another_form_are_refused(vote):
    test = ScoresTest(["a"], 0.5, **TERMS)
    with pytest.raises(UsageError, match="vote"):
        test.add(vote)
    assert test.result().votes == 0


def test_the_largest_radius_and_one_out_of_reach_are_refused():
    with pytest.raises(UsageError, match="name a radius"):
        Scores("a").start(**TERMS | {"radius": None})
    with pytest.raises(UnreachableRadiusError):
        Scores("a").start(**TERMS | {"max_votes": 10})
