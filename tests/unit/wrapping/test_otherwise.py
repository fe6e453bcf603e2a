"""What a wrapped call gives where budget, deadline, provider or this machine end it first."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

import pytest

import smoothapi
from smoothapi import (
    Answer,
    Budget,
    BudgetExceededError,
    ImageError,
    Label,
    ProviderError,
    Retry,
    StoppedError,
    StoreError,
    UnreachableRadiusError,
    UsageError,
    certificate_of,
    finding_of,
    with_options,
)
from smoothapi.services import serve
from smoothapi.store.block_ledger import BlockLedger
from smoothapi.wiring import open_session
from smoothapi.wrapping import Call, CallPolicy, Certifier, Item, OwnCall
from smoothapi.wrapping import certifier as certifier_module
from smoothapi.wrapping.proxy import _behind
from smoothapi_adapters.mock import MockAdapter
from tests.unit.wrapping.conftest import (
    FAST,
    KITS,
    MOST,
    PHOTO,
    PIXELS,
    Gate,
    digest,
    labeller,
    png,
)

OPEN = ("plain", "none")
# Few enough that the caller's own call is followed by votes that fail.
ENDS = {
    "budget": (BudgetExceededError, {"budget": Budget(attempts=3)}, None),
    "provider": (ProviderError, {}, "@2- 403"),
    "deadline": (StoppedError, {"within": 0.3}, None),
}
PAIRS = [
    *((name, "budget") for name in MOST),
    ("aws", "provider"),
    ("aws", "deadline"),
    ("azure4", "provider"),
    ("google", "deadline"),
]
every_end = pytest.mark.parametrize(
    ("kit", "end"), [(KITS[name], end) for name, end in PAIRS], ids=["-".join(p) for p in PAIRS]
)
aws = pytest.mark.parametrize("kit", [KITS["aws"]], ids=["aws"])


def own_call_first(pixels):
    """Be quick about the caller's own picture, and slow about copies of it."""
    if digest(pixels) != digest(PIXELS):
        time.sleep(0.12)
    return labeller(pixels)


def labelled(kit, wrapped, end, calls=1, **options):
    """Return the client, responses, and how many pictures the service was asked about."""
    _, more, faults = ENDS[end]
    backend = own_call_first if end == "deadline" else labeller
    with serve(kit.service, backend, faults=faults) as service:
        client = wrapped(kit.client(service), **{**more, **options})
        responses = [kit.label(client) for _ in range(calls)]
        client.close()
        return client, responses, sum(received.pictures for received in service.received)


@every_end
def test_closed_it_raises(end, kit, wrapped):
    with pytest.raises(ENDS[end][0]) as caught:
        labelled(kit, wrapped, end)
    assert caught.value.attempts >= (end == "provider")


@every_end
@pytest.mark.parametrize("otherwise", OPEN)
def test_open_it_gives_the_providers_answer_or_no_label_and_says_so(
    otherwise, end, kit, wrapped, caplog
):
    with serve(kit.service, labeller) as service:
        plain = kit.label(kit.client(service))
    caplog.set_level(logging.WARNING, logger="smoothapi")
    calls = 1 if end == "provider" else 2  # the second would be refused as the votes were
    client, responses, asked = labelled(kit, wrapped, end, calls, otherwise=otherwise)
    if end == "budget":
        assert asked == 2  # the caller's own calls, and nothing in vain
    for response in responses:
        assert type(response) is type(plain)
        assert kit.scores(response) == (kit.scores(plain) if otherwise == "plain" else {})
        finding = finding_of(response)
        assert (finding.certified, finding.ended) == (False, end)
        assert len(finding.why) > 20
        assert [label.name for label in finding.labels] == list(kit.scores(plain))
        assert not any(label.certified for label in finding.labels)
        with pytest.raises(UsageError, match="no such certificate") as caught:
            certificate_of(response)
        assert finding.why in str(caught.value)
        if kit.service == "aws":
            assert response["Smoothapi"]["certified"] is False
            assert response["Smoothapi"]["why"] == finding.why
    assert _behind(client).certifier.uncertified == {end: calls}
    told = [r.getMessage() for r in caplog.records if "uncertified" in r.getMessage()]
    assert len(told) == 1  # and counted from then on
    assert repr(otherwise) in told[0]


@every_end
def test_open_and_marked_no_label_is_marked_certified(end, kit, wrapped):
    _, [response], _ = labelled(kit, wrapped, end, otherwise="plain", uncertified="mark")
    assert kit.marked(response) == {"Bus": False, "Vehicle": False, "Van": False}
    assert kit.scores(response)["Bus"] == 0.97


@aws
def test_the_log_says_once_of_each_choice_what_is_given(kit, service, wrapped, caplog):
    caplog.set_level(logging.WARNING, logger="smoothapi")
    client = wrapped(budget=Budget(attempts=3))
    for otherwise in ("plain", "none", "plain", "none"):
        kit.label(with_options(client, otherwise=otherwise))
    told = [r.getMessage() for r in caplog.records if "uncertified" in r.getMessage()]
    assert len(told) == 2
    assert "given the provider's own answer, uncertified, as otherwise='plain' says" in told[0]
    assert "given no labels, uncertified, as otherwise='none' says" in told[1]
    assert _behind(client).certifier.uncertified == {"budget": 4}


@aws
def test_a_budget_that_is_used_up_stops_votes_and_never_the_callers_own_call(kit, service, wrapped):
    client = wrapped(budget=Budget(attempts=30), otherwise="plain")
    photos = [png(PIXELS[:, i:]) for i in range(5)]
    findings = [finding_of(kit.label(client, photo)) for photo in photos]
    assert findings[0].certified
    assert not findings[-1].certified
    beyond = sum(not finding.certified for finding in findings)
    assert sum(received.pictures for received in service.received) <= 30 + beyond


@aws
def test_the_options_say_per_call_what_it_gives(kit, service, wrapped):
    client = wrapped(budget=Budget(attempts=3))
    assert kit.scores(kit.label(with_options(client, otherwise="none"))) == {}
    assert kit.scores(kit.label(with_options(client, otherwise="plain")))
    with pytest.raises(BudgetExceededError):
        kit.label(client)


@pytest.mark.parametrize("otherwise", OPEN)
def test_the_sdks_errors_for_the_callers_own_call_are_raised_all_the_same(otherwise, kit, wrapped):
    with serve(kit.service, labeller, faults="@1- 403") as service:
        inner = kit.client(service)
        said = []
        for client in (inner, wrapped(inner, otherwise=otherwise)):
            with pytest.raises(Exception) as caught:
                kit.label(client)
            assert not isinstance(caught.value, smoothapi.SmoothAPIError)
            said.append(type(caught.value))
        assert said[0] is said[1]


@aws
@pytest.mark.parametrize("otherwise", OPEN)
def test_misuse_is_never_answered_for(otherwise, kit, service, wrapped):
    with pytest.raises(UnreachableRadiusError):
        kit.label(wrapped(otherwise=otherwise, radius=2.0))
    client = wrapped(otherwise=otherwise)
    client.close()
    with pytest.raises(UsageError, match="closed"):
        kit.label(client)


@aws
@pytest.mark.parametrize(
    ("error", "ended"),
    [(ImageError("It is too large."), "picture"), (StoreError("Disk full."), "here")],
)
def test_this_machine_may_end_it_too(error, ended, kit, service, wrapped, monkeypatch):
    def failing(*_, **__):
        raise error

    place = "load_image" if ended == "picture" else "certify_labels"
    monkeypatch.setattr(certifier_module, place, failing)
    response = kit.label(wrapped(otherwise="plain"))
    assert set(kit.scores(response)) == {"Bus", "Vehicle", "Van"}
    assert finding_of(response).ended == ended
    assert str(error) in finding_of(response).why
    with pytest.raises(type(error)):
        kit.label(wrapped())


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("otherwise", ["raise", *OPEN])
def test_a_budget_that_cannot_be_read_ends_it_too(otherwise, pictures, monkeypatch):
    def away(*_):
        raise StoreError("The database is away.")

    votes = MockAdapter(lambda _: [("Bus", 1.0)], labeller_id="budget")
    calls = []

    def item():
        own = OwnCall(
            votes,
            lambda: calls.append(1) or "Bus",
            lambda said: Answer((Label(said, 1.0),), "budget"),
        )
        return Item(
            PHOTO, own, votes, None, lambda response, verdict: [response] * verdict.keeps("Bus")
        )

    certifier = Certifier(partial(open_session, plain=False, budget=Budget(), **FAST))
    call = Call([item() for _ in range(pictures)], join=list)
    monkeypatch.setattr(BlockLedger, "room", away)
    monkeypatch.setattr(BlockLedger, "reserve", away)
    try:
        if otherwise == "raise":
            with pytest.raises(StoreError, match="away"):
                certifier.certify(call)
            assert calls == []
            return
        given = certifier.certify(call, CallPolicy(otherwise=otherwise))
    finally:
        certifier.close()
    assert [found.ended for found in given.findings] == ["here"] * pictures
    assert given.response == [["Bus"] if otherwise == "plain" else []] * pictures
    assert len(calls) == pictures


# The deadline


@aws
@pytest.mark.timeout(60)
def test_after_the_deadline_nothing_is_sent_and_what_was_under_way_is_kept(
    kit, wrapped, passing_when
):
    gate = Gate()
    with serve(kit.service, gate) as service:
        client = wrapped(kit.client(service), otherwise="plain")
        began = time.monotonic()
        with passing_when(gate.begun):
            first = finding_of(kit.label(with_options(client, within=60.0)))
        assert first.ended == "deadline"
        assert time.monotonic() - began < 45  # it does not wait for what is under way
        gate.open.set()
        for thread in threading.enumerate():
            if thread.name == "smoothapi-call":
                thread.join()  # but this does
        asked = len(service.received)
        certificate = certificate_of(kit.label(client))
        client.close()
    assert 1 < asked <= 1 + FAST["concurrency"]
    assert certificate.cached == asked - 1  # all but the caller's own
    assert certificate.claims


@aws
@pytest.mark.timeout(60)
def test_a_call_that_ends_in_time_is_as_without_a_deadline(kit, service, wrapped):
    response = kit.label(wrapped(within=50.0))
    assert set(kit.scores(response)) == {"Bus", "Vehicle"}
    assert finding_of(response).certified
    assert not [t for t in threading.enumerate() if t.name == "smoothapi-call"]


@aws
@pytest.mark.timeout(60)
def test_a_deadline_that_passes_in_the_callers_own_call_buys_no_vote(wrapped, kit):
    def slow(pixels):
        time.sleep(0.3)
        return labeller(pixels)

    with serve(kit.service, slow) as service:
        client = wrapped(kit.client(service), within=0.05, otherwise="plain")
        response = kit.label(client)
        with pytest.raises(StoppedError):
            kit.label(with_options(client, otherwise="raise"))
        client.close()
        assert sum(received.pictures for received in service.received) in (1, 2)
    assert set(kit.scores(response)) == {"Bus", "Vehicle", "Van"}
    assert finding_of(response).ended == "deadline"


@aws
@pytest.mark.timeout(60)
def test_a_client_may_be_closed_at_once_after_a_deadline(kit, wrapped):
    with serve(kit.service, own_call_first) as service:
        client = wrapped(kit.client(service), within=0.15, otherwise="none")
        assert kit.scores(kit.label(client)) == {}
        client.close()
        asked = len(service.received)
        time.sleep(0.2)
        assert len(service.received) == asked


class Held:
    """An adapter that answers when it may, and says whether it was closed in the middle of it."""

    def __init__(self, adapter, may):
        self._adapter, self._may = adapter, may
        self.begun, self.busy = threading.Semaphore(0), 0
        self.closed_when = []

    def __getattr__(self, name):
        return getattr(self._adapter, name)

    def ask(self, payloads):
        self.busy += 1
        self.begun.release()
        self._may.wait(50)
        answers = self._adapter.ask(payloads)
        self.busy -= 1
        return answers

    def close(self):
        self.closed_when.append(self.busy)


@pytest.mark.timeout(60)
def test_what_asks_is_not_closed_under_a_request(passing_when):
    may = threading.Event()
    votes = Held(MockAdapter(lambda _: [("Bus", 1.0)], labeller_id="held"), may)
    own = OwnCall(votes, lambda: "Bus", lambda said: Answer((Label(said, 1.0),), "held"))
    call = Call([Item(PHOTO, own, votes, None, lambda response, _: response)])
    options = {**FAST, "concurrency": 1}
    certifier = Certifier(partial(open_session, plain=False, budget=Budget(), **options))
    with passing_when(votes.begun):
        certified = certifier.certify(call, CallPolicy(within=60.0, otherwise="plain"))
    assert certified.findings[0].ended == "deadline"
    assert votes.busy == 1
    assert not votes.closed_when
    may.set()
    certifier.close()
    for thread in threading.enumerate():
        if thread.name == "smoothapi-call":
            thread.join()
    assert votes.closed_when
    assert not any(votes.closed_when)


@aws
@pytest.mark.timeout(60)
def test_a_provider_that_was_given_up_is_still_asked_by_the_callers_own_call(kit, wrapped):
    """The circuit breaker keeps votes back, and not what would be sent without smoothapi."""
    from botocore.exceptions import ClientError

    with serve(kit.service, labeller, faults="@2-30 503") as service:
        retry = Retry(attempts=2, base=0.001, cap=0.002, deadline=1.0)
        client = wrapped(kit.client(service), otherwise="plain", retry=retry)
        assert finding_of(kit.label(client)).ended == "provider"
        asked = len(service.received)
        assert asked < 30
        said = []
        for _ in range(32 - asked):
            try:
                said.append(finding_of(kit.label(client)))
            except ClientError:  # the SDK's own: the service is still down
                said.append(None)
        client.close()
    assert said[-1] is not None
    assert said[-1].labels


# Elsewhere


@aws
def test_a_call_that_is_passed_says_that_it_is_uncertified(kit, wrapped):
    import boto3
    from botocore.stub import Stubber

    del kit
    client = boto3.client("rekognition", region_name="us-east-1")
    with Stubber(client) as stubber:
        for _ in range(2):
            stubber.add_response("detect_labels", {"Labels": [{"Name": "Bus", "Confidence": 97.0}]})
        passing = wrapped(client, remote="pass")
        bucket = {"S3Object": {"Bucket": "abc", "Name": "x"}}
        response = passing.detect_labels(Image=bucket)
        beside = with_options(passing, attach=False).detect_labels(Image=bucket)
    assert response["Labels"] == beside["Labels"] == [{"Name": "Bus", "Confidence": 97.0}]
    assert "Smoothapi" not in beside
    for each in (response, beside):
        assert (finding_of(each).certified, finding_of(each).ended) == (False, "elsewhere")
        assert "S3" in finding_of(each).why
