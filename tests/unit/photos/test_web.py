"""Photos from the web: within limits, and never from where only this machine can reach."""

from __future__ import annotations

import socket
import time

import pytest

from smoothapi.errors import ImageError
from smoothapi.photos import FetchLimits, PhotoFetcher, WebFetcher, is_public, shown_location
from smoothapi.photos.fetching import file_name
from tests.unit.photos.conftest import body, redirect

FETCH = WebFetcher(FetchLimits(seconds=20.0), private=True)
OUTSIDE = ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def resolving(monkeypatch, answers):
    """Have names resolve to addresses, in turn; return what was asked."""
    asked = []

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        found = answers(host)
        family = socket.AF_INET6 if ":" in found else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_photo_is_fetched_with_its_path_and_query_and_no_secret_of_ours(web):
    web.pages["/a b.jpg"] = web.pages["/a%20b.jpg"] = body(b"bytes")
    assert FETCH.fetch(f"{web.url}/a b.jpg?size=1") == b"bytes"
    path, headers = web.asked[0]
    assert path == "/a%20b.jpg?size=1"
    assert not {"cookie", "authorization", "referer"} & {name.lower() for name in headers}


@pytest.mark.parametrize(
    "address",
    [
        "168.63.129.16", "::ffff:168.63.129.16", "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%eth0",
        "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "2002:7f00:1::", "64:ff9b::a9fe:a9fe", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_public_internet_is_refused(address, monkeypatch):
    assert not is_public(address)
    resolving(monkeypatch, lambda _: address)
    connected = []
    monkeypatch.setattr(socket, "create_connection", lambda *a, **_: connected.append(a))
    for scheme in ("http", "https"):
        with pytest.raises(ImageError, match=r"private, or of this machine"):
            PhotoFetcher().fetch(f"{scheme}://photos.example/a.jpg")
    assert connected == []


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_of_the_public_internet_is_connected_to(address, monkeypatch):
    assert is_public(address)
    resolving(monkeypatch, lambda _: address)
    connected = []

    def connect(to, *_):
        connected.append(to)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(ImageError, match="no answer came"):
        PhotoFetcher().fetch("http://photos.example/a.jpg")
    assert set(connected) == {(address, 80)}


@pytest.mark.smoothapi_network  # resolving these asks nobody
@pytest.mark.parametrize(
    "host", ["localhost", "2130706433", "0x7f000001", "127.1", "[::1]", "[::ffff:7f00:1]"]
)
def test_every_spelling_of_this_machine_is_refused(host):
    with pytest.raises(ImageError, match="private, or of this machine"):
        PhotoFetcher().fetch(f"http://{host}/a.jpg")


def test_a_name_that_changes_between_check_and_connection_changes_nothing(web, monkeypatch):
    """DNS rebinding: the second answer would be this machine."""
    answers = iter([OUTSIDE[0], "127.0.0.1"])
    asked = resolving(monkeypatch, lambda _: next(answers))
    connected = []

    def connect(to, *_):
        connected.append(to)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(WebFetcher, "_asked_until_answered", WebFetcher._ask)
    with pytest.raises(Exception, match="no answer came"):
        PhotoFetcher().fetch("http://photos.example/a.jpg")
    assert asked == ["photos.example"]
    assert connected == [(OUTSIDE[0], 80)]


def test_a_redirect_is_checked_as_the_first_address_was(web, monkeypatch):
    """A public host (by name; here it is this machine's) redirects to what is private."""
    web.pages["/out.jpg"] = redirect("http://inside.example/latest/meta-data/")
    port = int(web.url.rpartition(":")[2])
    real = socket.create_connection
    known = {"out.example": OUTSIDE[0], "127.0.0.1": "127.0.0.1"}
    resolving(monkeypatch, lambda host: known.get(host, "169.254.169.254"))
    monkeypatch.setattr(
        socket, "create_connection", lambda to, *more: real(("127.0.0.1", port), *more)
    )
    with pytest.raises(ImageError, match="private, or of this machine"):
        PhotoFetcher().fetch("http://out.example/out.jpg")
    assert len(web.asked) == 1


@pytest.mark.smoothapi_network  # the guard takes a proxy for the way to elsewhere
def test_a_proxy_is_asked_for_the_address_that_was_looked_at(web, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    known = {"127.0.0.1": "127.0.0.1"}
    resolving(monkeypatch, lambda host: known.get(host, OUTSIDE[0]))
    monkeypatch.setenv("https_proxy", web.url.replace("://", "://user:pa%20ss@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ImageError, match="no answer came") as caught:
        PhotoFetcher().fetch("https://photos.example/a.jpg")
    assert {path for path, _ in web.asked} == {f"{OUTSIDE[0]}:443"}
    assert "Basic dXNlcjpwYSBzcw==" in str(web.asked)
    assert "pa ss" not in str(caught.value)


def test_redirects_are_followed_so_far_and_never_to_another_protocol(web):
    web.pages["/a"] = redirect("/b?x=1")
    web.pages["/b"] = body(b"here")
    assert FETCH.fetch(f"{web.url}/a") == b"here"
    web.pages["/round"] = redirect("/round")
    with pytest.raises(ImageError, match="redirects more than 5 times"):
        FETCH.fetch(f"{web.url}/round")
    web.pages["/file"] = redirect("file:///etc/passwd")
    with pytest.raises(ImageError, match="not a URL of https or http"):
        FETCH.fetch(f"{web.url}/file")


@pytest.mark.parametrize("target", ["http://[x", "//[x/", "http://a:99999/"])
def test_a_redirect_to_what_is_no_address_is_this_photos_error(web, target, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    web.pages["/a"] = redirect(target)
    with pytest.raises(ImageError):
        FETCH.fetch(f"{web.url}/a")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h/img?id=1", "https://h/img?id=2"),
        ("https://h/img#1", "https://h/img?1"),
        ("s3://b/photo#1.jpg", "s3://b/photo#2.jpg"),
        ("s3://b/photo?1.jpg", "s3://b/photo?2.jpg"),
        ("az://c/a.jpg?sig=secret1", "az://c/a.jpg?sig=secret2"),
        (f"s3://b/{'k' * 600}1", f"s3://b/{'k' * 600}2"),
    ],
)
def test_two_locations_are_shown_by_two_names(one, other):
    assert shown_location(one) != shown_location(other)
    assert "secret" not in shown_location(one)
    assert len(shown_location(one)) < 520


def test_a_buckets_key_is_shown_whole():
    assert shown_location("s3://b/a photo#1?.jpg") == "s3://b/a photo#1?.jpg"
    assert file_name("s3://b/dir/photo#1.jpg") == "photo#1.jpg"
    assert file_name("https://h/dir/a%20b.jpg?x#1") == "a b.jpg"


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_is_too_long_is_not_read_to_its_end(web, announced):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length" if announced else "Connection",
                            str(10**9) if announced else "close")  # fmt: skip
        handler.end_headers()
        handler.close_connection = True
        handler.wfile.write(bytes(300_000))

    web.pages["/long"] = answer
    small = WebFetcher(FetchLimits(most_bytes=100_000, seconds=20.0), private=True)
    with pytest.raises(ImageError, match=r"bytes"):
        small.fetch(f"{web.url}/long")


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_server_that_sends_a_byte_now_and_then_is_left_in_time(web, where):
    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        if where == "body":
            handler.wfile.write(b"Content-Length: 1000\r\n\r\n")
        for _ in range(1000):
            try:
                handler.wfile.write(b"x")
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.02)

    web.pages["/drip"] = answer
    quick = WebFetcher(FetchLimits(seconds=0.3), private=True)
    with pytest.raises(ImageError, match=r"longer than 0\.3 s"):
        quick.fetch(f"{web.url}/drip")
    assert len(web.asked) <= 1  # a busy machine's server may not have come to it


def test_what_passes_is_asked_again_and_what_stays_is_not(web, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    turns = []

    def busy(handler):
        turns.append(1)
        if len(turns) < 3:
            handler.send_error(503)
        else:
            body(b"at last")(handler)

    web.pages["/busy"] = busy
    assert FETCH.fetch(f"{web.url}/busy") == b"at last"
    web.asked.clear()
    with pytest.raises(ImageError, match=r"it is not there \(status 404\)"):
        FETCH.fetch(f"{web.url}/gone")
    assert len(web.asked) == 1


def test_a_body_that_is_cut_off_is_no_photo(web, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    web.pages["/cut"] = cut
    with pytest.raises(ImageError, match=r"no answer came|ended before"):
        FETCH.fetch(f"{web.url}/cut")


def test_the_query_of_a_signed_url_is_in_no_error(web):
    location = f"{web.url}/gone.jpg?X-Amz-Signature=verysecret#part"
    with pytest.raises(ImageError) as caught:
        FETCH.fetch(location)
    assert "verysecret" not in "".join(map(str, (caught.value, caught.value.__cause__)))
    assert shown_location(location).startswith(f"{web.url}/gone.jpg?...")
    assert shown_location("https://user:secret@host/a") == "https://host/a"


@pytest.mark.parametrize(
    "location",
    ["https://user:pw@photos.example/a.jpg", "https://", "https://[::1", "http://a:99999/",
     "file:///etc/passwd", "gopher://x/1", "s3://-/x", "s3://UPPER/x", "s3://a@b/x"],
)  # fmt: skip
def test_what_is_no_location_of_a_photo_is_refused_unsent(location, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("sent"))
    with pytest.raises(ImageError) as caught:
        PhotoFetcher(private=True).fetch(location)
    assert "pw" not in str(caught.value)
