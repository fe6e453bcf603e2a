"""The application's own tests. They know nothing of smoothapi: README.md says how they are run."""

from __future__ import annotations

import csv
import os

import boto3
import photo_sorter
import pytest
from PIL import Image
from service import BLUE, GREEN, ORANGE, PINK, RED, WHITE


@pytest.fixture(scope="session")
def client():
    if "AWS_ENDPOINT_URL_REKOGNITION" not in os.environ:
        pytest.exit("These tests ask a local service: see README.md.", returncode=1)
    return boto3.client("rekognition")


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def paint(folder, name, colour):
    level = tuple(round(255 * channel) for channel in colour)
    Image.new("RGB", (96, 96), level).save(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("colour", "folder"),
    [(RED, "blocked"), (ORANGE, "blocked"), (PINK, "to review"), (BLUE, "vehicles"),
     (GREEN, "people"), (WHITE, "unsorted")],
    ids=["weapon", "weapon at 80", "weapon at 62", "weapon at 31", "person at 90", "nothing"],
)  # fmt: skip
def test_the_first_rule_that_applies_decides(client, inbox, colour, folder):
    assert photo_sorter.sort_photo(client, paint(inbox, "a.png", colour)).folder == folder


def test_a_lower_threshold_decides_otherwise(client, inbox):
    strict = (photo_sorter.Rule("Weapon", 60, "blocked"), *photo_sorter.RULES)
    photo = paint(inbox, "a.png", PINK)
    assert photo_sorter.sort_photo(client, photo, strict).folder == "blocked"
    lax = (photo_sorter.Rule("Weapon", 70, "blocked"),)
    assert photo_sorter.sort_photo(client, photo, lax).folder == "unsorted"


def test_the_reason_names_the_label_and_its_confidence(client, inbox):
    found = photo_sorter.sort_photo(client, paint(inbox, "a.jpg", PINK))
    assert found.because == "Knife 62.0"


def test_what_the_service_cannot_read_is_set_aside(client, inbox):
    photo = inbox / "broken.png"
    photo.write_bytes(b"no picture")
    assert photo_sorter.sort_photo(client, photo).folder == "unreadable"


def test_a_folder_is_sorted_and_written_down(client, inbox, tmp_path):
    paint(inbox, "gun.png", RED)
    paint(inbox, "car.JPG", BLUE)
    (inbox / "notes.txt").write_text("no photo")
    outbox = tmp_path / "sorted"
    photo_sorter.sort_folder(client, inbox, outbox)
    assert {str(p.relative_to(outbox)) for p in outbox.rglob("*.*")} == {
        "sorted.csv", "blocked/gun.png", "vehicles/car.JPG",
    }  # fmt: skip
    assert sorted(p.name for p in inbox.iterdir()) == ["car.JPG", "gun.png", "notes.txt"]
    with (outbox / "sorted.csv").open(encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [
            ["car.JPG", "vehicles", "Car 93.0"], ["gun.png", "blocked", "Rifle 97.0"],
        ]  # fmt: skip


def test_other_errors_are_not_hidden(client):
    with pytest.raises(client.exceptions.ClientError):
        client.detect_labels(Image={"Bytes": b""})
