"""One run's votes certify at every radius from sigma / 8 up at once, whichever was asked for."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smoothapi.answer import Answer, Label
from smoothapi.certify import (
    MostSpecific,
    Presence,
    Reason,
    Scores,
    SequentialCertify,
    Top1,
    TopK,
    joint_level,
    queries_needed,
    replay,
)
from smoothapi.errors import UsageError

SIGMA, ALPHA = 0.25, 0.001
TERMS = {"sigma": SIGMA, "alpha": ALPHA, "max_votes": 300}


def run(votes, radius=0.25, **more):
    test = SequentialCertify(radius=radius, **TERMS, **more)
    for vote in votes:
        test.add(vote)
        if test.done:
            break
    return test.result()


def mostly_cats(wrong_every, count=300):
    return ["dog" if n % wrong_every == wrong_every - 1 else "cat" for n in range(count)]


def test_an_abstention_says_how_far_its_votes_reach():
    decision = run(mostly_cats(6))
    assert decision.label is None
    assert decision.reason in (Reason.UNLIKELY, Reason.FUTILE)
    (claim,) = decision.largest
    assert claim.label == "cat"
    assert claim.relation == "top"
    assert SIGMA / 8 <= claim.radius < 0.25
    assert decision.p_lower == 0.0  # nothing is certified at the radius asked for
    assert claim.p_lower > 0.5


def test_votes_for_nothing_in_particular_reach_nowhere():
    assert run(["cat", "dog"] * 100).largest == ()
    assert run([None] * 60).largest == ()


def test_a_certificate_says_how_far_its_votes_reach_beyond():
    decision = run(["cat"] * 300, radius=0.1)
    (claim,) = decision.largest
    assert decision.radius == 0.1
    assert claim.radius > 0.1
    assert claim.p_lower == decision.p_lower


@example(votes=[], radius=0.02519111481353939)
@given(
    st.lists(st.sampled_from(["cat", "cat", "cat", "cat", "dog", None]), max_size=300),
    st.floats(0.02, 0.4),
)
@settings(max_examples=60, deadline=None)
def test_it_is_what_a_run_for_the_largest_radius_finds_in_these_votes(votes, radius):
    decision = run(votes, radius)
    most = run(votes[: decision.votes], None)
    if radius >= SIGMA / 8:
        found = decision.largest[0].radius if decision.largest else 0.0
        assert found == pytest.approx(max(most.radius, decision.radius), abs=1e-6)
        assert decision.level == most.level
    else:  # a smaller radius than the smallest that counts is tested at its own level: mostly a
        # smaller one, but votes are whole, so that it may be a little larger, too
        assert decision.level == joint_level(radius, SIGMA, ALPHA, 0.0) < ALPHA


@given(
    st.lists(st.sampled_from(["cat", "cat", "cat", "cat", "cat", "cat", "dog"]), max_size=300),
    st.floats(0.03125, 0.4),
    st.floats(0.03125, 0.4),
)
@settings(max_examples=60, deadline=None)
def test_what_passes_one_radius_has_passed_every_smaller_one(votes, one, other):
    small, large = sorted((one, other))
    at_large, at_small = run(votes, large), run(votes, small)
    if at_large.label is not None:
        assert at_small.label == at_large.label
        assert at_small.votes <= at_large.votes


def test_all_radii_together_cost_few_votes():
    least = {
        ratio: queries_needed(ratio * SIGMA, SIGMA, ALPHA, 1.0, max_votes=400).at_least
        for ratio in (0.125, 1.0, 2.0)
    }
    # Hardly more than each radius at a level of its own.
    alone = {
        ratio: SequentialCertify(
            radius=ratio * SIGMA, **{**TERMS, "max_votes": 400}, rules=1
        ).needed()
        for ratio in least
    }
    assert {ratio: least[ratio] - alone[ratio] for ratio in least} == {0.125: 0, 1.0: 0, 2.0: 1}


def test_or_less_goes_on_where_the_radius_is_given_up():
    votes = mostly_cats(6)
    plain, further = run(votes), run(votes, or_less=True)
    assert plain.votes < 300
    assert further.votes == 300
    assert further.reason is Reason.CAP
    assert further.label is None
    assert further.largest[0].radius > plain.largest[0].radius
    assert further.or_less


def test_or_less_still_ends_at_the_radius_asked_for():
    votes = ["cat", "dog", *["cat"] * 298]
    decision = run(votes, or_less=True)
    assert decision.label == "cat"
    assert decision.votes == run(votes).votes < 100


def test_or_less_gives_up_where_no_radius_can_be_hoped_for():
    decision = run(["cat", "dog", "cow"] * 100, or_less=True)
    assert decision.reason in (Reason.UNLIKELY, Reason.FUTILE)
    assert decision.votes < 300


def test_or_less_may_have_every_vote_left_in_flight_once_the_radius_is_out_of_reach():
    test = SequentialCertify(radius=0.25, sigma=SIGMA, alpha=ALPHA, max_votes=60, or_less=True)
    assert test.needed() < 60
    for vote in [*["cat"] * 30, *["dog"] * 4]:
        test.add(vote)
    assert not test.done
    assert test.needed() == 60 - 34


def answer(**scores):
    return Answer(tuple(Label(name, score) for name, score in scores.items()))


def decided(target, answers, radius=0.25, **more):
    test = target.start(radius=radius, **TERMS, **more)
    for item in answers:
        test.add(target.vote(item))
        if test.done:
            break
    return test.result()


def alternating(yes, no, every=6, count=300):
    return [no if n % every == every - 1 else yes for n in range(count)]


@pytest.mark.parametrize(
    ("target", "relation", "score"),
    [
        (Top1(), "top", None),
        (Presence("cat", 0.5), "present", None),
        (Scores("cat", 0.5), "at least", 0.5),
        (MostSpecific(0.5), "present", None),
        (TopK(1), "among the best", None),
    ],
)
def test_every_target_says_so(target, relation, score):
    decision = decided(target, alternating(answer(cat=0.9), answer(dog=0.9)))
    assert decision.label is None
    (claim,) = decision.largest
    assert (claim.label, claim.relation, claim.score) == ("cat", relation, score)
    assert 0.0 < claim.radius < 0.25


@pytest.mark.parametrize("target", [Presence("cat", 0.5), Scores("cat", 0.5), TopK(1)])
def test_every_target_that_has_smaller_radii_goes_on_for_less(target):
    answers = alternating(answer(cat=0.9), answer(dog=0.9))
    plain, further = decided(target, answers), decided(target, answers, or_less=True)
    assert plain.votes < further.votes == 300
    assert further.largest[0].radius > plain.largest[0].radius


def test_absence_reaches_as_far_as_presence():
    target = Presence("dog", 0.5, wanted="absent")
    (claim,) = decided(target, alternating(answer(cat=0.9), answer(dog=0.9))).largest
    assert (claim.label, claim.relation) == ("dog", "absent")


def test_a_score_is_never_certified_beyond_the_radius_asked_for():
    """There, `least` at a larger radius and a larger score at this one would be two events."""
    decision = decided(Scores("cat", 0.5), [answer(cat=0.9)] * 300, radius=0.1)
    (claim,) = decision.largest
    assert claim == decision.claims[0]
    assert claim.radius == 0.1


def test_the_most_specific_label_and_its_parents_reach_differently_far():
    bird = Label("Bird", 0.9, parents=("Animal",))
    cow = Label("Cow", 0.9, parents=("Animal",))
    answers = alternating(Answer((bird,)), Answer((cow,)))
    decision = decided(MostSpecific(0.5), answers)
    assert decision.label == "Animal"
    specific, general = decision.largest
    assert (specific.label, general.label) == ("Bird", "Animal")
    assert 0.0 < specific.radius < 0.25 <= general.radius


def test_the_most_specific_label_is_not_searched_for_less():
    with pytest.raises(UsageError, match="radius wanted"):
        MostSpecific(0.5).start(radius=0.25, **TERMS, or_less=True)


def test_several_labels_reach_each_as_far_as_its_own_votes():
    target = Presence(("cat", "fur"), 0.5)
    both, one = answer(cat=0.9, fur=0.9), answer(fur=0.9)
    decision = decided(target, alternating(both, one))
    reach = {claim.label: claim.radius for claim in decision.largest}
    assert reach["fur"] >= 0.25 > reach["cat"] > 0.0
    assert [claim.label for claim in decision.claims] == ["fur"]


def test_votes_of_presence_can_be_replayed_under_rules_1():
    votes = [json.dumps([["cat"], [], 0.5])] * 47
    test = Presence("cat", 0.5).start(radius=0.25, **TERMS, rules=1)
    decision = replay(test, votes)
    assert decision.label == "cat present"
    assert decision.largest == ()


def test_the_largest_radius_is_not_asked_for_or_less():
    for target in (Top1(), TopK(2), Presence("cat", 0.5)):
        with pytest.raises(UsageError, match="leave out or_less"):
            target.start(radius=None, **TERMS, or_less=True)
