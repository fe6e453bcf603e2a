"""The mock keeps the contract of an adapter."""

from __future__ import annotations

import pytest

from smoothapi.provider import Limits
from smoothapi.services import by_colour
from smoothapi.testing import AdapterContract
from smoothapi_adapters.mock import MockAdapter


class TestMock(AdapterContract):
    @pytest.fixture
    def make(self):
        return lambda: MockAdapter(by_colour, labeller_id="colours")

    @pytest.fixture
    def faulty(self):
        return lambda fault: MockAdapter(by_colour, faults=f"100% {fault}", timeout=0.01)

    @pytest.fixture
    def adapter(self, make):
        return make()

    @pytest.fixture
    def sent(self, adapter):
        return lambda: adapter.requests


class TestMockInBatches(AdapterContract):
    @pytest.fixture
    def make(self):
        return lambda: MockAdapter(by_colour, labeller_id="colours", limits=Limits(batch=5))
