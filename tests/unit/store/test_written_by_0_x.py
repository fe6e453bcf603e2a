"""What version 0.1 wrote (`tests/data/written_by_0.x`) is read, verified and answered from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from smoothapi import Certificate, Smoother, verify
from smoothapi.certify import RULES
from smoothapi.errors import CertificateError, PermanentError
from smoothapi.provider import Price
from smoothapi.store import Budget, Home, answer_key, read_recording
from smoothapi_adapters.mock import MockAdapter

WRITTEN = Path(__file__).parents[2] / "data" / "written_by_0.x"
PHOTO = WRITTEN / "photo.png"
# That version certified a radius of 0.2 with these 34 votes, and the rules of today take as many.
OPTIONS = {"radius": 0.2, "sigma": 0.25, "size": 16}


class Silent(MockAdapter):
    """Has the identity of the service that answered, and refuses to answer again."""

    def __init__(self):
        super().__init__({"bus": 0.97, "car": 0.03})

    def ask(self, payloads):
        raise AssertionError("It was asked again.")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "home"
    shutil.copytree(WRITTEN / "home", folder)
    (folder / "noise.key").chmod(0o600)
    return folder


@pytest.fixture
def certificate():
    return Certificate.from_json((WRITTEN / "certificate.json").read_text())


def test_the_certificate_is_verified(certificate):
    verify(certificate)
    assert (certificate.label, certificate.radius, certificate.total_votes) == ("bus", 0.2, 34)
    assert (certificate.rules, certificate.largest) == (1, ())


def test_the_certificate_is_written_again_as_it_was(certificate):
    written = json.loads((WRITTEN / "certificate.json").read_text())
    assert json.loads(certificate.to_json()) == written


def test_the_certificate_is_not_verified_by_the_rules_of_today(certificate):
    with pytest.raises(CertificateError, match="deduction off p"):
        verify(replace(certificate, rules=RULES))


@pytest.mark.parametrize("number", range(4))
def test_certificates_of_schema_2_are_verified_and_written_again_as_they_were(number):
    """Of the top label, of presence, scores and the most specific label; votes are text in them."""
    written = json.loads((WRITTEN / "certificates_of_schema_2.json").read_text())[number]
    certificate = Certificate.from_dict(written)
    verify(certificate, PHOTO)
    assert certificate.rules == 2
    assert json.loads(certificate.to_json()) == written
    assert set(certificate.tally) <= {"Animal", "Bird", "Vulture"}


def test_the_same_certificate_comes_from_the_kept_answers_alone(folder, certificate):
    with Smoother(Silent(), denoiser="none", home=folder, **OPTIONS) as smoother:
        again = smoother.certify(PHOTO)
    for name in ("label", "votes", "noise_key", "identity"):
        assert getattr(again, name) == getattr(certificate, name), name
    assert (again.queries, again.cached) == (0, 35)


def test_the_same_certificate_comes_from_the_recording(tmp_path, certificate):
    recording = WRITTEN / "recording.jsonl"
    assert len(list(read_recording(recording))) == 35
    with Smoother(f"replay:{recording}", home=tmp_path, **OPTIONS) as smoother:
        again = smoother.certify(PHOTO)
    assert (again.label, again.votes) == (certificate.label, certificate.votes)


def test_the_ledger_goes_on_where_it_was(folder):
    with Home(folder) as home:
        accounts = {account.name: account for account in home.accounts()}
        study = accounts["study"]
        assert (study.attempts, study.reserved, study.dollars) == (42, 7, Decimal("0.042"))
        assert (study.attempt_limit, study.dollar_limit) == (500, 2)
        assert (accounts["default"].attempts, accounts["default"].attempt_limit) == (35, 10_000)
        ledger = home.ledger([Budget(attempts=500, name="study")], "mock", Price(Decimal(1)))
        assert ledger.room() == 458
        assert home.release_abandoned(everywhere=True) == 7
        assert ledger.room() == 465


def test_failures_and_what_was_given_up_are_known(folder):
    with Home(folder) as home:
        refused = home.answers.get(
            answer_key({"provider": "mock", "identity": {}, "payload": "00"})
        )
        assert isinstance(refused, PermanentError)
        home.database.now = lambda: 1_795_890_000.0  # in the days when it was written
        assert home.leases().given_up(["aa", "bb"]) == {"bb"}
        assert home.leases().take(["aa"]) == {"aa"}  # whoever held it is long gone
