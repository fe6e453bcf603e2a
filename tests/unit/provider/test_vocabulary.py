"""What an adapter states of its labels: the value, and how it is asked for."""

from __future__ import annotations

import pytest

from smoothapi.errors import UsageError
from smoothapi.provider import Vocabulary, vocabulary_of
from tests.conftest import ScriptedAdapter


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"closed": True}, "has a label or more"),
        ({"names": "bus"}, "list of labels"),
        ({"names": ("bus", " ")}, "' ' is no label"),
        ({"names": ("bus", 3)}, "3 is no label"),
        ({"names": ("bus",), "parents": {"bus": ("",)}}, "'' is no label"),
        ({"names": ("bus",), "aliases": {"coach": " "}}, "' ' is no label"),
        ({"names": ("bus",), "as_of": "soon"}, "a date such as"),
    ],
)
def test_what_is_no_vocabulary_is_refused(fields, match):
    with pytest.raises(UsageError, match=match):
        Vocabulary(**fields)


def test_parents_that_are_no_labels_of_their_own_are_names_too():
    vocabulary = Vocabulary(["bus", "van"], parents={"bus": ("vehicle",), "van": ("vehicle",)})
    assert vocabulary.names == ("bus", "van")
    assert vocabulary.all_names == ("bus", "van", "vehicle")


def test_of_several_it_is_closed_only_if_all_are():
    one = Vocabulary(("adult",), closed=True, source="one", as_of="2026-02-01")
    other = Vocabulary(
        ("bus",), closed=True, source="other", as_of="2026-01-01", retired={"x": "1"}
    )
    both = Vocabulary.of_all([one, other])
    assert (both.names, both.closed) == (("adult", "bus"), True)
    assert (both.source, both.as_of, both.retired) == ("one; other", "2026-01-01", {"x": "1"})
    assert not Vocabulary.of_all([one, Vocabulary()]).closed
    assert Vocabulary.of_all([one, Vocabulary()]).names == ("adult",)


def test_what_one_retired_and_another_has_is_not_retired():
    now = Vocabulary(("bus",), closed=True)
    assert not Vocabulary.of_all([Vocabulary(("van",), retired={"bus": "1"}), now]).retired


def test_an_adapter_without_one_is_open():
    adapter = ScriptedAdapter()
    assert vocabulary_of(adapter) == Vocabulary()
    adapter.vocabulary = ["something", "else"]
    assert vocabulary_of(adapter) == Vocabulary()


def test_an_adapter_that_returns_something_else_is_told_so():
    adapter = ScriptedAdapter()
    adapter.vocabulary = lambda: ["bus"]
    with pytest.raises(UsageError, match=r"'scripted' must return a Vocabulary.* not a list"):
        vocabulary_of(adapter)
