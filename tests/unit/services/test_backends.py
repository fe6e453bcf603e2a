"""What stands behind a service by name: EfficientNet, a recording, any function."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from smoothapi import Smoother
from smoothapi.errors import PermanentError, UsageError
from smoothapi.services import by_colour, load_backend, serve
from smoothapi_adapters.mock import MockAdapter
from tests.unit.services.conftest import picture, shown


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 90, (60, 64, 3), dtype=np.uint8) + np.array([150, 0, 0], np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class Spying(MockAdapter):
    """Keeps the bytes that were sent, to send them again."""

    def __init__(self):
        super().__init__(by_colour, labeller_id="colours")
        self.sent = []

    def ask(self, payloads):
        self.sent += payloads
        return super().ask(payloads)


@pytest.fixture
def recording(photo, tmp_path):
    file = tmp_path / "answers.jsonl"
    spying = Spying()
    with Smoother(
        spying, sigma=0.25, size=48, denoiser="none", max_votes=40, plain=True, record=file
    ) as smoother:
        smoother.predict(photo)
    assert len(spying.sent) > 5
    return file, spying.sent


def test_a_recording_answers_to_the_bytes_that_were_sent(recording, calling):
    file, sent = recording
    with serve("clarifai", load_backend(f"replay:{file}")) as service:
        caller = calling(service)
        for payload in sent:
            pixels = np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"))
            assert caller.ask(payload) == by_colour(pixels)
        assert service.billed == len(sent)


def test_a_recording_answers_to_the_whole_photo_as_to_its_plain_query(recording, photo):
    backend = load_backend(f"replay:{recording[0]}")
    assert backend.label_payload(photo).labels[0].name == "red"
    stream = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(stream, "BMP")  # the same photo in another file
    assert backend.label_payload(stream.getvalue()) == backend.label_payload(photo)


def test_a_miss_is_the_providers_own_error(recording, calling):
    with serve("aws", load_backend(f"replay:{recording[0]}")) as service:
        error = shown(lambda: calling(service).ask(picture((0, 0, 9))))
        assert error[1] == "InvalidParameterException"
        assert "answers.jsonl" in error[2]
        assert service.billed == 0
    with pytest.raises(PermanentError, match="no answer to this picture"):
        load_backend(f"replay:{recording[0]}").label_payload(b"no picture at all")


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file, rows):
    for row in rows:
        row.pop("check", None)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"replay:{file}"


def test_a_recording_that_says_of_no_answer_what_it_is_to(recording):
    file = recording[0]
    old = [row for row in rows(file) if not row.get("asked", {}).get("plain")]
    for row in old:
        row.pop("payload", None)
    with pytest.raises(UsageError, match=r"older version.*Record the run again"):
        load_backend(write(file, old))


def test_answers_of_two_operations_are_not_mixed(recording):
    file = recording[0]
    twice = rows(file)
    other = json.loads(json.dumps(next(row for row in twice if "payload" in row)))
    other["asked"]["identity"] = {"operation": "moderation"}
    with pytest.raises(UsageError, match="two operations"):
        load_backend(write(file, [*twice, other]))
    # Of another provider it is no question of ours.
    other["asked"]["provider"] = "azure"
    load_backend(write(file, [*twice, other]), provider="mock")


def test_a_refusal_that_was_recorded_is_one_again(recording):
    file, sent = recording
    failed = rows(file)
    for row in failed:
        if "payload" in row:
            row.pop("answer", None)
            row["failed"] = "too dark"
    with pytest.raises(PermanentError, match="too dark"):
        load_backend(write(file, failed)).label_payload(sent[-1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "efficientnet"),
        ("efficient", "efficientnet"),
        (":f", "efficientnet"),
        ("nosuchmodule:f", "nosuchmodule"),
        ("json:nothing", "nothing"),
        ("string:digits", "not a function"),
        ("replay:nowhere.jsonl", "nowhere"),
    ],
)
def test_an_unknown_backend_is_refused_with_what_to_use(name, words):
    with pytest.raises(UsageError, match=words):
        load_backend(name)


def test_a_function_and_a_class_by_name():
    assert load_backend("smoothapi.services:by_colour") is by_colour
    if not find_spec("efficientnet_lite_pytorch"):
        pytest.skip('the extra "demo" is not installed')
    for name in ("efficientnet", "smoothapi_adapters.mock:EfficientNetLite0"):
        assert type(load_backend(name)).__name__ == "EfficientNetLite0"
