"""A gateway before a local service of each provider, and callers with the SDK that its users have."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
import requests

from smoothapi.gateway import read_config
from smoothapi.gateway.server import GatewayServer
from smoothapi.services import serve
from tests.unit.wrapping.conftest import KITS as WRAPPED
from tests.unit.wrapping.conftest import PHOTO, Kit, give_up_soon, labeller

AWS_KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "gateways-own-secret-of-aws",
    "AWS_SESSION_TOKEN": "gateways-own-session-token",
}
OWN_KEY = "gateways-own-key-0123456789abcdef"
CERTIFY = {"denoiser": "none", "max_votes": 40, "radius": 0.05, "alpha": 0.01, "concurrency": 4}
WAIT = 50  # seconds for an answer, however busy the machine is
OUTPUTS = "/v2/users/clarifai/apps/main/models/general-image-recognition/outputs"


class Clarifai:
    """What users of Clarifai without an SDK write."""

    def __init__(self, url, key="any"):
        self.url, self.key = url, key

    def ask(self, *photos, image=None):
        inputs = [{"data": {"image": {"base64": base64.b64encode(p).decode()}}} for p in photos]
        if image is not None:
            inputs = [{"data": {"image": image}}]
        response = requests.post(
            self.url + OUTPUTS,
            headers={"Authorization": f"Key {self.key}"},
            json={"inputs": inputs},
            timeout=WAIT,
        )
        response.raise_for_status()
        return response.json()


KITS = {
    **{name: kit for name, kit in WRAPPED.items() if name != "google-grpc"},
    "clarifai": Kit(
        "clarifai",
        lambda service: Clarifai(service.url),
        lambda client, photo=PHOTO: client.ask(photo),
        lambda response: {
            row["name"]: row["value"] for row in response["outputs"][0]["data"]["concepts"]
        },
        lambda response: {
            row["name"]: row["certified"] for row in response["outputs"][0]["data"]["concepts"]
        },
        None,
        "",
        lambda client: client.ask(image={"url": "http://127.0.0.1:9/x.png"}),
    ),
}


def options_of(name, url):
    """Return the options by which a gateway reaches a local service."""
    signs = {"aws": {"region": "us-east-1"}, "google": {"api_key": OWN_KEY}}
    signs["clarifai"] = {"pat": OWN_KEY}
    return {"endpoint": url, **signs.get(name, {"key": OWN_KEY})}


def tables(name, url, home, *, provider=None, certify=None, options=None, **gateway):
    """Return a configuration for tests; each part may be changed."""
    return {
        "gateway": {"port": 0, "callers": "anyone", **gateway},
        "certify": {**CERTIFY, "home": str(home), **(certify or {})},
        "providers": {
            name: {
                "budget": "$5/day",
                "options": {**options_of(name, url), **(options or {})},
                **(provider or {}),
            }
        },
    }


@pytest.fixture(autouse=True)
def _own_credentials(monkeypatch):
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def soon_given_up(monkeypatch):
    """Have a service that is down given up soon, and nothing tried again."""
    give_up_soon(monkeypatch)
    monkeypatch.setenv("SMOOTHAPI_ATTEMPTS", "1")


@pytest.fixture(params=list(KITS))
def kit(request):
    return KITS[request.param]


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a gateway before a service."""
    with ExitStack() as stack:

        def begin(name, upstream, **changes):
            home = changes.pop("home", tmp_path / "home")
            url = getattr(upstream, "url", upstream)
            config = read_config(tables(name, url, home, **changes))
            return stack.enter_context(GatewayServer(config))

        yield begin


@pytest.fixture
def service(kit):
    with serve(kit.service, labeller) as service:
        yield service


@pytest.fixture
def aws():
    with serve("aws", labeller) as service:
        yield service


class Upstream:
    """A provider that answers whatever the test wishes, and tells what it was sent."""

    def __init__(self):
        self.received = []
        self.reply = (200, {"content-type": "application/json"}, b"{}")
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece

            def _answer(self):
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                upstream.received.append((self.command, self.path, self.headers, body))
                status, headers, sent = upstream.reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  http.server's names

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def upstream():
    made = Upstream()
    yield made
    made.close()


# One request of each provider that asks for labels, without an SDK: path, headers, body.
CONTENT = base64.b64encode(PHOTO).decode()
JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}
AMZ = {
    "content-type": "application/x-amz-json-1.1",
    "x-amz-target": "RekognitionService.DetectLabels",
}
RAW = {
    "aws": ("/", AMZ, json.dumps({"Image": {"Bytes": CONTENT}}).encode()),
    "google": (
        "/v1/images:annotate",
        JSON,
        json.dumps(
            {
                "requests": [
                    {"image": {"content": CONTENT}, "features": [{"type": "LABEL_DETECTION"}]}
                ]
            }
        ).encode(),
    ),
    "azure": ("/vision/v3.2/tag", OCTETS, PHOTO),
    "azure4": (
        "/computervision/imageanalysis:analyze?features=tags&api-version=2023-10-01",
        OCTETS,
        PHOTO,
    ),
    "clarifai": (
        OUTPUTS,
        JSON,
        json.dumps({"inputs": [{"data": {"image": {"base64": CONTENT}}}]}).encode(),
    ),
}
# And one that asks for something else.
OTHER = {
    "aws": ("/", {**AMZ, "x-amz-target": "RekognitionService.DetectFaces"}, b'{"Image": {}}'),
    "google": ("/v1/projects/mine/locations/eu/productSets", JSON, b'{"displayName": "ours"}'),
    "azure": ("/vision/v3.2/describe?maxCandidates=2", OCTETS, PHOTO),
    "azure4": ("/computervision/imageanalysis:segment?mode=x", OCTETS, PHOTO),
    "clarifai": ("/v2/users/me/apps/mine/inputs", JSON, b'{"inputs": []}'),
}


def post(url, name, what=RAW, *, headers=None, body=None):
    """Send one of the requests above."""
    path, own, data = what[name]
    return requests.post(
        url + path,
        headers={**own, **(headers or {})},
        data=data if body is None else body,
        timeout=WAIT,
    )


class Reply:
    """What an ASGI application answered."""

    def __init__(self, messages):
        self.status = self.status_code = messages[0]["status"]
        self.headers = {n.decode(): v.decode() for n, v in messages[0]["headers"]}
        self.body = b"".join(one.get("body", b"") for one in messages[1:])

    def json(self):
        return json.loads(self.body)


def call(app, method, path, headers=(), body=b"", *, root="", pieces=None):
    """Call an ASGI application once, in this process."""
    path, _, query = path.partition("?")
    parts = list(pieces if pieces is not None else [body])

    async def run():
        sent = []

        async def receive():
            if parts:
                part = parts.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(parts)}
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": unquote(root + path),
            "raw_path": (root + path).encode("utf-8", "surrogateescape"),
            "root_path": root,
            "query_string": query.encode("utf-8", "surrogateescape"),
            "headers": [
                (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
                for name, value in {"host": "localhost:1", **dict(headers)}.items()
            ],
        }
        await asyncio.wait_for(app(scope, receive, send), WAIT)
        return sent

    return Reply(asyncio.run(run()))
