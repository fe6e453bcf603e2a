"""What a network guard of a test suite says is not taken for a defect, nor for an outage."""

import io
import re
import socket
from contextlib import contextmanager

import pytest
import requests
from PIL import Image

from smoothapi import Smoother
from smoothapi.errors import FatalError, TransientError
from smoothapi.provider import make_adapter
from smoothapi.provider.asking import ask

NAMES = ["aws", "azure", "azure4", "clarifai", "google", "http"]
HOST = "https://127.0.0.1:9"
SECRET = "s3cr3t" * 8


class SocketBlockedError(RuntimeError):
    """As that of pytest-socket."""


SocketBlockedError.__module__ = "pytest_socket"


class OwnGuardError(Exception):
    """As a fixture of somebody's conftest raises."""


def adapter_of(name):
    if name == "aws":
        keys = {"aws_access_key_id": "AKIA" + "X" * 16, "aws_secret_access_key": SECRET}
        boto3 = pytest.importorskip("boto3")
        client = boto3.client("rekognition", "eu-west-1", endpoint_url=HOST, **keys)
        return make_adapter(name, client=client)
    if name == "google":
        from google.auth.credentials import AnonymousCredentials

        return make_adapter(
            name, transport="rest", endpoint="127.0.0.1:9", credentials=AnonymousCredentials()
        )
    if name == "http":
        return make_adapter(name, url=HOST, labels="labels[].[name, score]")
    if name == "clarifai":
        return make_adapter(name, pat=SECRET, endpoint=HOST)
    return make_adapter(name, endpoint=HOST, key=SECRET)


@pytest.fixture(scope="module")
def photo():
    stream = io.BytesIO()
    Image.new("RGB", (80, 80), "orange").save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", [SocketBlockedError, OwnGuardError, pytest.fail.Exception])
@pytest.mark.parametrize("name", NAMES)
def test_a_guard_is_quoted_whatever_the_sdk_makes_of_it(name, kind, photo, monkeypatch):
    def guard(*_, **__):
        raise kind("A test tried to use socket.socket.")

    adapter = adapter_of(name)
    monkeypatch.setattr(socket, "socket", guard)
    with pytest.raises(FatalError) as caught:
        ask(adapter, [photo])
    monkeypatch.undo()
    adapter.close()
    said = str(caught.value)
    assert "network guard" in said
    assert "A test tried to use socket.socket." in said
    assert "defect" not in said
    assert caught.value.sent is False
    assert SECRET not in said


@contextmanager
def nothing_recorded(folder):
    vcr = pytest.importorskip("vcr")
    with vcr.use_cassette(str(folder / "none.yaml"), record_mode="none"):
        yield


@contextmanager
def another_recorded(folder):
    vcr = pytest.importorskip("vcr")
    (folder / "one.yaml").write_text(CASSETTE)
    with vcr.use_cassette(str(folder / "one.yaml"), record_mode="once"):
        yield


@contextmanager
def nothing_mocked(_):
    with pytest.importorskip("requests_mock").Mocker():
        yield


@contextmanager
def nothing_registered(_):
    with pytest.importorskip("responses").RequestsMock():
        yield


CASSETTE = """
interactions:
- request: {body: null, headers: {}, method: GET, uri: "https://elsewhere.example/"}
  response: {body: {string: ""}, headers: {}, status: {code: 200, message: OK}}
version: 1
"""
TOOLS = {
    nothing_recorded: ("Can't play back this request", NAMES),
    another_recorded: ("Can't", NAMES),
    nothing_mocked: ("No mock address: POST", NAMES[1:]),  # botocore goes another way
    nothing_registered: ("Connection refused by Responses", NAMES[1:]),
}


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("tool", "name"), [(tool, name) for tool, (_, names) in TOOLS.items() for name in names]
)
def test_a_tool_that_expects_another_request_is_quoted(tool, name, photo, tmp_path):
    adapter = adapter_of(name)
    with tool(tmp_path), pytest.raises(FatalError) as caught:
        ask(adapter, [photo])
    adapter.close()
    assert f"network guard stopped the request: {TOOLS[tool][0]}" in str(caught.value)
    assert caught.value.sent is False
    assert caught.value.provider == name
    assert SECRET not in str(caught.value)


def test_botocores_stubber_is_quoted(photo):
    boto3 = pytest.importorskip("boto3")
    from botocore.stub import Stubber

    client = boto3.client(
        "rekognition", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    adapter = make_adapter("aws", client=client)
    with Stubber(client) as stubber, pytest.raises(FatalError, match=r"guard.*Unexpected API Call"):
        ask(adapter, [photo])
    with stubber, pytest.raises(FatalError, match=r"guard.*Expected parameters"):
        stubber.add_response("detect_labels", {}, {"MaxLabels": 1})
        ask(adapter, [photo])


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("outage", [requests.ConnectTimeout, requests.ConnectionError])
def test_an_outage_that_a_tool_plays_is_one(name, outage, photo):
    responses = pytest.importorskip("responses")
    requests_mock = pytest.importorskip("requests_mock")
    adapter = adapter_of(name)
    with requests_mock.Mocker() as mocker, pytest.raises(TransientError):
        mocker.post(requests_mock.ANY, exc=outage)
        ask(adapter, [photo])
    with responses.RequestsMock() as mocker, pytest.raises(TransientError):
        mocker.post(re.compile(".*"), body=outage("of a test"))
        ask(adapter, [photo])
    adapter.close()


def test_a_run_ends_at_once_at_a_guard(photo, tmp_path):
    adapter = adapter_of("azure")
    with nothing_recorded(tmp_path), Smoother(adapter, denoiser="none", home=tmp_path) as smoother:
        with pytest.raises(FatalError, match="network guard") as caught:
            smoother.certify(photo)
    assert caught.value.attempts == 0
    adapter.close()


@pytest.mark.parametrize("error", [RuntimeError(SECRET), KeyError(SECRET), OSError(SECRET)])
def test_what_an_adapter_raises_itself_is_no_guard(error):
    class Broken:
        name = "broken"

        def ask(self, _):
            raise error

    with pytest.raises(FatalError, match="defect of the adapter") as caught:
        ask(Broken(), [b""])
    assert SECRET not in str(caught.value)
