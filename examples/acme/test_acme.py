"""The Acme adapter keeps the contract of an adapter."""

import pytest
from acme_service import KEY, acme
from smoothapi_acme import AcmeAdapter

from smoothapi.services import Fault
from smoothapi.testing import AdapterContract, unused_port

STATUS = {
    Fault.throttled_wait: 429,
    Fault.error: 500,
    Fault.unavailable: 503,
    Fault.garbage: 200,
    Fault.denied: 403,
}


class TestAcme(AdapterContract):
    @pytest.fixture
    def service(self, monkeypatch):
        monkeypatch.setenv("ACME_KEY", KEY)
        with acme() as service:
            yield service

    @pytest.fixture
    def make(self, service):
        return lambda: AcmeAdapter(service.url)

    @pytest.fixture
    def secrets(self):
        return [KEY]

    @pytest.fixture
    def sent(self, service):
        return lambda: service.requests

    @pytest.fixture
    def unreachable(self):
        return AcmeAdapter(f"http://127.0.0.1:{unused_port()}")

    @pytest.fixture
    def faulty(self, service):
        def faulty(fault):
            if fault not in STATUS:
                pytest.skip("this small service cannot do that")
            service.fails_with = STATUS[fault]
            return AcmeAdapter(service.url)

        return faulty
