"""Signatures of the gateway's requests to AWS are those that botocore makes."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi_adapters.aws.signing import Signer

VISIBLE = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20)
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
QUERIES = st.lists(
    st.tuples(*[st.text("aZ09-_.~%+", max_size=4)] * 2).map("=".join) | st.sampled_from(["", "a"]),
    max_size=4,
).map("&".join)
ENDPOINTS = st.sampled_from([
    "https://rekognition.eu-west-1.amazonaws.com",
    "http://127.0.0.1:8080",
    "http://127.0.0.1:80",
    "https://[::1]:443",
    "https://[::1]:8443",
    "https://Proxy.Example.com:443/some path/",
])  # fmt: skip


def of_botocore(credentials, region, method, url, headers, body, at):
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    moment = datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        SigV4Auth(credentials, "rekognition", region).add_auth(request)
    names = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
    return {name: request.headers[name] for name in names if name in request.headers}


@given(
    secrets=st.tuples(SECRETS, SECRETS, st.none() | SECRETS),
    method=st.sampled_from(["POST", "GET"]),
    endpoint=ENDPOINTS,
    query=QUERIES,
    headers=st.fixed_dictionaries({}, optional={"content-type": VISIBLE, "x-amz-target": VISIBLE}),
    body=st.binary(max_size=50),
)
@settings(max_examples=60, deadline=None)
def test_a_signature_is_the_one_that_botocore_makes(
    secrets, method, endpoint, query, headers, body
):
    credentials = ReadOnlyCredentials(*secrets)
    signer = Signer(endpoint, "eu-west-1", "rekognition")
    url = f"{endpoint.rstrip('/')}/{'?' if query else ''}{query}"
    for _ in range(2):  # the second time by the key that is known
        signed = signer.headers(credentials, method, query, headers, body)
        others = of_botocore(
            credentials, "eu-west-1", method, url, headers, body, signed["X-Amz-Date"]
        )
        assert signed == others


def test_new_credentials_sign_at_once():
    signer = Signer("https://a.example", "eu-west-1", "rekognition")
    first, second = (ReadOnlyCredentials("AKIA", secret, None) for secret in "ab")
    signer.headers(first, "POST", "", {}, b"")
    signed = signer.headers(second, "POST", "", {}, b"")
    url = "https://a.example/"
    assert signed == of_botocore(second, "eu-west-1", "POST", url, {}, b"", signed["X-Amz-Date"])


def test_what_is_not_the_gateways_is_not_signed():
    signer = Signer("https://a.example", "eu-west-1", "rekognition")
    given = {"content-type": "application/x-amz-json-1.1", "user-agent": "x", "x-amz-date": "y"}
    signed = signer.headers(ReadOnlyCredentials("AKIA", "s", None), "POST", "", given, b"{}")
    assert "SignedHeaders=content-type;host;x-amz-date," in signed["Authorization"]
    assert signed["X-Amz-Date"] != "y"
