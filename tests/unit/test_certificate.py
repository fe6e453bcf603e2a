"""Certificates: there and back, and no claim that does not follow from the votes."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi import Certificate, Smoother, verify
from smoothapi.certify.certificate import runs_of
from smoothapi.errors import CertificateError
from tests.conftest import ScriptedAdapter, answer

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
EVIL = "<script>alert(1)</script>"


def make(script=None, *, kind="certify", **options):
    with Smoother(
        ScriptedAdapter(script), denoiser="none", size=20, refresh=True, **options
    ) as smoother:
        return getattr(smoother, kind)(PHOTO)


@pytest.fixture
def certificate():
    return make()


def mixed(payload, attempt):
    return answer("bus" if payload[-13] % 16 else "van")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "predict"},
        {"radius": "largest", "max_votes": 150},
        {"plain": False},
        {"script": mixed, "radius": 0.1},
        {"script": lambda p, n: answer("bus" if p[-13] % 2 else "van")},
        {"script": lambda p, n: answer(EVIL)},
    ],
)
def test_there_and_back(options):
    certificate = make(**options)
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert Certificate.from_dict(certificate.to_dict()).to_json() == certificate.to_json()
    verify(certificate, PHOTO)


def test_json_has_what_was_promised(certificate):
    data = json.loads(certificate.to_json())
    promised = {
        "schema", "label", "abstained", "reason", "plain_label", "radius", "radius_native",
        "sigma", "alpha", "votes", "queries", "attempts", "cached", "cost", "provider",
        "model_version", "image", "denoiser", "seconds",
    }  # fmt: skip
    assert promised <= data.keys()
    assert {"digest", "size", "native_size"} <= data["image"].keys()
    assert data["schema"] == "smoothapi.certificate/1"


def test_it_is_frozen(certificate):
    with pytest.raises(FrozenInstanceError):
        certificate.label = "van"


def test_what_a_run_cost_is_no_part_of_the_claim(certificate):
    assert replace(certificate, queries=7, cost=1.0, seconds=9.0) == certificate
    assert replace(certificate, label="van") != certificate


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


def test_a_tampered_digest_is_refused_with_the_photo_at_hand(certificate):
    wrong = replace(certificate, image=replace(certificate.image, digest="0" * 64))
    with pytest.raises(CertificateError, match="another photo"):
        verify(wrong, PHOTO)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("radius"),
        lambda d: d.update(schema="smoothapi.certificate/99"),
        lambda d: d.update(radius="0.25"),
        lambda d: d.update(radius=True),
        lambda d: d.update(alpha=float("nan")),
        lambda d: d.update(queries=-1),
        lambda d: d.update(queries=1.5),
        lambda d: d.update(kind="promise"),
        lambda d: d.update(reason="because"),
        lambda d: d.update(label=3),
        lambda d: d.update(extra="field"),
        lambda d: d.update(abstained=True),
        lambda d: d["votes"].update(total=1),
        lambda d: d["votes"]["tally"].update(bus=1),
        lambda d: d["votes"].update(order=[["bus", -1]]),
        lambda d: d["votes"].update(order=[["bus"]]),
        lambda d: d["votes"].update(order=None),
        lambda d: d.update(image=None),
        lambda d: d["image"].update(size=[1]),
        lambda d: d["image"].update(digest=None),
        lambda d: d.update(identity=[]),
        lambda d: d.update(plain_asked=1),
        lambda d: d.update(plain_asked=False),
        lambda d: d.update(abstained=0),
        lambda d: d.update(cost=-1.0),
        lambda d: d.update(max_votes=10**400, radius=10**400),
        lambda d: d["votes"].update(order=[*d["votes"]["order"], ["bus", 0]]),
        lambda d: d["votes"].update(order=[["bus", 1], ["bus", d["votes"]["total"] - 1]]),
    ],
)
def test_malformed_certificates_are_refused_in_words(certificate, damage):
    data = certificate.to_dict()
    damage(data)
    with pytest.raises(CertificateError):
        Certificate.from_dict(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        "not json",
        b"\xff",
        '{"cost": Infinity}',
        '{"a": 1, "a": 2}',
        "[" * 10**5,
    ],
)
def test_what_is_no_certificate_at_all(text):
    with pytest.raises(CertificateError):
        Certificate.from_json(text)


def test_absurdly_many_votes_are_refused_at_once(certificate):
    with pytest.raises(CertificateError, match="does not add up: it has more votes"):
        verify(replace(certificate, votes=(("bus", 10**12),)))


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["a", "b", None])))
def test_runs_of_votes_lose_nothing(votes):
    assert [label for label, length in runs_of(votes) for _ in range(length)] == votes


def test_str_and_repr_are_short(certificate):
    assert "bus: certified at L2 radius 0.25" in str(certificate)
    assert len(repr(certificate)) < 120
    assert "abstained" in str(make(lambda p, n: answer("bus" if p[-13] % 2 else "van")))


def test_labels_are_escaped_in_notebooks():
    html = make(lambda p, n: answer(EVIL))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_nothing_secret_is_in_a_certificate(certificate):
    secret = bytes(range(32))
    assert secret.hex() not in certificate.to_json()
    assert certificate.noise_key


@pytest.mark.parametrize(
    "change",
    [
        {"radius_requested": 0.5},
        {"target": {"target": "most-specific", "score": 0.5}},
        {"target": {"target": "top-k", "k": 2, "space": None}},
        {"sigma": 0.0},
    ],
)
def test_a_prediction_claims_no_more_than_a_label(change):
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
