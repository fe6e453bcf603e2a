"""What a network guard of a test suite says is not taken for a defect, nor for an outage."""

import io
import socket

import pytest
from PIL import Image

from smoothapi.errors import FatalError
from smoothapi.provider import make_adapter
from smoothapi.provider.asking import ask

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


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [SocketBlockedError, OwnGuardError, pytest.fail.Exception])
@pytest.mark.parametrize("name", ["aws", "azure", "azure4", "clarifai", "google", "http"])
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


@pytest.mark.parametrize("error", [RuntimeError(SECRET), KeyError(SECRET), OSError(SECRET)])
def test_what_an_adapter_raises_itself_is_no_guard(error):
    class Broken:
        name = "broken"

        def ask(self, _):
            raise error

    with pytest.raises(FatalError, match="defect of the adapter") as caught:
        ask(Broken(), [b""])
    assert SECRET not in str(caught.value)
