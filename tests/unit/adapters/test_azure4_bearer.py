"""Clients of Azure 4.0 with a bearer policy: what it would send again is counted."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.pipeline.policies import BearerTokenCredentialPolicy

from smoothapi import Budget, Retry, Smoother, certificate_of, wrap
from smoothapi.encode import Codec
from smoothapi_adapters.azure import Azure4Adapter

PHOTO = Codec().encode(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
SEEN = {
    "modelVersion": "1",
    "metadata": {},
    "tagsResult": {"values": [{"name": "Bus", "confidence": 0.9}]},
}
FAST = {
    "denoiser": "none",
    "radius": 0.02,
    "alpha": 0.05,
    "max_votes": 40,
    "size": 60,
    "sigma": 0.25,
}


class Identity:
    def get_token(self, *scopes, **options):
        return AccessToken("token", 2**40)


class Again(BearerTokenCredentialPolicy):
    """Signs over http, for this test, and sends again whatever was refused."""

    def on_request(self, request):
        request.http_request.headers["Authorization"] = "Bearer token"

    def on_challenge(self, request, response):
        return True


@contextmanager
def refusing(which):
    """Serve, refusing requests of these numbers with a challenge; give a list of all."""
    numbers = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece

        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                numbers.append(self.headers.get("Authorization"))
                refused = len(numbers) in which
            body = json.dumps({} if refused else SEEN).encode()
            self.send_response(401 if refused else 200)
            if refused:
                self.send_header("WWW-Authenticate", 'Bearer error="insufficient_claims"')
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # or a caller of many at once waits a second to be let in

    lock = threading.Lock()
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", numbers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def client(url):
    policy = Again(Identity(), "scope")
    made = ImageAnalysisClient(url, AzureKeyCredential("-"), authentication_policy=policy)
    with made:
        yield made


RETRY = Retry(attempts=3, base=0.001, cap=0.002, deadline=60.0)


def test_a_request_that_its_policy_would_send_again_counts_as_another_attempt():
    with refusing({2, 5}) as (url, received), client(url) as given:
        with Smoother(
            Azure4Adapter(client=given), retry=RETRY, concurrency=1, budget="60", **FAST
        ) as smoother:
            photo = np.zeros((60, 60, 3), dtype=np.uint8)
            certificate = smoother.certify(photo)
        assert certificate.label == "Bus"
        assert certificate.attempts == len(received) == certificate.queries + 2


def test_a_budget_is_not_exceeded_by_what_a_policy_would_send_again():
    with refusing(set(range(3, 100, 2))) as (url, received), client(url) as given:
        wrapped = wrap(given, budget=Budget(attempts=10), retry=RETRY, otherwise="plain", **FAST)
        response = wrapped.analyze(PHOTO, ["tags"])
        assert [tag.name for tag in response.tags.list] == ["Bus"]
        with pytest.raises(Exception, match="no such certificate"):
            certificate_of(response)
        assert len(received) == 10
        wrapped.close()


def test_the_client_itself_is_not_changed():
    with refusing({1}) as (url, received), client(url) as given:
        adapter = Azure4Adapter(client=given)
        adapter.close()
        assert given.analyze(PHOTO, ["tags"]).tags.list[0].name == "Bus"
        assert len(received) == 2
        assert set(received) == {"Bearer token"}
