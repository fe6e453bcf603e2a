"""Any service over HTTP: what it is sent, what its answers mean, and all that it can do wrong."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import HTTPServer

import numpy as np
import pytest
import requests
from requests.adapters import HTTPAdapter

from smoothapi import Smoother
from smoothapi.answer import Answer, Label
from smoothapi.encode import Codec
from smoothapi.errors import (
    FatalError,
    PermanentError,
    SmoothAPIError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.provider import make_adapter
from smoothapi.testing import unused_port
from smoothapi.testing.watch import everything_logged, told
from smoothapi_adapters._common.bounds import MOST_BYTES
from smoothapi_adapters.http import HttpAdapter
from smoothapi_adapters.mock import MockAdapter
from tests.contract.json_service import Service, serve
from tests.contract.tls import authority
from tests.waiting import PATIENCE

RED = np.full((50, 60, 3), (220, 30, 30), dtype=np.uint8)
BLUE = np.full((50, 60, 3), (30, 30, 220), dtype=np.uint8)
PNG, JPEG = Codec("png").encode(RED), Codec("jpeg").encode(BLUE)
LABELS = "labels[*].{name: label, score: confidence}"
SECRET = "sec-ret-0123456789"
ENDLESS = 25.0  # seconds: less than it takes to wait for what drips in


@pytest.fixture
def served():
    with serve() as (service, url):
        yield service, url


@pytest.fixture
def adapter(served):
    adapter = HttpAdapter(served[1], labels=LABELS)
    yield adapter
    adapter.close()


def says(service, data, status=200, **headers):
    """Let the service answer all with this."""
    service.behave = lambda handler, _: handler.reply(status, data, **headers)


def raw(service, text):
    """Let the service write this, as it is, and hang up."""

    def behave(handler, _):
        handler.wfile.write(text)
        handler.close_connection = True

    service.behave = behave


def asked(adapter, payloads=(PNG,)):
    """Return the outcomes; an error that is raised is every payload's."""
    try:
        return adapter.ask(payloads)
    except SmoothAPIError as error:
        return [error] * len(payloads)


@pytest.mark.parametrize(
    ("options", "content_type"),
    [
        ({"body": "raw"}, "image/jpeg"),
        ({"body": "raw", "method": "PATCH"}, "image/jpeg"),
        ({"field": "upload", "form": {"lang": "en"}}, "multipart/form-data"),
        ({"body": "base64-json"}, "application/json"),
        (
            {"body": "base64-json", "template": '{"image": "data:{type};base64,{picture}"}'},
            "application/json",
        ),
    ],
)
def test_each_kind_of_body_carries_the_picture(options, content_type, served):
    service, url = served
    [answer] = HttpAdapter(url, labels=LABELS, **options).ask([JPEG])
    assert answer.labels[0] == Label("blue", 0.75)
    [received] = service.received
    assert received.method == options.get("method", "POST")
    assert received.headers["Content-Type"].startswith(content_type)
    assert received.pictures == [JPEG]
    if "form" in options:
        assert b'name="upload"; filename="0.jpeg"' in received.body
        assert b'name="lang"\r\n\r\nen' in received.body
    if "template" in options:
        assert json.loads(received.body)["image"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(
    "options",
    [
        {"form": {"mode": "many"}},
        {"body": "base64-json", "template": {"instances": [{"b64": "{picture}"}], "top": [5, 6]}},
    ],
)
def test_a_batch_is_one_request_with_an_outcome_each(options, served):
    service, url = served
    adapter = HttpAdapter(
        url, labels=LABELS, answers="predictions", refused="error", batch=4, **options
    )
    outcomes = adapter.ask((PNG, b"junk", JPEG))
    assert [type(outcome) for outcome in outcomes] == [Answer, PermanentError, Answer]
    assert [outcomes[i].labels[0].name for i in (0, 2)] == ["red", "blue"]
    assert "cannot be decoded" in str(outcomes[1])
    assert service.requests == 1
    if "template" in options:
        assert json.loads(service.received[0].body)["top"] == [5, 6]


def test_headers_and_query_come_from_the_environment(served, monkeypatch):
    service, url = served
    monkeypatch.setenv("TOKEN", f"{SECRET}\n")  # as `export TOKEN=$(cat file)` may leave it
    adapter = HttpAdapter(
        f"{url}?f=a&f=b",
        labels=LABELS,
        headers={"Authorization": "Bearer env:TOKEN", "X-Model": "v2"},
        query={"key": "env:TOKEN"},
        form={"password": "env:TOKEN"},
    )
    adapter.ask([PNG])
    [received] = service.received
    assert received.headers["Authorization"] == f"Bearer {SECRET}"
    assert received.headers["X-Model"] == "v2"
    assert received.path == f"/label?f=a&f=b&key={SECRET}"
    assert SECRET.encode() in received.body
    assert SECRET not in repr(adapter) + json.dumps(adapter.identity) + repr(adapter._connection)


def test_a_variable_that_is_missing_is_named_and_may_be_set_later(served, monkeypatch):
    service, url = served
    adapter = HttpAdapter(url, labels=LABELS, headers={"X-Key": "env:NO_SUCH_KEY"})
    assert not adapter.credentials().found
    with pytest.raises(FatalError, match="NO_SUCH_KEY"):
        adapter.ask([PNG])
    assert service.requests == 0
    monkeypatch.setenv("NO_SUCH_KEY", SECRET)
    assert adapter.credentials().found
    adapter.ask([PNG])
    assert service.received[0].headers["X-Key"] == SECRET


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x00b", "\u20ac"])
def test_no_value_can_start_another_header(value, served, monkeypatch):
    with pytest.raises(UsageError, match="line break") as refused:
        HttpAdapter(served[1], labels=LABELS, headers={"X-Thing": value})
    assert value not in str(refused.value)
    if "\x00" not in value:
        monkeypatch.setenv("THING", f"{value}x")
        adapter = HttpAdapter(served[1], labels=LABELS, headers={"X-Thing": "env:THING"})
        with pytest.raises(FatalError, match="line break") as fatal:
            adapter.ask([PNG])
        assert value not in told(fatal.value)
    assert served[0].requests == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"X Thing": "1"},
        {"X-Thing:": "1"},
        {"Host": "evil"},
        {"content-length": "1"},
        {"": "1"},
        {"A": "1", "a": "2"},
        {"Content-Type": "text/plain"},
    ],
)
def test_headers_that_are_none_or_not_the_callers(headers, served):
    with pytest.raises(UsageError, match=r"[Hh]eader"):
        HttpAdapter(served[1], labels=LABELS, headers=headers)


def test_a_redirect_is_not_followed_and_no_secret_goes_along(served):
    service, url = served
    with serve() as (other, elsewhere):
        adapter = HttpAdapter(url, labels=LABELS, headers={"Authorization": SECRET})
        for status in (301, 302, 303, 307, 308):
            says(service, {}, status, Location=elsewhere.replace("127.0.0.1", "localhost"))
            with pytest.raises(FatalError, match="redirects to localhost"):
                adapter.ask([PNG])
        says(service, {}, 302, Location="http://[bad")
        with pytest.raises(FatalError, match="redirects,"):
            adapter.ask([PNG])
        assert other.requests == 0
    assert service.requests == 6


def test_netrc_is_not_asked(served, tmp_path, monkeypatch):
    service, url = served
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password theirs\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert requests.utils.get_netrc_auth(url) == ("me", "theirs")  # requests itself would
    HttpAdapter(url, labels=LABELS).ask([PNG])
    HttpAdapter(url, labels=LABELS, headers={"Authorization": SECRET}).ask([PNG])
    assert "Authorization" not in service.received[0].headers
    assert service.received[1].headers["Authorization"] == SECRET


@pytest.mark.smoothapi_network
def test_proxies_of_the_environment_are_used(served, monkeypatch):
    service, url = served
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", url.removesuffix("/label"))
    options = {"labels": LABELS, "query": {"key": SECRET}, "allow_plain_http": "true"}
    with everything_logged() as logged:
        [answer] = HttpAdapter("http://vision.invalid/label", **options).ask([PNG])
    assert answer.labels
    assert service.received[0].path == f"http://vision.invalid/label?key={SECRET}"
    assert SECRET not in str(logged)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(FatalError, match="configured"):
        HttpAdapter("http://vision.invalid/label", **options).ask([PNG])


def test_secrets_do_not_leave_the_machine_without_tls():
    adapter = HttpAdapter("http://vision.invalid/", labels="x", headers={"X-Token": SECRET})
    with pytest.raises(FatalError, match="without TLS") as refused:
        adapter.ask([PNG])
    assert SECRET not in told(refused.value)
    with pytest.raises(TransientError):  # nothing secret: tries, and finds nobody
        HttpAdapter(f"http://127.0.0.2:{unused_port()}/", labels="x").ask([PNG])


def test_connections_are_kept(served, adapter):
    for _ in range(5):
        adapter.ask([PNG])
    assert served[0].connections == 1


def test_many_threads_each_keep_theirs(served):
    service, url = served
    ready = threading.Barrier(48)
    adapter = HttpAdapter(url, labels=LABELS)

    def ask(_):
        ready.wait(PATIENCE)
        return [adapter.ask([PNG])[0].labels[0].name for _ in range(3)]

    with everything_logged() as logged, ThreadPoolExecutor(48) as threads:
        names = list(threads.map(ask, range(48)))
    assert names == [["red"] * 3] * 48
    assert service.requests == 144
    assert service.connections <= 48
    assert "pool is full" not in str(logged)


def test_cookies_are_not_kept(served, adapter):
    service, _ = served
    says(service, {"labels": []}, Set_Cookie="session=1")
    adapter.ask([PNG])
    adapter.ask([PNG])
    assert "Cookie" not in service.received[1].headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(status, PermanentError) for status in (400, 413, 415, 422)],
        *[(status, TransientError) for status in (408, 409, 425, 500, 502, 503, 504, 520)],
        *[(status, FatalError) for status in (401, 402, 403, 404, 405, 407, 410, 418, 451, 501)],
        (429, ThrottledError),
        (304, FatalError),
    ],
)
def test_each_status_means_what_to_do(status, kind, served, adapter):
    says(served[0], {} if status != 304 else b"", status)
    [outcome] = asked(adapter)
    assert type(outcome) is kind
    assert str(status) in str(outcome)
    assert outcome.request_id == "id-1"


def test_503_with_a_word_of_how_long_slows_down(served, adapter):
    says(served[0], {}, 503, Retry_After="7")
    [outcome] = asked(adapter)
    assert type(outcome) is ThrottledError
    assert outcome.retry_after == 7.0


def test_what_the_service_says_is_shown_without_secrets(served):
    service, url = served
    echo = f"bad key {SECRET}\x1b[2J for {base64.b64encode(PNG).decode()}"
    says(service, {"error": {"message": echo}}, 401)
    adapter = HttpAdapter(url, labels=LABELS, headers={"X-Key": SECRET})
    [outcome] = asked(adapter)
    assert "bad key ***" in str(outcome)
    for hidden in (SECRET, "\x1b", base64.b64encode(PNG).decode()[60:80]):
        assert hidden not in told(outcome)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"junk\r\n\r\n",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        CHUNKED + b"10\r\n{}",
        CHUNKED + b"zz\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 200 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n{}",
    ],
)
def test_half_an_answer_is_transient(text, served, adapter):
    raw(served[0], text)
    [outcome] = asked(adapter)
    assert type(outcome) is TransientError
    assert served[0].requests == 1


def test_a_reset_is_transient_and_the_next_one_gets_through(served, adapter):
    served[0].behave = lambda handler, _: handler.reset()
    [outcome] = asked(adapter)
    assert type(outcome) is TransientError
    assert told(outcome)
    served[0].behave = None
    assert isinstance(asked(adapter)[0], Answer)


def drip_headers(handler, _):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):  # more than these are no answer of HTTP
        if handler.service.leaving.wait(0.3):
            return
        handler.wfile.write(b"X-%d: 1\r\n" % number)


def drip_body(handler, _):
    handler.drip(json.dumps({"labels": []}).encode() + b" " * 200, seconds=40)


def silence(handler, _):
    handler.service.leaving.wait()


@pytest.mark.parametrize("behave", [drip_headers, drip_body, silence])
def test_a_deadline_holds_for_the_whole_answer(behave, served):
    service, url = served
    service.behave = behave
    adapter = HttpAdapter(url, labels=LABELS, timeout="0.4")
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"0\.4 s"):
        adapter.ask([PNG])
    assert time.monotonic() - began < ENDLESS


def test_a_service_that_does_not_read_is_given_up():
    with HTTPServer(("127.0.0.1", 0), None) as server:  # accepts in the backlog, reads nothing
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        adapter = HttpAdapter(url, labels="x", body="raw", timeout=0.4)
        began = time.monotonic()
        with pytest.raises(TransientError):
            adapter.ask([b"\x89PNG" + bytes(30_000_000)])
        assert time.monotonic() - began < ENDLESS


def test_an_endless_answer_is_cut_off(served, adapter):
    written, cut_off = [], threading.Event()

    def endless(handler, _):
        handler.send_response(200)
        handler.end_headers()
        with pytest.raises(OSError):
            while True:
                handler.wfile.write(b" " * 65_536)
                written.append(65_536)
        handler.close_connection = True
        cut_off.set()

    served[0].behave = endless
    with pytest.raises(FatalError, match="more than"):
        adapter.ask([PNG])
    adapter.close()
    assert cut_off.wait(PATIENCE)
    assert sum(written) < 3 * MOST_BYTES


def test_a_bomb_is_not_unpacked(served, adapter):
    bomb = gzip.compress(b" " * 80_000_000, 1)
    says(served[0], bomb, Content_Encoding="gzip")
    began = time.monotonic()
    with pytest.raises(FatalError, match="more than"):
        adapter.ask([PNG])
    assert time.monotonic() - began < ENDLESS


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null-ish",
        b"<html>",
        b'{"labels": [',
        b'{"labels": [{"label": "a", "confidence": NaN}]}',
        b"[" * 100000,
        b'{"x": -Infinity}',
        b'{"x": ' + b"1" * 5000 + b"}",
        b"\xff\xfe\xff",
        b'"\xe9"',
    ],
)
def test_what_is_not_json_is_transient(body, served, adapter):
    says(served[0], body)
    [outcome] = asked(adapter)
    assert type(outcome) is TransientError
    assert "not JSON" in str(outcome)


def test_an_empty_status_is_no_answer(served, adapter):
    raw(served[0], b"HTTP/1.1 204 No Content\r\n\r\n")
    assert type(asked(adapter)[0]) is TransientError


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"labels": [{"label": "café", "confidence": 0.5}]}'.encode(), "text/plain"),
        ('\ufeff{"labels": [{"label": "café", "confidence": 0.5}]}'.encode(), "application/json"),
        (
            '{"labels": [{"label": "café", "confidence": 0.5}]}'.encode("latin-1"),
            "application/json; charset=ISO-8859-1",
        ),
        (
            '{"labels": [{"label": "café", "confidence": 0.5}]}'.encode("utf-16"),
            'application/json;charset="utf-16"',
        ),
    ],
)
def test_json_in_other_letters(body, content_type, served, adapter):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    raw(served[0], head.encode() + body)
    assert asked(adapter)[0].labels == (Label("café", 0.5),)


@pytest.mark.parametrize(
    ("path", "data", "labels"),
    [
        (LABELS, {"labels": []}, ()),
        ("p[*].{name: n, score: s}", {"p": [{"n": "a", "s": 1}]}, (Label("a", 1.0),)),
        ("p", {"p": [["a", 0.5], ["b", 0]]}, (Label("a", 0.5), Label("b", 0.0))),
        ("p", {"p": {"a": 0.5, "b": 0.25}}, (Label("a", 0.5), Label("b", 0.25))),
        ("p", {"p": {"name": "a", "score": 0.5}}, (Label("a", 0.5),)),
        ("p", {"p": "a"}, (Label("a", 1.0),)),
        ("p[*].{name: id, score: s}", {"p": [{"id": 281, "s": 0.5}]}, (Label("281", 0.5),)),
        ("p", {"p": [["a", 1.0000001], ["b", -1e-9]]}, (Label("a", 1.0), Label("b", 0.0))),
        ("p", {"p": [["a", 0.5], ["a", 0.25]]}, (Label("a", 0.5), Label("a", 0.25))),
        (
            "p[*].{name: n, score: s, parents: up, categories: c}",
            {"p": [{"n": "a", "s": 1, "up": ["x"], "c": None}]},
            (Label("a", 1.0, ("x",)),),
        ),
        ("[0]", [[["a", 0.5]]], (Label("a", 0.5),)),
    ],
)
def test_labels_are_found_by_a_path(path, data, labels, served):
    says(served[0], data)
    [answer] = HttpAdapter(served[1], labels=path).ask([PNG])
    assert answer.labels == labels


def test_percentages_are_scaled(served):
    says(served[0], {"p": [["a", 97.5]]})
    [answer] = HttpAdapter(served[1], labels="p", scale="100").ask([PNG])
    assert answer.labels == (Label("a", 0.975),)


@pytest.mark.parametrize(
    "data",
    [
        {"q": []},
        [],
        7,
        None,
        {"p": None},
        {"p": 3},
        {"p": [3]},
        {"p": [["a"]]},
        {"p": [["a", "0.5"]]},
        {"p": [["a", True]]},
        {"p": [["a", None]]},
        {"p": [["a", 1.5]]},
        {"p": [["a", -0.5]]},
        {"p": [["a", 10**400]]},
        {"p": [[None, 0.5]]},
        {"p": [["", 0.5]]},
        {"p": [[True, 0.5]]},
        {"p": [{"name": "a"}]},
        {"p": [{"name": "a", "score": 0.5, "parents": "x"}]},
        {"p": [{"name": "a", "score": 0.5, "parents": [1]}]},
    ],
)
def test_what_does_not_fit_is_never_an_empty_answer(data, served):
    """The first time the paths are to blame, and asking on would only cost; then the service."""
    service, url = served
    adapter = HttpAdapter(url, labels="p")
    says(service, data)
    [first] = asked(adapter)
    assert type(first) is FatalError
    assert "fit the options" in str(first)
    says(service, {"p": []})
    assert asked(adapter)[0].labels == ()
    says(service, data)
    assert type(asked(adapter)[0]) is TransientError


@pytest.mark.parametrize("found", [[], [[]], [[], [], []], {"a": 1}, None])
def test_a_batch_with_another_number_of_answers(found, served):
    says(served[0], {"predictions": found})
    adapter = HttpAdapter(served[1], labels="@", answers="predictions", batch=2)
    assert {type(outcome) for outcome in asked(adapter, [PNG, PNG])} == {FatalError}


def test_failures_that_a_status_of_success_hides(served):
    service, url = served
    adapter = HttpAdapter(url, labels=LABELS, refused="error.bad", failed="error.busy || status")
    says(service, {"error": {"bad": "no\x07picture"}})
    [outcome] = asked(adapter)
    assert type(outcome) is PermanentError
    assert "no\ufffdpicture" in str(outcome)
    says(service, {"error": {"busy": {"message": "later"}}})
    assert (type(asked(adapter)[0]), "later" in str(asked(adapter)[0])) == (TransientError, True)
    says(service, {"labels": [], "status": 0, "error": None})
    assert asked(adapter)[0].labels == ()


def test_model_version_and_request_id(served):
    service, url = served
    says(service, {"labels": [], "model": {"v": 3}, "meta": {"id": "abc\n"}})
    [answer] = HttpAdapter(url, labels="labels", model_version="model.v").ask([PNG])
    assert (answer.model_version, answer.request_id) == ("3", "id-1")
    [answer] = HttpAdapter(url, labels="labels", request_id="meta.id").ask([PNG])
    assert (answer.model_version, answer.request_id) == ("", "abc\ufffd")
    [answer] = HttpAdapter(url, labels="labels", request_id="header:x-none").ask([PNG])
    assert answer.request_id == ""


BASE = {"url": "https://vision.example/label", "labels": "p"}


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://vision.example/other"},
        {"labels": "q"},
        {"scale": 100},
        {"body": "raw"},
        {"method": "PUT"},
        {"query": {"v": "2"}},
        {"headers": {"X-Model": "2"}},
        {"form": {"mode": "x"}},
        {"template": {"b64": "{picture}"}},
        {"refused": "x"},
    ],
)
def test_what_changes_answers_changes_the_identity(change):
    assert HttpAdapter(**BASE).identity != HttpAdapter(**{**BASE, **change}).identity


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "X-Api-Key",
        "apikey",
        "api_key",
        "accessToken",
        "X-Amz-Signature",
        "sig",
        "Cookie",
        "client_secret",
        "PASSWORD",
        "Ocp-Apim-Subscription-Key",
        "X-Auth",
        "sessionId",
    ],
)
def test_names_of_secrets(name):
    assert HttpAdapter(**BASE, form={name: "1"}).identity == (
        HttpAdapter(**BASE, form={name: "2"}).identity
    )


@pytest.mark.parametrize("name", ["keywords", "X-Model", "language", "design", "author", "passes"])
def test_names_of_settings(name):
    assert HttpAdapter(**BASE, form={name: "1"}).identity != (
        HttpAdapter(**BASE, form={name: "2"}).identity
    )


def test_what_is_secret_does_not_change_the_identity():
    def identity(value):
        return HttpAdapter(
            f"https://vision.example/label?api_key={value}",
            labels="p",
            headers={"Authorization": value},
            query={"token": value},
            form={"password": value},
            template={"key": value, "image": "{picture}"},
        ).identity

    assert identity(SECRET) == identity("another")
    assert SECRET not in json.dumps(identity(SECRET))
    assert identity("x")["url"] == "https://vision.example/label"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "https://h/"},
        {"labels": "p"},
        {**BASE, "url": "ftp://h/"},
        {**BASE, "url": "vision.example"},
        {**BASE, "url": "https:///x"},
        {**BASE, "url": "https://h:99999/"},
        {**BASE, "url": "https://me:pw@h/"},
        {**BASE, "url": "https://h/a b"},
        {**BASE, "url": "https://h/\r\nX: 1"},
        {**BASE, "labels": "p[*"},
        {**BASE, "answers": "]"},
        {**BASE, "body": "xml"},
        {**BASE, "method": "GET"},
        {**BASE, "name": "My Service"},
        {**BASE, "scale": 0},
        {**BASE, "scale": "nan"},
        {**BASE, "timeout": "soon"},
        {**BASE, "timeout": 0},
        {**BASE, "batch": 4},
        {**BASE, "batch": 1.5},
        {**BASE, "batch": 4, "answers": "p", "body": "raw"},
        {**BASE, "batch": 4, "answers": "p", "body": "base64-json"},
        {**BASE, "template": {"image": "x"}},
        {**BASE, "template": ["{picture}", "{picture}"]},
        {**BASE, "template": "{picture}"},
        {**BASE, "headers": "x"},
        {**BASE, "headers": ["x"]},
        {**BASE, "headers": {"a": ["x"]}},
        {**BASE, "formats": "webp"},
        {**BASE, "formats": ""},
        {**BASE, "price": "cheap"},
        {**BASE, "price": -1},
        {**BASE, "per_second": 0},
        {**BASE, "allow_plain_http": "perhaps"},
        {**BASE, "min_side": 50, "max_side": 10},
        {**BASE, "max_bytes": 100, "max_request_bytes": 99},
        {**BASE, "labels": 5},
        {**BASE, "url": 5},
        {**BASE, "name": 5},
        {**BASE, "method": 5},
        {**BASE, "body": 5},
    ],
)
def test_options_that_cannot_work(options):
    with pytest.raises(UsageError) as refused:
        HttpAdapter(**options)
    assert "pw" not in str(refused.value)


def test_options_may_be_text():
    adapter = make_adapter(
        "http",
        url="https://vision.example/",
        labels="p",
        headers='{"X-Model": "2"}',
        formats="jpeg, png",
        price="1.25",
        price_date="2026-11-22",
        per_second="10",
        max_bytes="100000",
        max_request_bytes="200000",
        batch="2",
        answers="a",
    )
    assert adapter.limits.formats == ("jpeg", "png")
    assert adapter.limits.per_second == 10.0
    assert adapter.limits.batch == 2
    assert str(adapter.price.per_thousand) == "1.25"


class TestASessionOfOnesOwn:
    def test_its_headers_and_auth_are_used(self, served):
        service, url = served
        session = requests.Session()
        session.auth = ("me", "pw")
        adapter = HttpAdapter(url, labels=LABELS, client=session, query={"key": SECRET})
        adapter.ask([PNG])
        assert service.received[0].headers["Authorization"].startswith("Basic ")
        assert service.received[0].path.endswith(f"?key={SECRET}")
        adapter.close()
        assert (
            session.get(url.replace("/label", ""), timeout=PATIENCE).status_code == 501
        )  # still open
        session.close()

    def test_its_own_transport_is_used(self, served):
        service, url = served

        class Mine(HTTPAdapter):
            used = 0

            def send(self, *arguments, **options):
                Mine.used += 1
                return super().send(*arguments, **options)

        with requests.Session() as session:
            session.mount("http://", Mine())
            adapter = HttpAdapter(url, labels=LABELS, client=session, headers={"X-Key": SECRET})
            assert isinstance(asked(adapter)[0], Answer)
            assert Mine.used == 1
            assert service.received[0].headers["X-Key"] == SECRET
            logged = HttpAdapter(url, labels=LABELS, client=session, query={"key": SECRET})
            assert type(asked(logged)[0]) is FatalError
        assert service.requests == 1

    def test_what_is_unsafe_is_refused(self, served):
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=3))
        with pytest.raises(UsageError, match="retries"):
            HttpAdapter(served[1], labels=LABELS, client=session)
        session = requests.Session()
        session.verify = False
        with pytest.raises(UsageError, match="certificates"):
            HttpAdapter(served[1], labels=LABELS, client=session)


@contextmanager
def tunnel():
    """Yield (the heads of what is asked, URL) of a proxy that connects as it is told."""
    heads, ends = [], []

    def pump(one, other):
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)

    def serve_proxy(listening):
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += near.recv(1)
                heads.append(head)
                host, port = head.split()[1].decode().split(":")
                far = socket.create_connection((host, int(port)))
                ends.extend((near, far))
                near.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve_proxy, args=(listening,), daemon=True).start()
        yield heads, f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class TestTLS:
    def test_a_certificate_is_verified_always(self, tmp_path, monkeypatch):
        with authority(tmp_path, "127.0.0.1") as (pem, context):
            with serve(tls=context) as (service, url):
                for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
                    monkeypatch.delenv(name, raising=False)
                with pytest.raises(FatalError, match="not trusted"):
                    HttpAdapter(url, labels=LABELS).ask([PNG])
                assert service.requests == 0
                options = {"labels": LABELS, "query": {"key": SECRET}}
                ours = HttpAdapter(url, ca=pem, **options)
                assert isinstance(asked(ours)[0], Answer)
                assert service.received[0].path.endswith(SECRET)
                ours.close()
                monkeypatch.setenv("REQUESTS_CA_BUNDLE", pem)
                assert isinstance(asked(HttpAdapter(url, labels=LABELS))[0], Answer)
                import certifi

                monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
                assert isinstance(asked(HttpAdapter(url, ca=pem, labels=LABELS))[0], Answer)

    def test_a_deadline_holds_under_tls(self, tmp_path):
        with authority(tmp_path, "127.0.0.1") as (pem, context):
            with serve(tls=context) as (service, url):
                service.behave = drip_headers
                began = time.monotonic()
                with pytest.raises(TransientError, match=r"0\.4 s"):
                    HttpAdapter(url, labels=LABELS, ca=pem, timeout=0.4).ask([PNG])
                assert time.monotonic() - began < ENDLESS

    @pytest.mark.smoothapi_network
    def test_through_a_proxy_no_secret_is_said_to_it(self, tmp_path, monkeypatch):
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with authority(tmp_path, "127.0.0.1") as (pem, context):
            with serve(tls=context) as (service, url), tunnel() as (heads, proxy):
                monkeypatch.setenv("https_proxy", proxy)
                options = {"headers": {"X-Token": SECRET}, "query": {"key": SECRET}}
                adapter = HttpAdapter(url, labels=LABELS, ca=pem, timeout=PATIENCE, **options)
                assert [type(asked(adapter)[0]) for _ in range(3)] == [Answer] * 3
                adapter.close()
        assert len(heads) == 1
        assert heads[0].startswith(b"CONNECT 127.0.0.1:")
        assert SECRET.encode() not in heads[0]
        assert service.received[2].headers["X-Token"] == SECRET

    def test_a_certificate_of_another_host(self, tmp_path):
        with authority(tmp_path, "127.0.0.2") as (pem, context):
            with serve(tls=context) as (_, url):
                with pytest.raises(FatalError, match="not trusted"):
                    HttpAdapter(url, labels=LABELS, ca=pem).ask([PNG])

    def test_no_such_file_of_certificates(self):
        adapter = HttpAdapter("https://127.0.0.1:9/", labels="p", ca="/no/such/file.pem")
        with pytest.raises(FatalError, match="file of certificates"):
            adapter.ask([PNG])


def test_a_certificate_over_http_is_the_same_as_without():
    """What the mock and a service say of the same pictures makes the same votes."""

    def label(picture):
        return [("bright" if picture.mean() > 127.6 else "dark", 0.9)]

    photo = np.full((24, 24, 3), 128, dtype=np.uint8)
    options = {"denoiser": "none", "sigma": 0.5, "radius": "largest", "max_votes": 40}
    with serve(Service(label)) as (service, url):
        with Smoother(HttpAdapter(url, labels=LABELS), plain=False, **options) as smoother:
            one = smoother.certify(photo)
        assert service.requests == one.queries > 10
    with Smoother(MockAdapter(label), plain=False, **options) as smoother:
        other = smoother.certify(photo)
    assert one.votes == other.votes
    assert len(one.votes) > 1
