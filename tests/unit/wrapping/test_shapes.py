"""Whatever shape a response has, its certificate is found, and it goes where the plain one goes."""

from __future__ import annotations

import copy
import io
import json
import pickle

import pytest
from pydantic import BaseModel, ConfigDict, create_model

from smoothapi import certificate_of, finding_of, wrap
from smoothapi.errors import CertificateError, UsageError
from smoothapi.services import serve
from smoothapi.wrapping import Finding
from tests.unit.wrapping.conftest import FAST, KITS, MOST, PHOTO

FASTER = {**FAST, "radius": 0.01, "alpha": 0.2, "max_votes": 20, "budget": "$5"}
ARN = "arn:aws:rekognition:us-east-1:123456789012:project/a/version/b/1"


def google_request():
    return {"image": {"content": PHOTO}, "features": [{"type_": 4}]}


# Each way to ask, and what of the response is looked at.
CALLS = {
    "aws": {
        "labels": lambda c: c.detect_labels(Image={"Bytes": PHOTO}),
        "moderation": lambda c: c.detect_moderation_labels(Image={"Bytes": PHOTO}),
        "custom": lambda c: c.detect_custom_labels(Image={"Bytes": PHOTO}, ProjectVersionArn=ARN),
    },
    "google": {
        "helper": KITS["google"].label,
        "one": lambda c: c.annotate_image(google_request()),
        "batch": lambda c: c.batch_annotate_images(requests=[google_request()]),
        "a picture of a batch": lambda c: c.batch_annotate_images(
            requests=[google_request()]
        ).responses[0],
        "pictures of a batch, one after the other": lambda c: next(
            iter(c.batch_annotate_images(request={"requests": [google_request()]}).responses)
        ),
    },
    "azure": {
        "tags": KITS["azure"].label,
        "analysis": lambda c: c.analyze_image_in_stream(io.BytesIO(PHOTO), ["tags", "adult"]),
        "raw": lambda c: c.tag_image_in_stream(io.BytesIO(PHOTO), raw=True),
        "of the raw": lambda c: c.tag_image_in_stream(io.BytesIO(PHOTO), raw=True).output,
    },
    "azure4": {
        "tags": KITS["azure4"].label,
        "more": lambda c: c.analyze(PHOTO, ["tags", "caption"], gender_neutral_caption=True),
    },
}


@pytest.fixture(scope="module", params=MOST)
def asked(request):
    """Return name, kit, and way -> (plain response, wrapped one, wrapped one with attach=False)."""
    kit = KITS[request.param]
    with serve(kit.service, lambda _: [("Bus", 0.97)]) as service:
        plain = kit.client(service)
        clients = [wrap(plain, attach=attach, **FASTER) for attach in (True, False)]
        yield (
            request.param,
            {way: [ask(c) for c in (plain, *clients)] for way, ask in CALLS[request.param].items()},
        )
        for client in clients:
            client.close()


def test_its_certificate_is_found(asked):
    _, responses = asked
    for way, (plain, attached, beside) in responses.items():
        for response in (attached, beside):
            assert type(response) is type(plain) or isinstance(plain, dict), way
            assert certificate_of(response).target["labels"] == ["Bus"], way
        with pytest.raises(UsageError, match="no such certificate"):
            certificate_of(plain)


def test_it_is_copied_and_pickled_where_the_plain_one_is(asked):
    _, responses = asked
    for way, (plain, attached, beside) in responses.items():
        for again in (copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))):
            try:
                again(plain)
            except Exception:  # noqa: BLE001  nor can ours be expected to
                continue
            assert type(again(attached)) is type(attached), way
            assert type(again(beside)) is type(plain), way
            assert finding_of(again(attached)) == finding_of(attached), way
            with pytest.raises(UsageError, match="of no copy"):
                finding_of(again(beside))


@pytest.mark.parametrize("asked", ["google"], indirect=True)  # the one whose messages are on a wire
def test_what_is_in_a_message_goes_where_its_bytes_go(asked):
    _, responses = asked
    for way, (plain, attached, _) in responses.items():
        kind = type(plain)
        sent = kind.deserialize(kind.serialize(attached))
        assert finding_of(sent) == finding_of(attached), way
        assert finding_of(sent._pb) == finding_of(attached), way
        assert str(sent) == str(plain), way
        assert kind.to_dict(sent) == kind.to_dict(plain), way


@pytest.mark.parametrize("said", [b"", b"\xff", b"{", b"[" * 100_000, b'{"certified": 1}'])
def test_a_message_that_holds_something_else_in_that_place_says_so(said):
    vision = pytest.importorskip("google.cloud.vision")
    from smoothapi.wrapping import protobuf

    response = vision.AnnotateImageResponse()
    protobuf.put(protobuf.message_of(response), said)
    with pytest.raises(CertificateError, match="malformed"):
        finding_of(response)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_a_message_gives_back_what_was_put_into_it_last(size):
    vision = pytest.importorskip("google.cloud.vision")
    from smoothapi.wrapping import protobuf

    message = vision.Vertex.pb(vision.Vertex(x=3))
    assert protobuf.get(message) is None
    protobuf.put(message, b"first")
    protobuf.put(message, last := bytes(size))
    assert protobuf.get(message) == last
    assert protobuf.get(type(message).FromString(message.SerializeToString())) == last
    assert message.x == 3


def jsoned(response):
    """Return a response as JSON text, as each SDK has it."""
    if isinstance(response, dict):
        return json.dumps({k: v for k, v in response.items() if k != "ResponseMetadata"})
    if hasattr(response, "as_dict"):
        return json.dumps(response.as_dict())
    return type(response).to_json(response)


def test_its_json_is_that_of_the_plain_one(asked):
    name, responses = asked
    for way, (plain, attached, beside) in responses.items():
        if way == "raw":
            continue
        assert json.loads(jsoned(beside)).keys() == json.loads(jsoned(plain)).keys()
        more = json.loads(jsoned(attached)).keys() - json.loads(jsoned(plain)).keys()
        assert more == ({"Smoothapi"} if name == "aws" else set())


def test_what_was_found_is_json_for_every_sdk(asked):
    _, responses = asked
    for _, attached, _ in responses.values():
        finding = finding_of(attached)
        text = json.dumps(finding.to_dict())
        assert Finding.from_dict(json.loads(text)) == finding
        assert "\\" not in text  # no JSON in a text


@pytest.mark.parametrize("asked", ["aws"], indirect=True)  # the one that returns dicts
def test_a_model_that_forbids_extra_fields_takes_it_with_attach_false(asked):
    _, responses = asked
    for plain, attached, beside in responses.values():
        fields = dict.fromkeys(plain, (object, ...))
        strict: type[BaseModel] = create_model(
            "Strict", __config__=ConfigDict(extra="forbid"), **fields
        )
        strict(**plain)
        strict(**beside)
        with pytest.raises(ValueError, match="Smoothapi"):
            strict(**attached)
