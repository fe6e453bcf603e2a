"""The caller's classes from a file: on the command line, as a setting, in a certificate."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi import Certificate, LabelSpace, Smoother, parts, verify
from smoothapi.answer import Answer, Label
from smoothapi.cli import run
from smoothapi.label_file import read_label_space
from tests.conftest import ScriptedAdapter

VULTURE = Answer((Label("Sky", 0.99), Label("Vultures", 0.9, ("Bird",))), model_version="v1")
RULES = 'plurals = true\nparents = true\n[classes]\nbird = ["Bird"]\nsun = ["Sun"]\n'


@pytest.fixture
def photo():
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save("photo.png")
    return "photo.png"


@pytest.fixture
def adapter(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    adapter = ScriptedAdapter(lambda payload, attempt: VULTURE)
    monkeypatch.setattr(parts, "make_adapter", lambda name, **_: adapter)
    return adapter


@pytest.mark.parametrize("how", ["option", "variable", "file", "argument", "path"])
def test_a_label_file_makes_classes_and_they_round_trip(how, adapter, photo, monkeypatch, capsys):
    Path("classes.toml").write_text(RULES)
    if how == "variable":
        monkeypatch.setenv("SMOOTHAPI_CLASSES", "classes.toml")
    elif how == "file":
        Path("smoothapi.toml").write_text('classes = "classes.toml"\n')
    if how in ("argument", "path"):
        given = "classes.toml" if how == "argument" else Path("classes.toml")
        with Smoother(classes=given) as s:
            certificate = s.certify(photo)
    else:
        more = ["--classes", "classes.toml"] if how == "option" else []
        assert run(["certify", photo, "--json", *more]) == 0
        certificate = Certificate.from_json(capsys.readouterr().out)
    assert (certificate.label, certificate.plain_label) == ("bird", "bird")
    space = read_label_space("classes.toml")
    assert certificate.target["space"] == space.description
    assert LabelSpace.parse(certificate.target["space"]).digest == space.digest
    assert verify(Certificate.from_json(certificate.to_json()), photo)
    Path("certificate.json").write_text(certificate.to_json())
    assert run(["verify", "certificate.json", "--photo", photo]) == 0


def test_the_argument_comes_before_the_setting(adapter, photo, monkeypatch):
    Path("classes.toml").write_text('wrong = ["Sun"]')
    monkeypatch.setenv("SMOOTHAPI_CLASSES", "classes.toml")
    for given in ({"up": ["Sky"]}, LabelSpace({"up": ["Sky"]})):
        with Smoother(classes=given) as s:
            assert s.certify(photo).label == "up"


def test_what_no_class_lists_is_said_once_and_named(adapter, photo, capsys, caplog):
    Path("classes.json").write_text('{"bird": ["Bird"]}')
    with caplog.at_level(logging.WARNING, "smoothapi"):
        assert run(["certify", photo, "--classes", "classes.json"]) == 1
    [said] = [record.getMessage() for record in caplog.records]
    assert "Sky, Vultures" in said
    assert "photo.png" in said


@pytest.mark.parametrize(
    ("labels", "reply"),
    [
        ({"bird": ["Vultures"]}, VULTURE),
        (None, VULTURE),
        ({"bird": ["Bird"]}, Answer((), model_version="v1")),  # it gave no labels at all
    ],
)
def test_nothing_is_said_where_nothing_is_unmapped(labels, reply, adapter, photo, caplog):
    adapter._script = lambda payload, attempt: reply
    with caplog.at_level(logging.WARNING, "smoothapi"), Smoother(classes=labels) as s:
        s.certify(photo)
    assert not caplog.records


def test_labels_that_would_steer_a_terminal_are_shown_harmless(adapter, photo, caplog):
    reply = Answer((Label("\x1b[31mSky\n", 0.9),), model_version="v1")
    adapter._script = lambda payload, attempt: reply
    with caplog.at_level(logging.WARNING, "smoothapi"), Smoother(classes={"a": ["b"]}) as s:
        s.certify(photo)
    assert "\x1b" not in caplog.text
    assert "[31mSky" in caplog.text


def test_a_file_that_is_not_there_is_named_with_where_it_is_from(adapter, photo, capsys):
    assert run(["certify", photo, "--classes", "none.toml", "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert "none.toml" in said["message"]
    assert adapter.sent == 0
