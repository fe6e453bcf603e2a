"""The same code against a provider and against a gateway before it, in each provider's protocol."""

from __future__ import annotations

import base64
import json

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from smoothapi import Retry, Smoother, certificate_of, wrap
from smoothapi.certify import Scores
from smoothapi.services import serve
from smoothapi.store import Home
from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.azure import Azure4Adapter, AzureAdapter
from smoothapi_adapters.clarifai import ClarifaiAdapter
from smoothapi_adapters.google import GoogleAdapter
from tests.unit.gateway.conftest import (
    AWS_KEYS,
    CERTIFY,
    KITS,
    OTHER,
    OWN_KEY,
    RAW,
    call,
    post,
    tables,
)
from tests.unit.wrapping.conftest import PHOTO, PIXELS, labeller, png

pytestmark = pytest.mark.timeout(60)


def shape(value):
    """Return what a response is made of, without its labels, scores and ids."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_the_sdk_gets_certified_labels_and_what_is_not_certified_is_left_out(kit, service, start):
    gateway = start(kit.service, service)
    plain = kit.scores(kit.label(kit.client(service)))
    found = kit.scores(kit.label(kit.client(gateway)))
    assert plain == {"Bus": 0.97, "Vehicle": 0.96, "Van": 0.9}
    assert found == {"Bus": 0.97, "Vehicle": 0.96}
    assert service.billed > 10


def test_a_response_has_the_shape_of_the_providers_own(kit, service, start):
    gateway = start(kit.service, service)
    headers = {"authorization": "Key any", "ocp-apim-subscription-key": "any"}
    if kit.service == "aws":
        headers = {
            "authorization": "AWS4-HMAC-SHA256 Credential=any/20261128/us-east-1/rekognition/"
            "aws4_request, SignedHeaders=host, Signature=0",
            "x-amz-date": "20261128T000000Z",
        }
    if kit.service == "google":
        headers = {}
    direct, through = (post(one.url, kit.service, headers=headers) for one in (service, gateway))
    assert direct.status_code == through.status_code == 200
    assert shape(direct.json()) == shape(through.json())
    assert direct.headers["content-type"] == through.headers["content-type"]
    assert through.headers["x-smoothapi-outcome"] == "certified"
    assert len(through.headers["x-smoothapi-certificate"]) == 32


def test_labels_that_are_not_certified_can_stay_marked(kit, service, start):
    gateway = start(kit.service, service, certify={"uncertified": "mark"})
    said = json.dumps(post(gateway.url, kit.service).json())
    # The SDKs for AWS and Azure 3.2 show no key that their models do not have: the text does.
    marks = {
        "aws": ('"Certified": true', '"Certified": false'),
        "google": ('"value": "certified"', '"value": "uncertified"'),
    }.get(kit.service, ('"certified": true', '"certified": false'))
    assert [said.count(mark) for mark in marks] == [2, 1]
    for name in ("Bus", "Vehicle", "Van"):
        assert name in said


ADAPTERS = {
    "aws": lambda client: AwsAdapter(client=client, min_confidence=55.0),
    "google": lambda client: GoogleAdapter(
        client=client, max_results=50, endpoint=client.transport.host
    ),
    "azure": lambda client: AzureAdapter(client=client),
    "azure4": lambda client: Azure4Adapter(client=client),
    "clarifai": lambda client: ClarifaiAdapter(endpoint=client.url, pat=OWN_KEY, max_concepts=50),
}
LEAST = {"aws": 0.55}  # what Rekognition returns, where the call says nothing


@pytest.mark.parametrize("name", [*KITS, "google-grpc"])
def test_certificates_are_those_of_wrap_and_of_smoother(name, start, tmp_path):
    provider = name.removesuffix("-grpc")
    kit = KITS[provider]
    home = tmp_path / "home"
    with serve(provider, labeller) as service:
        over = {"grpc_port": 0} if name == "google-grpc" else {}
        gateway = start(provider, service, home=home, **over)
        if name == "google-grpc":
            client = grpc_client(gateway)
            kit.label(client)
            client.transport.close()
            [record] = gateway.app.gateway.records.kept.latest(1)
            found = record.finding
        else:
            identity = post(gateway.url, name).headers["x-smoothapi-certificate"]
            kept = f"{gateway.url}/smoothapi/certificates/{identity}"
            found = requests.get(kept, timeout=20).json()
        of_gateway = found["certificate"]
        gateway.__exit__()
        options = {**CERTIFY, "home": home, "retry": Retry(attempts=1)}
        client = kit.client(service)
        before, certificates = service.requests, [of_gateway]
        if provider != "clarifai":  # has no SDK to wrap
            with wrap(client, budget="$5", **options) as wrapped:
                certificates.append(certificate_of(kit.label(wrapped)).to_dict())
            before += 1
            assert service.requests == before, "of wrap only its own call: the votes are there"
        least = LEAST.get(provider, 0.5)
        target = Scores(("Bus", "Vehicle", "Van"), least, parents=False)
        client = kit.client(service)  # its own, since wrap closed the other
        with Smoother(ADAPTERS[provider](client), plain=False, budget="$5", **options) as smoother:
            certificates.append(smoother.certify(PHOTO, target=target).to_dict())
        assert service.requests == before, "and nothing of Smoother"
    # What was sent and what time it took differ; all that is claimed, and on which votes, does not.
    for fact in ("claims", "votes", "identity", "sigma", "alpha", "image", "target", "largest"):
        assert all(one[fact] == of_gateway[fact] for one in certificates), fact
    assert of_gateway["claims"]


def test_the_providers_response_is_kept_whole(start):
    said = {
        "Labels": [
            {
                "Name": "Bus",
                "Confidence": 97.0,
                "Instances": [{"BoundingBox": {"Width": 0.5}, "New": [1, {"x": None}]}],
                "Parents": [{"Name": "Vehicle"}],
                "SomethingOfNextYear": {"deep": [1.5, "\u2603"]},
            },
            {"Name": "Van", "Confidence": 96.0, "Parents": []},
        ],
        "LabelModelVersion": "3.0",
        "OrientationCorrection": "ROTATE_0",
        "ImageProperties": {"Quality": {"Brightness": 88.25}},
    }
    replies = lambda data: json.dumps(said) if data == PHOTO else None  # noqa: E731
    with serve("aws", labeller, replies=replies) as service:
        through = post(start("aws", service).url, "aws").json()
    bus = said["Labels"][0]
    assert through == {
        **said,
        "Labels": [{**bus, "Confidence": through["Labels"][0]["Confidence"]}],
    }
    assert list(through) == list(said), "in the provider's order"


@pytest.mark.parametrize("name", ["google", "clarifai"])
def test_pictures_of_a_batch_are_certified_one_by_one(name, start):
    other = png(255 - PIXELS)
    path, headers, body = RAW[name]
    data = json.loads(body)
    key = "requests" if name == "google" else "inputs"
    second = json.loads(json.dumps(data[key][0]).replace(*_content(other)))
    data[key] = [data[key][0], second]
    with serve(name, labeller) as service:
        gateway = start(name, service)
        through = requests.post(gateway.url + path, headers=headers, json=data, timeout=20)
        shows = {"authorization": "Bearer any"}
        direct = requests.post(
            service.url + path, headers={**headers, **shows}, json=data, timeout=20
        )
    assert shape(direct.json()) == shape(through.json())
    parts = through.json()["responses" if name == "google" else "outputs"]
    assert len(parts) == 2
    assert through.headers["x-smoothapi-outcome"] == "certified,certified"
    assert len(set(through.headers["x-smoothapi-certificate"].split(","))) == 2


def _content(other):
    return base64.b64encode(PHOTO).decode(), base64.b64encode(other).decode()


def test_a_picture_elsewhere_is_refused_in_the_providers_words(kit, service, start):
    gateway = start(kit.service, service)
    with pytest.raises(Exception, match=r"(?s)cannot add noise|Bad Request") as raised:
        kit.url(kit.client(gateway))
    assert type(raised.value).__module__.partition(".")[0] in {
        "botocore", "google", "azure", "requests",
    }  # fmt: skip
    assert service.requests == 0


@pytest.mark.parametrize("name", list(KITS))
def test_what_certifies_nothing_is_refused_unless_the_operator_lets_it_pass(name, upstream, start):
    gateway = start(name, upstream)
    refused = post(gateway.url, name, OTHER)
    assert 400 <= refused.status_code < 500
    assert "passthrough" in refused.text
    assert refused.headers["x-smoothapi-outcome"] == "refused"
    assert upstream.received == []


@pytest.mark.parametrize("name", list(KITS))
def test_what_passes_goes_through_byte_for_byte(name, upstream, start, tmp_path):
    body = bytes(range(256)) * 40
    upstream.reply = (
        418,
        {"content-type": "application/x-own", "content-encoding": "own", "x-amzn-requestid": "r1"},
        body,
    )
    gateway = start(name, upstream, provider={"passthrough": True})
    through = requests.post(
        gateway.url + OTHER[name][0],
        headers={
            **OTHER[name][1],
            "x-own": "kept",
            "x-forwarded-for": "10.0.0.1",
            "x-smoothapi-token": "sgw_x",
            "connection": "keep-alive, x-hop",
            "x-hop": "1",
            "accept-encoding": "own, gzip",
            "user-agent": "a-tool/1",
        },
        data=body,
        timeout=20,
    )
    [(method, path, headers, sent)] = upstream.received
    assert (method, path, sent) == ("POST", OTHER[name][0], body)
    assert headers["x-own"] == "kept"
    assert headers["user-agent"] == "a-tool/1"
    assert headers["accept-encoding"] == "gzip", "the only one that is looked into for keys"
    for gone in ("x-forwarded-for", "x-smoothapi-token", "x-hop"):
        assert gone not in headers
    assert through.status_code == 418
    assert through.content == body
    assert through.headers["content-encoding"] == "own"
    assert through.headers["x-amzn-requestid"] == "r1"
    assert through.headers["x-smoothapi-outcome"] == "passed"


def test_only_the_operations_named_pass(upstream, start):
    gateway = start("aws", upstream, provider={"passthrough": ["DetectText"]})
    assert post(gateway.url, "aws", OTHER).status_code == 400
    text = {**OTHER["aws"][1], "x-amz-target": "RekognitionService.DetectText"}
    assert post(gateway.url, "aws", OTHER, headers=text).status_code == 200
    assert len(upstream.received) == 1


def test_requests_to_aws_are_signed_anew_with_the_gateways_credentials(upstream, start):
    gateway = start("aws", upstream, provider={"passthrough": True})
    callers = "AWS4-HMAC-SHA256 Credential=AKIACALLER/20260101/eu-west-1/rekognition/aws4_request"
    post(gateway.url, "aws", OTHER, headers={"authorization": callers})
    [(_, path, headers, body)] = upstream.received
    signed = headers["authorization"]
    assert f"Credential={AWS_KEYS['AWS_ACCESS_KEY_ID']}/" in signed
    assert "AKIACALLER" not in str(headers)
    names = signed.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token", "x-amz-target"} <= set(names)
    again = AWSRequest("POST", upstream.url + path, data=body)
    for name in names:
        again.headers[name] = headers[name]
    again.context["timestamp"] = headers["x-amz-date"]
    keys = Credentials(*AWS_KEYS.values())
    auth = SigV4Auth(keys, "rekognition", "us-east-1")
    canonical = auth.canonical_request(again)
    again.context["timestamp"] = headers["x-amz-date"]
    expected = auth.signature(auth.string_to_sign(again, canonical), again)
    assert signed.endswith(f"Signature={expected}")


@pytest.mark.parametrize("name", [name for name in KITS if name != "aws"])
def test_own_credentials_replace_what_the_caller_shows(name, upstream, start):
    gateway = start(name, upstream, provider={"passthrough": True})
    shows = {
        "authorization": "Bearer of-the-caller",
        "ocp-apim-subscription-key": "of-the-caller",
        "x-goog-api-key": "of-the-caller",
    }
    if name == "clarifai":
        shows = {"authorization": "Key of-the-caller"}
    elif name != "google":
        del shows["x-goog-api-key"]
    else:
        del shows["ocp-apim-subscription-key"]
    requests.post(
        f"{gateway.url}{OTHER[name][0].partition('?')[0]}?key=of-the-caller" if name == "google"
        else gateway.url + OTHER[name][0],
        headers={**OTHER[name][1], **shows}, data=b"{}", timeout=20,
    )  # fmt: skip
    [(_, path, headers, _)] = upstream.received
    assert "of-the-caller" not in path + str(headers)
    assert OWN_KEY in str(headers)


@pytest.mark.parametrize("name", [name for name in KITS if name != "aws"])
def test_callers_credentials_can_be_handed_on(name, start):
    with serve(name, labeller, key="of-the-caller") as service:
        config = tables(name, service.url, "", provider={"signed_by": "caller"})["providers"][name]
        for secret in ("key", "api_key", "pat"):
            config["options"].pop(secret, None)
        gateway = start(name, service, provider=config)
        shows = {
            "google": {"x-goog-api-key": "of-the-caller"},
            "clarifai": {"authorization": "Key of-the-caller"},
        }.get(name, {"ocp-apim-subscription-key": "of-the-caller"})
        through = post(gateway.url, name, headers=shows)
        assert through.headers["x-smoothapi-outcome"] == "certified", through.text
        wrong = {header: value.replace("of-the", "not-the") for header, value in shows.items()}
        before = service.requests
        refused = post(gateway.url, name, headers=wrong)
        assert refused.status_code in {400, 401}
        assert service.requests == before + 1, (
            "the provider itself refuses it, and no vote is asked"
        )


def test_credentials_that_a_provider_repeats_are_not_handed_on(upstream, start, caplog):
    upstream.reply = (
        403,
        JSON_TYPE,
        f"signed: x-amz-security-token:{AWS_KEYS['AWS_SESSION_TOKEN']}".encode(),
    )
    gateway = start("aws", upstream, provider={"passthrough": True})
    for what in (OTHER, RAW):
        through = post(gateway.url, "aws", what)
        assert through.status_code == 500
        assert (
            AWS_KEYS["AWS_SESSION_TOKEN"] not in through.text + str(through.headers) + caplog.text
        )


JSON_TYPE = {"content-type": "application/json"}


@pytest.mark.parametrize("fault", ["429", "500", "503"])
def test_the_providers_own_error_comes_back_as_it_is(kit, start, fault, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_ATTEMPTS", "1")
    with serve(kit.service, labeller, faults=f"9x{fault}") as service:
        gateway = start(kit.service, service)
        direct, through = (post(one.url, kit.service) for one in (service, gateway))
        assert through.status_code == direct.status_code
        assert shape(through.json()) == shape(direct.json())
        assert through.headers["x-smoothapi-outcome"] == "refused"
        assert service.requests == 2


def test_an_application_mounts_in_anothers(aws, tmp_path):
    from smoothapi.gateway import app

    gateway = app(tables("aws", aws.url, tmp_path))
    try:
        path, headers, body = RAW["aws"]
        found = call(gateway, "POST", path, headers, body, root="/vision")
        assert found.headers["x-smoothapi-outcome"] == "certified"
        identity = found.headers["x-smoothapi-certificate"]
        kept = call(gateway, "GET", f"/smoothapi/certificates/{identity}", root="/vision")
        assert kept.json()["certified"] is True
        assert call(gateway, "GET", "/nothing", root="/vision").status == 404
    finally:
        gateway.close()


def grpc_client(gateway):
    """Return Google's client over gRPC, as its users make it."""
    from types import SimpleNamespace

    from tests.unit.wrapping.conftest import KITS as WRAPPED

    return WRAPPED["google-grpc"].client(SimpleNamespace(address=f"127.0.0.1:{gateway.grpc_port}"))


def test_google_is_spoken_over_grpc_too(start):
    with serve("google", labeller) as service:
        gateway = start("google", service, grpc_port=0)
        client = grpc_client(gateway)
        kit = KITS["google"]
        assert kit.scores(kit.label(client)) == {"Bus": 0.97, "Vehicle": 0.96}
        sent = service.requests
        assert kit.scores(kit.label(kit.client(gateway))) == {"Bus": 0.97, "Vehicle": 0.96}
        assert service.requests == sent + 1, "REST's caller is served by the same votes"
        client.transport.close()


def test_grpc_says_no_with_googles_statuses(start, tmp_path):
    from google.api_core import exceptions

    from smoothapi.gateway import Records

    records = Records(Home(tmp_path / "home").records)
    token = records.add_token("team", per_second=0.001)
    records.close()
    kit = KITS["google"]
    with serve("google", labeller) as service:
        gateway = start("google", service, grpc_port=0, callers="tokens", retry_after=3)
        client = grpc_client(gateway)
        with pytest.raises(exceptions.PermissionDenied, match="unregistered callers"):
            kit.label(client)
        image = {"content": PHOTO}
        shown = [("x-goog-api-key", token)]
        request = {"image": image, "features": [{"type_": 4}]}
        found = client.annotate_image(request, metadata=shown)
        assert [label.description for label in found.label_annotations] == ["Bus", "Vehicle"]
        with pytest.raises(exceptions.ResourceExhausted) as throttled:
            client.annotate_image(request, metadata=shown, retry=None)
        waits = [one.retry_delay for one in throttled.value.details if hasattr(one, "retry_delay")]
        assert [wait.seconds for wait in waits] == [3]
        with pytest.raises(exceptions.Unauthenticated):
            client.annotate_image(request, metadata=[("x-goog-api-key", "sgw_1")])
        client.transport.close()
