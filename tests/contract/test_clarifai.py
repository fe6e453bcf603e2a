"""The Clarifai adapter keeps the contract, against a local service that speaks its protocol."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from smoothapi.services import by_colour, serve
from smoothapi.testing import AdapterContract, unused_port
from smoothapi_adapters.clarifai import ClarifaiAdapter
from tests.waiting import seconds_for

PAT = "pat-0123456789-abcdef"


class TestClarifai(AdapterContract):
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch):
        monkeypatch.setenv("CLARIFAI_PAT", PAT)
        monkeypatch.delenv("CLARIFAI_API_KEY", raising=False)

    @pytest.fixture
    def started(self):
        with ExitStack() as stack:
            services = []

            def start(faults=None):
                services.append(stack.enter_context(serve("clarifai", by_colour, faults=faults)))
                return services[-1].url

            start.services = services
            yield start

    @pytest.fixture
    def make(self, started):
        url = started()
        return lambda: ClarifaiAdapter(endpoint=url)

    @pytest.fixture
    def secrets(self):
        return [PAT]

    @pytest.fixture
    def sent(self, started):
        return lambda: sum(len(service.received) for service in started.services)

    @pytest.fixture
    def unreachable(self):
        return ClarifaiAdapter(endpoint=f"http://127.0.0.1:{unused_port()}")

    @pytest.fixture
    def faulty(self, started):
        return lambda fault: ClarifaiAdapter(
            endpoint=started(f"@1- {fault}"), timeout=seconds_for(fault)
        )

    @pytest.fixture
    def without_credentials(self, started, monkeypatch):
        monkeypatch.delenv("CLARIFAI_PAT")
        return ClarifaiAdapter(endpoint=started())
