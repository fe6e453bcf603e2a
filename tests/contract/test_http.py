"""The http adapter keeps the contract, with a picture a request and with several."""

from __future__ import annotations

import pytest

from smoothapi.testing import AdapterContract, unused_port
from smoothapi_adapters.http import HttpAdapter
from tests.contract.json_service import serve
from tests.waiting import seconds_for

TOKEN = "tok-0123456789-abcdef"
QUERY = "q-9876543210-fedcba"


class OverHttp(AdapterContract):
    options = {}

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch):
        monkeypatch.setenv("VISION_TOKEN", TOKEN)
        monkeypatch.setenv("VISION_KEY", QUERY)

    @pytest.fixture
    def served(self):
        with serve() as (service, url):
            yield service, url

    @pytest.fixture
    def build(self, served):
        def build(url=served[1], **more):
            return HttpAdapter(
                url,
                headers={
                    "Authorization": "Bearer env:VISION_TOKEN",
                    "X-Api-Key": "literal-secret-1",
                },
                query={"key": "env:VISION_KEY", "v": "2"},
                model_version="model.version",
                **{
                    "labels": "labels[*].{name: label, score: confidence}",
                    "failed": "error.message",
                    **self.options,
                    **more,
                },
            )

        return build

    @pytest.fixture
    def make(self, build):
        return build

    @pytest.fixture
    def secrets(self):
        return [TOKEN, QUERY, "literal-secret-1"]

    @pytest.fixture
    def sent(self, served):
        return lambda: served[0].requests

    @pytest.fixture
    def unreachable(self, build):
        return build(f"http://127.0.0.1:{unused_port()}/label")

    @pytest.fixture
    def faulty(self, served, build):
        def faulty(fault):
            served[0].fault = fault
            return build(timeout=seconds_for(fault))

        return faulty

    @pytest.fixture
    def without_credentials(self, build, monkeypatch):
        monkeypatch.delenv("VISION_TOKEN")
        return build()


class TestMultipart(OverHttp):
    options = {"field": "file"}


class TestBatchesOfJson(OverHttp):
    options = {
        "body": "base64-json",
        "template": {"instances": [{"b64": "{picture}"}]},
        "batch": 6,
        "answers": "predictions",
        "refused": "error.message",
        "failed": None,
    }
