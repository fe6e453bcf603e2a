"""Callers and providers that do what none should: nothing hangs, and no 5xx is of our making.

Requests of every kind are made up by `benchmarks/fuzz.py calls`, of which tests/test_fuzz.py runs
a few.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
import socket
import struct
import time
import zlib
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoothapi import http_protocol
from smoothapi.gateway import app
from smoothapi.services import serve
from smoothapi.wires.wire import Reply
from tests.unit.gateway.conftest import KITS, OTHER, RAW, call, post, tables
from tests.unit.wrapping.conftest import labeller

OPEN = Path("/proc/self/fd")

pytestmark = pytest.mark.timeout(60)


@contextmanager
def no_file_is_free():
    """Let this process open no file."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        most = max(int(file.name) for file in OPEN.iterdir()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


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


@pytest.mark.usefixtures("soon_given_up")
@pytest.mark.parametrize("fault", ["reset", "garbage", "503", "429"])
def test_votes_that_fail_end_as_the_deployment_chose(fault, start):
    long = 1000.0  # beyond any deadline
    with serve("aws", labeller, faults=f"@2- {fault}", retry_after=long) as service:
        found = post(start("aws", service, certify={"otherwise": "plain"}).url, "aws")
    assert found.status_code == 200
    assert found.headers["x-smoothapi-outcome"] == "provider"
    assert [label["Name"] for label in found.json()["Labels"]] == ["Bus", "Vehicle", "Van"]


def raw(gateway, *pieces, wait=0.0, replies=0):
    """Send bytes as they are; return what comes until the end of the connection, or 1 s of silence.

    Of so many replies each may take as long as it does.
    """
    host, _, port = gateway.address.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(wait)
        received = b""
        try:
            while True:
                sock.settimeout(20.0 if received.count(b"HTTP/1.1 ") < replies else 1.0)
                if not (data := sock.recv(65_536)):
                    break
                received += data
        except (TimeoutError, ConnectionError):
            pass
        return received


def test_requests_on_one_connection_are_answered_in_turn(aws, start):
    gateway = start("aws", aws)
    path, headers, body = RAW["aws"]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    one = f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n".encode()
    received = raw(gateway, (one + body) * 2, replies=2)
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


@pytest.mark.parametrize("name", ["aws", "google", "clarifai"])
def test_a_body_that_can_be_read_in_two_ways_reaches_no_provider(name, answering):
    path, headers, body = RAW[name]
    [(first, told)] = json.loads(body).items()
    twice = f'{{"{first}": {json.dumps(told)}, "{first}": {json.dumps(told)}}}'
    for odd in (
        twice,
        body.decode().replace("}", ', "x": NaN}', 1),
        body.decode().encode("utf-16"),
    ):
        reply = call(
            answering[name], "POST", path, headers, odd if isinstance(odd, bytes) else odd.encode()
        )
        assert (reply.status, reply.headers["x-smoothapi-outcome"]) == (400, "refused")


@pytest.mark.parametrize("more", ["&features=caption", "&Features=caption", "&%66eatures="])
def test_a_query_that_can_be_read_in_two_ways_reaches_no_provider(more, upstream, tmp_path):
    gateway = app(tables("azure4", upstream.url, tmp_path, provider={"passthrough": True}))
    path, headers, body = RAW["azure4"]
    try:
        reply = call(gateway, "POST", path + more, headers, body)
    finally:
        gateway.close()
    assert (reply.status, reply.headers["x-smoothapi-outcome"]) == (400, "refused")
    assert "twice" in reply.body.decode()
    assert upstream.received == []


def test_a_header_that_cannot_be_written_is_left_out(upstream, tmp_path):
    gateway = app(tables("azure4", upstream.url, tmp_path, provider={"passthrough": True}))
    path, headers, body = OTHER["azure4"]
    odd = {"x-one": "a\r\nx-two: b", "x-three": "\0", "x four": "c", "x-five": "d"}
    try:
        reply = call(gateway, "POST", path, {**headers, **odd}, body)
    finally:
        gateway.close()
    assert reply.headers["x-smoothapi-outcome"] == "passed"
    [(_, _, sent, _)] = upstream.received
    assert {name for name in sent if name.startswith("x")} == {"x-five"}


def test_a_path_that_may_lead_elsewhere_reaches_no_provider(upstream, start):
    gateway = start("azure", upstream, provider={"passthrough": ["describe", "detect"]})
    told = b"HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    for path in (
        b"/vision/v3.2/detect#/describe",
        b"/vision/v3.2/detect%23/describe",
        b"/vision/v3.2/detect%3f/describe",
        b"/vision/../face/v1.0/describe",
        b"/vision/%2e%2E/face/describe",
        b"/vision/..%5cface/describe",
        b"/vision/v3.2/./describe",
        b"/vision/..",
    ):
        received = raw(gateway, b"POST %s %s" % (path, told), replies=1)
        assert received.startswith(b"HTTP/1.1 404"), path
    assert upstream.received == []


@pytest.mark.parametrize("passthrough", [True, ["imageanalysis:analyze"]])
def test_what_is_behind_a_number_sign_decides_nothing(passthrough, upstream, tmp_path):
    passed = {"passthrough": passthrough}
    gateway = app(tables("azure4", upstream.url, tmp_path, provider=passed))
    path, headers, body = RAW["azure4"]
    try:
        reply = call(gateway, "POST", f"{path}#&features=caption", headers, body)
    finally:
        gateway.close()
    assert reply.headers["x-smoothapi-outcome"] != "passed"
    assert {target for _, target, _, _ in upstream.received} == {path}


@pytest.mark.parametrize("written", ["key", "%6bey", "k%65y"])
def test_a_token_in_the_query_is_not_sent_on_however_it_is_written(written, upstream, tmp_path):
    config = tables(
        "google", upstream.url, tmp_path, provider={"passthrough": True}, callers="tokens"
    )
    gateway = app(config)
    token = gateway.gateway.records.add_token("team")
    path, headers, body = OTHER["google"]
    try:
        reply = call(gateway, "POST", f"{path}?alt=js%6Fn&{written}={token}&x", headers, body)
    finally:
        gateway.close()
    assert reply.headers["x-smoothapi-outcome"] == "passed"
    [(_, target, sent, _)] = upstream.received
    assert target == f"{path}?alt=js%6Fn&x"
    assert token not in str(sent)


def raw_deflate(body):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


NOTHING = gzip.compress(b"")
PACKED = {
    "plain": ("identity", lambda body: body),
    "gzip": ("gzip", gzip.compress),
    "gzip, after what is not packed": ("identity, GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", raw_deflate),
    "the second member": ("gzip", lambda body: NOTHING + gzip.compress(body)),
    "over two members": ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    "a member behind zeros": ("x-gzip", lambda body: NOTHING + bytes(40_000) + gzip.compress(body)),
    "half a member": ("gzip", lambda body: gzip.compress(body + bytes(99))[:-9]),
    "behind what is no member": ("gzip", lambda body: NOTHING + b"nonsense" + body),
    "behind all that is read": ("gzip", lambda body: gzip.compress(bytes(17 * 2**20) + body)),
    "behind many members": ("gzip", lambda body: NOTHING * 800_000 + gzip.compress(body)),
    "twice": ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    "too often": ("gzip, " * 9, gzip.compress),
}


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"{}"), gzip.compress(b"{") + gzip.compress(b"}"), b"no gzip", b""],
    ids=["one member", "two members", "no gzip", "empty"],  # the bytes hold the time
)
def test_an_answer_is_handed_on_as_it_was_packed(body, upstream, tmp_path):
    gateway = app(tables("azure", upstream.url, tmp_path, provider={"passthrough": True}))
    path, headers, sent = OTHER["azure"]
    upstream.reply = (200, {"content-encoding": "gzip"}, body)
    try:
        reply = call(gateway, "POST", path, {**headers, "accept-encoding": "gzip"}, sent)
    finally:
        gateway.close()
    assert (reply.status, reply.headers["content-encoding"], reply.body) == (200, "gzip", body)


@pytest.mark.parametrize(
    ("packed", "write"),
    [
        *((packed, str) for packed in PACKED),
        ("plain", lambda key: json.dumps(key).replace("/", "\\/")),
        ("gzip", quote_plus),
    ],
)
def test_an_answer_that_repeats_the_gateways_key_is_not_handed_on(
    packed, write, upstream, tmp_path
):
    kind, pack = PACKED[packed]
    key = "gateways/own+key=0123456789"
    options = {"key": key}
    gateway = app(
        tables("azure", upstream.url, tmp_path, provider={"passthrough": True}, options=options)
    )
    path, headers, body = OTHER["azure"]
    upstream.reply = (403, {"content-encoding": kind}, pack(f"no: {write(key)}".encode()))
    try:
        reply = call(gateway, "POST", path, {**headers, "accept-encoding": "br, gzip"}, body)
    finally:
        gateway.close()
    assert reply.status in {500, 503}
    assert reply.headers["x-smoothapi-outcome"] == "provider"
    [(_, _, sent, _)] = upstream.received
    assert sent["accept-encoding"] == "gzip"


def test_a_target_leads_to_no_other_host(upstream, start):
    gateway = start("aws", upstream, provider={"passthrough": True})
    head = b"host: x\r\nx-amz-target: RekognitionService.DetectText\r\ncontent-length: 0\r\n\r\n"
    for target in (b"http://169.254.169.254/", b"//169.254.169.254/", b"@169.254.169.254/"):
        assert b" 200 " not in raw(gateway, b"POST " + target + b" HTTP/1.1\r\n" + head)
    assert upstream.received == []


def test_who_sends_too_slowly_is_cut_off_and_the_others_are_served(aws, start, monkeypatch):
    gateway = start("aws", aws, workers=1, queue=1)
    head = b"POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: RekognitionService.DetectLabels\r\n"
    began = b"content-length: 1000\r\n\r\n{"
    host, _, port = gateway.address.rpartition(":")
    with monkeypatch.context() as for_them:
        for_them.setattr(http_protocol, "_WITHIN", 0.3)
        slow = [socket.create_connection((host, int(port)), 20) for _ in range(3)]
        for sock, piece in zip(slow, (head, head + began, head + began), strict=True):
            with suppress(ConnectionError):  # too slow already
                sock.sendall(piece)
        for sock in slow:
            sock.settimeout(20)
            with sock, suppress(ConnectionError):
                while sock.recv(65_536):
                    pass
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
    gateway = start("aws", upstream, provider={"passthrough": True})
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


@pytest.mark.skipif(not OPEN.is_dir(), reason="no list of open files here")
def test_that_no_file_is_left_for_a_connection_is_said_in_one_line(aws, start, caplog):
    server = start("aws", aws)
    assert post(server.url, "aws").status_code == 200
    host, port = server.address.split(":")
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.socket()) for _ in range(3)]
        with no_file_is_free():
            for caller in callers:
                caller.connect((host, int(port)))
            until = time.monotonic() + 20.0
            while "connection" not in caplog.text and time.monotonic() < until:
                time.sleep(0.01)
        assert post(server.url, "aws").headers["x-smoothapi-outcome"] == "certified"
    [told] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "No connection can be taken. This process has as many files open" in told.getMessage()
    assert "`ulimit -n`" in told.getMessage()
    assert told.exc_info is None
