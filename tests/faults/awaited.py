"""Asynchronous clients as the adapters of wrapped calls see them, each on an event loop of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import AsyncExitStack

from aiobotocore.session import get_session
from azure.ai.vision.imageanalysis.aio import ImageAnalysisClient
from azure.core.credentials import AzureKeyCredential

from smoothapi.wrapping import Portal
from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.aws.aio import AioRekognitionWrapper
from smoothapi_adapters.azure import Azure4Adapter
from smoothapi_adapters.azure.v4.aio import AioImageAnalysisWrapper
from tests.faults.callers import SECRET

SESSION = get_session()  # one, which has read the description of the service once


class Awaited:
    """An adapter that asks through an asynchronous client; it runs the event loop."""

    def __init__(self, client, wrapper, adapter, timeout, ready=None):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        opened = self._run(self._stack.enter_async_context(client))
        if ready is not None:
            self._run(ready(opened))
        seen = wrapper(opened).through(self._run(self._portal()))._client
        self._adapter = adapter(client=seen, timeout=timeout)

    def ask(self, payloads):
        return self._adapter.ask(payloads)

    def close(self):
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _portal(self):
        return Portal()


def rekognition(url, timeout, secret=SECRET):
    client = SESSION.create_client(
        "rekognition",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key=secret,
        aws_session_token=secret,
    )
    return Awaited(client, AioRekognitionWrapper, AwsAdapter, timeout, _with_certificates)


async def _with_certificates(client):
    """Have the certificates read, which the first request would do within its time limit."""
    await client._endpoint.http_session._get_session(None)


def image_analysis(url, timeout, secret=SECRET):
    trusted = os.environ.get("REQUESTS_CA_BUNDLE") or True
    client = ImageAnalysisClient(url, AzureKeyCredential(secret), connection_verify=trusted)
    return Awaited(client, AioImageAnalysisWrapper, Azure4Adapter, timeout)


AWAITED = {"aws, awaited": rekognition, "azure4, awaited": image_analysis}
"""As CALLERS."""
