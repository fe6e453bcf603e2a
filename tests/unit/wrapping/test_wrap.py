"""wrap: the SDK's own answers, certified, through four real SDKs."""

from __future__ import annotations

import gc
import json
import threading
from functools import partial
from importlib.metadata import EntryPoint

import pytest
from PIL import Image

import smoothapi
from smoothapi import Answer, Budget, Label, certificate_of, finding_of, verify, wrap
from smoothapi.errors import (
    BudgetExceededError,
    FatalError,
    ProviderError,
    TooManyFailuresError,
    UsageError,
)
from smoothapi.provider import registry
from smoothapi.services import serve
from smoothapi.wiring import open_session
from smoothapi.wrapping import Call, Certifier, Item, OwnCall, Passed, proxy
from smoothapi.wrapping.proxy import _behind
from smoothapi_adapters.mock import MockAdapter
from tests.unit.wrapping.conftest import (
    FAST,
    IMPATIENT,
    KITS,
    PATIENT,
    PHOTO,
    PIXELS,
    SECRET,
    labeller,
    png,
)


def outcome(call, *args):
    """Return what a call returned, or the error that it raised; none of ours may be it."""
    try:
        return call(*args)
    except Exception as error:
        if isinstance(error, smoothapi.SmoothAPIError):
            raise
        return error


def test_the_same_type_with_certified_labels_and_a_certificate_that_verifies(kit, service, wrapped):
    plain = kit.label(kit.client(service))
    client = wrapped()
    response = kit.label(client)
    assert type(response) is type(plain)
    assert set(kit.scores(plain)) == {"Bus", "Vehicle", "Van"}
    own = kit.scores(plain)
    assert kit.scores(response) == {"Bus": own["Bus"], "Vehicle": own["Vehicle"]}
    certificate = certificate_of(response)
    assert {claim.label for claim in certificate.claims} == {"Bus", "Vehicle"}
    assert certificate.target["labels"] == ["Bus", "Vehicle", "Van"]  # Kite was not in the answer
    assert certificate.radius == 0.05
    assert "the photo's size and digest" in verify(certificate, PHOTO)
    assert certificate.plain_asked is False
    # The plain client's call, the wrapped one's own, the votes, and what was under way for Van.
    asked = sum(received.pictures for received in service.received)
    assert asked == 1 + certificate.queries == 1 + certificate.attempts
    assert certificate.queries >= 1 + certificate.total_votes
    free = kit.service == "google"  # the first thousand of a month
    assert certificate.cost >= (0 if free else certificate.queries / 1000)


@pytest.mark.parametrize("kit", [KITS["google-grpc"]], ids=["google-grpc"])
def test_over_grpc_too(kit, service, wrapped):
    response = kit.label(wrapped())
    assert kit.scores(response) == {"Bus": 0.97, "Vehicle": 0.96}
    assert verify(certificate_of(response), PHOTO)


def test_what_cannot_be_certified_is_marked_on_demand(kit, service, wrapped):
    response = kit.label(wrapped(uncertified="mark"))
    assert kit.marked(response) == {"Bus": True, "Vehicle": True, "Van": False}
    assert kit.scores(response)["Van"] == 0.0  # nothing is certified of it
    votes = [json.loads(vote)[0] for vote in certificate_of(response).vote_order()]
    share = sum(vote["Van"] >= 0.5 for vote in votes) / len(votes)
    [van] = [label for label in finding_of(response).labels if label.name == "Van"]
    assert (van.certified, van.score, van.share) == (False, 0.0, share)
    assert van.own == pytest.approx(0.9)
    assert 0 < share < 1


def test_the_same_picture_again_costs_its_own_call_only(kit, service, wrapped):
    client = wrapped()
    first, second = certificate_of(kit.label(client)), certificate_of(kit.label(client))
    assert second == first
    assert second.queries == 1
    assert second.cached >= first.total_votes


def test_all_else_passes_through_untouched(kit, service, wrapped):
    inner = kit.client(service)
    client = wrapped(inner)
    assert isinstance(client, type(inner))
    assert set(dir(inner)) == set(dir(client))
    outcomes = []
    for one in (inner, client):
        before = len(service.received)
        # boto3 generates classes of errors for each client.
        outcomes.append([kind.__name__ for kind in type(outcome(kit.other, one)).__mro__])
        assert len(service.received) == before + 1  # as often as without
    assert outcomes[0] == outcomes[1]
    assert _behind(client).certifier.session is None  # nothing was certified, so nothing was opened
    client.something = 3
    assert inner.something == 3
    del client.something
    with pytest.raises(AttributeError):
        client.something  # noqa: B018
    with pytest.raises(AttributeError):
        client.no_such_method()


def test_pictures_elsewhere_are_refused_or_passed(kit, service, wrapped):
    with pytest.raises(UsageError, match="remote='pass'") as caught:
        kit.url(wrapped())
    assert "Fetch it" in str(caught.value)
    assert not service.received
    with pytest.raises(UsageError, match="no such certificate"):
        certificate_of(outcome(kit.url, wrapped(remote="pass")))
    assert len(service.received) == 1


def test_the_budget_is_kept_and_what_it_cannot_pay_for_is_not_begun(kit, service, wrapped):
    client = wrapped(budget=Budget(attempts=10))
    with pytest.raises(BudgetExceededError, match="at least") as caught:
        kit.label(client)
    assert caught.value.attempts == 0
    assert not service.received  # not even the caller's own call, which would be paid in vain
    client = wrapped(budget=Budget(attempts=20), radius=0.01)
    kit.label(client)
    with pytest.raises(BudgetExceededError):
        for i in range(20):
            kit.label(client, png(PIXELS[:, i:]))
    assert sum(received.pictures for received in service.received) <= 20


def test_one_budget_for_all_of_a_clients_operations_and_threads(kit, service, wrapped):
    client = wrapped(budget=Budget(attempts=35), concurrency=8)
    photos = [png(PIXELS[:, : 90 + i]) for i in range(3)]
    outcomes = []

    def label(photo):
        try:
            outcomes.append(certificate_of(kit.label(client, photo)))
        except BudgetExceededError:
            outcomes.append(None)

    threads = [threading.Thread(target=label, args=[photo]) for photo in photos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 3
    assert None in outcomes
    assert sum(received.pictures for received in service.received) <= 35


def test_threads_share_a_client_and_get_their_own_answers(kit, service, wrapped):
    client = wrapped(concurrency=8)
    photos = [png(PIXELS[:, : 90 + i]) for i in range(3)]
    found = {}

    def label(number):
        found[number] = certificate_of(kit.label(client, photos[number]))

    threads = [threading.Thread(target=label, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, photo in enumerate(photos):
        assert "the photo's size and digest" in verify(found[number], photo)
    pictures = sum(received.pictures for received in service.received)
    assert pictures == sum(c.attempts for c in found.values())


def test_an_answer_without_labels_has_an_empty_list_and_costs_one_query(kit, wrapped):
    with serve(kit.service, lambda _: []) as service:
        client = wrapped(kit.client(service))
        response = kit.label(client)
        assert kit.scores(response) == {}
        certificate = certificate_of(response)
        assert (certificate.reason, certificate.total_votes, certificate.queries) == (
            "no-answer",
            0,
            1,
        )
        assert certificate.explanation == "no vote was for what was to be certified"
        assert verify(certificate)
        assert smoothapi.Certificate.from_json(certificate.to_json()) == certificate
        assert sum(received.pictures for received in service.received) == 1
        client.close()


def test_where_nothing_can_be_certified_the_list_is_empty_and_the_certificate_says_why(
    kit, wrapped
):
    def fickle(pixels):
        return labeller(pixels)[-1:] if pixels.tobytes() == PIXELS.tobytes() else []

    with serve(kit.service, fickle) as service:
        client = wrapped(kit.client(service))
        response = kit.label(client)
        certificate = certificate_of(response)
        assert kit.scores(response) == {}
        assert certificate.abstained
        assert not finding_of(response).certified
        assert finding_of(response).why == certificate.explanation
        assert finding_of(response).ended == ""
        assert certificate.reason in ("unlikely", "futile", "no-answer")
        assert verify(certificate)
        client.close()


def test_faults_are_retried_by_us_alone_and_change_nothing(kit, service, wrapped):
    fault = "reset" if kit.service == "aws" else "503"
    calm = certificate_of(kit.label(wrapped()))
    with serve(kit.service, labeller, faults=f"@1 {fault}, @3 {fault}, @5-6 {fault}") as stormy:
        client = wrapped(kit.client(stormy), refresh=True, retry=PATIENT)
        certificate = certificate_of(kit.label(client))
        client.close()
        asked = sum(max(1, received.pictures) for received in stormy.received)
    assert certificate.claims == calm.claims
    assert certificate.votes == calm.votes
    assert certificate.attempts >= certificate.queries + (1 if "google" in kit.service else 4)
    assert asked == certificate.attempts


def test_the_callers_own_call_raises_the_sdks_errors(kit, wrapped):
    with serve(kit.service, labeller, faults="@1- 403") as service:
        inner = kit.client(service)
        with pytest.raises(Exception) as plain:
            kit.label(inner)
        client = wrapped(inner)
        with pytest.raises(Exception) as caught:
            kit.label(client)
        assert type(caught.value) is type(plain.value)
        assert not isinstance(caught.value, smoothapi.SmoothAPIError)
        assert len(service.received) == 2  # and is not repeated
        client.close()


def test_after_it_smoothapis_errors_say_what_was_spent(kit, wrapped):
    with serve(kit.service, labeller, faults="@2- 403") as service:
        client = wrapped(kit.client(service))
        with pytest.raises(FatalError) as caught:
            kit.label(client)
        assert caught.value.attempts == sum(max(1, r.pictures) for r in service.received)
        assert SECRET not in str(caught.value)
        client.close()
    with serve(kit.service, labeller, faults="@2- 500") as service:
        client = wrapped(kit.client(service), retry=IMPATIENT)
        with pytest.raises((TooManyFailuresError, ProviderError)):
            kit.label(client)
        client.close()


def test_what_the_service_refuses_the_sdk_says(kit, service, wrapped):
    inner = kit.client(service)
    said = []
    for one in (inner, wrapped(inner)):
        found = outcome(kit.label, one, b"no picture at all")
        # Google's SDK returns such an error in the response.
        said.append(str(found) if isinstance(found, Exception) else found.error.code)
    assert said[0] == said[1]


def test_a_service_that_is_down_raises_the_sdks_error_after_our_retries(kit, wrapped):
    service = serve(kit.service, labeller)
    client = wrapped(kit.client(service))
    service.close()
    with pytest.raises(Exception) as caught:
        kit.label(client)
    assert not isinstance(caught.value, smoothapi.SmoothAPIError)
    client.close()


def test_no_secret_is_shown(kit, service, wrapped):
    client = wrapped()
    response = kit.label(client)
    certificate = certificate_of(response)
    shown = [
        repr(client),
        str(client),
        repr(_behind(client)),
        certificate.to_json(),
        repr(certificate),
    ]
    assert not any(SECRET in text for text in shown)
    assert "wrapped by smoothapi" in repr(client)


def test_it_is_closed_with_the_client_by_with_and_by_itself(kit, service, wrapped):
    client = wrapped()
    with client as same:
        assert same is client
        kit.label(client)
        session = _behind(client).certifier.session
    assert session.resources.closed
    with pytest.raises(UsageError, match="closed"):
        kit.label(client)
    other = wrap(kit.client(service), budget="$1", **FAST)
    kit.label(other)
    session = _behind(other).certifier.session
    del other
    gc.collect()
    assert session.resources.closed


def test_a_dropped_client_ends_its_calls_first(service, kit):
    done, dropped = [], threading.Event()
    call = wrap(kit.client(service), budget="$1", **FAST)

    def label(client):
        dropped.wait(30)
        done.append(kit.label(client))

    thread = threading.Thread(target=label, args=[call])
    thread.start()
    del call
    gc.collect()
    dropped.set()
    thread.join()
    assert certificate_of(done[0])


def test_a_new_model_is_asked_anew(kit, wrapped):
    """The caller is answered by the model that serves: votes of an earlier one do not count."""
    from smoothapi import Answer

    if "google" in kit.service:
        pytest.skip("Google does not say which model answers")
    version = ["2.0"]

    def backend(pixels):
        return Answer(tuple(labeller(pixels)), model_version=version[0])

    with serve(kit.service, backend) as service:
        client = wrapped(kit.client(service))
        old = certificate_of(kit.label(client))
        version[0] = "3.0"
        new = certificate_of(kit.label(client))
        client.close()
    assert (old.model_version, new.model_version) == ("2.0", "3.0")
    assert new.cached == 0


# Without an SDK


class Stranger:
    pass


@pytest.mark.parametrize("client", [Stranger(), object(), None, dict])
def test_unknown_clients_are_refused_with_a_list(client):
    with pytest.raises(UsageError, match=r"azure\.ai\.vision\.imageanalysis.*botocore\.client"):
        wrap(client, budget="$1")


def test_other_clients_of_the_same_sdks_are_refused():
    import boto3
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import vision

    with pytest.raises(UsageError, match=r"'s3'.*boto3\.client\(\"rekognition\"\)"):
        wrap(boto3.client("s3", region_name="us-east-1"), budget="$1")
    with pytest.raises(UsageError, match="ImageAnnotatorClient"):
        wrap(
            vision.ProductSearchClient(credentials=AnonymousCredentials(), transport="rest"),
            budget="$1",
        )


@pytest.mark.parametrize(
    "bad",
    [{"budget": None}, {"budget": "much"}, {"uncertified": "hide"}, {"remote": "fetch"},
     {"sigma": 9}, {"radius": -1}, {"concurrency": 0}, {"codec": "gif"}, {"max_votes": 0}],
)  # fmt: skip
def test_bad_options(bad):
    import boto3

    client = boto3.client("rekognition", region_name="us-east-1")
    with pytest.raises(UsageError):
        wrap(client, **{"budget": "$1", **bad})
    with pytest.raises(TypeError, match="budget"):
        wrap(client)


def test_a_wrapped_client_is_not_wrapped_again_nor_copied():
    import copy
    import pickle

    import boto3

    client = wrap(boto3.client("rekognition", region_name="us-east-1"), budget="$1")
    with pytest.raises(UsageError, match="already"):
        wrap(client, budget="$1")
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="wrap the copy"):
            attempt(client)
    client.close()


@pytest.mark.parametrize("response", [{}, {"Labels": []}, object(), None, {"Smoothapi": 3}])
def test_responses_without_a_certificate(response):
    with pytest.raises(UsageError, match="no such certificate"):
        certificate_of(response)


class AcmeClient:
    """A stranger's SDK: it answers out of its head."""

    def tag(self, photo):
        return {"tags": ["Bus", "Van"]}

    def ping(self):
        return "pong"


class AcmeWrapper:
    operations = ("tag",)

    def __init__(self, client):
        self.client = client

    def read(self, operation, arguments, keywords):
        [photo] = arguments
        votes = MockAdapter(lambda _: [("Bus", 1.0)], labeller_id="acme")

        def write(response, verdict):
            response["tags"] = [tag for tag in response["tags"] if verdict.keeps(tag)]
            return response

        own = OwnCall(
            votes,
            lambda: self.client.tag(photo),
            lambda response: Answer(tuple(Label(tag, 1.0) for tag in response["tags"]), "acme"),
        )
        return Call([Item(photo, own, votes, 0.5, write)])


def test_a_stranger_registers_a_wrapper(monkeypatch):
    """The core knows no SDK: a wrapper found by an entry point does all."""
    point = EntryPoint("tests.unit.wrapping", "acme:AcmeWrapper", proxy.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: AcmeWrapper)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with wrap(AcmeClient(), budget=Budget(), **FAST) as client:
        assert client.ping() == "pong"
        response = client.tag(PHOTO)
    assert response["tags"] == ["Bus"]
    assert certificate_of(response).label == "Bus at least 1.0"


@pytest.fixture
def certifier():
    opening = partial(open_session, plain=False, budget=Budget(), **FAST)
    certifier = Certifier(opening)
    yield certifier
    certifier.close()


def test_the_certifier_needs_neither_an_sdk_nor_a_proxy(certifier):
    call = AcmeWrapper(AcmeClient()).read("tag", (PHOTO,), {})
    assert certifier.session is None  # opened by the first call
    certified = certifier.certify(call)
    assert certified.response == {"tags": ["Bus"]}
    certificate = certified.findings[0].certificate
    assert certificate.label == "Bus at least 1.0"
    assert verify(certificate, PHOTO)


def test_the_parts_of_a_call_that_have_nothing_to_certify_have_no_certificate(certifier):
    call = AcmeWrapper(AcmeClient()).read("tag", (PHOTO,), {})
    both = Call([*call.items, Passed(lambda: {"tags": None})], join=lambda parts: {"parts": parts})
    certified = certifier.certify(both)
    assert certified.response == {"parts": [{"tags": ["Bus"]}, {"tags": None}]}
    assert [finding is None for finding in certified.findings] == [False, True]


def test_a_part_that_is_passed_and_fails_costs_no_votes(certifier):
    call = AcmeWrapper(AcmeClient()).read("tag", (PHOTO,), {})

    def fail():
        raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        certifier.certify(Call([*call.items, Passed(fail)], join=list))
    assert certifier.session is None


def test_the_photo_is_decoded_once_per_call(certifier, monkeypatch):
    decoded = []

    def counting(file, *args, **kwargs):
        decoded.append(file.getvalue())
        return opened(file, *args, **kwargs)

    opened = Image.open
    monkeypatch.setattr(Image, "open", counting)
    certifier.certify(AcmeWrapper(AcmeClient()).read("tag", (PHOTO,), {}))
    assert decoded.count(PHOTO) == 1


def test_all_registered_wrappers_load():
    from importlib.metadata import entry_points

    names = {point.name for point in entry_points(group="smoothapi.wrappers")}
    assert len(names) == len(KITS) - 1 + 3  # those that are awaited
    for point in entry_points(group="smoothapi.wrappers"):
        assert point.load().operations
