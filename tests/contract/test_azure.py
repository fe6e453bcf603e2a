"""Azure 3.2 through the real SDK, which sends in chunks, against a local service."""

from __future__ import annotations

import io

import numpy as np
import pytest
from azure.cognitiveservices.vision.computervision import ComputerVisionClient
from msrest.authentication import CognitiveServicesCredentials

from smoothapi.encode import Codec
from smoothapi.errors import FatalError, PermanentError, TransientError
from smoothapi.services import by_colour, serve
from smoothapi.services.faults import Fault
from smoothapi_adapters.azure import AzureAdapter
from tests.contract.provider_service import PNG, PROXY, ServiceContract
from tests.waiting import PATIENCE

KEY = "0123456789abcdef0123456789abcdef"


class TestAzure(ServiceContract):
    service = "azure"
    key = KEY
    wrong_key = "invalid subscription key"
    options = ({"features": "tags"}, {"features": "tags,adult"})
    proxy = (*PROXY, (200, b'{"tags": null}', TransientError, "application/json"))
    recorded = "*.msft.json"
    # Of no tags at all the SDK makes what it makes of `{}`: the answer is malformed.
    meant = {Fault.inside: (TransientError,)}

    def adapter_at(self, url, **options):
        return AzureAdapter(endpoint=url, **{"key": KEY, **options})

    @pytest.fixture
    def without_credentials(self, served):
        return self.adapter_at(served.url, key=None)

    def best_of(self, recorded):
        tags = recorded["tags"]
        return max(tags, key=lambda tag: tag["confidence"], default={"name": None})["name"]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        ("tags", {"adult": 0.75, "bus": 0.5}),
        ("categories", {"adult": 0.75, "bus": 0.5}),
        ("description", {"adult": 0.75}),
        ("adult", {"adult": 0.75, "racy": 0.0, "gory": 0.0}),
    ],
)
def test_each_feature_comes_through(features, labels):
    with serve("azure", lambda _: [("adult", 0.75), ("bus", 0.5)]) as service:
        adapter = AzureAdapter(endpoint=service.url, key=KEY, features=features)
        [answer] = adapter.ask([PNG])
        adapter.close()
    assert {label.name: label.score for label in answer.labels} == labels


@pytest.mark.parametrize("fault", ["500", "503", "429-wait", "reset"])
def test_a_given_client_is_asked_once_and_stays_as_it_was(fault):
    with serve("azure", by_colour, faults=f"1x{fault}") as service:
        client = ComputerVisionClient(service.url, CognitiveServicesCredentials(KEY))
        before = client.config.retry_policy.policy.total
        adapter = AzureAdapter(client=client, timeout=PATIENCE)
        assert adapter.credentials().found
        with pytest.raises(TransientError):
            adapter.ask([PNG])
        assert len(service.received) == 1
        [answer] = adapter.ask([PNG])
        adapter.close()
        assert client.config.retry_policy.policy.total == before == 3
        tags = client.tag_image_in_stream(io.BytesIO(PNG)).tags
        assert [tag.name for tag in tags] == [label.name for label in answer.labels]
        client.close()


def test_the_sessions_of_a_given_client_are_set_up_as_its_owner_does():
    seen = []

    def setup(session, *_, **more):
        seen.append(session)
        return more

    with serve("azure", by_colour, faults="1x503") as service:
        client = ComputerVisionClient(service.url, CognitiveServicesCredentials(KEY))
        client.config.session_configuration_callback = setup
        adapter = AzureAdapter(client=client, timeout=PATIENCE)
        with pytest.raises(TransientError):
            adapter.ask([PNG])
        adapter.ask([PNG])
        adapter.close()
        client.close()
        assert len(service.received) == len(seen) == 2


def test_what_the_server_receives():
    with serve("azure", by_colour) as service:
        for features in ("tags", "tags,adult", "categories,description"):
            adapter = AzureAdapter(
                features=features, endpoint=service.url + "/", key=KEY, model_version="2021-04-01"
            )
            [answer] = adapter.ask([PNG])
            assert answer.model_version == "2021-04-01"
            assert answer.request_id
            adapter.close()
        tag, two, other = service.received
    assert [received.operation for received in (tag, two, other)] == ["tag", "analyze", "analyze"]
    assert dict(tag.parameters) == {"language": "en", "model-version": "2021-04-01"}
    assert two.parameters["visualFeatures"] == "Tags,Adult"
    assert other.parameters["visualFeatures"] == "Categories,Description"
    assert "transfer-encoding" in tag.headers_seen
    assert "ocp-apim-subscription-key" in tag.headers_seen
    assert tag.sizes == ((96, 96),)


def test_a_wrong_key_is_fatal():
    with serve("azure", by_colour, key="another") as service:
        adapter = AzureAdapter(endpoint=service.url, key=KEY)
        with pytest.raises(FatalError, match="invalid subscription key") as caught:
            adapter.ask([PNG])
        assert caught.value.request_id
        assert KEY not in str(caught.value)
        adapter.close()


def test_too_small_and_too_large_are_of_the_picture():
    small = Codec("png").encode(np.zeros((20, 60, 3), np.uint8))
    with serve("azure", by_colour) as service:
        adapter = AzureAdapter(endpoint=service.url, key=KEY)
        for payload in (small, PNG + bytes(5_000_000)):
            with pytest.raises(PermanentError):
                adapter.ask([payload])
        adapter.close()
