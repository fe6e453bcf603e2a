"""Azure 4.0 through the real SDK against a local service."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.core.credentials import AccessToken, AzureKeyCredential

from smoothapi.certify.labels import top1
from smoothapi.encode import Codec
from smoothapi.errors import FatalError, PermanentError, ProviderError, TransientError
from smoothapi.services import serve
from smoothapi.testing import by_colour
from smoothapi.testing.contract import unused_port
from smoothapi.testing.faults import Fault
from smoothapi_adapters.azure import Azure4Adapter
from tests.contract.test_azure import ANSWERS, KEY, PNG, TestAzure, _no_keys, answering

assert _no_keys  # the fixture is of this module, too


class TestAzure4(TestAzure):
    provider = "azure4"
    adapter_class = Azure4Adapter


del TestAzure  # its own module runs it


@pytest.mark.parametrize("fault", [*map(str, Fault)])
def test_each_fault_is_met_with_one_request(fault):
    with serve("azure4", by_colour, faults=f"@1- {fault}", late=0.5, drip=1.2) as service:
        adapter = Azure4Adapter(endpoint=service.url, key=KEY, timeout=0.3)
        with pytest.raises(ProviderError):
            adapter.ask([PNG])
        adapter.close()
        assert len(service.received) == 1


@pytest.mark.parametrize("fault", ["500", "503", "429-wait"])
def test_a_given_client_is_asked_once_and_stays_as_it_was(fault):
    with serve("azure4", by_colour, faults=f"2x{fault}", retry_after=0.1) as service:
        client = ImageAnalysisClient(
            service.url, AzureKeyCredential(KEY), retry_backoff_factor=0.05
        )
        adapter = Azure4Adapter(client=client, timeout=5)
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


def test_a_wrong_key_is_fatal():
    with serve("azure4", by_colour, key="another") as service:
        adapter = Azure4Adapter(endpoint=service.url, key=KEY)
        with pytest.raises(FatalError, match="invalid subscription key") as caught:
            adapter.ask([PNG])
        assert KEY not in str(caught.value)
        adapter.close()
        assert len(service.received) == 1


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


@pytest.mark.parametrize(
    ("status", "body", "kind", "content"),
    [
        (200, b"<html>", TransientError, "text/html"),
        (200, b"{", TransientError, "application/json"),
        (200, b"", TransientError, "application/json"),
        (200, b"[]", TransientError, "application/json"),
        (200, b"null", TransientError, "application/json"),
        (200, b'{"tagsResult": null}', TransientError, "application/json"),
        (401, b"<html>", FatalError, "text/html"),
        (403, b"", FatalError, "text/html"),
        (403, b'{"error": 3}', FatalError, "application/json"),
        (404, b"{", FatalError, "application/json"),
        (307, b"", FatalError, "text/html"),
        (302, b"", FatalError, "text/html"),
        (502, b"<html>", TransientError, "text/html"),
        (503, b"[]", TransientError, "application/json"),
        (503, b"{", TransientError, "application/json"),
        (413, b"too large", PermanentError, "text/plain"),
    ],
)
def test_what_a_proxy_says_is_judged_by_its_status(status, body, kind, content):
    elsewhere = f"http://127.0.0.1:{unused_port()}/"
    url, stop = answering(status, body, {"content-type": content, "location": elsewhere})
    adapter = Azure4Adapter(endpoint=url, key=KEY, timeout=3)
    with pytest.raises(kind) as caught:
        adapter.ask([b"x"])
    adapter.close()
    assert stop() == 1
    assert type(caught.value) is kind


@pytest.mark.skipif(not ANSWERS.is_dir(), reason="shared/data/answers is not beside the project")
def test_the_recorded_tags_come_through_in_the_form_of_4():
    files = sorted(Path(ANSWERS).glob("*.msft.json"))
    pictures = [
        Codec("png").encode(np.full((60, 60, 3), 9 * i, np.uint8)) for i in range(len(files))
    ]
    recorded = [json.loads(file.read_text())["tags"] for file in files]
    replies = {
        picture: {"modelVersion": "2023-10-01", "tagsResult": {"values": tags}}
        for picture, tags in zip(pictures, recorded, strict=True)
    }
    with serve("azure4", None, replies=replies.get) as service:
        adapter = Azure4Adapter(endpoint=service.url, key=KEY)
        for picture, tags in zip(pictures, recorded, strict=True):
            [answer] = adapter.ask([picture])
            best = max(tags, key=lambda tag: tag["confidence"], default={"name": None})
            assert top1(answer) == best["name"]
        adapter.close()


def test_threads_are_all_in_flight_at_once():
    at_once = 32
    gate = threading.Barrier(at_once)

    def backend(picture):
        gate.wait(20)  # passes only if all are being answered at the same time
        return by_colour(picture)

    with serve("azure4", backend) as service:
        adapter = Azure4Adapter(endpoint=service.url, key=KEY)
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
