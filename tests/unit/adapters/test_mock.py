"""The mock: bytes in, labels out, with a service's limits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi.answer import Answer, Label
from smoothapi.dispatch import Adapter, Limits, make_adapter, provider_names, providers
from smoothapi.encode import Codec
from smoothapi.errors import (
    MissingExtraError,
    PermanentError,
    UnknownProviderError,
    UsageError,
)
from smoothapi_adapters.mock import MockAdapter

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
PICTURE = np.full((90, 90, 3), 128, dtype=np.uint8)
PNG = Codec("png").encode(PICTURE)


def test_it_is_an_adapter():
    assert isinstance(MockAdapter(lambda _: "x"), Adapter)


@pytest.mark.parametrize("codec", ["png", "jpeg"])
@pytest.mark.parametrize(
    ("photo", "label"),
    [("school_bus", "school bus"), ("monarch", "monarch"), ("balloon", "balloon")],
)
def test_the_default_labeller_knows_the_photos_that_ship(photo, label, codec):
    picture = np.asarray(Image.open(PHOTOS / f"{photo}.jpg").convert("RGB"))
    [answer] = make_adapter("mock").ask([Codec(codec).encode(picture)])
    assert isinstance(answer, Answer)
    assert answer.labels[0].name == label
    assert answer.labels[0].score > 0.5
    assert [a.score for a in answer.labels] == sorted(
        (a.score for a in answer.labels), reverse=True
    )
    assert answer.model_version
    assert answer.request_id


def test_a_picture_that_is_not_square_is_cropped_in_the_middle():
    picture = np.asarray(Image.open(PHOTOS / "monarch.jpg").convert("RGB"))
    wide = np.pad(picture, ((0, 0), (100, 100), (0, 0)))
    [one] = make_adapter("mock").ask([Codec().encode(picture)])
    [other] = make_adapter("mock").ask([Codec().encode(wide)])
    assert one.labels[0].name == other.labels[0].name


@pytest.mark.parametrize(
    ("returned", "labels"),
    [
        ("bus", (Label("bus", 1.0),)),
        ([("bus", 0.5), ("van", 0.25)], (Label("bus", 0.5), Label("van", 0.25))),
        ([Label("bus", 0.5, ("vehicle",))], (Label("bus", 0.5, ("vehicle",)),)),
        (Answer((Label("bus", 0.5),)), (Label("bus", 0.5),)),
        ([], ()),
    ],
)
def test_a_labeller_of_ones_own_returns_what_is_handy(returned, labels):
    [answer] = MockAdapter(lambda _: returned).ask([PNG])
    assert answer.labels == labels


def test_the_labeller_sees_the_decoded_picture():
    seen = []
    MockAdapter(lambda picture: seen.append(picture) or "x").ask([PNG])
    assert np.array_equal(seen[0], PICTURE)
    assert seen[0].dtype == np.uint8


@pytest.mark.parametrize("payload", [b"", b"text", PNG[:40], PNG[:-30]])
def test_what_is_no_image_is_a_permanent_failure_of_that_payload(payload):
    good, bad = MockAdapter(lambda _: "x", limits=Limits(batch=2)).ask([PNG, payload])
    assert isinstance(good, Answer)
    assert isinstance(bad, PermanentError)


@pytest.mark.parametrize(
    "limits",
    [Limits(max_bytes=50), Limits(min_side=100), Limits(max_side=80), Limits(formats=("jpeg",))],
)
def test_limits_are_enforced(limits):
    [outcome] = MockAdapter(lambda _: "x", limits=limits).ask([PNG])
    assert isinstance(outcome, PermanentError)


def test_too_many_pictures_in_a_request():
    with pytest.raises(PermanentError, match="at most 1"):
        MockAdapter(lambda _: "x").ask([PNG, PNG])


def test_latency_and_requests():
    adapter = MockAdapter(lambda _: "x", latency=0.05)
    began = time.monotonic()
    adapter.ask([PNG])
    assert time.monotonic() - began >= 0.05
    assert adapter.requests == 1


def test_a_nameless_labeller_never_shares_stored_answers():
    def one(_):
        return "x"

    assert MockAdapter(one).identity != MockAdapter(one).identity
    named = [MockAdapter(one, labeller_id="a").identity for _ in range(2)]
    assert named[0] == named[1]


@pytest.mark.parametrize("bad", [{"labeller": 3}, {"labeller": str, "latency": -1}])
def test_impossible_options(bad):
    with pytest.raises(UsageError):
        MockAdapter(**bad)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"smoothapi-vision\[demo\]"):
        make_adapter("mock")
    [info] = [info for info in providers() if info.name == "mock"]
    assert info.adapter is None
    assert "demo" in info.problem


def test_unknown_providers_are_refused_with_a_hint():
    with pytest.raises(UnknownProviderError, match="Did you mean 'mock'"):
        make_adapter("mok")
    assert "mock" in provider_names()


def test_options_that_an_adapter_does_not_take():
    with pytest.raises(UsageError, match="does not take"):
        make_adapter("mock", colour="red")
