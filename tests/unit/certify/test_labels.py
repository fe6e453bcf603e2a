"""The vote of an answer."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothapi.answer import Answer, Label
from smoothapi.certify import LabelSpace, Top1, parse_target, top1
from smoothapi.certify.labels import label_key
from smoothapi.errors import UsageError
from smoothapi.label_file import read_label_space


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


def test_a_label_with_score_0_is_no_vote() -> None:
    assert top1(answer(("adult", 0.0), ("racy", 0.0))) is None
    assert top1(answer(("adult", 0.0), ("racy", 0.25))) == "racy"
    assert top1(answer(("Adult", 0.0)), LabelSpace({"adult": ["adult"]})) is None


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


# Letters that people write with accents, in both of the ways that Unicode has for them.
COMPOSED, TAKEN_APART = "Caf\u00e9", "Cafe\u0301"


def test_labels_are_compared_however_their_accents_are_composed() -> None:
    assert COMPOSED != TAKEN_APART
    for listed, said in ((COMPOSED, TAKEN_APART), (TAKEN_APART, COMPOSED)):
        assert LabelSpace({"bar": [listed]}).class_of(said.upper()) == "bar"
    assert LabelSpace({"bar": [COMPOSED]}).digest == LabelSpace({"bar": [TAKEN_APART]}).digest
    with pytest.raises(UsageError, match="both"):
        LabelSpace({"bar": [COMPOSED], "shop": [TAKEN_APART]})


@given(st.text())
def test_a_key_is_its_own_key(text: str) -> None:
    key = label_key(text)
    assert label_key(key) == key
    assert label_key(unicodedata.normalize("NFD", text)) == key
    assert label_key(unicodedata.normalize("NFC", text)) == key


PLURALS = [
    ("bus", "buses"),
    ("dog", "dogs"),
    ("Box", "boxes"),
    ("Church", "Churches"),
    ("City light", "city lights"),
    ("baby", "babies"),
    ("day", "days"),
    ("photo", "photos"),
    ("tomato", "tomatoes"),
    ("radio", "radios"),
    ("T-shirt", "t-shirts"),
    ("Quiz", "quizes"),
    ("class_bird", "class_birds"),
]


@pytest.mark.parametrize(("one", "many"), PLURALS)
def test_plurals_count_both_ways_when_asked_for(one: str, many: str) -> None:
    for listed, said in ((one, many), (many, one)):
        assert LabelSpace({"a": [listed]}).class_of(said) is None
        assert LabelSpace({"a": [listed]}, plurals=True).class_of(said) == "a"


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("glass", "glas"),
        ("mouse", "mice"),
        ("leaf", "leaves"),
        ("bus", "busses"),
        ("city", "citys"),
        ("bus stop", "buses stop"),
        ("ai", "ais"),
        ("4x4", "4x4s"),
        ("dog", "cat"),
    ],
)
def test_what_is_no_regular_plural_does_not_count(listed: str, said: str) -> None:
    space = LabelSpace({"a": [listed]}, plurals=True)
    assert space.class_of(said) is None
    assert LabelSpace({"a": [said]}, plurals=True).class_of(listed) is None


def test_two_classes_that_differ_in_number_only_are_refused_with_plurals() -> None:
    LabelSpace({"one": ["Bus"], "many": ["Buses"]})
    with pytest.raises(UsageError, match="plurals=True"):
        LabelSpace({"one": ["Bus"], "many": ["Buses"]}, plurals=True)
    # Both stand for the same plural.
    with pytest.raises(UsageError, match="both"):
        LabelSpace({"one": ["hero"], "many": ["heroes", "heros"]}, plurals=True)


@given(st.text(alphabet="abchosxyz -", min_size=1).filter(str.strip))
def test_plurals_never_lose_what_is_listed(name: str) -> None:
    space = LabelSpace({"a": [name]}, plurals=True)
    assert space.class_of(name) == "a"
    for form in space._class_of:
        assert LabelSpace({"a": [form]}, plurals=True).class_of(name) == "a"


VULTURE = Label("Vulture", 0.9, ("Bird", "Animal"), ("Wildlife",))


def test_parents_and_categories_count_when_asked_for() -> None:
    classes = {"bird": ["bird"], "animal": ["Animal"], "wild": ["wildlife"]}
    assert LabelSpace(classes).class_of(VULTURE) is None
    assert LabelSpace(classes, parents=True).class_of(VULTURE) == "bird"  # the first that is listed
    assert LabelSpace(classes, categories=True).class_of(VULTURE) == "wild"
    assert LabelSpace(classes, parents=True, categories=True).class_of(VULTURE) == "bird"
    own = {"raptor": ["Vulture"], **classes}
    assert LabelSpace(own, parents=True, categories=True).class_of(VULTURE) == "raptor"
    assert LabelSpace(classes, parents=True).class_of("Vulture") is None  # only a name
    assert LabelSpace({"b": ["Birds"]}, parents=True, plurals=True).class_of(VULTURE) == "b"


def test_votes_and_ties_with_parents() -> None:
    space = LabelSpace({"bird": ["Bird"], "animal": ["Animal"]}, parents=True)
    tied = answer(("Animal", 0.9), ("Bird", 0.9, ("Animal",)), ("Vulture", 0.9, ("Bird", "Animal")))
    assert top1(tied, space) == "bird"
    assert top1(answer(("Vulture", 0.9, ("Bird",)), ("Animal", 0.95)), space) == "animal"
    assert top1(answer(("Vulture", 0.9, ("Bird",))), LabelSpace({"bird": ["Bird"]})) is None


def test_what_is_unmapped_is_named_in_order() -> None:
    space = LabelSpace({"bird": ["Bird"]}, parents=True)
    said = answer(("Tree", 0.9), ("Vulture", 0.8, ("Bird",)), ("Sky", 0.7))
    assert space.unmapped(said) == ("Tree", "Sky")


def test_without_rules_description_and_digest_are_as_they_always_were() -> None:
    classes = {"bus": ["School Bus", "Bus"], "car": ["Car"]}
    space = LabelSpace(classes)
    assert space.description == classes
    canonical = [["bus", "bus"], ["car", "car"], ["school bus", "bus"]]
    assert space.digest == hashlib.sha256(json.dumps(canonical).encode()).hexdigest()


RULES = [dict(zip(("plurals", "parents", "categories"), on, strict=True)) for on in product([False, True], repeat=3)]  # fmt: skip


def test_rules_are_part_of_digest_and_description() -> None:
    spaces = [LabelSpace({"bird": ["Bird"]}, **rules) for rules in RULES]
    assert len({space.digest for space in spaces}) == len(set(spaces)) == 8
    for space in spaces:
        again = LabelSpace.parse(json.loads(json.dumps(space.description)))
        assert again == space
        assert again.digest == space.digest
        target = parse_target(json.loads(json.dumps(Top1(space).description)))
        assert isinstance(target, Top1)
        assert target.space == space
        assert target.vote(Answer((VULTURE,))) == top1(Answer((VULTURE,)), space)


def test_a_class_may_be_called_classes() -> None:
    space = LabelSpace.parse({"classes": ["Class"], "plurals": ["Plural"]})
    assert (space.class_of("class"), space.class_of("plural")) == ("classes", "plurals")


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "bird",
        {"classes": {}},
        {"classes": {"bird": ["Bird"]}, "plural": True},
        {"classes": {"bird": ["Bird"]}, "plurals": "yes"},
        {"bird": [1]},
        {"bird": {"Bird": 1}},
        {"bird": None},
        {"bird": 7},
    ],
)
def test_what_is_no_label_space(bad: Any) -> None:
    with pytest.raises(UsageError):
        LabelSpace.parse(bad)


def test_labels_may_be_any_iterable() -> None:
    space = LabelSpace({"bird": (name for name in ["Bird", "Vulture"])})
    assert space.classes == {"bird": ("Bird", "Vulture")}
    assert space.class_of("vulture") == "bird"


FILES = {
    "plain.toml": 'bus = ["School Bus", "Bus"]\n',
    "rules.toml": 'plurals = true\n[classes]\nbus = ["School Bus", "Bus"]\n',
    "plain.json": '{"bus": ["School Bus", "Bus"]}',
    "rules.json": '{"plurals": true, "classes": {"bus": ["School Bus", "Bus"]}}',
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_same_as_code(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    rules = {"plurals": True} if name.startswith("rules") else {}
    expected = LabelSpace({"bus": ["School Bus", "Bus"]}, **rules)
    assert read_label_space(tmp_path / name) == expected
    assert read_label_space(str(tmp_path / name)).digest == expected.digest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", b"bus = ["),
        ("a.toml", b"\xff"),
        ("a.toml", b'bus = ["Bus"]\nbus = ["Car"]'),
        ("a.toml", b'bus = "Bus"'),
        ("a.json", b"{"),
        ("a.json", b"[]"),
        ("a.json", b'{"bus": ["Bus"], "bus": ["Car"]}'),
        ("a.json", b'{"bus": []}'),
        ("a.json", b"[" * 100_000),
        ("none.json", None),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(name)):
        read_label_space(tmp_path / name)
