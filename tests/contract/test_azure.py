"""Azure 3.2 through the real SDK, which sends in chunks, against a local service."""

from __future__ import annotations

import gc
import http.server
import json
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from azure.cognitiveservices.vision.computervision import ComputerVisionClient
from msrest.authentication import CognitiveServicesCredentials

from smoothapi.certify.labels import top1
from smoothapi.encode import Codec
from smoothapi.errors import FatalError, PermanentError, ProviderError, TransientError
from smoothapi.services import serve
from smoothapi.testing import AdapterContract, by_colour
from smoothapi.testing.contract import unused_port
from smoothapi.testing.faults import Fault
from smoothapi_adapters.azure import common as azure_common
from smoothapi_adapters.azure import AzureAdapter

KEY = "0123456789abcdef0123456789abcdef"
PNG = Codec("png").encode(np.full((96, 96, 3), 90, np.uint8))
ANSWERS = Path(__file__).parents[3] / "shared" / "data" / "answers"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in (*azure_common.ENDPOINT_VARIABLES, *azure_common.KEY_VARIABLES):
        monkeypatch.delenv(name, raising=False)


class TestAzure(AdapterContract):
    provider = "azure"
    adapter_class = AzureAdapter
    features = "tags"
    backend = staticmethod(by_colour)
    # Of no tags at all the SDK makes what it makes of `{}`: the answer is malformed.
    meant = {Fault.inside: (TransientError,)}

    def adapter_at(self, url, **options):
        return self.adapter_class(endpoint=url, features=self.features, **{"key": KEY, **options})

    @pytest.fixture
    def service(self):
        with serve(self.provider, self.backend, key=KEY) as service:
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
            services.append(
                serve(self.provider, self.backend, faults=f"@1- {fault}", late=0.6, drip=1.5)
            )
            return self.adapter_at(services[-1].url, timeout=0.4)

        yield make
        for service in services:
            service.close()

    @pytest.fixture
    def without_credentials(self, service):
        return self.adapter_at(service.url, key=None)


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


@pytest.mark.parametrize("fault", [*map(str, Fault)])
def test_each_fault_is_met_with_one_request(fault):
    with serve("azure", by_colour, faults=f"@1- {fault}", late=0.5, drip=1.2) as service:
        adapter = AzureAdapter(endpoint=service.url, key=KEY, timeout=0.3)
        with pytest.raises(ProviderError):
            adapter.ask([PNG])
        adapter.close()
        assert len(service.received) == 1


@pytest.mark.parametrize("fault", ["500", "503", "429-wait", "reset"])
def test_a_given_client_is_asked_once_and_stays_as_it_was(fault):
    with serve("azure", by_colour, faults=f"1x{fault}") as service:
        client = ComputerVisionClient(service.url, CognitiveServicesCredentials(KEY))
        before = client.config.retry_policy.policy.total
        adapter = AzureAdapter(client=client, timeout=5)
        assert adapter.credentials().found
        with pytest.raises(TransientError):
            adapter.ask([PNG])
        assert len(service.received) == 1
        [answer] = adapter.ask([PNG])
        adapter.close()
        assert client.config.retry_policy.policy.total == before == 3
        import io

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
        adapter = AzureAdapter(client=client, timeout=5)
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


def answering(status, body, headers=None):
    """A server of a proxy's kind: whatever is asked, it answers with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        seen = 0

        def do_POST(self):
            type(self).seen += 1
            if length := self.headers["content-length"]:
                self.rfile.read(int(length))
            else:
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def stop():
        server.shutdown()
        server.server_close()
        thread.join()
        return Handler.seen

    return f"http://127.0.0.1:{server.server_port}", stop


@pytest.mark.parametrize(
    ("status", "body", "kind", "content"),
    [
        (200, b"<html>", TransientError, "text/html"),
        (200, b"{", TransientError, "application/json"),
        (200, b"", TransientError, "application/json"),
        (200, b"[]", TransientError, "application/json"),
        (200, b"null", TransientError, "application/json"),
        (200, b'{"tags": null}', TransientError, "application/json"),
        (401, b"<html>", FatalError, "text/html"),
        (403, b"", FatalError, "text/html"),
        (403, b'{"error": 3}', FatalError, "application/json"),
        (307, b"", FatalError, "text/html"),
        (302, b"", FatalError, "text/html"),
        (502, b"<html>", TransientError, "text/html"),
        (503, b"[]", TransientError, "application/json"),
        (413, b"too large", PermanentError, "text/plain"),
    ],
)
@pytest.mark.parametrize("features", ["tags", "tags,adult"])
def test_what_a_proxy_says_is_judged_by_its_status(status, body, kind, content, features):
    elsewhere = f"http://127.0.0.1:{unused_port()}/"
    url, stop = answering(status, body, {"content-type": content, "location": elsewhere})
    adapter = AzureAdapter(endpoint=url, key=KEY, features=features, timeout=3)
    with pytest.raises(kind) as caught:
        adapter.ask([b"x"])
    adapter.close()
    assert stop() == 1
    assert type(caught.value) is kind


@pytest.mark.skipif(not ANSWERS.is_dir(), reason="shared/data/answers is not beside the project")
def test_all_recorded_answers_come_through():
    files = sorted(ANSWERS.glob("*.msft.json"))
    pictures = [
        Codec("png").encode(np.full((60, 60, 3), 9 * i, np.uint8)) for i in range(len(files))
    ]
    recorded = [json.loads(file.read_text()) for file in files]
    replies = dict(zip(pictures, recorded, strict=True))
    with serve("azure", None, replies=replies.get) as service:
        adapter = AzureAdapter(endpoint=service.url, key=KEY)
        answers = [adapter.ask([picture])[0] for picture in pictures]
        adapter.close()
    assert len(answers) == 23
    for answer, reply in zip(answers, recorded, strict=True):
        best = max(reply["tags"], key=lambda tag: tag["confidence"], default={"name": None})
        assert top1(answer) == best["name"]
        assert answer.request_id == reply["requestId"]


def test_threads_are_all_in_flight_at_once_and_leave_nothing_open():
    at_once = 32
    gate = threading.Barrier(at_once)

    def backend(picture):
        gate.wait(20)  # passes only if all are being answered at the same time
        return by_colour(picture)

    with warnings.catch_warnings(record=True) as seen, serve("azure", backend) as service:
        warnings.simplefilter("always")
        adapter = AzureAdapter(endpoint=service.url, key=KEY)
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
        gc.collect()
    assert len(outcomes) == at_once
    assert not [str(w.message) for w in seen if issubclass(w.category, ResourceWarning)]
