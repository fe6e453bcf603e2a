"""Google Vision through the real client, over REST and over gRPC, against a local service."""

from __future__ import annotations

import grpc
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import vision
from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport

from smoothapi.errors import FatalError, ThrottledError, TransientError
from smoothapi.services import by_colour, serve
from smoothapi_adapters.google import GoogleAdapter
from tests.contract.provider_service import PNG, ServiceContract
from tests.waiting import PATIENCE

KEY = "AIzaSyExampleKeyThatIsNone0123456789abc"
SERVICES = {"rest": "google", "grpc": "google-grpc"}

both = pytest.mark.parametrize("transport", ["rest", "grpc"])


class TestGoogleRest(ServiceContract):
    transport = "rest"
    service = SERVICES["rest"]
    key = KEY
    wrong_key = "API_KEY_INVALID"
    recorded = "*.google.json"
    loggers_with_pictures = ("google",)

    def adapter_at(self, url, **options):
        return GoogleAdapter(
            endpoint=url, **{"api_key": KEY, "transport": self.transport, **options}
        )

    @pytest.fixture
    def without_credentials(self, served):
        return self.adapter_at(served.url, api_key=None)

    def best_of(self, recorded):
        labels = recorded["responses"][0].get("labelAnnotations", [])
        best = max(labels, key=lambda label: label["score"], default={"description": None})
        return best["description"]


class TestGoogleGrpc(TestGoogleRest):
    transport = "grpc"
    service = SERVICES["grpc"]
    hasty = 1.5  # to connect, too, and to be read: what is late before that is not received
    # No proxy between speaks HTTP/1.1.
    test_what_a_proxy_says_is_judged_by_its_status = None


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
        adapter = GoogleAdapter(client=client, transport=transport, timeout=PATIENCE)
        with pytest.raises(TransientError):
            adapter.ask([PNG])
        assert len(service.received) == 1
        adapter.close()
        # Its owner's calls go on, with the retries that its owner has.
        response = client.label_detection(image=vision.Image(content=PNG))
        assert response.label_annotations
        assert len(service.received) == 2
        client.transport.close()


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


@both
def test_the_wait_is_handed_on(transport):
    with serve(
        SERVICES[transport], by_colour, faults="1x429-wait, 1x429-date", retry_after=300
    ) as service:
        adapter = GoogleAdapter(transport=transport, endpoint=service.url, api_key=KEY)
        with pytest.raises(ThrottledError) as caught:
            adapter.ask([PNG])
        assert caught.value.retry_after == 300
        with pytest.raises(ThrottledError) as caught:
            adapter.ask([PNG])
        assert 200 < caught.value.retry_after <= 301  # a date: some time has passed since
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
