"""Under the tools that people's tests use, adapters and wrapped clients are caught like plain ones.

What a tool takes the place of is never passed by: a test must not reach a service that is paid for.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket

import boto3
import moto
import numpy as np
import pytest
import requests
import requests_mock
import responses
import vcr
from botocore.stub import ANY, Stubber

from smoothapi import wrap
from smoothapi.answer import Answer
from smoothapi.encode import Codec
from smoothapi.errors import ProviderError, TransientError
from smoothapi.services import serve
from smoothapi.testing.contract import unused_port
from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.http import HttpAdapter
from tests.faults.callers import (
    CALLERS,
    OPTIONS,
    SECRET,
    answer,
    computer_vision,
    image_analysis,
    image_annotator,
    rekognition,
)
from tests.faults.hostile import Hostile, score
from tests.waiting import PATIENCE

PHOTO = Codec("png").encode(np.full((96, 96, 3), 90, np.uint8))
FAST = {
    "denoiser": "none",
    "max_votes": 60,
    "radius": 0.05,
    "alpha": 0.05,
    "budget": "200",
}


def google(client):
    from google.cloud import vision

    found = client.label_detection(vision.Image(content=PHOTO)).label_annotations
    return [label.description for label in found]


WRAPPED = {
    "aws": (
        rekognition,
        lambda c: [row["Name"] for row in c.detect_labels(Image={"Bytes": PHOTO})["Labels"]],
    ),
    "azure": (
        computer_vision,
        lambda c: [tag.name for tag in c.tag_image_in_stream(io.BytesIO(PHOTO)).tags],
    ),
    "azure4": (
        image_analysis,
        lambda c: [tag["name"] for tag in c.analyze(PHOTO, ["tags"])["tagsResult"]["values"]],
    ),
    "google": (image_annotator, google),
}
"""Service -> what makes the SDK's client, and how the labels of the photo are had through it."""

THROUGH_REQUESTS = [name for name in CALLERS if "aws" not in name and "grpc" not in name]
OVER_HTTP = [name for name in CALLERS if "grpc" not in name]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture
def nowhere():
    return f"http://127.0.0.1:{unused_port()}"


@pytest.fixture
def adapter_of():
    made = []

    def make(name, url):
        made.append(CALLERS[name](url, PATIENCE))
        return made[-1]

    yield make
    for adapter in made:
        getattr(adapter, "close", lambda: None)()


def bus(outcomes):
    [outcome] = outcomes
    assert isinstance(outcome, Answer)
    return [label.name for label in outcome.labels] == ["bus"]


def certified(service, url, home, **options):
    """Return the labels that a wrapped client certifies of the photo."""
    make, ask = WRAPPED[service]
    client = make(url)
    wrapped = wrap(client, home=home, **FAST, **options)
    try:
        return ask(wrapped)
    finally:
        wrapped.close()


# requests-mock and responses


@pytest.mark.usefixtures("no_network")
class TestMocksOfRequests:
    @pytest.mark.parametrize("name", THROUGH_REQUESTS)
    def test_requests_mock_catches_an_adapter(self, name, nowhere, adapter_of):
        before = adapter_of(name, nowhere)
        with requests_mock.Mocker() as mocker:
            mocker.post(requests_mock.ANY, content=answer())
            assert bus(before.ask([PHOTO]))
            assert bus(adapter_of(name, nowhere).ask([PHOTO]))
            assert mocker.call_count == 2

    @pytest.mark.parametrize("name", THROUGH_REQUESTS)
    def test_responses_catches_an_adapter(self, name, nowhere, adapter_of):
        before = adapter_of(name, nowhere)
        with responses.RequestsMock() as mocker:
            mocker.post(
                re.compile(r"http://127\.0\.0\.1.*"), body=answer(), content_type="application/json"
            )
            assert bus(before.ask([PHOTO]))
            assert bus(adapter_of(name, nowhere).ask([PHOTO]))
            assert len(mocker.calls) == 2

    @pytest.mark.parametrize("name", THROUGH_REQUESTS)
    def test_what_no_mock_was_told_of_is_not_sent(self, name, nowhere, adapter_of):
        adapter = adapter_of(name, nowhere)
        for tool in (requests_mock.Mocker(), responses.RequestsMock()):
            with tool, pytest.raises((ProviderError, requests_mock.NoMockAddress)):
                adapter.ask([PHOTO])

    @pytest.mark.parametrize("service", ["azure", "azure4", "google"])
    def test_both_catch_a_wrapped_client(self, service, nowhere, tmp_path):
        with requests_mock.Mocker() as mocker:
            mocker.post(requests_mock.ANY, content=answer())
            assert certified(service, nowhere, tmp_path / "one") == ["bus"]
            assert mocker.call_count > 1
        with responses.RequestsMock() as mocker:
            mocker.post(
                re.compile(r"http://127\.0\.0\.1.*"), body=answer(), content_type="application/json"
            )
            assert certified(service, nowhere, tmp_path / "two") == ["bus"]
            assert len(mocker.calls) > 1

    def test_a_session_that_is_mocked_alone(self, nowhere):
        with requests.Session() as session:
            adapter = HttpAdapter(nowhere, client=session, **OPTIONS)
            with requests_mock.Mocker(session=session) as mocker:
                mocker.post(requests_mock.ANY, content=answer())
                assert bus(adapter.ask([PHOTO]))
                assert mocker.call_count == 1


# vcrpy


def cassette(folder, record_mode):
    return vcr.use_cassette(
        str(folder / "cassette.yaml"), record_mode=record_mode, match_on=["method", "uri"]
    )


def patiently(adapter):
    """Ask again where a kept connection proves to be closed, as the dispatcher does."""
    for _ in range(3):
        with contextlib.suppress(TransientError):
            return adapter.ask([PHOTO])
    return adapter.ask([PHOTO])


@pytest.mark.parametrize("name", OVER_HTTP)
def test_vcrpy_records_and_replays_an_adapter(name, tmp_path, adapter_of):
    with Hostile(score(b"0.97")) as server:
        before = adapter_of(name, server.url)
        with cassette(tmp_path, "once"):
            assert bus(patiently(before))
        assert len(server.requests) == 1
        assert bus(patiently(before))  # no trace of the tool is left
        assert len(server.requests) == 2
        for replayed in (adapter_of(name, server.url), before):
            with cassette(tmp_path, "none") as tape:
                assert bus(replayed.ask([PHOTO]))
                assert tape.all_played
        assert len(server.requests) == 2


@pytest.mark.parametrize("service", WRAPPED)
def test_vcrpy_records_and_replays_a_wrapped_client(service, tmp_path):
    alone = {"concurrency": 1}  # a cassette counts what it plays without a lock
    with serve(service, lambda _: [("bus", 0.97)]) as served:
        with cassette(tmp_path, "once"):
            assert certified(service, served.url, tmp_path / "one", **alone) == ["bus"]
        sent = len(served.received)
        assert sent > 1
        with cassette(tmp_path, "none") as tape:
            assert certified(service, served.url, tmp_path / "two", **alone) == ["bus"]
            assert tape.play_count == sent
        assert len(served.received) == sent


# botocore


def stubbed(client, times):
    """Return a Stubber of a client that answers so many times."""
    stubber = Stubber(client)
    for _ in range(times):
        said = {"Labels": [{"Name": "bus", "Confidence": 97.0}], "LabelModelVersion": "3.0"}
        asked = {"Image": ANY, "MinConfidence": ANY, "MaxLabels": ANY}
        stubber.add_response("detect_labels", said, asked)
    return stubber


@pytest.mark.usefixtures("no_network")
class TestDoublesOfBotocore:
    def test_a_stubber_catches_an_adapter_whichever_came_first(self):
        client = rekognition("https://rekognition.eu-west-1.amazonaws.com")
        before = AwsAdapter(client=client)
        with stubbed(client, 2) as stubber:
            assert bus(before.ask([PHOTO]))
            assert bus(AwsAdapter(client=client).ask([PHOTO]))
            stubber.assert_no_pending_responses()
            with pytest.raises(ProviderError, match=r"response stub"):
                before.ask([PHOTO])
        client.close()

    @pytest.mark.parametrize("first", ["wrapped", "stubbed"])
    def test_a_stubber_catches_a_wrapped_client(self, first, tmp_path):
        client = rekognition("https://rekognition.eu-west-1.amazonaws.com")
        wrapped = wrap(client, home=tmp_path, **FAST) if first == "wrapped" else None
        stubber = Stubber(client)
        said = {"Labels": [{"Name": "bus", "Confidence": 97.0}], "LabelModelVersion": "3.0"}
        for _ in range(100):
            stubber.add_response("detect_labels", said)
        with stubber:
            wrapped = wrapped or wrap(client, home=tmp_path, **FAST)
            [row] = wrapped.detect_labels(Image={"Bytes": PHOTO})["Labels"]
            assert row["Name"] == "bus"
            assert len(stubber._queue) < 95
        wrapped.close()

    def test_moto_catches_adapters_and_wrapped_clients(self, tmp_path):
        with moto.mock_aws():
            [plain] = AwsAdapter(region="eu-west-1").ask([PHOTO])
            assert plain.labels
            client = boto3.client("rekognition", region_name="eu-west-1")
            [given] = AwsAdapter(client=client).ask([PHOTO])
            assert given.labels == plain.labels
            wrapped = wrap(client, home=tmp_path, **FAST)
            found = wrapped.detect_labels(Image={"Bytes": PHOTO})["Labels"]
            assert {row["Name"] for row in found} <= {label.name for label in plain.labels}
            assert found
            wrapped.close()
