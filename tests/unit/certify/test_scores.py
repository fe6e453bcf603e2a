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
    st.lists(st.sampled_from([None, 0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 1.0]), min_size=1, max_size=90),
    st.sampled_from(["either", "present", "absent"]),
)  # fmt: skip
def test_the_score_is_the_largest_whose_own_test_has_passed(scores, wanted):
    target = Scores("Weapon", 0.5, wanted=wanted)
    test = target.start(**TERMS)
    seen = []
    for score in scores:
        if test.done:
            break
        seen.append(score)
        test.add(None if score is None else target.vote(answer(Weapon=score)))
    decision = test.result()
    level = label_level(SHARE, 0.001)
    grid = sorted({s for s in seen if s is not None})
    above = [t for t in grid if t >= 0.5 and ever_passed(seen, level, lambda s, t=t: s >= t)]
    below = [u for u in grid if u < 0.5 and ever_passed(seen, level, lambda s, u=u: s <= u)]
    if above and wanted != "absent":
        [claim] = decision.claims
        assert (claim.relation, claim.score) == ("at least", max(above))
    elif below and wanted != "present":
        [claim] = decision.claims
        assert (claim.relation, claim.score) == ("at most", min(below))
    else:
        assert decision.claims == ()
        assert decision.abstained


def test_it_ends_when_the_presence_at_the_least_score_is_decided():
    from smoothapi.certify import Presence

    answers = [answer(Weapon=0.9 - 0.005 * (i % 40)) for i in range(200)]
    scores, presence = run(Scores("Weapon", 0.5), answers), run(Presence("Weapon", 0.5), answers)
    assert scores.votes == presence.votes
    assert scores.label == f"Weapon at least {scores.claims[0].score!r}"
    assert scores.claims[0].p_lower == presence.claims[0].p_lower


def test_other_labels_votes_raise_a_score_that_was_certified_before():
    """One early low score; the second label needs more votes, which the first may use."""
    answers = [answer(A=0.6 if i == 0 else 0.9, B=0.8 if i % 7 else 0.1) for i in range(200)]
    alone = run(Scores("A", 0.5), answers)
    both = run(Scores(["A", "B"], 0.5), answers)
    assert alone.claims[0].score == 0.6
    assert both.claims[0].score == 0.9
    assert both.votes > alone.votes


def test_a_failed_variant_counts_against_both_directions():
    some = [None if i % 2 else answer(Weapon=0.9) for i in range(200)]
    assert run(Scores("Weapon", 0.5), some).abstained
    none = [None if i % 2 else answer() for i in range(200)]
    assert run(Scores("Weapon", 0.5), none).abstained


def test_a_label_that_does_not_occur_has_the_score_0_and_its_children_lend_theirs():
    target = Scores(["vehicle", "Kite"], 0.5)
    bus = Answer(labels=(Label("Bus", 0.9, ("Vehicle",)), Label("Vehicle", 0.7)))
    assert json.loads(target.vote(bus)) == [[0.9, 0.0], 0.5]
    found = run(target, [bus] * 200)
    assert [(c.label, c.relation, c.score) for c in found.claims] == [
        ("vehicle", "at least", 0.9), ("Kite", "at most", 0.0),
    ]  # fmt: skip
    assert target.agrees(bus, found)
    assert not target.agrees(answer(Vehicle=0.8), found)
    assert not target.agrees(answer(Vehicle=0.95, Kite=0.1), found)
    assert target.vote(None) is None


def test_nothing_is_certified_to_stay_below_what_the_provider_does_not_list():
    found = run(Scores("Kite", 0.6, unlisted=0.55), [answer()] * 200)
    assert [(c.relation, c.score) for c in found.claims] == [("at most", 0.55)]


def test_its_description_makes_the_same_target():
    target = Scores(["a", "b"], 0.25, wanted="present", unlisted=0.1)
    assert parse_target(target.description) == target
    assert json.loads(json.dumps(target.description)) == target.description


@pytest.mark.parametrize(
    ("labels", "least", "wanted"),
    [((), 0.5, "either"), (("a", "A"), 0.5, "either"), (("a",), 0.0, "either"), (("a",), 1.5, "either"),
     (("a",), float("nan"), "either"), (("a",), 0.5, "maybe")],
)  # fmt: skip
def test_impossible_targets(labels, least, wanted):
    with pytest.raises(UsageError):
        Scores(labels, least, wanted=wanted)


@pytest.mark.parametrize(
    "vote",
    ["bus", "[]", "[[0.5], 0.25]", "[[0.5, 0.5], 0.5]", "[[1.5], 0.5]", "[[NaN], 0.5]", '[["x"], 0.5]',
     "[[null], 0.5]", "[0.5, 0.5]", "[[true], 0.5]"],
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
