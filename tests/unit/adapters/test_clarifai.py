"""Clarifai: what is asked, every published code, recorded answers, and what is malformed."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from smoothapi import Smoother
from smoothapi.answer import Answer, Label
from smoothapi.encode import Codec
from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.provider import make_adapter
from smoothapi.services import serve as emulate
from smoothapi.testing.watch import told
from smoothapi_adapters.clarifai import ClarifaiAdapter
from smoothapi_adapters.clarifai.errors import MEANING
from smoothapi_adapters.mock import MockAdapter
from tests.contract.json_service import Service, serve

PNG = Codec("png").encode(np.full((60, 60, 3), (220, 30, 30), dtype=np.uint8))
ANSWERS = sorted((Path(__file__).parents[4] / "shared/data/answers").glob("*.clarifai.json"))
PAT = "pat-0123456789-abcdef"
GOOD = {
    "status": {"code": 10000},
    "data": {"concepts": [{"id": "ai_1", "name": "bus", "value": 0.5}]},
    "model": {"model_version": {"id": "v1"}},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("CLARIFAI_PAT", PAT)
    monkeypatch.delenv("CLARIFAI_API_KEY", raising=False)


@pytest.fixture
def api():
    """A service that says what a test lets it, and an adapter in front of it."""
    service = Service()
    service.answer = lambda received: (200, {"outputs": []})
    with serve(service) as (service, url):
        adapter = ClarifaiAdapter(endpoint=url.removesuffix("/label"))
        yield service, adapter
        adapter.close()


def says(service, data, status=200, **headers):
    service.behave = lambda handler, _: handler.reply(status, data, **headers)


def asked(adapter, count=1):
    try:
        return adapter.ask([PNG] * count)
    except ProviderError as error:
        return [error] * count


def test_what_is_asked(monkeypatch):
    with emulate("clarifai", lambda _: [(f"c{i}", 0.9 - 0.03 * i) for i in range(30)]) as service:
        adapter = ClarifaiAdapter(
            endpoint=service.url, user="me", app="an app", model="m", version="v9",
            max_concepts="12", min_value="0.6",
        )  # fmt: skip
        [one, other] = adapter.ask([PNG, PNG])
        [received] = service.received
    assert (received.pictures, received.sizes) == (2, ((60, 60),) * 2)
    assert received.parameters["max_concepts"] == 12
    assert received.parameters["min_value"] == 0.6
    assert received.parameters["version"] == "v9"
    assert received.parameters["app"] == "an app"
    assert [label.name for label in one.labels] == [f"c{i}" for i in range(11)]
    assert one.model_version == other.model_version == "v9"
    assert one.request_id


def test_the_cap_and_the_threshold_are_always_sent(api):
    service, adapter = api
    says(service, {"status": {"code": 10000}, "outputs": [GOOD]})
    adapter.ask([PNG])
    [received] = service.received
    body = json.loads(received.body)
    config = body["model"]["output_info"]["output_config"]
    assert config == {"max_concepts": 20, "min_value": 0.0}
    assert base64.b64decode(body["inputs"][0]["data"]["image"]["base64"]) == PNG
    assert received.path == (
        "/v2/users/clarifai/apps/main/models/general-image-recognition/outputs"
    )
    assert received.headers["Authorization"] == f"Key {PAT}"


def test_credentials_are_looked_for_in_order(monkeypatch):
    monkeypatch.setenv("CLARIFAI_API_KEY", "k")
    assert ClarifaiAdapter(pat="p", api_key="a").credentials().where == "pat="
    assert ClarifaiAdapter(api_key="a").credentials().where == "api_key="
    assert ClarifaiAdapter().credentials().where == "CLARIFAI_PAT"
    monkeypatch.delenv("CLARIFAI_PAT")
    assert ClarifaiAdapter().credentials().where == "CLARIFAI_API_KEY"
    monkeypatch.setenv("CLARIFAI_API_KEY", " ")
    found = ClarifaiAdapter().credentials()
    assert not found.found
    for place in ("CLARIFAI_PAT", "CLARIFAI_API_KEY", "pat="):
        assert place in found.where


# Each code of Clarifai's published list that a prediction can meet, and the unpublished.
CODES = {
    ThrottledError: [11003, 11005, 11006, 40016, 40030, 98014],
    TransientError: [
        10030,
        21313,
        21351,
        21352,
        21353,
        21354,
        21355,
        25604,
        25608,
        30001,
        30003,
        39996,
        39997,
        40010,
        40011,
        40012,
        40013,
        40014,
        40015,
        40017,
        40020,
        40021,
        40031,
        40032,
        40034,
        40035,
        40037,
        41000,
        41005,
        41101,
        43040,
        45001,
        45005,
        47201,
        63001,
        90500,
        98004,
        98005,
        98006,
        98008,
        98009,
        98010,
        98011,
        98012,
        98013,
        98015,
        98021,
        99001,
        99002,
        99003,
        99005,
        99009,
    ],
    PermanentError: [
        30002,
        30100,
        30101,
        30102,
        30103,
        30104,
        30105,
        30106,
        30300,
        31000,
        31106,
        39999,
        40001,
        40033,
        46003,
        47103,
        47104,
        47106,
        90400,
    ],
    FatalError: [
        10040,
        10050,
        10060,
        11000,
        11001,
        11002,
        11004,
        11007,
        11008,
        11009,
        11100,
        11101,
        11102,
        11103,
        11104,
        11105,
        11200,
        21101,
        21102,
        21106,
        21200,
        21201,
        21202,
        21203,
        21350,
        21400,
        21420,
        40036,
        60003,
        60006,
        69000,
        69001,
        12345,
        1,
        -1,
    ],
}


@pytest.mark.parametrize(
    ("kind", "code"), [(k, code) for k, codes in CODES.items() for code in codes]
)
def test_every_code_means_what_to_do(kind, code, api):
    """The same for a whole request and for one output of many."""
    service, adapter = api
    status = {"code": code, "description": "words", "details": f"key {PAT}"}
    says(service, {"status": {**status, "req_id": "r1"}, "outputs": []})
    [whole] = asked(adapter)
    says(service, {"status": {"code": 10010}, "outputs": [GOOD, {"status": status}]})
    good, one = asked(adapter, 2)
    assert type(whole) is type(one) is kind
    assert isinstance(good, Answer)
    assert whole.request_id == "r1"
    assert f"{code} (words" in str(whole)
    assert PAT not in told(whole) + told(one)


def test_the_table_of_codes_has_no_range_that_is_never_reached():
    for index, (first, last, kind) in enumerate(MEANING):
        earlier = [(a, b) for a, b, _ in MEANING[:index]]
        assert any(not any(a <= c <= b for a, b in earlier) for c in range(first, last + 1)), kind


def test_a_code_that_is_unknown_is_judged_by_the_http_status(api):
    service, adapter = api
    says(service, {"status": {"code": 77777}}, 503)
    assert type(asked(adapter)[0]) is TransientError
    says(service, {"status": {"code": 77777}}, 429, Retry_After="3")
    assert asked(adapter)[0].retry_after == 3.0


def test_a_throttle_hands_on_how_long(api):
    service, adapter = api
    says(service, {"status": {"code": 11005}}, 429, Retry_After="4")
    assert asked(adapter)[0].retry_after == 4.0
    says(service, {"status": {"code": 11005}}, 429)
    assert asked(adapter)[0].retry_after is None
    says(service, {"status": {"code": 11003}}, 429)
    assert asked(adapter)[0].retry_after == 3600.0


@pytest.mark.parametrize(
    "output",
    [
        None,
        7,
        [],
        {},
        {"status": None, "data": {"concepts": []}},
        {"data": {"concepts": []}},
        {"status": {"code": "10000"}, "data": {"concepts": []}},
        {"status": {"code": 10000}},
        {"status": {"code": 10000}, "data": None},
        {"status": {"code": 10000}, "data": []},
        {**GOOD, "data": {"concepts": None}},
        {**GOOD, "data": {"concepts": [None]}},
        {**GOOD, "data": {"concepts": [{}]}},
        {**GOOD, "data": {"concepts": [{"name": "a"}]}},
        {**GOOD, "data": {"concepts": [{"name": "a", "value": "0.5"}]}},
        {**GOOD, "data": {"concepts": [{"name": "a", "value": 1.5}]}},
        {**GOOD, "data": {"concepts": [{"name": "a", "value": True}]}},
        {**GOOD, "data": {"concepts": [{"value": 0.5}]}},
        {**GOOD, "data": {"concepts": [{"name": 5, "value": 0.5}]}},
        {**GOOD, "model": 5},
    ],
)
def test_what_is_malformed_is_never_an_empty_answer(output, api):
    service, adapter = api
    says(service, {"status": {"code": 10000}, "outputs": [GOOD, output]})
    good, bad = asked(adapter, 2)
    assert isinstance(good, Answer)
    assert type(bad) is TransientError


@pytest.mark.parametrize("data", [{"concepts": []}, {}])
def test_no_concepts_is_an_answer(data, api):
    service, adapter = api
    says(service, {"status": {"code": 10000}, "outputs": [{**GOOD, "data": data}]})
    assert asked(adapter) == [Answer((), "v1", "id-1")] or asked(adapter)[0].labels == ()


@pytest.mark.parametrize(
    "data",
    [
        [],
        5,
        None,
        {},
        {"status": {"code": 10000}},
        {"status": {"code": 10000}, "outputs": [GOOD]},
        {"outputs": [GOOD, GOOD]},
        {"status": {"code": 10000}, "outputs": {"a": 1, "b": 2}},
    ],
)
def test_json_without_an_output_for_each_picture(data, api):
    service, adapter = api
    says(service, data)
    assert {type(outcome) for outcome in asked(adapter, 2)} == {TransientError}
    says(service, data, 403)
    refused = asked(adapter, 2)
    complete = isinstance(data, dict) and data.get("status") and data.get("outputs") == [GOOD] * 2
    assert complete or {type(outcome) for outcome in refused} == {FatalError}


def test_a_page_of_a_proxy(api):
    service, adapter = api
    for status, kind in ((200, TransientError), (502, TransientError), (403, FatalError)):
        says(service, b"<html>", status)
        assert type(asked(adapter)[0]) is kind


@pytest.mark.skipif(not ANSWERS, reason="the recorded answers are not here")
def test_recorded_answers_say_what_they_said(api):
    assert len(ANSWERS) == 23
    service, adapter = api
    tops = {}
    for path in ANSWERS:
        recorded = json.loads(path.read_text())
        says(service, recorded)
        [answer] = asked(adapter)
        assert len(answer.labels) == 20
        assert answer.model_version == "aa9ca48295b37401f8af92ad1af0d91d"
        tops[path.name.removesuffix(".clarifai.json")] = max(answer.labels, key=lambda x: x.score)
        assert answer.labels == tuple(
            Label(c["name"], c["value"]) for c in recorded["outputs"][0]["data"]["concepts"]
        )
    assert {name: label.name for name, label in tops.items()} == TOPS


TOPS = {
    "binoculars.jpg": "window",
    "cheering_my_popinlaw.jpg": "people",
    "collie_in_a_park.jpg": "grass",
    "corgi_and_ball.jpg": "wood",
    "drawing_cow2.jpg": "vector",
    "drawing_lion.jpg": "vector",
    "fan.jpg": "room",
    "fireplace.jpg": "house",
    "front_door_bike crop.jpg": "wheel",
    "ganesha.jpg": "sculpture",
    "hammocks.jpg": "no person",
    "mona_lisa.jpg": "art",
    "nest.jpg": "technology",
    "photo_cow1.jpg": "cow",
    "ship_and_board_games.jpg": "library",
    "subway.jpg": "train",
    "toy_bus.jpg": "car",
    "toy_car2.jpg": "no person",
    "toy_cow1.jpg": "no person",
    "toy_robot.jpg": "toy",
    "toy_spaceship.jpg": "no person",
    "vegetables.jpg": "no person",
    "wine_glasses.jpg": "indoors",
}


def test_a_whole_batch_is_one_request():
    with emulate("clarifai", lambda _: [("a", 0.5)]) as service:
        answers = ClarifaiAdapter(endpoint=service.url).ask([PNG] * 128)
        assert len(answers) == 128
        assert len(service.received) == 1
        with pytest.raises(ProviderError):
            ClarifaiAdapter(endpoint=service.url).ask([PNG] * 129)


@pytest.mark.parametrize(
    "options",
    [
        {"max_concepts": 0},
        {"max_concepts": 201},
        {"min_value": 1.5},
        {"min_value": "x"},
        {"batch": 129},
        {"batch": 0},
        {"per_second": 0},
        {"timeout": -1},
        {"price": "x"},
        {"model": ""},
        {"endpoint": "http://api.clarifai.com"},
        {"endpoint": "https://api.clarifai.com?x=1"},
        {"endpoint": "api.clarifai.com"},
        {"pat": "a\r\nb"},
    ],
)
def test_options_that_cannot_work(options):
    with pytest.raises(UsageError):
        ClarifaiAdapter(**options)


def test_what_changes_answers_changes_the_identity():
    base = ClarifaiAdapter().identity
    for change in (
        {"model": "m"},
        {"version": "v"},
        {"user": "u"},
        {"app": "a"},
        {"max_concepts": 5},
        {"min_value": 0.5},
        {"endpoint": "http://127.0.0.1:9"},
    ):
        assert ClarifaiAdapter(**change).identity != base
    assert make_adapter("clarifai", pat="x", timeout="5").identity == base


def test_ids_cannot_leave_their_place_in_the_path(api):
    service, adapter = api
    says(service, {"status": {"code": 10000}, "outputs": [GOOD]})
    ClarifaiAdapter(endpoint=adapter._endpoint, model="../../x?y=1#z", user="a/b").ask([PNG])
    assert service.received[0].path == (
        "/v2/users/a%2Fb/apps/main/models/..%2F..%2Fx%3Fy%3D1%23z/outputs"
    )


def test_a_certificate_through_clarifai_is_the_same_as_without():
    def label(picture):
        return [("bright" if picture.mean() > 127.6 else "dark", 0.875)]

    photo = np.full((24, 24, 3), 128, dtype=np.uint8)
    options = {"denoiser": "none", "sigma": 0.5, "radius": "largest", "max_votes": 30}
    with emulate("clarifai", label) as service:
        adapter = ClarifaiAdapter(endpoint=service.url, per_second=10_000)
        with Smoother(adapter, plain=False, **options) as smoother:
            one = smoother.certify(photo)
        assert service.billed == one.attempts
    with Smoother(MockAdapter(label), plain=False, **options) as smoother:
        other = smoother.certify(photo)
    assert one.votes == other.votes
    assert len(one.votes) > 1
    assert one.model_version
