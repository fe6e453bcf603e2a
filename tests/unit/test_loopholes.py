"""Certificates that would say more than the votes do, each refused."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from smoothapi import (
    Absence,
    Certificate,
    LabelSpace,
    MostSpecific,
    Presence,
    Smoother,
    TopK,
    verify,
)
from smoothapi.answer import Answer, Label
from smoothapi.certify import Top1
from smoothapi.dispatch import Limits
from smoothapi.errors import BudgetExceededError, CertificateError, UsageError
from smoothapi.image import load_image
from smoothapi.wrapping.labels import certify_labels
from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.clarifai import ClarifaiAdapter
from smoothapi_adapters.mock import MockAdapter

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_absence_is_not_certified_at_a_score_that_the_provider_leaves_out():
    """Rekognition lists labels from 55 percent: a weapon at 40 would be absent at 30 else."""
    everywhere = [("Weapon", 0.4), ("Person", 0.9)]
    adapter = MockAdapter(
        lambda _: [each for each in everywhere if each[1] >= 0.55],
        limits={"least_score": "0.55"},
    )
    with Smoother(adapter, sigma=0.25, radius=0.1, denoiser="none") as smoother:
        for target in (Absence("Weapon", 0.3), Presence(["Person", "Weapon"], 0.3)):
            with pytest.raises(UsageError, match=r"below 0.55.*Weapon.*at 0.3"):
                smoother.certify(PHOTO, target=target)
            with pytest.raises(UsageError, match="cannot be told"):
                smoother.plan(PHOTO, target=target)
        assert adapter.billed == 0
        for target in (
            Absence("Weapon", 0.55),
            Presence("Person", 0.3, wanted="present"),
            MostSpecific(0.3),
        ):
            assert smoother.certify(PHOTO, target=target).label


def test_adapters_say_which_scores_they_leave_out():
    assert AwsAdapter(region="us-east-1").limits.least_score == 0.55
    arn = "arn:aws:rekognition:us-east-1:111122223333:project/p/version/v/1"
    custom = AwsAdapter("custom", project_version_arn=arn, min_confidence="model")
    assert custom.limits.least_score == 0.0  # by label, and not said
    assert ClarifaiAdapter(min_value=0.2).limits.least_score == 0.2
    with pytest.raises(UsageError, match="least_score"):
        dataclasses.replace(Limits(), least_score=1.5)


def certified(target, labels=(("Bird", 0.9), ("Tree", 0.6))):
    adapter = MockAdapter(lambda _: list(labels))
    with Smoother(adapter, sigma=0.25, radius=0.1, denoiser="none") as smoother:
        certificate = smoother.certify(PHOTO, target=target)
    assert verify(certificate)
    return certificate.to_dict()


def test_the_absence_of_one_label_is_not_that_of_another():
    told = json.dumps(certified(Absence("Gun", 0.5)))
    assert told.count("Gun") > 4
    for edited in (
        told.replace("Gun", "Knife", told.count("Gun")).replace('[\\"Knife', '[\\"Gun'),
        re.sub(r'(?<!\\")Gun', "Knife", told),
    ):
        assert edited != told
        with pytest.raises(CertificateError, match="other labels"):
            verify(Certificate.from_json(edited))
    more = json.loads(told)
    more["target"]["labels"].append("Knife")
    with pytest.raises(CertificateError, match="other labels"):
        verify(Certificate.from_dict(more))


def test_votes_and_plain_label_are_classes_of_the_label_space():
    data = certified(Top1(LabelSpace({"bird": ["Bird"], "plant": ["Tree"]})))
    data["target"]["space"] = {"plane": ["Bird"], "plant": ["Tree"]}
    with pytest.raises(CertificateError, match="'bird' is voted for, and is no class"):
        verify(Certificate.from_dict(data))


@pytest.mark.parametrize("agrees", [True, False])
def test_no_plain_answer_agrees_that_cannot(agrees):
    for target, asked in ((TopK(2), True), (Presence("Bird", 0.5), False)):
        data = certified(target) | {"plain_agrees": agrees, "plain_asked": asked}
        data["plain_label"] = data["plain_label"] if asked else None
        with pytest.raises(CertificateError, match="cannot say whether it agrees"):
            verify(Certificate.from_dict(data))


@pytest.mark.parametrize("target", [{"target": "top9"}, {"target": "top1", "space": "bird"}, {}])
def test_a_target_that_is_none_is_the_certificate_s_fault(target):
    with Smoother(MockAdapter(lambda _: [("a", 0.9)]), sigma=0.25, denoiser="none") as smoother:
        data = smoother.predict(PHOTO).to_dict()
    with pytest.raises(CertificateError, match="does not add up"):
        verify(Certificate.from_dict(data | {"target": target}))


def test_votes_that_are_paid_for_make_a_certificate_whatever_the_plain_answer_costs(tmp_path):
    """The plain answer is an earlier model's, and the budget has no room to ask it again."""

    def labeller(_):
        return [("Bird", 0.9)]

    labeller.labeller_id = "bird/1"
    common = {"sigma": 0.25, "radius": 0.1, "denoiser": "none", "home": tmp_path}
    with Smoother(MockAdapter(labeller, model_version="1"), **common | {"sigma": 0.5}) as smoother:
        smoother.certify(PHOTO)  # stores the plain answer
    with Smoother(MockAdapter(labeller, model_version="2"), budget="20", **common) as smoother:
        certificate = smoother.certify(PHOTO)
    assert (certificate.label, certificate.queries) == ("Bird", 20)
    assert (certificate.plain_label, certificate.plain_agrees) == (None, None)
    assert verify(certificate)


@pytest.mark.parametrize("blank", [" ", "\u00a0\t"])
def test_a_label_of_spaces_does_not_cost_the_others_their_certificate(blank):
    """A wrapped client has paid for the answer by then."""
    found = Answer((Label("Bus", 0.9), Label(blank, 0.8)))
    adapter = MockAdapter(lambda _: found)
    with Smoother(adapter, sigma=0.25, radius=0.1, denoiser="none") as smoother:
        certificate = certify_labels(
            smoother.session, load_image(PHOTO, size=smoother.session.size), found, score=0.5
        )
        assert [claim.label for claim in certificate.claims] == ["Bus"]
        nothing = Answer((Label(blank, 0.8),))
        assert certify_labels(
            smoother.session, load_image(PHOTO, size=smoother.session.size), nothing, score=0.5
        ).abstained


def test_an_answer_of_many_labels_is_certified_as_far_as_the_votes_can():
    """Thirty labels share alpha, and then 55 votes are too few for each of them."""
    found = Answer(tuple(Label(f"L{n:02}", 0.99 - n / 100) for n in range(30)))
    adapter = MockAdapter(lambda _: found)
    common = {"sigma": 0.25, "radius": 0.25, "denoiser": "none"}
    with Smoother(adapter, max_votes=55, **common) as smoother:
        certificate = certify_labels(
            smoother.session, load_image(PHOTO, size=smoother.session.size), found, score=0.5
        )
    certified = [claim.label for claim in certificate.claims]
    assert certified == [f"L{n:02}" for n in range(len(certified))]
    assert 0 < len(certified) < 30
    assert verify(certificate)
    with Smoother(adapter, max_votes=200, **common) as smoother:
        assert (
            len(
                certify_labels(
                    smoother.session,
                    load_image(PHOTO, size=smoother.session.size),
                    found,
                    score=0.5,
                ).claims
            )
            == 30
        )


def test_what_is_stored_needs_no_budget_even_if_it_is_an_abstention(tmp_path):
    def labeller(picture):
        return [("bus" if int(picture.sum()) % 2 else "van", 0.9)]

    adapter = MockAdapter(labeller, labeller_id="odd")
    common = {"sigma": 0.25, "radius": 0.25, "denoiser": "none", "home": tmp_path}
    with Smoother(adapter, **common) as smoother:
        first = smoother.certify(PHOTO)
    assert first.abstained
    assert first.total_votes < 47
    with Smoother(adapter, budget="1", **common) as smoother:
        assert smoother.certify(PHOTO).votes == first.votes
        with pytest.raises(BudgetExceededError):
            smoother.certify(PHOTO[::-1])
    assert adapter.billed == first.attempts
