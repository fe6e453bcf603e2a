"""The mock: bytes in, labels out, with a service's limits."""

from __future__ import annotations

import contextlib
import sys
import threading
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from smoothapi import Retry, Smoother
from smoothapi.answer import Answer, Label
from smoothapi.encode import Codec
from smoothapi.errors import (
    FatalError,
    MissingExtraError,
    ModelChangedError,
    PermanentError,
    ThrottledError,
    TransientError,
    UnknownProviderError,
    UsageError,
)
from smoothapi.provider import Adapter, Limits, Price, make_adapter, provider_names, providers
from smoothapi.services import Fault, Faults, Latency, Probabilities
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
        (None, ()),
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


@pytest.fixture
def slept(monkeypatch):
    """Seconds that the mock asked to sleep, on a clock that only sleeping moves."""
    slept = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr("smoothapi_adapters.mock.adapter.time", clock)
    return slept


def test_latency_and_requests(slept):
    adapter = MockAdapter(lambda _: "x", latency=5)
    adapter.ask([PNG])
    assert slept == [5.0]
    assert adapter.requests == 1


def test_a_nameless_labeller_never_shares_stored_answers():
    def one(_):
        return "x"

    assert MockAdapter(one).identity != MockAdapter(one).identity
    named = [MockAdapter(one, labeller_id="a").identity for _ in range(2)]
    assert named[0] == named[1]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"labeller": 3}, "must be a callable"),
        ({"labeller": "nonsense"}, "Unknown labeller 'nonsense'"),
        ({"labeller": "os:nothing"}, "cannot be imported"),
        ({"labeller": "no_such_module:f"}, "cannot be imported"),
        ({"labeller": "math:pi"}, "cannot be called"),
        ({"labeller": "probabilities:bus 97%"}, "add up to 0.97"),
        ({"labeller": "probabilities:bus"}, "'bus' is not a label with its chance"),
        ({"labeller": "table:nowhere.json"}, "cannot be read"),
        ({"labeller": "replay:nowhere.jsonl"}, "cannot be read"),
        ({"latency": -1}, "not below 0"),
        ({"latency": "sometimes"}, "cannot be read"),
        ({"timeout": "nan"}, "timeout='nan'"),
        ({"retry_after": -1}, "retry_after=-1"),
        ({"faults": "2% tiemout"}, "no fault is called"),
        ({"model_changes": "v2 at 300"}, "'v2 at 300' cannot be read"),
        ({"limits": {"batch": 0}}, "batch"),
        ({"limits": {"formats": "gif"}}, "formats"),
        ({"limits": {"colour": 1}}, "colour"),
    ],
)
def test_impossible_options(bad, says):
    with pytest.raises(UsageError, match=says):
        make_adapter("mock", **{"labeller": "probabilities:bus 100%", **bad})


def test_every_option_can_be_text_from_settings_or_environment(monkeypatch):
    options = {
        "labeller": "probabilities:bus 90%, none 10%", "labeller_id": "me", "seed": "7",
        "model_version": "v1", "model_changes": "v2 after 1", "price": "2.50",
        "latency": "uniform 0 0.001", "faults": "@3 429-wait", "retry_after": "2.5",
        "timeout": "0.1", "quota": "3",
    }  # fmt: skip
    for name, value in options.items():
        monkeypatch.setenv(f"SMOOTHAPI_PROVIDERS__MOCK__{name.upper()}", value)
    monkeypatch.setenv("SMOOTHAPI_PROVIDERS__MOCK__LIMITS__BATCH", "2")
    monkeypatch.setenv("SMOOTHAPI_PROVIDERS__MOCK__LIMITS__FORMATS", "jpeg, png")
    with Smoother("mock", denoiser="none") as smoother:
        adapter = smoother.session.adapter
        assert adapter.identity == {"operation": "label", "labeller": "me"}
        assert adapter.price == Price(Decimal("2.50"))
        assert (adapter.limits.batch, adapter.limits.formats) == (2, ("jpeg", "png"))
        assert [adapter.ask([PNG])[0].model_version for _ in range(2)] == ["v1", "v2"]
        with pytest.raises(ThrottledError) as caught:
            adapter.ask([PNG])
        assert caught.value.retry_after == 2.5
        with pytest.raises(FatalError, match="quota"):
            adapter.ask([PNG, PNG])
        adapter.ask([PNG])
        with pytest.raises(FatalError, match="quota"):
            adapter.ask([PNG])
        assert (adapter.requests, adapter.billed) == (6, 3)


@pytest.mark.parametrize("returned", [3, [3], [("bus", 2.0)], [("", 0.5)], object()])
def test_a_labeller_that_returns_nonsense_ends_the_run_and_says_so(returned):
    with Smoother(MockAdapter(lambda _: returned), denoiser="none", size=8) as smoother:
        with pytest.raises(FatalError, match=r"[Ll]abel"):
            smoother.certify(PICTURE)


MEANT = {
    Fault.throttled: (ThrottledError, None), Fault.throttled_wait: (ThrottledError, 1.5),
    Fault.throttled_date: (ThrottledError, 2.0), Fault.denied: (FatalError, None),
    Fault.quota: (FatalError, None),
}  # fmt: skip


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_is_what_a_real_adapter_makes_of_it(fault):
    seen = []
    adapter = MockAdapter(
        lambda _: seen.append(1) or "x",
        faults=f"1x{fault}",
        retry_after=1.5,
        limits=Limits(batch=2),
    )
    error, wait = MEANT.get(fault, (TransientError, None))
    if fault is Fault.inside:
        outcomes = adapter.ask([PNG, PNG])
        assert [type(outcome) for outcome in outcomes] == [TransientError] * 2
    else:
        with pytest.raises(error) as caught:
            adapter.ask([PNG, PNG])
        assert type(caught.value) is error
        assert caught.value.request_id == "mock-1"
        assert getattr(caught.value, "retry_after", None) == wait
    assert adapter.requests == 1
    assert adapter.billed == len(seen) == (2 if fault in ("late", "half", "slow") else 0)
    assert adapter.ask([PNG])[0].labels[0].name == "x"


def test_a_pipeline_survives_faults_with_the_same_certificate_and_each_attempt_counted():
    chances = {"bus": 0.97, "van": 0.02, None: 0.01}
    # So many that chance, which threads share in, gives no picture up.
    retry = Retry(attempts=40, base=0.0001, cap=0.001)
    options = {"denoiser": "none", "radius": 0.1, "size": 8, "refresh": True, "retry": retry}
    with Smoother(MockAdapter(chances, seed=3), **options) as smoother:
        calm = smoother.certify(PICTURE)
    faults = "2x503, 5% reset, 5% late, 5% half, 5% inside, 5% 500"
    adapter = MockAdapter(chances, seed=3, faults=faults)
    with Smoother(adapter, **options) as smoother:
        storm = smoother.certify(PICTURE)
    assert storm == calm
    assert storm.attempts == adapter.requests > storm.queries
    assert storm.queries < adapter.billed < adapter.requests


def test_a_quota_ends_the_run_at_once_and_keeps_what_was_answered():
    adapter = MockAdapter({"bus": 1.0}, quota=20)
    with Smoother(adapter, denoiser="none", size=8, concurrency=4) as smoother:
        with pytest.raises(FatalError, match="quota for the month"):
            smoother.certify(PICTURE)
        assert adapter.billed == 20
    again = MockAdapter({"bus": 1.0})
    with Smoother(again, denoiser="none", size=8) as smoother:
        certificate = smoother.certify(PICTURE)
    assert certificate.cached == 20
    assert again.billed == certificate.queries == certificate.total_votes + 1 - 20


def test_a_change_of_the_model_in_mid_run_means_no_certificate():
    adapter = MockAdapter({"bus": 1.0}, model_version="v1", model_changes={20: "v2", 40: "v3"})
    with Smoother(adapter, denoiser="none", size=8) as smoother:
        with pytest.raises(ModelChangedError, match=r"'v1' and then 'v[23]'"):
            smoother.certify(PICTURE)


@pytest.mark.parametrize("threads", [1, 8])
def test_answers_do_not_depend_on_order_or_threads(threads):
    pictures = [np.full((4, 4, 3), n, dtype=np.uint8) for n in range(64)]
    adapter = MockAdapter({"a": 0.5, "b": 0.5}, seed=5)
    got = {}

    def ask(part):
        for n in part:
            got[n] = adapter.ask([Codec().encode(pictures[n])])[0].labels

    parts = [range(n, 64, threads) for n in range(threads)]
    workers = [threading.Thread(target=ask, args=(part,)) for part in parts]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    labeller = Probabilities({"a": 0.5, "b": 0.5}, seed=5)
    assert [got[n] for n in range(64)] == [labeller(picture) for picture in pictures]
    assert adapter.billed == 64


def test_latency_is_drawn_and_faults_take_their_time(slept):
    latency = Latency("empirical", (1.0, 2.0, 4.0), seed=1)
    adapter = MockAdapter(lambda _: "x", latency=latency, faults="@3 timeout", timeout=15)
    took = []
    for _ in range(3):
        slept.clear()
        with contextlib.suppress(TransientError):
            adapter.ask([PNG])
        took.append(sum(slept))
    assert took == [latency.seconds(0), latency.seconds(1), 15.0]


def test_the_repr_says_what_it_is_and_did():
    with MockAdapter({"bus": 1.0}, labeller_id="me", faults=Faults.parse("1x500")) as adapter:
        assert repr(adapter) == "<MockAdapter me requests=0 billed=0>"


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
    with pytest.raises(UsageError, match="no option 'colour'"):
        make_adapter("mock", colour="red")
