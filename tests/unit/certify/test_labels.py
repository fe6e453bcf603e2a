"""The vote of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from smoothapi.answer import Answer, Label
from smoothapi.certify import LabelSpace, top1
from smoothapi.errors import UsageError


def answer(*labels: tuple[Any, ...]) -> Answer:
    return Answer(labels=tuple(Label(*label) for label in labels))


def test_the_highest_score_wins_in_any_order() -> None:
    assert top1(answer(("a", 0.2), ("b", 0.9), ("c", 0.5))) == "b"


def test_no_labels_is_no_answer() -> None:
    assert top1(answer()) is None


def test_ties_go_to_the_most_specific_then_to_the_first_name() -> None:
    tied = answer(
        ("Animal", 0.99), ("Bird", 0.99, ("Animal",)), ("Vulture", 0.99, ("Bird", "Animal"))
    )
    assert top1(tied) == "Vulture"
    assert top1(answer(("b", 0.5), ("a", 0.5))) == "a"
    assert top1(answer(("a", 0.5, ("b",)), ("b", 0.5, ("a",)))) == "a"
    # A parent that is not tied does not lose.
    assert top1(answer(("Animal", 0.99), ("Bird", 0.9, ("Animal",)))) == "Animal"


def test_a_label_space_maps_and_ignores_the_rest() -> None:
    space = LabelSpace({"bird": ["Bird", " vulture "], "dog": ["Dog"]})
    assert top1(answer(("Tree", 0.99), ("VULTURE", 0.5), ("Dog", 0.4)), space) == "bird"
    assert top1(answer(("Tree", 0.99)), space) is None


def test_a_label_space_refuses_what_is_ambiguous_or_empty() -> None:
    with pytest.raises(UsageError, match="both"):
        LabelSpace({"bird": ["Crane"], "machine": ["crane"]})
    for bad in ({}, {"bird": "Bird"}, {"bird": []}, {"": ["Bird"]}, {"bird": [" "]}):
        with pytest.raises(UsageError):
            LabelSpace(bad)


def test_the_digest_is_of_the_mapping() -> None:
    one = LabelSpace({"bird": ["Bird", "Vulture"], "dog": ["Dog"]})
    other = LabelSpace({"dog": ["dog"], "bird": ["vulture", "bird"]})
    assert one.digest == other.digest
    assert one.digest != LabelSpace({"bird": ["Bird"], "dog": ["Dog"]}).digest
