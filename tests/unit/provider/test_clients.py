"""Clients that cannot be asked, above all asynchronous ones, are refused before any call."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import types
from unittest.mock import AsyncMock, MagicMock, Mock

import boto3
import pytest
import requests
from azure.ai.vision.imageanalysis.aio import ImageAnalysisClient as AioImageAnalysisClient
from botocore.client import BaseClient
from google.auth.credentials import AnonymousCredentials
from google.cloud import vision

from smoothapi import Smoother, wrap
from smoothapi.errors import UsageError
from smoothapi.provider import make_adapter
from smoothapi.provider.clients import refuse_async
from tests.conftest import ScriptedAdapter


def of(module, kind):
    """Return a class as if it were another package's."""
    kind.__module__ = module
    return kind


class AioBaseClient(BaseClient):
    """As aiobotocore makes its clients: plain methods that return what is awaited."""

    def __init__(self):
        pass

    async def _make_api_call(self, operation, parameters):
        raise AssertionError("it was called")

    def detect_labels(self, **parameters):
        return self._make_api_call("DetectLabels", parameters)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass


class ClientCreatorContext:
    async def __aenter__(self):
        raise AssertionError("it was entered")

    async def __aexit__(self, *error):
        pass


class Awaitable:
    def __await__(self):
        raise AssertionError("it was awaited")
        yield


class ClientSession:
    """As aiohttp's: its __enter__ only raises."""

    def __enter__(self):
        raise TypeError("Use async with instead")

    def __exit__(self, *error):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass


class AsyncMethods:
    meta = types.SimpleNamespace(service_model=types.SimpleNamespace(service_name="rekognition"))

    async def _make_api_call(self, *_):
        raise AssertionError("it was called")


async def make_client():
    raise AssertionError("it was awaited")


async def yield_client():
    yield None


def coroutine():
    made = make_client()
    made.close()  # or Python would say at exit that nobody awaited it
    return made


ASYNC = {
    "aiobotocore": of("aiobotocore.client", AioBaseClient),
    "aioboto3, not entered": of("aiobotocore.session", ClientCreatorContext),
    "without a context": AsyncMethods,
    "coroutine": coroutine,
    "coroutine function": lambda: make_client,
    "generator": yield_client,
    "generator function": lambda: yield_client,
    "context manager": contextlib.asynccontextmanager(yield_client),
    "awaitable": Awaitable,
    "azure": lambda: object.__new__(AioImageAnalysisClient),
    "azure, the class": lambda: AioImageAnalysisClient,
    "google": lambda: object.__new__(vision.ImageAnnotatorAsyncClient),
    "aiohttp": of("aiohttp.client", ClientSession),
    "mock": AsyncMock,
}
ADAPTERS = {
    "aws": {},
    "google": {},
    "azure": {},
    "azure4": {},
    "clarifai": {},
    "http": {"url": "https://a.example", "labels": "x"},
}
asynchronous = pytest.mark.parametrize("make", ASYNC.values(), ids=ASYNC)
WRAPPED = ("aiobotocore", "azure", "google")  # tests/unit/wrapping/test_async_clients.py


@pytest.mark.parametrize(
    "make",
    [make for name, make in ASYNC.items() if name not in WRAPPED],
    ids=[name for name in ASYNC if name not in WRAPPED],
)
def test_wrap_refuses_what_is_not_yet_a_client_or_not_a_known_one_in_words(make):
    with pytest.raises(UsageError, match=r"asynchronous.*to_thread|no client yet.*async with"):
        wrap(make(), budget="10")


@asynchronous
@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_refuses_an_asynchronous_client_in_words(name, make):
    with pytest.raises(UsageError, match=r"(asynchronous|no client yet).*to_thread"):
        make_adapter(name, client=make(), **ADAPTERS[name])


@pytest.mark.parametrize(
    ("make", "instead"),
    [(ASYNC["aiobotocore"], "boto3.client"), (ASYNC["google"], "vision.ImageAnnotatorClient"),
     (ASYNC["azure"], "without .aio"), (ASYNC["aiohttp"], "requests.Session")],
)  # fmt: skip
def test_the_error_names_what_to_give_instead(make, instead):
    with pytest.raises(UsageError, match=instead):
        refuse_async(make())


def test_a_transport_of_asyncio_makes_googles_client_asynchronous():
    transport = types.SimpleNamespace(kind="grpc_asyncio")
    client = object.__new__(vision.ImageAnnotatorClient)
    client._transport = transport
    for refuse in (
        lambda: wrap(client, budget="10"),
        lambda: make_adapter("google", client=client),
    ):
        with pytest.raises(UsageError, match="asynchronous"):
            refuse()


@pytest.mark.parametrize("client", ["x", 5, {}, object(), dict, requests.Session])
@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_no_client_is_refused_when_it_is_given(name, client):
    with pytest.raises(UsageError, match="client"):
        make_adapter(name, client=client, **ADAPTERS[name])


@pytest.mark.parametrize(
    "client",
    [
        boto3.client("rekognition", region_name="us-east-1"),
        vision.ImageAnnotatorClient(credentials=AnonymousCredentials(), transport="rest"),
        requests.Session(),
        Mock(),
        MagicMock(),
        object(),
        None,
        contextlib.nullcontext(),
    ],
)
def test_a_synchronous_client_is_not_refused(client):
    refuse_async(client, "detect_labels", "analyze")


def test_an_asynchronous_adapter_is_refused_before_it_is_asked():
    class Asynchronous(ScriptedAdapter):
        async def ask(self, payloads):
            raise AssertionError

    with pytest.raises(UsageError, match="asynchronous"):
        Smoother(Asynchronous(), denoiser="none")


def test_no_package_of_asynchronous_clients_is_imported():
    script = (
        "import sys; from smoothapi.provider import refuse_async; refuse_async(object());"
        "assert not {'aiobotocore', 'aiohttp', 'google', 'azure', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
