"""Certificates of earlier schemas hold as they were issued; the present one says when, and how."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import pytest
from PIL import Image

from smoothapi import Answer, Certificate, CertificateError, Label, Presence, Smoother, verify
from smoothapi.certificates import issue
from smoothapi.certify.certificate import less_text
from smoothapi.cli.output import show_certificate
from tests.conftest import ScriptedAdapter, invoke

BEFORE = Path(__file__).parents[2] / "data" / "certificates" / "schema_2.jsonl"


@pytest.mark.parametrize("text", BEFORE.read_text().splitlines())
def test_a_certificate_of_schema_2_verifies_as_it_was_issued(text):
    certificate = Certificate.from_json(text)
    assert (certificate.rules, certificate.final, certificate.issued) == (2, False, "")
    verify(certificate)
    assert json.loads(certificate.to_json()) == json.loads(text)
    # By the rules of now its votes come to something else: a larger level ends runs sooner.
    data = json.loads(text)
    later = data | {"schema": "smoothapi.certificate/3", "final": False, "issued": ""}
    if certificate.target["target"] == "top1" and certificate.largest:
        with pytest.raises(CertificateError, match="add up"):
            verify(Certificate.from_dict(later))


def test_what_schema_2_does_not_have_is_refused_in_it():
    data = json.loads(BEFORE.read_text().splitlines()[0])
    for more in ({"final": False}, {"issued": "2026-11-28T22:06:05Z"}):
        with pytest.raises(CertificateError, match=f"unknown field {next(iter(more))}"):
            Certificate.from_dict(data | more)


def test_it_says_when_it_was_issued(make, certificate):
    before = datetime.now(UTC).replace(microsecond=0)
    told = datetime.strptime(make().issued, "%Y-%m-%dT%H:%M:%S%z")
    assert before <= told <= datetime.now(UTC)
    data = certificate.to_dict()
    # For information: no claim rests on it.
    verify(Certificate.from_dict(data | {"issued": "1999-12-31T23:59:59Z"}))
    for wrong in (None, 5, "yesterday", "2026-11-28 22:06:05", "2026-11-28T22:06:05+01:00"):
        with pytest.raises(CertificateError, match="issued"):
            Certificate.from_dict(data | {"issued": wrong})


def test_the_clock_is_given(photo, monkeypatch):
    seen = {}

    def at(*args, **kwargs):
        seen["certificate"] = issue(*args, **kwargs, clock=lambda: 1_800_000_000.9)
        return seen["certificate"]

    monkeypatch.setattr("smoothapi.method.issue", at)
    with Smoother(ScriptedAdapter(), denoiser="none", size=20) as smoother:
        assert smoother.certify(photo).issued == "2027-01-15T08:00:00Z"


def test_a_last_cap_is_in_the_file_and_on_the_screen(photo, capsys):
    with Smoother(ScriptedAdapter(), denoiser="none", size=20, max_votes=60) as smoother:
        certificate = smoother.certify(photo, final=True)
        assert smoother.certify(photo).final is False
        assert smoother.plan(photo, final=True).at_least <= smoother.plan(photo).at_least
        show_certificate(certificate, smoother.session.price)
    assert certificate.final
    assert "at most 60 votes" in capsys.readouterr().out
    again = Certificate.from_json(certificate.to_json())
    assert again == certificate
    verify(again, photo)
    # What was tested otherwise does not add up.
    changed = certificate.to_dict() | {"final": False}
    if certificate.total_votes < 47:
        with pytest.raises(CertificateError, match="add up"):
            verify(Certificate.from_dict(changed))


def test_a_last_cap_is_promised_once_for_a_deployment(photo, monkeypatch):
    """By the Smoother or the settings; and one photo may be left out of the promise."""
    options = {"denoiser": "none", "size": 20, "max_votes": 60}
    with Smoother(ScriptedAdapter(), final=True, **options) as smoother:
        assert smoother.certify(photo).final
        assert [result.certificate.final for result in smoother.certify_many([photo])] == [True]
        assert not smoother.certify(photo, final=False).final
        assert smoother.plan(photo) == smoother.plan(photo, final=True)
        assert not smoother.predict(photo).final
    monkeypatch.setenv("SMOOTHAPI_FINAL", "true")
    with Smoother(ScriptedAdapter(), **options) as smoother:
        verify(certificate := smoother.certify(photo), photo)
        assert certificate.final
    with Smoother(ScriptedAdapter(), final=False, **options) as smoother:
        assert not smoother.certify(photo).final


@pytest.mark.parametrize("target", ["top3", "most-specific:0.5"])
def test_targets_that_cannot_be_calibrated_say_so(tmp_path, photo, target):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    result = invoke(
        "certify", tmp_path / "photo.png", "--provider", "mock", "--denoiser", "none",
        "--target", target, "--final", "--home", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "--final" in result.stderr


def naming(script):
    """Return a provider that names the labels of each entry in turn."""
    names = cycle(script)
    return ScriptedAdapter(lambda *_: Answer(tuple(Label(name, 0.9) for name in next(names))))


@pytest.fixture
def partly(photo):
    """A certificate of two labels: one certified as asked for, one at less."""
    provider = naming([["bus", "van"]] * 5 + [["bus"]])
    with Smoother(provider, denoiser="none", size=20, plain=False, concurrency=1) as smoother:
        return smoother.certify(photo, 0.2, target=Presence(("bus", "van"), 0.5))


def test_what_each_label_is_certified_at_is_shown(partly, capsys):
    assert partly.label == "bus present"
    (less,) = partly.lesser
    assert (less.label, less.relation) == ("van", "present")
    assert 0.0 < less.radius < 0.2
    assert partly.largest_radius == less.radius
    assert less_text(partly) in str(partly)
    assert "van present certified at" in partly._repr_html_()
    with Smoother(ScriptedAdapter(), denoiser="none", size=20) as smoother:
        show_certificate(partly, smoother.session.price)
    assert "at less" in capsys.readouterr().out


def test_an_abstention_shows_the_least_of_its_radii(photo, capsys):
    script = [["bus", "van"]] * 5 + [["bus"]] + [["van", "bus"]] * 3 + [["tree"]]
    options = {"denoiser": "none", "size": 20, "plain": False, "concurrency": 1, "max_votes": 150}
    with Smoother(naming(script), **options) as smoother:
        certificate = smoother.certify(
            photo, 0.3, target=Presence(("bus", "van"), 0.5), or_less=True
        )
        show_certificate(certificate, smoother.session.price)
    assert certificate.abstained
    radii = sorted(claim.radius for claim in certificate.lesser)
    assert len(radii) == 2
    assert radii[0] < radii[1]
    assert certificate.largest_radius == radii[0]
    assert f"{radii[0]:.6f}".rstrip("0") + " around the working image" in capsys.readouterr().out
