"""What else the same answers can certify."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from smoothapi.answer import Answer, Label
from smoothapi.certify import (
    Absence,
    LabelSpace,
    MostSpecific,
    Presence,
    Reason,
    SequentialCertify,
    Target,
    Top1,
    TopK,
    parse_target,
    replay,
)
from smoothapi.errors import UnreachableRadiusError, UsageError

SETTINGS: dict[str, Any] = {"sigma": 0.25, "alpha": 0.01, "max_votes": 400, "radius": 0.2}
NOTHING = Answer(labels=())
BIRD = Answer(
    labels=(
        Label("Animal", 0.99),
        Label("Bird", 0.99, ("Animal",)),
        Label("Vulture", 0.99, ("Bird", "Animal")),
        Label("Rock", 0.3),
    )
)
ROBIN = Answer(labels=(Label("Robin", 0.9, ("Bird", "Animal")), Label("Bird", 0.8, ("Animal",))))
TREE = Answer(labels=(Label("Tree", 0.95),))


def run(target: Target, answers: list[Answer | None], **changes: Any) -> Any:
    test = target.start(**SETTINGS | changes)
    for number in range(10_000):
        if test.done:
            break
        test.add(target.vote(answers[number % len(answers)]))
    return test.result()


@pytest.mark.parametrize(
    "target", [Top1(), Presence("Bird", 0.5), Absence("Gun", 0.5), MostSpecific(0.5), TopK(3)]
)
def test_every_target_runs_and_replays(target: Target) -> None:
    assert isinstance(target, Target)
    test = target.start(**SETTINGS)
    votes = []
    for answer in [BIRD] * 9 + [None, NOTHING] + [BIRD] * 200:
        if test.done:
            break
        assert 0 < test.needed() <= 400
        votes.append(target.vote(answer))
        test.add(votes[-1])
    decision = test.result()
    assert test.needed() == 0
    assert decision.reason is Reason.CERTIFIED
    assert decision.radius == 0.2
    assert decision.votes == len(votes) == sum(decision.tally.values())
    assert replay(target.start(**SETTINGS), votes) == decision
    with pytest.raises(UsageError, match="decided"):
        test.add(votes[0])


@pytest.mark.parametrize("target", [Presence("Bird", 0.5), MostSpecific(0.5), TopK(2), Top1()])
def test_an_unbroken_run_needs_what_it_said(target: Target) -> None:
    need = target.start(**SETTINGS).needed()
    decision = run(target, [BIRD])
    if isinstance(target, MostSpecific):  # how long the chain is, only the first vote says
        assert need < decision.votes < 1.3 * need
    else:
        assert decision.votes == need


def test_presence_looks_at_scores_and_parents() -> None:
    assert json.loads(Presence("bird", 0.5).vote(ROBIN) or "") == [["bird"], [], 0.5]
    assert json.loads(Presence("Rock", 0.5).vote(BIRD) or "") == [[], ["Rock"], 0.5]
    assert json.loads(Presence("Rock", 0.3).vote(BIRD) or "") == [["Rock"], [], 0.3]
    two = json.loads(Presence(["Gun", "Animal"], 0.5).vote(ROBIN) or "")
    assert two == [["Animal"], ["Gun"], 0.5]
    assert json.loads(Presence("Bird", 0.5).vote(NOTHING) or "") == [[], ["Bird"], 0.5]
    assert Presence("Bird", 0.5).vote(None) is None


@pytest.mark.parametrize("kind", [lambda s: Presence("Bird", s), MostSpecific])
@pytest.mark.parametrize("answer", [BIRD, NOTHING])
def test_votes_of_another_score_are_refused(kind: Any, answer: Answer) -> None:
    vote = kind(0.5).vote(answer)
    kind(0.5).start(**SETTINGS).add(vote)
    with pytest.raises(UsageError, match=r"from a score of 0\.5, and here from 0\.6"):
        kind(0.6).start(**SETTINGS).add(vote)


def test_there_is_no_largest_radius_of_the_most_specific_label() -> None:
    with pytest.raises(UsageError, match="name the radius"):
        MostSpecific(0.5).start(**SETTINGS | {"radius": None})


def test_presence_certifies_either_way() -> None:
    found = run(Presence("Bird", 0.5), [BIRD])
    assert found.label == "Bird present"
    assert (found.claims[0].label, found.claims[0].relation) == ("Bird", "present")
    missing = run(Presence("Gun", 0.5), [BIRD, NOTHING])
    assert missing.label == "Gun absent"
    assert missing.claims[0].radius == 0.2


def test_a_wanted_absence_gives_up_where_the_label_is_present() -> None:
    decision = run(Absence("Bird", 0.5), [BIRD])
    assert decision.abstained
    assert decision.votes < 5
    assert run(Absence("Gun", 0.5), [BIRD]).label == "Gun absent"


def test_failed_variants_count_for_neither() -> None:
    assert run(Presence("Bird", 0.5), [None, BIRD]).abstained
    assert run(Absence("Gun", 0.5), [None, BIRD]).abstained


def test_several_labels_share_alpha_and_answers() -> None:
    decision = run(Presence(["Bird", "Gun", "Tree"], 0.5), [BIRD, BIRD, BIRD, TREE] * 5 + [BIRD])
    claims = {claim.label: claim.relation for claim in decision.claims}
    assert claims["Gun"] == "absent"
    assert "Tree" not in claims
    one = Presence("Gun", 0.5).start(**SETTINGS).needed()
    three = Presence(["Bird", "Gun", "Tree"], 0.5).start(**SETTINGS).needed()
    tight = SequentialCertify(**SETTINGS | {"alpha": 0.01 / 3}).needed()
    assert one < three == tight


def test_the_most_specific_label_is_found_and_its_parent_if_it_fails() -> None:
    assert run(MostSpecific(0.5), [BIRD]).label == "Vulture"
    # Vultures and robins by turns: both are birds.
    mixed = run(MostSpecific(0.5), [BIRD, ROBIN])
    assert mixed.label == "Bird"
    assert mixed.claims[0].votes[0] == mixed.claims[0].votes[1]
    # Now and then only "Animal" is seen.
    animal = Answer(labels=(Label("Animal", 0.9),))
    assert run(MostSpecific(0.5), [BIRD, animal, ROBIN, animal]).label == "Animal"
    assert run(MostSpecific(0.5), [BIRD, TREE]).abstained
    nothing = run(MostSpecific(0.5), [NOTHING])
    assert nothing.reason is Reason.NO_ANSWER
    assert nothing.votes < 5


def test_the_most_specific_label_may_be_named_late() -> None:
    decision = run(MostSpecific(0.5), [TREE] + [BIRD] * 300)
    assert decision.label == "Vulture"
    assert decision.level == pytest.approx(0.01 * 0.05 / 3)  # Vulture, Bird, Animal


def test_top_k_holds_where_no_label_has_a_majority() -> None:
    rng = np.random.default_rng(61)
    names = ("cat", "dog", "cow", "hen", "pig", "fox")
    test = TopK(3).start(sigma=0.25, alpha=0.01, max_votes=400, radius=0.05)
    single = Top1().start(sigma=0.25, alpha=0.01, max_votes=400, radius=0.05)
    for index in rng.choice(6, size=400, p=[0.45, 0.3, 0.1, 0.05, 0.05, 0.05]):
        for one in (test, single):
            if not one.done:
                one.add(names[index])
    assert test.result().label == "cat"
    assert test.result().claims[0].relation == "among the best"
    assert single.result().abstained


def test_top_k_finds_a_largest_radius() -> None:
    decision = run(TopK(2), [BIRD], radius=None, max_votes=100)
    wanted = run(TopK(2), [BIRD], radius=decision.radius, max_votes=100)
    assert decision.radius > 0.2
    assert wanted.radius == decision.radius
    with pytest.raises(UnreachableRadiusError):
        TopK(2).start(**SETTINGS | {"max_votes": 100, "radius": decision.radius + 1e-3})


def test_targets_take_the_callers_classes() -> None:
    space = LabelSpace({"bird": ["Vulture", "Robin"], "plant": ["Tree"]})
    assert run(Top1(space), [BIRD, ROBIN]).label == "bird"
    assert run(TopK(1, space), [BIRD, ROBIN]).label == "bird"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Presence([], 0.5), lambda: Presence("Bird", 0.0), lambda: Presence("Bird", 1.1),
        lambda: Presence(["Bird", "bird"], 0.5), lambda: Presence(" ", 0.5),
        lambda: Presence("Bird", 0.5, wanted="maybe"), lambda: MostSpecific(float("nan")),
        lambda: TopK(0), lambda: MostSpecific(0.5).start(**SETTINGS | {"radius": None}),
        lambda: TopK(2).start(**SETTINGS | {"radius": -0.1}),
        lambda: MostSpecific(0.5).start(**SETTINGS | {"max_votes": 5}),
        lambda: Presence("Bird", 0.5).start(**SETTINGS).add("Bird"),
        lambda: MostSpecific(0.5).start(**SETTINGS).add("[]"),
        lambda: MostSpecific(0.5).start(**SETTINGS).add("{"),
    ],
)  # fmt: skip
def test_impossible_targets_are_refused(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


SPACE = LabelSpace({"bird": ["Vulture", "Robin"], "plant": ["Tree"]})


@pytest.mark.parametrize(
    "target",
    [
        Top1(), Top1(SPACE), Presence("Bird", 0.5), Absence(["Gun", "Knife"], 0.8),
        MostSpecific(0.7), TopK(3), TopK(3, SPACE),
    ],
)  # fmt: skip
def test_a_target_survives_json(target: Target) -> None:
    assert parse_target(json.loads(json.dumps(target.description))) == target
    assert parse_target(target) is target


def test_the_usual_target_has_a_name() -> None:
    assert parse_target("top1") == Top1()


@pytest.mark.parametrize(
    "bad",
    ["top2", "presence", {}, {"target": "top-k"}, {"target": "top-k", "k": "3"},
     {"target": "presence", "labels": ["a"], "score": 2}, {"target": ["top1"]}],
)  # fmt: skip
def test_other_values_are_not_targets(bad: Any) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(bad)
    # What was given is what is shown, or the value in it that is out of range.
    assert str(caught.value).startswith((f"{bad!r} is not a target", "k=3: ", "score=2: "))
