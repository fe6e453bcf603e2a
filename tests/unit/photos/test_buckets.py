"""Photos from buckets: through obstore, against a server that speaks S3's protocol."""

from __future__ import annotations

from email.utils import formatdate
from xml.sax.saxutils import escape

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError
from obstore.exceptions import GenericError

from smoothapi.errors import ImageError
from smoothapi.photos import BucketFetcher, FetchLimits, PhotoFetcher, find
from smoothapi_adapters.google import bucket
from tests.unit.photos.conftest import body

OBJECTS = {"in/a.jpg": b"aa", "in/b.png": b"b", "in/deep/c.jpg": b"ccc", "in/notes.txt": b"n"}


@pytest.fixture
def s3(web, monkeypatch, tmp_path):
    """A bucket named "photos", and a profile that boto3 signs in with."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIDOFPROFILE\naws_secret_access_key = secretofprofile\n"
    )
    (tmp_path / "config").write_text("[default]\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)

    def listing(handler):
        from urllib.parse import parse_qs, urlsplit

        asked = parse_qs(urlsplit(handler.path).query)
        prefix = asked.get("prefix", [""])[0]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>&quot;{len(data)}&quot;"
            "</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(OBJECTS.items())
            if key.startswith(prefix)
        )
        xml = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        body(xml.encode())(handler)

    web.pages["/photos"] = web.pages["/photos/"] = listing
    for key, data in OBJECTS.items():
        web.pages[f"/photos/{key}"] = body(data, ETag='"1"', Last_Modified=formatdate(usegmt=True))
    return web


def test_a_file_is_read_with_the_profile_of_the_sdk(s3):
    assert PhotoFetcher().fetch("s3://photos/in/a.jpg") == b"aa"
    [(path, headers)] = s3.asked
    assert path == "/photos/in/a.jpg"
    signed = {name.lower(): value for name, value in headers.items()}["authorization"]
    assert "AKIDOFPROFILE" in signed
    assert "eu-central-1" in signed
    assert "secretofprofile" not in str(s3.asked)


def test_a_prefix_stands_for_the_photos_below_it_and_a_pattern_for_those_that_match(s3):
    fetcher = PhotoFetcher()

    def names(location):
        return [photo.name for photo in find(location, fetcher)]

    below = ["s3://photos/in/a.jpg", "s3://photos/in/b.png", "s3://photos/in/deep/c.jpg"]
    assert names("s3://photos/in/") == names("s3://photos/in") == below
    assert names("s3://photos/in/*.jpg") == [below[0], below[2]]
    assert names("s3://photos/in/a.jpg") == below[:1]
    with pytest.raises(ImageError, match="nothing is there"):
        names("s3://photos/empty/")
    stamps = [photo.stamp for photo in find("s3://photos/in/", fetcher)]
    assert all(stamps)
    assert len(set(stamps)) == 3


def test_what_is_missing_or_too_long_is_said(s3):
    with pytest.raises(ImageError, match="it is not there"):
        PhotoFetcher().fetch("s3://photos/in/none.jpg")
    with pytest.raises(ImageError, match="3 bytes or more, and 2 are allowed"):
        PhotoFetcher(FetchLimits(most_bytes=2)).fetch("s3://photos/in/deep/c.jpg")


def test_the_schemes_of_google_and_azure_lead_to_their_stores():
    from obstore.store import MemoryStore

    opened = []

    def store(scheme, bucket):
        opened.append((scheme, bucket))
        memory = MemoryStore()
        memory.put("x/a.jpg", b"photo")
        return memory

    fetcher = BucketFetcher(FetchLimits(), store)
    for scheme in ("gs", "az"):
        assert fetcher.fetch(f"{scheme}://bucket/x/a.jpg") == b"photo"
        assert [f.location for f in fetcher.below(f"{scheme}://bucket/x")] == [
            f"{scheme}://bucket/x/a.jpg"
        ]
    assert opened == [("gs", "bucket"), ("az", "bucket")]


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_store_of_google_or_azure_is_made_without_asking_anybody(scheme, monkeypatch):
    def none(**_):
        raise DefaultCredentialsError

    monkeypatch.setattr(google.auth, "default", none)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    fetcher = BucketFetcher(FetchLimits())
    assert type(fetcher._store(scheme, "bucket")).__name__ in {"GCSStore", "AzureStore"}


def test_googles_credentials_are_asked_for_a_token_that_reads_only(monkeypatch):
    class Credentials:
        token, expiry = "token of google", None

        def refresh(self, request):
            pass

    asked = {}

    def default(**options):
        asked.update(options)
        return Credentials(), "project"

    monkeypatch.setattr(google.auth, "default", default)
    options = bucket.sign_in()
    assert options["credential_provider"]()["token"] == "token of google"
    assert asked["scopes"][0].endswith("devstorage.read_only")


DEBUG = "\n\nDebug source:\nGeneric {{ inner: {inner}, retry_timeout: 60s }}"


@pytest.mark.parametrize(
    ("said", "inner", "meant"),
    [
        ("PUT http://169.254.169.254/latest/api/token", "Status { status: 403 }", "no credentials"),
        (
            "GET http://127.0.0.1:1/b/x.jpg",
            "Http(HttpError { kind: Connect })",
            "cannot be reached",
        ),
        ("GET https://b.s3.amazonaws.com/x.jpg", "HttpError { kind: Timeout }", "took too long"),
        ("GET https://b.s3.amazonaws.com/x.jpg", "Status { status: 500 }", "failed"),
    ],
)
def test_why_a_bucket_does_not_answer_is_told_by_what_failed(said, inner, meant):
    """The patience of its client stands in all that obstore says: it is not what failed."""

    class Store:
        def get(self, key):
            raise GenericError(
                f"Generic S3 error: Error performing {said}" + DEBUG.format(inner=inner)
            )

    with pytest.raises(ImageError, match=meant) as raised:
        BucketFetcher(FetchLimits(), lambda *_: Store()).fetch("s3://bucket/x.jpg")
    assert ("took too long" in str(raised.value)) == (meant == "took too long")


def test_an_endpoint_that_nobody_serves_is_not_called_slow(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(ImageError, match="cannot be reached"):
        BucketFetcher(FetchLimits()).fetch("s3://bucket/x.jpg")
