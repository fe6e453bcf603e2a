"""Certificates that would say more than the votes do, each refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from smoothapi import Absence, Certificate, LabelSpace, Presence, TopK, verify
from smoothapi.certify import Top1, runs_of
from smoothapi.errors import CertificateError, UsageError


@pytest.mark.parametrize(
    "change",
    [
        {"label": "van"},
        {"label": None},
        {"radius": 0.3},
        {"radius_requested": 0.3},
        {"radius_native": 1.0},
        {"p_lower": 0.99},
        {"alpha": 0.0001},
        {"sigma": 0.5},
        {"delta": 0.0},
        {"rounding": 0.0},
        {"reason": "cap"},
        {"max_votes": 20},
        {"kind": "predict"},
        {"votes": (("bus", 60),)},
        {"votes": (("bus", 30),)},
        {"votes": (("bus", 20), ("van", 1), ("bus", 28))},
        {"votes": ()},
        {"sigma": 5.0, "radius": 5.0, "radius_requested": 5.0},
        {"queries": 0, "cached": 0},
        {"failed": 9},
        {"radius": 0.25 + 1e-10},
    ],
)
def test_a_tampered_claim_is_refused(certificate, change):
    verify(certificate)
    with pytest.raises(CertificateError, match="does not add up"):
        verify(replace(certificate, **change))


@pytest.mark.parametrize(
    "change", [{"gain": 0.1}, {"size": (10, 10)}, {"native_size": (300, 300)}, {"size": (0, 5)}]
)
def test_a_tampered_picture_is_refused(certificate, change):
    with pytest.raises(CertificateError):
        verify(replace(certificate, image=replace(certificate.image, **change)))


def test_a_tampered_digest_is_refused_with_the_photo_at_hand(certificate, photo):
    wrong = replace(certificate, image=replace(certificate.image, digest="0" * 64))
    with pytest.raises(CertificateError, match="another photo"):
        verify(wrong, photo)


def test_absurdly_many_votes_are_refused_at_once(certificate):
    with pytest.raises(CertificateError, match="does not add up: it has more votes"):
        verify(replace(certificate, votes=(("bus", 10**12),)))


@pytest.mark.parametrize(
    "change",
    [
        {"radius_requested": 0.5},
        {"target": {"target": "most-specific", "score": 0.5}},
        {"target": {"target": "top-k", "k": 2, "space": None}},
        {"sigma": 0.0},
    ],
)
def test_a_prediction_claims_no_more_than_a_label(change, make):
    certificate = make(kind="predict")
    verify(certificate)
    with pytest.raises(CertificateError):
        verify(replace(certificate, **change))


@pytest.mark.parametrize("k", [10**9, 2.5, 0, True])
def test_an_impossible_k_is_refused_at_once(certificate, k):
    forged = replace(certificate, target={"target": "top-k", "k": k, "space": None})
    with pytest.raises(CertificateError):
        verify(forged)


def test_a_photo_of_impossible_size_is_refused_at_once(certificate):
    forged = replace(certificate, image=replace(certificate.image, native_size=(89_478_485, 1)))
    with pytest.raises(CertificateError):
        verify(forged)


def test_the_absence_of_one_label_is_not_that_of_another(certified):
    told = json.dumps(certified(Absence("Gun", 0.5)))
    assert told.count("Gun") > 4
    for edited in (
        told.replace("Gun", "Knife").replace('[[], ["Knife"]', '[[], ["Gun"]'),
        told.replace('[[], ["Gun"]', '[[], ["Knife"]'),
    ):
        assert edited != told
        with pytest.raises(CertificateError, match="other labels"):
            verify(Certificate.from_json(edited))
    more = json.loads(told)
    more["target"]["labels"].append("Knife")
    with pytest.raises(CertificateError, match="other labels"):
        verify(Certificate.from_dict(more))


def test_votes_and_plain_label_are_classes_of_the_label_space(certified):
    data = certified(Top1(LabelSpace({"bird": ["Bird"], "plant": ["Tree"]})))
    data["target"]["space"] = {"plane": ["Bird"], "plant": ["Tree"]}
    with pytest.raises(CertificateError, match="'bird' is voted for, but"):
        verify(Certificate.from_dict(data))


@pytest.mark.parametrize("agrees", [True, False])
def test_no_plain_answer_agrees_that_cannot(agrees, certified):
    for target, asked in ((TopK(2), True), (Presence("Bird", 0.5), False)):
        data = certified(target) | {"plain_agrees": agrees, "plain_asked": asked}
        data["plain_label"] = data["plain_label"] if asked else None
        with pytest.raises(CertificateError, match="cannot say whether it agrees"):
            verify(Certificate.from_dict(data))


@pytest.mark.parametrize("target", [{"target": "top9"}, {"target": "top1", "space": "bird"}, {}])
def test_a_target_that_is_unknown_is_the_certificate_s_fault(target, make):
    data = make(kind="predict").to_dict()
    with pytest.raises(CertificateError, match="does not add up"):
        verify(Certificate.from_dict(data | {"target": target}))


def reissued(certificate, votes, **more):
    """The certificate that votes for the top label come to."""
    test = Top1().start(
        sigma=certificate.sigma,
        alpha=certificate.alpha,
        max_votes=certificate.max_votes,
        radius=certificate.radius_requested,
        delta=certificate.delta,
        **more,
    )
    counted = []
    for vote in votes:
        if not test.done:
            test.add(vote)
            counted.append(vote)
    decision = test.result()
    return replace(
        certificate,
        votes=runs_of(counted),
        queries=len(counted) + 1,
        label=decision.label,
        reason=str(decision.reason),
        radius=decision.radius,
        radius_native=0.0,
        p_lower=decision.p_lower,
        largest=decision.largest,
        or_less=decision.or_less,
        plain_agrees=None,
    )


@pytest.fixture
def abstained(certificate):
    """A certificate that abstains at 0.25, of votes that certify less."""
    votes = ["van" if n % 6 == 5 else "bus" for n in range(1000)]
    return reissued(certificate, votes)


def test_what_is_certified_at_less_is_verified_too(abstained):
    (claim,) = abstained.lesser
    assert abstained.label is None
    assert claim.label == "bus"
    assert 0.0 < claim.radius == abstained.largest_radius < 0.25
    assert "the order of the votes" in verify(abstained)
    again = Certificate.from_json(abstained.to_json())
    assert again == abstained
    for change in (
        {"largest": ()},
        {"largest": (replace(claim, radius=0.2),)},
        {"largest": (replace(claim, label="van"),)},
        {"largest": (replace(claim, p_lower=claim.p_lower + 0.01),)},
    ):
        with pytest.raises(CertificateError, match="does not add up"):
            verify(replace(abstained, **change))
    told = abstained.to_dict()
    told["largest"][0]["radius_native"] = 9.0
    with pytest.raises(CertificateError, match="contradicts itself"):
        Certificate.from_dict(told)


def test_its_text_says_how_far_the_votes_reach(abstained):
    (claim,) = abstained.lesser
    said = f"bus certified at {claim.radius:g} (0.25 was asked for)"
    assert said in str(abstained)
    assert said in abstained._repr_html_()


def test_a_radius_may_be_chosen_after_the_votes(abstained):
    (claim,) = abstained.largest
    assert abstained.certified_at(claim.radius) == (claim,)
    assert abstained.certified_at(claim.radius + 1e-6) == ()
    assert abstained.certified_at(0.0) == ()
    with pytest.raises(UsageError):
        abstained.certified_at(-1.0)


def test_when_a_run_is_given_up_is_not_part_of_the_claim(certificate):
    """Giving up can only lose certificates, so whatever rule did it is accepted."""
    given_up = reissued(certificate, ["bus", "bus", "dog", "cat"] * 300)
    assert given_up.reason == "unlikely"
    verify(given_up)
    votes = [*given_up.vote_order()][:-1]
    earlier = replace(given_up, votes=runs_of(votes), queries=len(votes) + 1)
    assert not earlier.largest
    verify(earlier)
    with pytest.raises(CertificateError, match="does not add up"):
        verify(replace(earlier, reason="cap"))
    with pytest.raises(CertificateError, match="does not add up"):
        verify(replace(given_up, label="bus", radius=0.25))


def test_a_run_that_certifies_was_not_given_up(certificate):
    with pytest.raises(CertificateError, match="does not add up"):
        verify(replace(certificate, reason="unlikely", label=None, radius=0.0, p_lower=0.0))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("largest", 0, "radius"), 0.001, r"largest\[0\]\.radius_native is [\d.]+, but follows as"),
        (("votes", "total"), 7, r"votes\.total is 7, but follows as \d+"),
        (("votes", "tally", "spoon"), 3, r"unknown field votes\.tally\.spoon"),
        (("radius_rms",), 9.0, r"radius_rms is 9\.0, but follows as"),
        (("more\x1b[31m",), 1, r"unknown field more\S*\["),
        (("abstained",), 0, "abstained is not a boolean"),
    ],
)
def test_a_field_that_contradicts_the_rest_is_named(path, value, said, certificate):
    data = json.loads(certificate.to_json())
    *way, last = path
    place = data
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(CertificateError, match=said) as caught:
        Certificate.from_dict(data)
    assert str(caught.value).isprintable()


def test_claims_that_do_not_follow_are_told_in_words(certificate):
    [claim] = certificate.largest
    more = replace(claim, label="spoon\n", radius=claim.radius + 0.1)
    with pytest.raises(CertificateError) as caught:
        verify(replace(certificate, largest=(more,)))
    said = str(caught.value)
    assert f"at radius {more.radius!r} (in " in said
    assert f"{claim.label} at radius {claim.radius!r}" in said
    assert "Claim(" not in said
    assert said.isprintable()
