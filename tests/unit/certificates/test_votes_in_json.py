"""How votes stand in a certificate: as JSON, and tallied by label, whatever the target is."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from smoothapi import (
    Absence,
    Certificate,
    MostSpecific,
    Presence,
    Scores,
    SigningKey,
    Smoother,
    TopK,
    verify,
)
from smoothapi.certificates import read
from smoothapi.certify.targets import parse_target
from smoothapi.errors import CertificateError
from smoothapi_adapters.mock import MockAdapter

NAME = '["Bird"]'  # a label that looks like a vote for several
TARGETS = [
    "top1",
    TopK(2),
    Presence(["Bird", "Weapon"], 0.5),
    Absence("Weapon", 0.5),
    Scores(["Tree", NAME, "Bird"], 0.5),  # in no order that a tool would make
    MostSpecific(0.5),
]


def labeller():
    """Return one that sees a tree in all but each seventh picture."""
    pictures = itertools.count(1)
    return lambda _: [("Bird", 0.97), ("Tree", 0.9 if next(pictures) % 7 else 0.2), (NAME, 0.99)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Certificates of each target, from the same answers."""
    photo = bytes_of_a_photo()
    options = {"sigma": 0.25, "radius": 0.02, "alpha": 0.05, "size": 16, "max_votes": 60}
    home = tmp_path_factory.mktemp("home")
    with Smoother(MockAdapter(labeller()), denoiser="none", home=home, **options) as smoother:
        return [
            *(smoother.certify(photo, target=target) for target in TARGETS),
            smoother.predict(photo),
        ]


def bytes_of_a_photo():
    return np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def texts(value):
    """Yield all that is text in parsed JSON: keys, too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield key
            yield from texts(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from texts(inside)


def is_json(text):
    try:
        return isinstance(json.loads(text), (list, dict))
    except ValueError:
        return False


def test_no_json_is_hidden_in_a_text(certificates):
    for certificate in certificates:
        found = {text for text in texts(json.loads(certificate.to_json())) if is_json(text)}
        assert found <= {NAME}, certificate.target


def test_what_is_written_is_read_again_and_verified(certificates):
    for certificate in certificates:
        again = Certificate.from_json(certificate.to_json())
        assert (again, again.votes) == (certificate, certificate.votes)
        assert again.to_json() == certificate.to_json()
        verify(again)


def backwards(value):
    """Return parsed JSON with the members of each object in the other order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(inside) for inside in value] if isinstance(value, list) else value


def test_the_order_of_an_objects_members_means_nothing(certificates):
    """Signing sorts them; so do jq -S and databases."""
    key = SigningKey.generate()
    for certificate in certificates:
        data = json.loads(certificate.to_json())
        for text in (json.dumps(data, sort_keys=True), json.dumps(backwards(data))):
            again = Certificate.from_json(text)
            assert (again, again.votes) == (certificate, certificate.votes)
            verify(again)
        signed = read(certificate.sign(key).to_json())
        verify(signed, keys=[key.public])


def test_votes_are_tallied_by_label(certificates):
    top1, _, presence, absence, scores, specific, prediction = certificates
    for certificate in (top1, prediction):
        assert certificate.tally == {NAME: certificate.total_votes}
    assert presence.tally == {"Bird": presence.total_votes}
    assert absence.tally == {}
    trees = scores.tally["Tree"]
    assert 0 < trees < scores.total_votes
    assert scores.tally == {"Bird": scores.total_votes, NAME: scores.total_votes, "Tree": trees}
    assert {"Bird", "Tree", NAME} == specific.tally.keys()
    assert specific.tally["Tree"] < specific.tally["Bird"] == specific.total_votes
    for certificate in certificates:
        assert certificate.to_dict()["votes"]["tally"] == certificate.tally


def test_votes_for_several_labels_stand_as_lists(certificates):
    scores = certificates[4].to_dict()["votes"]["order"]
    assert [{"Bird": 0.97, "Tree": 0.9, NAME: 0.99}, 0.5] in [vote for vote, _ in scores]
    assert certificates[0].to_dict()["votes"]["order"][0][0] == NAME


@pytest.mark.parametrize("number", range(len(TARGETS) + 1))
def test_a_vote_in_the_other_form_is_refused(certificates, number):
    data = certificates[number].to_dict()
    vote = data["votes"]["order"][0][0]
    data["votes"]["order"][0][0] = json.dumps(vote) if isinstance(vote, list) else json.loads(vote)
    with pytest.raises(CertificateError):
        Certificate.from_dict(data)


@pytest.mark.parametrize(
    "vote", [[], [[]], [["Bird"], "Weapon", 0.5], [[3], [], 0.5], {}, [{}, []]]
)
def test_what_is_no_vote_of_the_target_is_refused_in_words(certificates, vote):
    for certificate in certificates[2:6]:
        data = certificate.to_dict()
        total = data["votes"]["total"]
        data["votes"].update(order=[[vote, total]], tally={})
        with pytest.raises(CertificateError):
            verify(Certificate.from_dict(data))


def test_a_tally_that_is_not_that_of_the_votes_is_refused(certificates):
    data = certificates[4].to_dict()
    data["votes"]["tally"]["Tree"] += 1
    with pytest.raises(CertificateError, match="contradicts itself"):
        Certificate.from_dict(data)


def test_a_target_of_ones_own_keeps_its_text(certificates):
    own = replace(certificates[2], target={"target": "mine"})
    [[vote, _]] = own.to_dict()["votes"]["order"]
    assert vote == json.dumps([["Bird"], ["Weapon"], 0.5])
    assert own.tally == {vote: own.total_votes}
    assert Certificate.from_json(own.to_json()) == own


def test_a_number_written_otherwise_is_the_same_vote_at_home(tmp_path):
    """A JSON tool may write 1.0 as 1."""
    home = tmp_path / "home"
    photo = bytes_of_a_photo()
    options = {"sigma": 0.25, "radius": 0.02, "alpha": 0.05, "size": 16, "denoiser": "none"}
    with Smoother(MockAdapter(lambda _: [("Bird", 1.0)]), home=home, **options) as smoother:
        certificate = smoother.certify(photo, target=Scores("Bird", 0.5))
    text = certificate.to_json().replace('[{"Bird": 1.0}', '[{"Bird": 1}')
    assert text != certificate.to_json()
    verify(Certificate.from_json(text), photo, home=home)


def test_targets_are_rebuilt_from_what_a_certificate_says(certificates):
    for certificate, target in zip(certificates, TARGETS, strict=False):
        assert parse_target(certificate.target).description == dict(certificate.target), target
