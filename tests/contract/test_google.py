"""Google Vision through the real client, over REST and over gRPC, against a local service."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import vision
from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport

from smoothapi.certify.labels import top1
from smoothapi.encode import Codec
from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
)
from smoothapi.services import serve
from smoothapi.testing import AdapterContract, by_colour
from smoothapi.testing.contract import unused_port
from smoothapi.testing.faults import Fault
from smoothapi_adapters.google import GoogleAdapter
from tests.contract.test_azure import answering

KEY = "AIzaSyExampleKeyThatIsNone0123456789abc"
PNG = Codec("png").encode(np.full((96, 96, 3), 90, np.uint8))
ANSWERS = Path(__file__).parents[3] / "shared" / "data" / "answers"
SERVICES = {"rest": "google", "grpc": "google-grpc"}

both = pytest.mark.parametrize("transport", ["rest", "grpc"])


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "K_SERVICE", "GAE_SERVICE", "GAE_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr("smoothapi_adapters.google.adapter._PRODUCT", tmp_path / "none")


class TestGoogleRest(AdapterContract):
    transport = "rest"
    operation = "labels"
    loggers_with_pictures = ("google",)
    backend = staticmethod(by_colour)

    def adapter_at(self, url, **options):
        more = {"transport": self.transport, "operation": self.operation, **options}
        return GoogleAdapter(endpoint=url, **{"api_key": KEY, **more})

    @pytest.fixture
    def service(self):
        with serve(SERVICES[self.transport], self.backend, key=KEY) as service:
            yield service

    @pytest.fixture
    def make(self, service):
        return lambda: self.adapter_at(service.url)

    @pytest.fixture
    def secrets(self):
        return [KEY]

    @pytest.fixture
    def sent(self, service):
        return lambda: len(service.received)

    @pytest.fixture
    def unreachable(self):
        return self.adapter_at(f"http://127.0.0.1:{unused_port()}", timeout=3)

    @pytest.fixture
    def faulty(self):
        services = []

        def make(fault):
            name = SERVICES[self.transport]
            services.append(serve(name, self.backend, faults=f"@1- {fault}", late=0.6, drip=1.5))
            return self.adapter_at(services[-1].url, timeout=0.4)

        yield make
        for service in services:
            service.close()

    @pytest.fixture
    def without_credentials(self, service):
        return self.adapter_at(service.url, api_key=None)


class TestGoogleGrpc(TestGoogleRest):
    transport = "grpc"


@both
def test_a_safe_search_comes_through(transport):
    with serve(SERVICES[transport], lambda _: [("adult", 0.99), ("racy", 0.5)]) as service:
        adapter = GoogleAdapter(
            operation="safe_search", transport=transport, endpoint=service.url, api_key=KEY
        )
        [answer] = adapter.ask([PNG])
        adapter.close()
    assert {label.name: label.score for label in answer.labels} == {
        "adult": 1.0, "racy": 0.5, "spoof": 0.0, "medical": 0.0, "violence": 0.0,
    }  # fmt: skip


@both
@pytest.mark.parametrize("fault", [*map(str, Fault)])
def test_each_fault_is_met_with_one_request(transport, fault):
    with serve(
        SERVICES[transport], by_colour, faults=f"@1- {fault}", late=0.5, drip=1.2
    ) as service:
        adapter = GoogleAdapter(transport=transport, endpoint=service.url, api_key=KEY, timeout=0.3)
        try:
            [outcome] = adapter.ask([PNG])
        except ProviderError as error:
            outcome = error
        adapter.close()
        assert len(service.received) == 1
    assert isinstance(outcome, ProviderError)  # what drips in is not waited for, either


@both
def test_a_given_client_is_asked_once_and_stays_as_it_was(transport):
    with serve(SERVICES[transport], by_colour, faults="1x503, @3 503") as service:
        if transport == "rest":
            client = vision.ImageAnnotatorClient(
                transport="rest",
                credentials=AnonymousCredentials(),
                client_options={"api_endpoint": service.url},
            )
        else:
            channel = grpc.insecure_channel(service.address)
            client = vision.ImageAnnotatorClient(
                transport=ImageAnnotatorGrpcTransport(channel=channel)
            )
        adapter = GoogleAdapter(client=client, transport=transport, timeout=5)
        with pytest.raises(TransientError):
            adapter.ask([PNG])
        assert len(service.received) == 1
        adapter.close()
        # Its owner's calls go on, with the retries that its owner has.
        response = client.label_detection(image=vision.Image(content=PNG))
        assert response.label_annotations
        assert len(service.received) == 2
        client.transport.close()


@both
def test_a_wrong_key_is_fatal(transport):
    with serve(SERVICES[transport], by_colour, key="another") as service:
        adapter = GoogleAdapter(transport=transport, endpoint=service.url, api_key=KEY)
        with pytest.raises(FatalError, match="API_KEY_INVALID"):
            adapter.ask([PNG])
        adapter.close()
        assert len(service.received) == 1


def test_an_expired_token_is_not_renewed_behind_our_back():
    class Signed(AnonymousCredentials):
        def __init__(self):
            super().__init__()
            self.token, self.renewed = "old", 0

        def before_request(self, request, method, url, headers):
            headers["authorization"] = f"Bearer {self.token}"

        def refresh(self, request):
            self.renewed += 1

    signed = Signed()
    with serve("google", by_colour, key="new") as service:
        adapter = GoogleAdapter(transport="rest", endpoint=service.url, credentials=signed)
        with pytest.raises(FatalError, match=r"HTTP 401"):
            adapter.ask([PNG])
        assert len(service.received) == 1
        adapter.close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "content"),
    [
        (200, b"<html>", TransientError, "text/html"),
        (200, b"", TransientError, "application/json"),
        (200, b"[]", TransientError, "application/json"),
        (200, b"null", TransientError, "application/json"),
        (200, b"{}", TransientError, "application/json"),
        (307, b"", FatalError, "text/html"),
        (302, b"", FatalError, "text/html"),
        (401, b"<html>", FatalError, "text/html"),
        (403, b'"text"', FatalError, "application/json"),
        (403, b'{"error": "text"}', FatalError, "application/json"),
        (503, b"[]", TransientError, "application/json"),
        (503, b'{"error": {"details": [3]}}', TransientError, "application/json"),
        (413, b"too large", PermanentError, "text/plain"),
    ],
)
def test_what_a_proxy_says_is_judged_by_its_status(status, body, kind, content):
    elsewhere = f"http://127.0.0.1:{unused_port()}/"
    url, stop = answering(status, body, {"content-type": content, "location": elsewhere})
    adapter = GoogleAdapter(transport="rest", endpoint=url, api_key=KEY, timeout=3)
    with pytest.raises(ProviderError) as caught:
        adapter.ask([b"x"])
    adapter.close()
    assert stop() == 1
    assert type(caught.value) is kind


@both
def test_the_wait_is_handed_on(transport):
    with serve(
        SERVICES[transport], by_colour, faults="1x429-wait, 1x429-date", retry_after=7
    ) as service:
        adapter = GoogleAdapter(transport=transport, endpoint=service.url, api_key=KEY)
        with pytest.raises(ThrottledError) as caught:
            adapter.ask([PNG])
        assert caught.value.retry_after == 7
        with pytest.raises(ThrottledError) as caught:
            adapter.ask([PNG])
        assert 4 <= caught.value.retry_after <= 8
        adapter.close()


@both
def test_sixteen_pictures_are_one_request_and_each_has_one_feature(transport):
    with serve(SERVICES[transport], by_colour) as service:
        adapter = GoogleAdapter(transport=transport, endpoint=service.url, api_key=KEY)
        outcomes = adapter.ask([PNG] * 15 + [b"no picture"])
        adapter.close()
        [received] = service.received
        assert service.billed == 15
    assert [type(outcome).__name__ for outcome in outcomes] == ["Answer"] * 15 + ["PermanentError"]
    assert received.sizes == ((96, 96),) * 15
    for features in received.parameters["features"]:
        [feature] = features
        assert feature.get("maxResults", feature.get("max_results")) == 50
        assert feature.get("model", "builtin/stable") == "builtin/stable"


@pytest.mark.skipif(not ANSWERS.is_dir(), reason="shared/data/answers is not beside the project")
@both
def test_all_recorded_answers_come_through(transport):
    files = sorted(ANSWERS.glob("*.google.json"))
    recorded = [json.loads(file.read_text()) for file in files]
    pictures = [
        Codec("png").encode(np.full((40, 40, 3), 9 * i, np.uint8)) for i in range(len(files))
    ]
    replies = dict(zip(pictures, recorded, strict=True))
    with serve(SERVICES[transport], None, replies=replies.get) as service:
        adapter = GoogleAdapter(transport=transport, endpoint=service.url, api_key=KEY)
        answers = [*adapter.ask(pictures[:16]), *adapter.ask(pictures[16:])]
        adapter.close()
    assert len(answers) == 23
    for answer, reply in zip(answers, recorded, strict=True):
        labels = reply["responses"][0].get("labelAnnotations", [])
        best = max(labels, key=lambda label: label["score"])["description"] if labels else None
        assert top1(answer) == best


@both
def test_threads_are_all_in_flight_at_once(transport):
    at_once = 32
    gate = threading.Barrier(at_once)

    def backend(picture):
        gate.wait(20)  # passes only if all are being answered at the same time
        return by_colour(picture)

    with serve(SERVICES[transport], backend) as service:
        adapter = GoogleAdapter(transport=transport, endpoint=service.url, api_key=KEY, timeout=30)
        outcomes = []
        threads = [
            threading.Thread(target=lambda: outcomes.extend(adapter.ask([PNG])))
            for _ in range(at_once)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        adapter.close()
    assert len(outcomes) == at_once
