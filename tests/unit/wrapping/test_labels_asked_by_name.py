"""A wrapped client's target and classes name labels: those that the provider never says."""

from __future__ import annotations

import logging

import pytest

from smoothapi import Absence, UnknownLabelError, finding_of
from smoothapi.provider import Vocabulary
from smoothapi.wrapping import Finding
from smoothapi_adapters.aws import AwsAdapter
from tests.unit.wrapping.conftest import KITS

WORDS = Vocabulary(("Bus", "Vehicle", "Van", "Kite", "Weapons"), closed=True)


@pytest.fixture
def kit():
    return KITS["aws"]


@pytest.fixture
def closed(monkeypatch):
    monkeypatch.setattr(AwsAdapter, "vocabulary", lambda self: WORDS)


@pytest.mark.parametrize("otherwise", ["raise", "plain", "none"])
@pytest.mark.parametrize(
    "options", [{"target": Absence("Weapn", 0.8)}, {"classes": {"weapon": ["Weapn"]}}]
)
def test_what_is_never_said_is_refused_before_the_call(
    options, otherwise, closed, kit, service, wrapped
):
    client = wrapped(otherwise=otherwise, **options)
    with pytest.raises(UnknownLabelError, match="did you mean 'Weapons'"):
        kit.label(client)
    assert not service.received


def test_a_label_of_the_vocabulary_is_certified_to_be_absent(closed, kit, wrapped):
    finding = finding_of(kit.label(wrapped(target=Absence("weapons", 0.8))))
    assert finding.certified
    assert finding.never_seen == ()


def test_labels_of_the_answer_itself_need_not_be_in_the_vocabulary(monkeypatch, kit, wrapped):
    monkeypatch.setattr(AwsAdapter, "vocabulary", lambda self: Vocabulary(("x",), closed=True))
    finding = finding_of(kit.label(wrapped()))
    assert finding.certified
    assert finding.never_seen == ()


def test_what_was_never_seen_is_in_the_finding(kit, wrapped):
    finding = finding_of(kit.label(wrapped(target=Absence(["Weapn", "Vehicle"], 0.99))))
    assert finding.certified
    assert finding.never_seen == ("Weapn",)
    assert Finding.from_dict(finding.to_dict()).never_seen == ("Weapn",)


def test_a_call_that_ended_first_has_seen_nothing_to_tell(kit, wrapped, caplog):
    with caplog.at_level(logging.WARNING, "smoothapi"):
        response = kit.label(wrapped(target=Absence("Weapn", 0.8), otherwise="plain", budget="1"))
    assert finding_of(response).never_seen == ()
