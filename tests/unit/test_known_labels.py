"""Labels asked for by name, held against those that a provider states and those that were seen."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smoothapi import (
    Absence,
    Certificate,
    LabelSpace,
    Presence,
    Scores,
    Smoother,
    Study,
    TopK,
    UnknownLabelError,
    verify,
)
from smoothapi.answer import Answer, Label
from smoothapi.certificates import unchecked
from smoothapi.certify import Top1
from smoothapi.errors import StoreError
from smoothapi.known_labels import KnownLabels
from smoothapi.provider import Vocabulary
from smoothapi.services import Table
from smoothapi.store import Seen
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import ScriptedAdapter, answer, invoke

PHOTO = np.random.default_rng(0).integers(60, 190, (24, 32, 3), dtype=np.uint8)
RIFLE = Answer((Label("Rifle", 0.95, ("Gun",), ("Weapons and Military",)),), "v1")
CLOSED = Vocabulary(
    ("School Bus", "Weapons", "Weapon Violence", "Fire-Truck"),
    closed=True,
    parents={"School Bus": ("Bus", "Vehicle")},
    retired={"Suggestive": "6.1"},
    source="a page",
    as_of="2026-11-28",
)


class Answers:
    """A store of which only `seen` is asked."""

    def __init__(self, *labels):
        self._labels = frozenset(labels)

    def seen(self, provider, identity):
        assert (provider, identity) == ("scripted", {"operation": "label"})
        return Seen(self._labels)


def closed(script=None):
    adapter = ScriptedAdapter(script)
    adapter.vocabulary = lambda: CLOSED
    return adapter


def listing(script=None):
    """Return a provider whose list of labels is open, and knows another word for one of them."""
    adapter = ScriptedAdapter(script)
    stated = Vocabulary(("Woodland", "Sea"), source="a list", aliases={"Forest": "Woodland"})
    adapter.vocabulary = lambda: stated
    return adapter


def known(*seen):
    return KnownLabels(closed(), Answers(*seen))


@pytest.fixture
def smoother():
    """Makes a Smoother with no denoiser around an adapter; few votes suffice."""
    made = []

    def make(adapter, **options):
        made.append(
            Smoother(adapter, denoiser="none", alpha=0.05, max_votes=60, size=24, **options)
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


# What is known, and what may be meant.


@settings(deadline=None, max_examples=24)
@given(
    name=st.sampled_from((*CLOSED.names, "Bus", "Vehicle")),
    change=st.sampled_from((str.upper, str.lower, str.title, "  {} ".format)),
)
def test_case_and_spaces_around_make_no_difference(name, change):
    known().check(Presence(change(name), 0.8))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("Weapon", ("Weapons", "Weapon Violence")),
        ("Weapn", ("Weapons",)),
        ("school_bus", ("School Bus",)),
        ("SchoolBus", ("School Bus",)),
        ("fire truck", ("Fire-Truck",)),
        ("violence", ("Weapon Violence",)),
        ("Rifle", ()),
        ("!", ()),
    ],
)
def test_what_may_be_meant(asked, meant):
    assert known().meant(asked) == meant


def test_of_an_open_vocabulary_what_was_seen_may_be_meant():
    assert KnownLabels(ScriptedAdapter(), Answers("Riffle")).meant("Rifle") == ("Riffle",)
    assert known("Riffle").meant("Rifle") == ()


@pytest.mark.parametrize("wanted", ["either", "present", "absent"])
def test_a_closed_vocabulary_refuses_other_labels_and_says_what_may_be_meant(wanted):
    with pytest.raises(UnknownLabelError) as caught:
        known().check(Presence(["School Bus", "Weapn", "Rifle"], 0.8, wanted=wanted))
    assert caught.value.labels == ("Weapn", "Rifle")
    assert "no label 'Weapn': did you mean 'Weapons'?; 'Rifle'" in str(caught.value)
    assert "It has 6 labels (a page, 2026-11-28)." in str(caught.value)
    assert "smoothapi providers labels scripted --search weap" in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [Scores("Rifle"), Absence("Rifle", 0.8), Top1(LabelSpace({"gun": ["Rifle"]}))],
)
def test_a_closed_vocabulary_refuses_a_label_although_one_of_that_name_was_seen(target):
    """What was seen may be of before the vocabulary was given, or a stranger's row."""
    with pytest.raises(UnknownLabelError, match="Rifle"):
        known("Rifle").check(target)


def test_what_is_retired_stays_refused_although_it_was_seen():
    with pytest.raises(UnknownLabelError, match=r"'suggestive' \(its model gave it until 6.1\)"):
        known("Suggestive").check(Absence("suggestive", 0.8))


def test_markup_and_escapes_in_a_label_are_not_shown_as_they_are():
    with pytest.raises(UnknownLabelError) as caught:
        known().check(Presence("\x1b[31mred\u202e", 0.8))
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


def test_many_unknown_labels_are_not_all_listed():
    with pytest.raises(UnknownLabelError, match=r"and 92 more") as caught:
        known().check(Scores([f"no such {n}" for n in range(100)]))
    assert len(caught.value.labels) == 100


@pytest.mark.parametrize("target", [Top1, lambda space: TopK(2, space)])
def test_a_class_that_could_never_be_voted_for_is_refused(target):
    space = LabelSpace({"bus": ["School Bus"], "weapon": ["Rifle", "Weapn"]})
    with pytest.raises(UnknownLabelError, match=r"class 'weapon' can never be the answer"):
        known().check(target(space))


@pytest.mark.parametrize(
    ("labels", "rules"),
    [(["weapons", "Rifle"], {}), (["Buses"], {"plurals": True}), (["Vehicle"], {"parents": True})],
)
def test_a_class_needs_one_label_that_can_be_given(labels, rules):
    known().check(Top1(LabelSpace({"one": labels}, **rules)))


def test_a_space_that_counts_categories_is_not_refused():
    known().check(Top1(LabelSpace({"weapon": ["Weapons and Military"]}, categories=True)))


def test_an_open_vocabulary_refuses_nothing():
    KnownLabels(ScriptedAdapter(), Answers()).check(Absence("Weapn", 0.8))


def test_what_an_open_list_lacks_is_warned_of_once_before_it_is_paid_for(smoother, caplog):
    adapter = listing(lambda *_: answer("Woodland"))
    s = smoother(adapter)
    for label in ("Woodland", "forest ", "forest ", "Rifle"):
        s.certify(PHOTO, 0.05, target=Absence(label, 0.5))
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert told == [
        f"scripted is not known to have a label {what} It is asked about all the same."
        for what in ("'forest ': did you mean 'Woodland'?", "'Rifle'.")
    ]


def test_an_alias_that_was_an_answers_own_label_is_known():
    seen = KnownLabels(listing(), Answers("Forest"))
    assert seen.doubted(Presence(["Forest", "Woodland"], 0.5)) == {}
    assert set(KnownLabels(listing(), Answers()).doubted(Presence("Forest", 0.5))) == {"Forest"}


def test_targets_of_ones_own_need_no_labels():
    class Own:
        labels = None

    known().check(Own())
    assert known().never_seen(Own()) == ()


def test_a_store_that_cannot_tell_what_it_saw_claims_nothing():
    class Before:
        """A stranger's store, written before it was asked."""

    assert KnownLabels(ScriptedAdapter(), Before()).never_seen(Absence("Weapn", 0.8)) == ()
    with pytest.raises(UnknownLabelError, match="did you mean 'Weapons'"):
        KnownLabels(closed(), Before()).check(Absence("Weapn", 0.8))


# Before anything is paid for.


@pytest.mark.parametrize("name", ["Weapon", "Weapn"])
def test_absence_of_a_word_that_the_default_provider_lacks_is_refused(name):
    pytest.importorskip("efficientnet_lite_pytorch")
    Image.fromarray(PHOTO).save("rifle.png")
    done = invoke("certify", "rifle.png", "--target", f"absent:{name}:0.8", "--denoiser", "none")
    assert done.exit_code == 2
    assert f"mock has no label {name!r}" in done.stderr
    assert not done.stdout
    as_json = invoke("certify", "rifle.png", "--target", f"absent:{name}:0.8", "--json")
    assert json.loads(as_json.stdout)["error"] == "UnknownLabelError"


@pytest.mark.parametrize(
    "call",
    [
        lambda smoother: smoother.certify(PHOTO, target=Absence("Weapn", 0.8)),
        lambda smoother: smoother.certify(PHOTO, target=Scores("Weapn")),
        lambda smoother: smoother.plan(PHOTO, target=Absence("Weapn", 0.8)),
        lambda smoother: smoother.certify(PHOTO, target=Top1(LabelSpace({"w": ["Weapn"]}))),
    ],
)
def test_nothing_is_sent_for_what_cannot_be_said(call, smoother):
    adapter = closed()
    with pytest.raises(UnknownLabelError, match="did you mean 'Weapons'"):
        call(smoother(adapter))
    assert not adapter.sent


def test_classes_are_checked_when_a_smoother_is_made(smoother, caplog):
    adapter = closed()
    with pytest.raises(UnknownLabelError, match="'Weapn'"):
        smoother(adapter, classes={"weapon": ["Weapn"]})
    assert adapter.closed
    with caplog.at_level(logging.WARNING, "smoothapi"):
        smoother(closed(), classes={"weapon": ["Weapons", "Weapn"]})
    assert "no label 'Weapn': did you mean 'Weapons'?" in caplog.text


def test_a_study_refuses_it_for_each_of_its_providers():
    adapters = {"open": ScriptedAdapter(), "closed": closed()}
    study = Study({"a": PHOTO}, provider=adapters, denoisers="none", target=Absence("Weapn", 0.8))
    with pytest.raises(UnknownLabelError, match="'Weapn'"):
        study.run()
    assert not any(adapter.sent for adapter in adapters.values())


def test_a_study_says_what_it_never_saw(caplog):
    adapter = ScriptedAdapter(lambda *_: RIFLE)
    Study(
        {"a": PHOTO},
        provider=adapter,
        denoisers="none",
        target=Absence("Weapn", 0.8),
        radii=0.05,
        max_votes=50,
        alpha=0.05,
        gallery=0,
        size=24,
    ).run()
    assert "'Weapn' was never seen in any answer of scripted" in caplog.text


# What was never seen.


def test_what_was_never_seen_is_said_wherever_the_certificate_is(smoother):
    certificate = smoother(ScriptedAdapter(lambda *_: RIFLE)).certify(
        PHOTO, target=Absence(["Weapon", "gun"], 0.8)
    )
    assert certificate.never_seen == ("Weapon",)
    assert "'Weapon' never seen in any answer of scripted" in str(certificate)
    assert "Never seen" in certificate._repr_html_()
    data = certificate.to_dict()
    assert data["never_seen"] == ["Weapon"]
    again = Certificate.from_dict(json.loads(json.dumps(data)))
    assert again.never_seen == ("Weapon",)
    assert verify(again, PHOTO)
    assert any(
        "can say 'Weapon' at all" in each for each in unchecked(again, photo=True, home=True)
    )


def test_what_is_seen_in_any_answer_is_known_from_then_on(smoother):
    asked = smoother(ScriptedAdapter(lambda *_: answer("Weapon")))
    assert asked.certify(PHOTO, target=Presence("weapon", 0.8)).never_seen == ()
    later = smoother(ScriptedAdapter(lambda *_: RIFLE))
    certificate = later.certify(255 - PHOTO, target=Absence("Weapon", 0.99))
    assert certificate.never_seen == ()
    assert "never_seen" not in certificate.to_dict()
    assert "never seen" not in str(certificate)


def test_a_label_of_another_operation_is_not_seen(smoother):
    smoother(ScriptedAdapter(lambda *_: answer("Weapon"))).predict(PHOTO)
    other = ScriptedAdapter(lambda *_: RIFLE)
    other.identity = {"operation": "moderation"}
    assert smoother(other).certify(PHOTO, target=Absence("Weapon", 0.8)).never_seen == ("Weapon",)


def test_what_another_model_of_the_provider_said_counts_for_nothing(smoother):
    """In one home, of one operation: neither for an open vocabulary nor for a closed one."""

    def mock(labeller_id, *said, vocabulary=None):
        def labeller(picture):
            return [Label(name, 0.9) for name in said]

        if vocabulary:
            labeller.vocabulary = vocabulary
        return MockAdapter(labeller, labeller_id=labeller_id)

    said = smoother(mock("a", "weapon")).certify(PHOTO, target=Presence("weapon", 0.8))
    assert said.never_seen == ()
    target = Absence("weapon", 0.1)
    assert smoother(mock("b", "cat")).certify(PHOTO, target=target).never_seen == ("weapon",)
    only_cats = Vocabulary(("cat",), closed=True)
    with pytest.raises(UnknownLabelError, match="'weapon'"):
        smoother(mock("c", "cat", vocabulary=only_cats)).certify(PHOTO, target=target)


def test_of_classes_those_that_none_of_its_labels_was_seen_of(smoother):
    classes = {"gun": ["Rifle", "Revolver"], "blade": ["Knife", "Sword"]}
    asked = smoother(ScriptedAdapter(lambda *_: RIFLE), classes=classes)
    assert asked.certify(PHOTO).never_seen == ("Knife", "Sword")
    assert asked.predict(PHOTO).never_seen == ("Knife", "Sword")


def test_a_category_counts_only_where_a_space_counts_it(smoother):
    named = {"weapon": ["Weapons and Military"]}
    adapter = ScriptedAdapter(lambda *_: RIFLE)
    space = LabelSpace(named, categories=True)
    assert smoother(adapter, classes=space).certify(PHOTO).never_seen == ()
    target = Absence("Weapons and Military", 0.8)
    assert smoother(adapter).certify(PHOTO, target=target).never_seen == ("Weapons and Military",)


def test_what_cannot_be_read_of_it_loses_no_certificate(smoother, monkeypatch, caplog):
    asked = smoother(ScriptedAdapter(lambda *_: RIFLE))

    def broken(*_):
        raise StoreError("The answer store cannot be read.")

    monkeypatch.setattr(type(asked.session.answers), "seen", broken)
    certificate = asked.certify(PHOTO, target=Absence("Weapon", 0.8))
    assert certificate.label is not None
    assert certificate.never_seen == ()
    assert "cannot be told" in caplog.text


def test_the_screen_says_it(monkeypatch):
    from smoothapi import parts

    monkeypatch.setattr(parts, "make_adapter", lambda name, **_: ScriptedAdapter(lambda *_: RIFLE))
    Image.fromarray(PHOTO).save("rifle.png")
    target = ("--target", "absent:Weapn:0.8", "--radius", "0.05", "--alpha", "0.05")
    done = invoke("certify", "rifle.png", *target, "--denoiser", "none")
    assert done.exit_code == 0
    shown = " ".join(done.stdout.split())
    assert "'Weapn' never seen in any answer of scripted: that it is absent says little" in shown


@pytest.mark.parametrize("field", [[], "Weapon", [3], None])
def test_a_certificate_with_another_such_field_is_refused(field, smoother):
    from smoothapi.errors import CertificateError

    certificate = smoother(ScriptedAdapter()).certify(PHOTO)
    with pytest.raises(CertificateError):
        Certificate.from_dict({**certificate.to_dict(), "never_seen": field})


def test_a_replay_knows_what_it_replays(smoother):
    target = Absence(["Weapon", "Rifle"], 0.99)
    recorded = smoother(ScriptedAdapter(lambda *_: RIFLE), record="answers.jsonl")
    first = recorded.certify(PHOTO, target=target)
    again = smoother("replay:answers.jsonl").certify(PHOTO, target=target)
    assert first.never_seen == again.never_seen == ("Weapon",)


# The command that shows them.


def test_the_labels_of_a_provider_are_shown():
    Path("smoothapi.toml").write_text('[providers.mock]\nlabeller = "probabilities:bus 100%"\n')
    done = invoke("providers", "labels", "mock")
    assert done.exit_code == 0
    assert done.stdout == "bus\n"
    assert "it may have others" in done.stderr
    with Smoother(denoiser="none", alpha=0.05) as smoother:
        smoother.certify(PHOTO, 0.05)
    data = json.loads(invoke("providers", "labels", "mock", "--seen", "--json").stdout)
    assert data["schema"] == "smoothapi.labels/1"
    assert (data["provider"], data["operation"], data["closed"]) == ("mock", "label", False)
    assert data["labels"] == [
        {
            "name": "bus",
            "parents": [],
            "stated": True,
            "seen": True,
            "retired": None,
            "aliases": [],
        }
    ]


def test_labels_are_searched_with_what_may_be_meant(monkeypatch):
    from smoothapi import provider

    monkeypatch.setattr(provider, "make_adapter", lambda name, **_: closed())
    found = invoke("providers", "labels", "scripted", "--search", "WEAPON")
    assert found.stdout == "Weapons\nWeapon Violence\n"
    assert "6 labels, and no others (a page, 2026-11-28)" in found.stderr
    none = invoke("providers", "labels", "scripted", "--search", "schoolbus")
    assert not none.stdout
    assert "Did you mean 'School Bus'?" in none.stderr
    whole = invoke("providers", "labels", "scripted").stdout.splitlines()
    assert "School Bus  (Bus < Vehicle)" in whole
    assert whole[-1] == "Suggestive  (until 6.1)"


def test_a_label_is_found_by_another_word_for_it(monkeypatch):
    from smoothapi import provider

    monkeypatch.setattr(provider, "make_adapter", lambda name, **_: listing())
    found = invoke("providers", "labels", "scripted", "--search", "forest")
    assert found.stdout == "Woodland  (also called Forest)\n"
    assert "2 labels are known (a list); it may have others" in found.stderr


def test_where_nothing_is_known_it_is_said(monkeypatch):
    from smoothapi import provider

    monkeypatch.setattr(provider, "make_adapter", lambda name, **_: ScriptedAdapter())
    done = invoke("providers", "labels", "scripted")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "any may be asked for" in done.stderr


# The labellers that stand in for a service.


def test_a_table_is_open_and_states_what_it_lists():
    table = Table([(PHOTO, [Label("Vulture", 0.9, ("Bird",))])], otherwise=[("sky", 0.5)])
    stated = MockAdapter(table).vocabulary()
    assert (stated.closed, set(stated.all_names)) == (False, {"Vulture", "Bird", "sky"})
    assert MockAdapter(lambda picture: "bus").vocabulary() == Vocabulary()
