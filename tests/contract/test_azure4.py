"""Azure 4.0 through the real SDK against a local service."""

from __future__ import annotations

import pytest
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.core.credentials import AccessToken, AzureKeyCredential

from smoothapi.errors import FatalError, TransientError
from smoothapi.services import by_colour, serve
from smoothapi.services.faults import Fault
from smoothapi_adapters.azure import Azure4Adapter
from tests.contract.provider_service import PNG, PROXY, ServiceContract
from tests.waiting import PATIENCE

KEY = "0123456789abcdef0123456789abcdef"


class TestAzure4(ServiceContract):
    service = "azure4"
    key = KEY
    wrong_key = "invalid subscription key"
    proxy = (*PROXY, (200, b'{"tagsResult": null}', TransientError, "application/json"))
    recorded = "*.msft.json"
    # The answer is malformed: it lacks the tags.
    meant = {Fault.inside: (TransientError,)}

    def adapter_at(self, url, **options):
        return Azure4Adapter(endpoint=url, **{"key": KEY, **options})

    @pytest.fixture
    def without_credentials(self, served):
        return self.adapter_at(served.url, key=None)

    def reply_of(self, recorded):
        return {"modelVersion": "2023-10-01", "tagsResult": {"values": recorded["tags"]}}

    def best_of(self, recorded):
        tags = recorded["tags"]
        return max(tags, key=lambda tag: tag["confidence"], default={"name": None})["name"]


@pytest.mark.parametrize("fault", ["500", "503", "429-wait"])
def test_a_given_client_is_asked_once_and_stays_as_it_was(fault):
    with serve("azure4", by_colour, faults=f"2x{fault}", retry_after=0.1) as service:
        client = ImageAnalysisClient(
            service.url, AzureKeyCredential(KEY), retry_backoff_factor=0.05
        )
        adapter = Azure4Adapter(client=client, timeout=PATIENCE)
        assert adapter.credentials().found
        with pytest.raises(TransientError):
            adapter.ask([PNG])
        assert len(service.received) == 1
        adapter.close()
        # Its owner's call tries again after the second fault, as its owner wants it.
        found = client.analyze(PNG, ["tags"])
        assert found["tagsResult"]["values"]
        assert len(service.received) == 3
        client.close()


def test_what_the_server_receives():
    with serve("azure4", by_colour) as service:
        adapter = Azure4Adapter(
            features="caption,tags",
            endpoint=service.url + "/",
            key=KEY,
            model_version="2023-10-01",
            language="en",
        )
        [answer] = adapter.ask([PNG])
        adapter.close()
        [received] = service.received
    assert answer.model_version == "2023-10-01"
    assert answer.request_id
    assert {label.categories for label in answer.labels} == {("tags",), ("caption",)}
    assert received.parameters["features"] == "tags,caption"
    assert received.parameters["model-version"] == "2023-10-01"
    assert received.parameters["language"] == "en"
    assert "ocp-apim-subscription-key" in received.headers_seen
    assert received.sizes == ((96, 96),)


def test_a_token_is_not_sent_unencrypted():
    class Token:
        def get_token(self, *scopes, **options):
            return AccessToken("a-token", 2**40)

    with serve("azure4", by_colour) as service:
        adapter = Azure4Adapter(endpoint=service.url, credential=Token())
        with pytest.raises(FatalError):  # azure.core sees to that
            adapter.ask([PNG])
        adapter.close()
        assert not service.received
