"""Asking again until a certificate pleases voids alpha: it is warned of, counted and shown."""

from __future__ import annotations

import json
import logging

import pytest

from smoothapi import Certificate, Smoother, verify
from smoothapi.cli import run
from smoothapi.cli.output import show_certificate
from tests.conftest import ScriptedAdapter, answer


class Moody:
    """Answers by chance: of two labels in turn, until it makes up its mind."""

    def __init__(self):
        self.sure = False
        self.asked = 0

    def __call__(self, payload, attempt):
        self.asked += 1
        return answer("cat" if self.sure or self.asked % 2 else "dog")


@pytest.fixture
def moody():
    return Moody()


@pytest.fixture
def certify(moody, photo, tmp_path):
    def certified(**options):
        options = {"home": tmp_path, **options}
        with Smoother(ScriptedAdapter(moody), denoiser="none", size=20, **options) as smoother:
            return smoother.certify(photo)

    return certified


def test_each_set_of_answers_counts(certify, moody, caplog):
    first = certify()
    assert (first.label, first.refreshes, first.replaced) == (None, 0, "")
    assert not caplog.records
    again = certify(refresh=True)
    assert (again.label, again.refreshes, again.replaced) == (None, 1, "abstained")
    moody.sure = True
    with caplog.at_level(logging.WARNING):
        pleased = certify(refresh=True)
    assert (pleased.label, pleased.refreshes, pleased.replaced) == ("cat", 2, "abstained")
    assert "come to: abstained" in caplog.text
    assert "Alpha is the chance that one set of answers" in caplog.text


def test_what_is_kept_is_not_forgotten_by_a_run_that_asks_nothing(certify, moody):
    certify()
    moody.sure = True
    certify(refresh=True)
    later = certify()
    assert (later.queries, later.refreshes, later.replaced) == (0, 1, "")


def test_the_first_set_of_answers_is_no_refresh(certify, moody):
    moody.sure = True
    assert certify(refresh=True).refreshes == 0
    assert certify(refresh=True).replaced == "certified"


def test_it_is_in_the_file_and_on_the_screen(certify, moody, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    certify()
    moody.sure = True
    certificate = certify(refresh=True)
    verify(certificate)
    told = certificate.to_json()
    assert json.loads(told)["refreshes"] == 1
    read = Certificate.from_json(told)
    assert (read.refreshes, read.replaced) == (1, "abstained")
    show_certificate(certificate, ScriptedAdapter().price)
    said = "once, where it was abstained before: that one of these sets is wrong has a chance up to 0.002"
    assert said in capsys.readouterr().out


def cache(home, *arguments):
    assert run(["cache", *arguments, "--home", str(home)]) == 0


def test_what_erases_the_answers_keeps_the_count(certify, moody, tmp_path, capsys):
    certify()
    assert certify(refresh=True).refreshes == 1
    cache(tmp_path, "clear", "--yes")
    assert certify().refreshes == 2  # a third set of answers
    cache(tmp_path, "clear", "--yes")
    cache(tmp_path, "clear", "--yes")
    moody.sure = True
    assert certify(refresh=True).refreshes == 3  # there was none left to be replaced
    assert certify().refreshes == 3


def test_a_recording_takes_the_count_along(certify, tmp_path, capsys):
    certify()
    certify(refresh=True)
    cache(tmp_path, "export", str(tmp_path / "all.jsonl"))
    other = tmp_path / "other"
    cache(other, "import", str(tmp_path / "all.jsonl"))
    (other / "noise.key").write_bytes((tmp_path / "noise.key").read_bytes())
    (other / "noise.key").chmod(0o600)
    assert certify(home=other).refreshes == 1
    cache(tmp_path, "clear", "--yes")
    cache(tmp_path, "import", str(tmp_path / "all.jsonl"))
    assert certify().refreshes == 2


def test_nothing_is_erased_whose_count_cannot_be_kept(certify, tmp_path, capsys):
    certify()
    (tmp_path / "answers" / "erased.json").mkdir()
    assert run(["cache", "clear", "--yes", "--home", str(tmp_path)]) != 0
    assert "erased.json" in capsys.readouterr().err
    assert certify().queries == 0
