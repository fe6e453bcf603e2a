"""Callers and providers that do what none should: nothing hangs, and no 5xx is of our making."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
import time
import zlib

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoothapi import http_protocol
from smoothapi.gateway import app
from smoothapi.services import serve
from smoothapi.wires.wire import Reply
from tests.unit.gateway.conftest import CONTENT, KITS, OTHER, RAW, call, post, tables
from tests.unit.wrapping.conftest import labeller

pytestmark = pytest.mark.timeout(60)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def mutated(value, draw):
    """Return JSON in which one part is something else."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: mutated(value[name], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [mutated(value[0], draw), *value[1:]]
    return draw(ANY_JSON | st.just(CONTENT))


@st.composite
def bodies(draw, name):
    """Draw a body that is nearly one of the provider's, or nothing like it."""
    good = RAW[name][2]
    kind = draw(st.sampled_from(["mutated", "bytes", "cut", "deep"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "cut":
        return good[: draw(st.integers(0, 300))]
    if kind == "deep":
        return b"[" * 100_000
    try:
        data = json.loads(good)
    except ValueError:
        return draw(st.binary(max_size=200))
    return json.dumps(mutated(data, draw)).encode()


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """Return name -> an application whose provider would take anything."""
    made = {}
    for name in KITS:
        config = tables(name, "http://127.0.0.1:9", tmp_path_factory.mktemp(name))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 20)
            made[name] = app(config)
        made[name].gateway.served[name].front._send = lambda *_, **__: Reply(418, b"{}")
    yield made
    for one in made.values():
        one.close()


@pytest.mark.parametrize("name", list(KITS))
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_brings_forth_an_error_of_the_gateways(name, answering, data):
    path, headers, _ = RAW[name]
    if data.draw(st.booleans()):
        path += data.draw(
            st.text(st.characters(codec="latin-1", exclude_characters="?#"), max_size=6)
        )
    body = data.draw(bodies(name))
    more = data.draw(
        st.dictionaries(
            st.sampled_from(["content-type", "authorization", "x-amz-target", "content-encoding"]),
            st.text(st.characters(codec="latin-1"), max_size=20),
            max_size=2,
        )
    )
    method = data.draw(st.sampled_from(["POST", "GET", "PUT"]))
    reply = call(answering[name], method, path, {**headers, **more}, body)
    assert 400 <= reply.status < 500
    json.loads(reply.body)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("name", list(KITS))
def test_other_methods_are_refused_in_the_providers_words(name, method, answering):
    path, headers, body = RAW[name]
    reply = call(answering[name], method, path, headers, body)
    assert 400 <= reply.status < 500
    assert reply.headers["x-smoothapi-outcome"] == "refused"
    assert (reply.body == b"") == (method == "HEAD"), "a reply to HEAD has no body"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/smoothapi/"])
def test_head_of_the_gateways_own_pages_has_the_headers_of_get(path, answering):
    shown = {"x-smoothapi-token": "sgw_1"}
    get, head = (call(answering["aws"], method, path, shown) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert call(answering["aws"], "POST", path, shown).status == 404


@given(path=st.text(st.characters(codec="latin-1"), max_size=30), token=st.text(max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_gateways_own_pages_answer_whatever_is_asked(path, token, answering):
    headers = {"authorization": f"Basic {token}", "x-smoothapi-token": token}
    reply = call(answering["aws"], "GET", f"/smoothapi/{path}", headers)
    assert reply.status in {200, 401, 404}


@pytest.mark.parametrize(
    "fault", ["reset", "half", "garbage", "inside", "timeout", "late", "slow", "403", "quota"]
)
def test_whatever_the_provider_does_the_caller_is_told_in_its_words(fault, start, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_ATTEMPTS", "1")
    monkeypatch.setenv("SMOOTHAPI_DEADLINE", "0.5")
    with serve("aws", labeller, faults=f"99x{fault}", late=0.2, drip=0.2) as service:
        found = post(start("aws", service, options={"timeout": 0.4}).url, "aws")
    assert found.status_code in {200, 400, 500, 503}
    data = found.json()
    assert found.status_code == 200 or data["__type"]


@pytest.mark.parametrize("fault", ["reset", "garbage", "503", "429"])
def test_votes_that_fail_end_as_the_deployment_chose(fault, start, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_ATTEMPTS", "1")
    monkeypatch.setenv("SMOOTHAPI_DEADLINE", "0.5")
    with serve("aws", labeller, faults=f"@2- {fault}") as service:
        found = post(start("aws", service, certify={"otherwise": "plain"}).url, "aws")
    assert found.status_code == 200
    assert found.headers["x-smoothapi-outcome"] == "provider"
    assert [label["Name"] for label in found.json()["Labels"]] == ["Bus", "Vehicle", "Van"]


def raw(gateway, *pieces, wait=0.0):
    """Send bytes as they are; return what comes until the end of the connection, or 1 s of silence."""
    host, _, port = gateway.address.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(wait)
        sock.settimeout(1.0)
        received = b""
        try:
            while data := sock.recv(65_536):
                received += data
        except (TimeoutError, ConnectionError):
            pass
        return received


def test_requests_on_one_connection_are_answered_in_turn(aws, start):
    gateway = start("aws", aws)
    path, headers, body = RAW["aws"]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    one = f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n".encode()
    received = raw(gateway, (one + body) * 2)
    assert received.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: y\r\n\r\n",
        b"content-length: 5\r\ncontent-length: 50\r\n\r\nhello",
        b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"content-length: -1\r\n\r\n",
        b"x: a\nb: c\r\n\r\n",
    ],
)
def test_framing_that_can_be_read_in_two_ways_reaches_no_provider(head, upstream, start):
    gateway = start("aws", upstream, provider={"passthrough": True})
    first = b"POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: RekognitionService.DetectText\r\n"
    received = raw(gateway, first + head)
    assert b" 500 " not in received
    for _, _, headers, body in upstream.received:
        assert "transfer-encoding" not in headers
        assert int(headers.get("content-length", 0)) == len(body)


def test_a_target_leads_to_no_other_host(upstream, start):
    gateway = start("aws", upstream, provider={"passthrough": True})
    head = b"host: x\r\nx-amz-target: RekognitionService.DetectText\r\ncontent-length: 0\r\n\r\n"
    for target in (b"http://169.254.169.254/", b"//169.254.169.254/", b"@169.254.169.254/"):
        assert b" 200 " not in raw(gateway, b"POST " + target + b" HTTP/1.1\r\n" + head)
    assert upstream.received == []


def test_who_sends_too_slowly_is_cut_off_and_the_others_are_served(aws, start, monkeypatch):
    monkeypatch.setattr(http_protocol, "_WITHIN", 0.3)
    gateway = start("aws", aws, workers=1, queue=1)
    head = b"POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: RekognitionService.DetectLabels\r\n"
    began = b"content-length: 1000\r\n\r\n{"
    host, _, port = gateway.address.rpartition(":")
    slow = [socket.create_connection((host, int(port)), 20) for _ in range(3)]
    for sock, piece in zip(slow, (head, head + began, head + began), strict=True):
        sock.sendall(piece)
    deadline = time.monotonic() + 30
    for sock in slow:
        sock.settimeout(20)
        with sock:
            while time.monotonic() < deadline:
                try:
                    if not sock.recv(65_536):
                        break
                except ConnectionError:
                    break
    assert post(gateway.url, "aws").status_code == 200, "the places of those who left are free"


def test_a_bomb_is_not_unpacked(aws, start):
    gateway = start("aws", aws)
    packed = post(
        gateway.url, "aws", body=gzip.compress(b"0" * 10**6), headers={"content-encoding": "gzip"}
    )
    assert packed.status_code == 400
    sides = struct.pack(">II", 60_000, 60_000) + b"\x08\x02\0\0\0"
    parts = [(b"IHDR", sides), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    huge = json.dumps({"Image": {"Bytes": base64.b64encode(png).decode()}}).encode()
    assert post(gateway.url, "aws", body=huge).status_code == 400
    assert requests.get(f"{gateway.url}/healthz", timeout=20).status_code == 200


@pytest.mark.parametrize("status", [101, 204, 304, 418, 599, 600, 999])
def test_odd_answers_of_a_provider_are_handed_on_or_told(status, upstream, start):
    headers = {"x-smoothapi-outcome": "certified", "x-folded": "a\r\n b", "x-own": "kept"}
    upstream.reply = (status, headers, b"" if status in (101, 204, 304) else b"body")
    gateway = start("aws", upstream, provider={"passthrough": True}, options={"timeout": 2})
    found = post(gateway.url, "aws", OTHER)
    if 200 <= status < 600:
        assert found.status_code == status
        assert found.headers["x-smoothapi-outcome"] == "passed"
        assert found.headers["x-own"] == "kept"
        assert "\n" not in found.headers.get("x-folded", "")
    else:
        assert found.json()["__type"]


def test_a_page_in_a_browser_spends_no_money_of_a_gateway_that_lets_in_anyone(aws, start):
    gateway = start("aws", aws)
    assert post(gateway.url, "aws", headers={"origin": "https://evil.example"}).status_code == 403
    assert aws.requests == 0
    page = f"{gateway.url}/smoothapi/"
    assert requests.get(page, timeout=20).status_code == 200
    assert requests.get(page, headers={"host": "evil.example:8760"}, timeout=20).status_code == 401
