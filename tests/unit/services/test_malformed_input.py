"""Requests that are malformed or mean harm, and labels that do."""

from __future__ import annotations

import logging
import socket

import pytest

from smoothapi.answer import Answer, Label
from smoothapi.services import PROVIDERS, by_colour, serve
from tests.unit.services.conftest import picture
from tests.waiting import PATIENCE

ON_HTTP = [name for name in PROVIDERS if name != "google-grpc"]
HOSTILE = [
    "two\r\nX-Injected: yes",
    "日本語 🚌",
    "\x00\x1b[31m",
    "<script>alert(1)</script>",
    "q" * 5000,
]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_labels_arrive_as_they_are_and_break_nothing(provider, calling):
    labels = [(name, 0.5) for name in HOSTILE]
    with serve(
        provider, lambda _: Answer(tuple(Label(*pair) for pair in labels), "v\r\n1: 2")
    ) as service:
        assert calling(service).ask(picture()) == labels


@pytest.mark.parametrize("provider", ON_HTTP)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'{"Image":{"Bytes":"AAAA"},"MinConfidence":1e999,"requests":1e999,"inputs":1e999}',
        b'{"Image":{"Bytes":NaN},"requests":NaN,"inputs":NaN}',
        b'{"Image":{"Bytes":"%%%"},"requests":[{"image":{"content":"%%%"}}],"inputs":[{"data":{"image":{"base64":"%%%"}}}]}',
        b'{"Image":7,"requests":[7],"inputs":[7]}',
        b'{"Image":{"Bytes":7},"requests":[{"image":7}],"inputs":[{"data":7}]}',
        b'{"Image":{"Bytes":"AAAA"},"MaxLabels":' + b"9" * 5000 + b',"requests":[{"features":[{"maxResults":' + b"9" * 5000 + b'}]}],"inputs":[{}]}',
        b'{"Image":{"Bytes":"AAAA"},"MaxLabels":99999999999,"requests":[{"features":[{"maxResults":99999999999}]}],"inputs":[{}]}',
        b'{"Image":{"Bytes":"' + "é".encode() + b'"},"requests":[{"image":{"content":"' + "é".encode() + b'"}}],"inputs":[{"data":{"image":{"base64":"' + "é".encode() + b'"}}}]}',
        b'{"Image":{"Bytes":"\\ud800"},"requests":[{"\\ud800":1}],"inputs":[{"data":{"image":{"base64":"\\ud800"}}}]}',
    ],
)  # fmt: skip
def test_hostile_bodies_are_refused_and_nothing_breaks(provider, body, caplog):
    import requests

    headers = {
        "aws": {
            "X-Amz-Target": "RekognitionService.DetectLabels",
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Date": "20261122T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=k/20261122/us-east-1/rekognition/"
            "aws4_request, SignedHeaders=host, Signature=00",
        },
        "google": {"Content-Type": "application/json"},
        "azure": {"Ocp-Apim-Subscription-Key": "k", "Content-Type": "application/octet-stream"},
        "azure4": {"Ocp-Apim-Subscription-Key": "k", "Content-Type": "application/octet-stream"},
        "clarifai": {"Authorization": "Key k", "Content-Type": "application/json"},
    }[provider]
    paths = {"clarifai": "/v2/users/u/apps/a/models/m/outputs"}
    query = "?api-version=2023-10-01&features=tags" if provider == "azure4" else ""
    with caplog.at_level(logging.DEBUG, "smoothapi"), serve(provider, by_colour) as service:
        path = paths.get(provider, service.wire.paths[0])
        response = requests.post(
            service.url + path + query, data=body, headers=headers, timeout=PATIENCE
        )
        text = response.text
        assert response.status_code == (200 if "responses" in text else 400), text
        assert "error" in text or "Code" in text or '"code":' in text
        assert service.billed == 0
        assert len(service.received) == 1
    assert not caplog.records  # nothing that the service did not foresee


@pytest.mark.parametrize("provider", ON_HTTP)
def test_other_paths_and_methods_are_not_found(provider):
    import requests

    with serve(provider, by_colour) as service:
        session = requests.Session()
        for method, path in [
            ("GET", service.wire.paths[0]),
            ("DELETE", service.wire.paths[0]),
            ("POST", "/elsewhere"),
            ("POST", "/..%2f..%2fetc/passwd"),
            ("POST", "//" + service.wire.paths[0].strip("/")),
            ("POST", "/%0d%0aX-Injected:%20yes"),
        ]:
            response = session.request(
                method,
                service.url + path,
                timeout=PATIENCE,
                headers={"Ocp-Apim-Subscription-Key": "k", "Authorization": "Key k"},
            )
            assert 400 <= response.status_code < 500, (method, path, response.text)
            assert "X-Injected" not in response.headers
            response.json()
        session.close()
        assert [r.operation for r in service.received][2:] == ["", "", "", ""]
        assert all(r.refused for r in service.received)


def test_garbage_instead_of_http_leaves_the_service_alive(calling, caplog):
    with serve("aws", by_colour) as service:
        for noise in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9\r\n\r\n", b"\r\n" * 50):
            with socket.create_connection((service.host, service.port), timeout=PATIENCE) as line:
                line.sendall(noise)
        with socket.create_connection((service.host, service.port), timeout=PATIENCE) as line:
            line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        assert calling(service).ask(picture())[0][0] == "red"
        assert len(service.received) == 1  # a request that never was complete is none
