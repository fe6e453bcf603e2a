"""Pictures that a call names: fetched from the places that the operator named, and nowhere else."""

from __future__ import annotations

import base64
import json

import pytest
import requests

from smoothapi.errors import ImageError, UsageError
from smoothapi.photos import FetchLimits, NamedPlaces, place_of, places, web
from smoothapi.photos.buckets import BucketFetcher
from smoothapi.services import serve
from tests.unit.gateway.conftest import CONTENT, JSON, KITS, RAW, post
from tests.unit.photos.conftest import WebServer, body, redirect
from tests.unit.wrapping.conftest import PHOTO, PIXELS, labeller, png

pytestmark = pytest.mark.timeout(60)

BUCKET, KEY = "s3://photos-of-ours", "a folder/school bus?#.png"


@pytest.fixture
def pictures(monkeypatch):
    """A web server with a photo, as public as any; and a bucket with the same photo."""
    from obstore.store import MemoryStore

    bucket = MemoryStore()
    bucket.put(KEY, PHOTO)
    monkeypatch.setattr(BucketFetcher, "_opened", lambda *_: bucket)
    for module in (web, places):
        monkeypatch.setattr(module, "is_public", lambda _: True)
    server = WebServer()
    server.pages["/bus.png"] = body(PHOTO)
    yield server
    server.close()


def named(name, location):
    """Return the request that names a picture, instead of holding it."""
    path, headers, _ = RAW[name]
    said = {
        "aws": {"Image": {"S3Object": {"Bucket": BUCKET[5:], "Name": KEY}}},
        "google": {"requests": [google_row({"source": {"imageUri": location}})]},
        "clarifai": {"inputs": [{"data": {"image": {"url": location}}}]},
    }.get(name, {"url": location})
    kind = {} if name == "aws" else JSON
    return {name: (path, {**headers, **kind}, json.dumps(said).encode())}


def google_row(image, feature="LABEL_DETECTION"):
    return {"image": image, "features": [{"type": feature}]}


@pytest.mark.parametrize("name", list(KITS))
def test_a_picture_at_a_named_place_is_fetched_and_certified(name, pictures, start):
    with serve(name, labeller) as service:
        gateway = start(name, service, provider={"fetch": [BUCKET, pictures.url]})
        what = named(name, f"{pictures.url}/bus.png")
        found = post(gateway.url, name, what)
        assert found.headers["x-smoothapi-outcome"] == "certified", found.text
        # The local service takes no locations: what it labelled was the bytes.
        assert service.billed > 10
        held = post(gateway.url, name)
        kept = [
            requests.get(
                f"{gateway.url}/smoothapi/certificates/{one.headers['x-smoothapi-certificate']}",
                timeout=20,
            ).json()["certificate"]
            for one in (found, held)
        ]
    assert kept[0]["claims"] == kept[1]["claims"]
    assert kept[0]["image"] == kept[1]["image"]


@pytest.mark.parametrize("name", list(KITS))
def test_a_place_that_is_not_named_is_refused_with_what_to_configure(name, pictures, start):
    with serve(name, labeller) as service:
        gateway = start(name, service, provider={"fetch": ["https://other.example.com"]})
        found = post(gateway.url, name, named(name, f"{pictures.url}/bus.png"))
        assert found.status_code == 400
        assert found.headers["x-smoothapi-outcome"] == "refused"
        place = BUCKET if name == "aws" else pictures.url
        assert f'name \\"{place}\\" in fetch' in found.text
        assert f"[providers.{name}]" in found.text
        assert (service.requests, pictures.asked) == (0, [])


def test_where_a_picture_redirects_to_must_be_named_too(pictures, start):
    other = WebServer()
    other.pages["/bus.png"] = body(PHOTO)
    pictures.pages["/away"] = redirect(f"{other.url}/bus.png")
    with serve("google", labeller) as service:
        gateway = start("google", service, provider={"fetch": [pictures.url]})
        found = post(gateway.url, "google", named("google", f"{pictures.url}/away"))
    other.close()
    assert found.status_code == 400
    assert found.headers["x-smoothapi-outcome"] == "picture"
    assert "not among those named" in found.json()["error"]["message"]
    assert (service.requests, other.asked) == (0, [])


def test_a_named_host_whose_address_is_private_is_not_connected_to(start, monkeypatch):
    server = WebServer()
    resolve = web.socket.getaddrinfo
    monkeypatch.setattr(
        web.socket, "getaddrinfo", lambda host, *more, **o: resolve(
            "127.0.0.1" if host == "images.example.com" else host, *more, **o
        )
    )  # fmt: skip
    place = server.url.replace("127.0.0.1", "images.example.com")
    with serve("azure4", labeller) as service:
        gateway = start("azure4", service, provider={"fetch": [place]})
        found = post(gateway.url, "azure4", named("azure4", f"{place}/bus.png"))
    server.close()
    assert found.status_code == 400
    assert "private" in found.text
    assert (service.requests, server.asked) == (0, [])


def test_a_signed_location_is_shown_to_nobody(pictures, start, caplog):
    with serve("google", labeller) as service:
        gateway = start("google", service, provider={"fetch": [pictures.url]})
        found = post(
            gateway.url, "google", named("google", f"{pictures.url}/none.png?signature=s3cr3t")
        )
    assert "it is not there" in found.text
    assert "s3cr3t" not in found.text + caplog.text


def test_a_location_of_a_batch_of_googles_is_refused_by_itself(pictures, start):
    batch = [
        google_row({"content": CONTENT}),
        google_row({"source": {"imageUri": "https://elsewhere.example.com/x.png"}}),
        google_row({"source": {"gcsImageUri": f"{pictures.url}/bus.png"}}),
        google_row({"source": {"imageUri": f"{pictures.url}/missing.png"}}),
        google_row({"content": CONTENT}, "SAFE_SEARCH_DETECTION"),
        google_row({"content": base64.b64encode(png(255 - PIXELS)).decode()}, "SAFE_SEARCH_DETECTION"),
    ]  # fmt: skip
    sent = []
    with serve("google", labeller) as service:
        gateway = start(
            "google",
            service,
            provider={"fetch": [pictures.url], "passthrough": ["images:annotate"]},
        )
        path, headers, _ = RAW["google"]
        before = service.requests
        found = requests.post(
            gateway.url + path, headers=headers, json={"requests": batch}, timeout=20
        )
        votes = service.requests - before
        again = requests.post(
            gateway.url + path, headers=headers, json={"requests": batch}, timeout=20
        )
        sent.append(service.requests - before - votes)
    assert found.status_code == again.status_code == 200
    parts = found.json()["responses"]
    outcomes = found.headers["x-smoothapi-outcome"].split(",")
    assert outcomes == ["certified", "elsewhere", "certified", "elsewhere", "passed", "passed"]
    assert [one["description"] for one in parts[0]["labelAnnotations"]] == ["Bus", "Vehicle"]
    assert parts[0]["labelAnnotations"] == parts[2]["labelAnnotations"]
    assert "elsewhere.example.com" in parts[1]["error"]["message"]
    assert "it is not there" in parts[3]["error"]["message"]
    assert all("safeSearchAnnotation" in part for part in parts[4:])
    assert sent == [3], "two callers' own calls, and one for all that certifies nothing"


def test_a_location_among_the_inputs_of_clarifais_is_refused_by_itself(pictures, start):
    inputs = [
        {"data": {"image": {"base64": CONTENT}}},
        {"data": {"image": {"url": "https://elsewhere.example.com/x.png"}}},
        {"id": "mine", "data": {"image": {"url": f"{pictures.url}/bus.png"}}},
    ]
    path, headers, _ = RAW["clarifai"]
    with serve("clarifai", labeller) as service:
        gateway = start("clarifai", service, provider={"fetch": [pictures.url]})
        found = requests.post(
            gateway.url + path, headers=headers, json={"inputs": inputs}, timeout=20
        )
    assert found.status_code == 200
    assert found.headers["x-smoothapi-outcome"] == "certified,elsewhere,certified"
    said = found.json()
    assert said["status"]["code"] == 10010, "mixed success"
    assert [one["status"]["code"] for one in said["outputs"]] == [10000, 30104, 10000]
    assert "elsewhere.example.com" in said["outputs"][1]["status"]["details"]
    assert said["outputs"][2]["input"]["id"] == "mine"


def test_a_part_that_passes_and_meets_a_proxys_page_stands_for_the_whole(upstream, start):
    inputs = [{"data": {"image": {"url": f"https://a.example.com/{i}.png"}}} for i in range(2)]
    inputs.append({"data": {"image": {"base64": CONTENT}}})
    upstream.reply = (502, {"content-type": "text/html"}, b"<html>Bad gateway</html>")
    gateway = start(
        "clarifai", upstream, certify={"remote": "pass", "otherwise": "plain", "within": 5}
    )
    path, headers, _ = RAW["clarifai"]
    found = requests.post(gateway.url + path, headers=headers, json={"inputs": inputs}, timeout=20)
    assert (found.status_code, found.text) == (502, "<html>Bad gateway</html>")


def test_what_a_caller_says_of_its_bodys_bytes_is_not_said_of_another(pictures, upstream, start):
    gateway = start("azure4", upstream, provider={"fetch": [pictures.url]})
    path, headers, said = named("azure4", f"{pictures.url}/bus.png")["azure4"]
    digests = {"Content-MD5": "of the URL", "Digest": "sha-256=of the URL", "X-Own": "kept"}
    requests.post(gateway.url + path, headers={**headers, **digests}, data=said, timeout=20)
    _, _, sent, data = upstream.received[0]
    assert data == PHOTO
    assert sent["content-type"] == "application/octet-stream"
    assert sent["x-own"] == "kept"
    assert "of the URL" not in str(sent)


def test_one_call_does_not_have_the_gateway_fetch_without_end(pictures, start):
    rows = [google_row({"source": {"imageUri": f"{pictures.url}/none"}}) for _ in range(300)]
    path, headers, _ = RAW["google"]
    with serve("google", labeller) as service:
        gateway = start("google", service, provider={"fetch": [pictures.url]})
        found = requests.post(
            gateway.url + path, headers=headers, json={"requests": rows}, timeout=20
        )
        assert service.requests == 0
    assert len(found.json()["responses"]) == len(rows)
    assert "16 are fetched" in found.json()["responses"][-1]["error"]["message"]
    assert len(pictures.asked) == 16


@pytest.mark.parametrize(
    "place",
    [
        "photos", "s3://", "s3://a/b", "https://", "https://a/b", "https://a?b", "https://*.a.com",
        "ftp://a", "file:///etc", "https://me@a", "https://10.0.0.1", "http://169.254.169.254",
        "http://[::1]:80", "http://localhost:8080", "https://a:x",
    ],
)  # fmt: skip
def test_what_is_not_a_public_place_cannot_be_named(place):
    with pytest.raises(UsageError):
        NamedPlaces([place], FetchLimits())


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("s3://bucket/a/../b?c#d", "s3://bucket"),
        ("HTTPS://Images.Example.com:443/a", "https://images.example.com"),
        ("http://a:8080/x", "http://a:8080"),
        ("https://named.example.com@evil.example.com/", "https://evil.example.com"),
        ("https://evil.example.com\\@named.example.com/", "https://named.example.com"),
        ("https://named.example.com.evil.com/", "https://named.example.com.evil.com"),
        ("//named.example.com/", ""),
        ("https://a:99999/", ""),
        ("https://[::1", ""),
        ("", ""),
    ],
)
def test_a_location_has_one_place(location, place):
    assert place_of(location) == place


def test_nothing_is_fetched_from_a_place_that_was_not_named(pictures):
    named_places = NamedPlaces([pictures.url], FetchLimits())
    assert named_places.fetch(f"{pictures.url}/bus.png") == PHOTO
    for location in ("s3://other/x", "https://evil.example.com", f"{pictures.url}0/bus.png", "x"):
        with pytest.raises(ImageError, match="not among those named"):
            named_places.fetch(location)
