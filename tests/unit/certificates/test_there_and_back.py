"""Certificates: to JSON and back, and how they print."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi import Certificate, verify
from smoothapi.certify.certificate import runs_of
from smoothapi.errors import CertificateError
from tests.conftest import answer

EVIL = "<script>alert(1)</script>"


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
def test_there_and_back(options, photo, make):
    certificate = make(**options)
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert Certificate.from_dict(certificate.to_dict()).to_json() == certificate.to_json()
    verify(certificate, photo)


def test_json_has_what_was_promised(certificate):
    data = json.loads(certificate.to_json())
    promised = {
        "schema", "label", "abstained", "reason", "plain_label", "radius", "radius_native",
        "sigma", "alpha", "votes", "queries", "attempts", "cached", "cost", "provider",
        "model_version", "image", "denoiser", "seconds",
    }  # fmt: skip
    assert promised <= data.keys()
    assert {"digest", "size", "native_size"} <= data["image"].keys()
    assert data["schema"] == "smoothapi.certificate/3"


def test_it_is_frozen(certificate):
    with pytest.raises(FrozenInstanceError):
        certificate.label = "van"


def test_what_a_run_cost_is_not_part_of_the_claim(certificate):
    assert replace(certificate, queries=7, cost=1.0, seconds=9.0) == certificate
    assert replace(certificate, label="van") != certificate


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
def test_other_text_is_not_a_certificate(text):
    with pytest.raises(CertificateError):
        Certificate.from_json(text)


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["a", "b", None])))
def test_runs_of_votes_lose_nothing(votes):
    assert [label for label, length in runs_of(votes) for _ in range(length)] == votes


def test_str_and_repr_are_short(certificate, make):
    assert "bus: certified at L2 radius 0.25" in str(certificate)
    assert len(repr(certificate)) < 120
    assert "abstained" in str(make(lambda p, n: answer("bus" if p[-13] % 2 else "van")))


def test_labels_are_escaped_in_notebooks(make):
    html = make(lambda p, n: answer(EVIL))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_nothing_secret_is_in_a_certificate(certificate):
    secret = bytes(range(32))
    assert secret.hex() not in certificate.to_json()
    assert certificate.noise_key
