"""The score that a wrapped response shows is certified, so any threshold of the caller is."""

from __future__ import annotations

import gc
import json
import pickle
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothapi import (
    Absence,
    Label,
    MostSpecific,
    Presence,
    Scores,
    Smoother,
    TopK,
    UsageError,
    certificate_of,
    finding_of,
    verify,
    with_options,
    wrap,
)
from smoothapi.services import serve
from smoothapi.wrapping import CallPolicy
from smoothapi_adapters.aws.wrap import _percent
from smoothapi_adapters.mock import MockAdapter
from tests.unit.wrapping.conftest import FAST, KITS, PHOTO, PIXELS, digest, labeller

THRESHOLDS = (0.5, 0.8, 0.9)
kits = pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
aws = pytest.mark.parametrize("kit", [KITS["aws"]], ids=["aws"])
google = pytest.mark.parametrize("kit", [KITS["google"]], ids=["google"])


def steady(pixels):
    """Answer the same whatever the noise: what is acted on is then what it was before."""
    del pixels
    return [
        Label("Bus", 0.97, ("Vehicle",)),
        Label("Vehicle", 0.83),
        Label("Person", 0.57),
        Label("Weapon", 0.31),
        Label("Crane machine", 0.00023),
    ]


def wavering(pixels):
    """Scores that hang on the noise, of several labels together."""
    first, second, third = digest(pixels)[:3]
    return [
        Label("Bus", 0.99 - first / 1000),
        Label("Kite", 0.95 if second % 8 else 0.6),
        Label("Van", 0.9 if digest(pixels) == digest(PIXELS) or third < 32 else 0.1),
    ]


def decisions(scores, threshold):
    return [
        name
        for name, score in scores.items()
        if float(getattr(score, "expected", score)) >= threshold
    ]


@kits
def test_code_that_compares_scores_decides_as_before(kit, wrapped):
    with serve(kit.service, steady) as service:
        plain = kit.scores(kit.label(kit.client(service)))
        client = wrapped(kit.client(service))
        response = kit.label(client)
        client.close()
    shown = kit.scores(response)
    for threshold in (*THRESHOLDS, 0.57, 0.83):
        assert decisions(shown, threshold) == decisions(plain, threshold)
    assert shown == {name: score for name, score in plain.items() if name in shown}  # to the digit
    assert list(shown) == list(plain)[: len(shown)]
    # For what is not acted on, no vote is bought.
    assert certificate_of(response).target["labels"] == ["Bus", "Vehicle", "Person"]


@pytest.mark.parametrize("kit", [KITS["aws"], KITS["azure4"]], ids=["aws", "azure4"])
def test_decisions_are_those_of_a_certificate_of_scores(kit, wrapped):
    options = {**FAST, "max_votes": 150}
    names = ["Bus", "Kite", "Van"]
    with Smoother(MockAdapter(wavering), plain=False, **options) as smoother:
        certificate = smoother.certify(PHOTO, target=Scores(names, 0.5, parents=False))
    expected = {claim.label: claim.score for claim in certificate.claims}
    assert set(expected) == {"Bus", "Kite"}
    with serve(kit.service, wavering) as service:
        client = wrapped(kit.client(service), **options)
        shown = kit.scores(kit.label(client))
        client.close()
    for threshold in THRESHOLDS:
        assert set(decisions(shown, threshold)) == set(decisions(expected, threshold))
    assert {name: pytest.approx(score, abs=1e-6) for name, score in shown.items()} == expected


@aws
def test_the_providers_own_scores_and_the_shares_stand_beside(kit, service, wrapped):
    plain = kit.scores(kit.label(kit.client(service)))
    found = finding_of(kit.label(wrapped()))
    assert found.certified
    assert (found.ended, found.why) == ("", "")
    assert {label.name: pytest.approx(label.own, abs=1e-6) for label in found.labels} == plain
    shares = {label.name: label.share for label in found.labels}
    assert shares["Bus"] == shares["Vehicle"] == 1.0
    assert 0 < shares["Van"] < 1


@aws
def test_the_score_that_decides_is_the_callers_then_the_calls_then_a_half(kit, wrapped):

    def least(client, **arguments):
        response = client.detect_labels(Image={"Bytes": PHOTO}, **arguments)
        return certificate_of(response).target["least"]

    with serve("aws", steady) as service:
        client = wrapped(kit.client(service))
        assert least(client, MinConfidence=80) == 0.8
        assert least(client) == 0.55  # the service's own default for the call
        assert least(client, MinConfidence=0) == 0.5  # lists all, and decides nothing
        assert least(with_options(client, score=0.9), MinConfidence=80) == 0.9
        client.close()


@google
def test_options_hold_for_single_calls_and_the_rest_is_shared(kit, service, wrapped):
    client = wrapped()
    strict = with_options(client, score=0.965)
    assert isinstance(strict, type(client))
    assert set(kit.scores(kit.label(strict))) == {"Bus"}
    assert set(kit.scores(kit.label(client))) == {"Bus", "Vehicle"}
    assert set(kit.marked(kit.label(with_options(strict, uncertified="mark")))) == {
        "Bus", "Vehicle", "Van",
    }  # fmt: skip
    wide = with_options(client, radius=0.1, max_votes=90)
    certificate = certificate_of(kit.label(wide))
    assert (certificate.radius, certificate.max_votes) == (0.1, 90)
    assert certificate_of(kit.label(client)).radius == 0.05
    assert certificate_of(kit.label(client)).cached  # of the same store
    client.close()
    with pytest.raises(UsageError, match="closed"):
        kit.label(strict)


@google
def test_a_client_with_other_options_keeps_the_wrapped_one_open(kit, service):
    other = with_options(wrap(kit.client(service), budget="$1", **FAST), score=0.9)
    assert certificate_of(kit.label(other)).target["least"] == 0.9
    other.close()


@pytest.mark.parametrize(
    "bad",
    [{"score": 0}, {"score": 1.1}, {"score": 80}, {"score": "high"}, {"score": True}, {"within": 0},
     {"within": -1}, {"within": float("inf")}, {"within": float("nan")}, {"otherwise": "open"},
     {"uncertified": "hide"}, {"remote": "fetch"}, {"attach": 1}, {"radius": -1}, {"max_votes": 0},
     {"target": TopK(3)}, {"target": "top1"}, {"target": Scores("Bus"), "score": 0.5},
     {"target": Scores("Bus"), "classes": {"a": ["Bus"]}}, {"classes": {}}],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused_at_once(bad):
    import boto3

    plain = boto3.client("rekognition", region_name="us-east-1")
    with pytest.raises(UsageError):
        wrap(plain, budget="$1", **bad)
    client = wrap(plain, budget="$1")
    with pytest.raises(UsageError):
        with_options(client, **bad)
    with pytest.raises(UsageError, match="not wrapped"):
        with_options(plain, score=0.5)
    client.close()


def test_a_target_takes_the_place_of_score_and_classes_and_the_other_way_round():
    policy = CallPolicy().changed(score=0.9, classes={"road": ["bus"]})
    aimed = policy.changed(target=Scores("Bus"))
    assert (aimed.score, aimed.space, aimed.target) == (None, None, Scores("Bus"))
    assert aimed.changed(score=0.7).target is None
    assert aimed.changed(within=3).target == Scores("Bus")


# What is asked about


@aws
@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (Scores(["Vehicle", "Tram"], 0.6), {"Vehicle": 0.97}),  # by its child, as Scores says
        (Presence("Bus", 0.9), {"Bus": 0.9}),
        (Absence("Tram", 0.6), {}),
        (MostSpecific(0.9), {"Bus": 0.9}),
    ],
    ids=str,
)
def test_a_target_of_the_callers_own(target, shown, kit, wrapped):
    with serve("aws", steady) as service:
        client = wrapped(kit.client(service), target=target)
        response = kit.label(client)
        client.close()
    assert kit.scores(response) == shown
    assert certificate_of(response).target == target.description
    assert certificate_of(response).claims


@google
def test_only_labels_of_the_callers_classes_are_asked_about(kit, service, wrapped):
    response = kit.label(wrapped(classes={"road": ["bus", "lorry"]}))
    assert certificate_of(response).target["labels"] == ["Bus"]
    assert set(kit.scores(response)) == {"Bus"}


@google
def test_a_deployment_that_never_asks_for_more_says_so_once(kit, service, wrapped):
    certificate = certificate_of(kit.label(wrapped(final=True)))
    assert certificate.final
    assert certificate.claims
    verify(certificate, PHOTO)


@google
def test_the_largest_radius_is_that_of_the_score_that_decides(kit, service, wrapped):
    response = kit.label(wrapped(radius="largest", score=0.9))
    certificate = certificate_of(response)
    assert certificate.radius > 0.05
    assert kit.scores(response) == {"Bus": 0.9, "Vehicle": 0.9}


@aws
def test_an_abstention_says_what_is_certified_at_less(kit, wrapped):
    asked = count()

    def at_first(pixels):
        del pixels
        return [Label("Kite", 0.95)] if next(asked) < 30 else []

    with serve(kit.service, at_first) as service:
        response = kit.label(wrapped(kit.client(service), radius=0.4, max_votes=120))
    found, certificate = finding_of(response), certificate_of(response)
    assert not found.certified
    assert not kit.scores(response)
    (claim,) = certificate.largest
    assert 0.0 < claim.radius < 0.4
    assert found.why.startswith(certificate.explanation)
    assert f"Kite at least 0.55 certified at {claim.radius:g} (0.4 was asked for)" in found.why
    assert type(found).from_dict(json.loads(json.dumps(found.to_dict()))) == found


# The response


def test_without_anything_attached_the_response_is_the_sdks(kit, service, wrapped):
    plain = kit.label(kit.client(service))
    client = wrapped(attach=False)
    response = kit.label(client)
    assert isinstance(response, type(plain))
    assert not hasattr(response, "smoothapi")
    assert type(pickle.loads(pickle.dumps(response))) is type(plain)
    if kit.service == "aws":
        assert set(response) == set(plain)
        again = pickle.loads(pickle.dumps(response))
        assert type(again) is dict
        assert again == response
    certificate = certificate_of(response)
    assert certificate.claims
    other = kit.label(client)  # each response has its own
    assert finding_of(other).certificate == certificate
    assert finding_of(other) is not finding_of(response)


def test_labels_are_kept_without_a_mark_where_nothing_is_attached(kit, service, wrapped):
    response = kit.label(wrapped(attach=False, uncertified="mark"))
    assert kit.scores(response)["Van"] == 0.0
    assert [label.certified for label in finding_of(response).labels] == [True, True, False]
    with pytest.raises((KeyError, IndexError, AttributeError)):
        kit.marked(response)


@aws
def test_what_is_kept_beside_a_response_goes_with_it(kit, service, wrapped):
    from smoothapi.wrapping.attached import _beside

    response = kit.label(wrapped(attach=False))
    key = id(response)
    assert key in _beside._whole
    del response
    gc.collect()
    assert key not in _beside._whole


def test_a_response_is_pickled_where_the_plain_one_is(kit, service, wrapped):
    response = kit.label(wrapped())
    again = pickle.loads(pickle.dumps(response))
    assert type(again) is type(response)
    assert kit.scores(again) == kit.scores(response)


@aws
def test_a_response_that_is_a_dict_is_json_and_can_be_read_again(kit, wrapped):
    with serve("aws", steady) as service:
        client = wrapped(kit.client(service))
        response = kit.label(client)
        client.close()
    again = json.loads(json.dumps(response))
    assert finding_of(again) == finding_of(response)
    assert again["Smoothapi"]["labels"][0] == {
        "name": "Bus", "own": 0.97, "certified": True, "score": 0.97, "share": 1.0,
    }  # fmt: skip
    # As versions before wrote it.
    assert certificate_of({"Smoothapi": certificate_of(response).to_dict()}).claims


@pytest.mark.parametrize(
    "broken",
    [{}, {"certified": True}, {"ended": "never"}, {"labels": [{}]}, {"labels": 3},
     {"certificate": {}}, {"certificate": 3}],
)  # fmt: skip
def test_a_finding_that_is_malformed_says_so(broken):
    whole = {"certified": False, "ended": "", "why": "", "labels": [], "certificate": None}
    written = {**whole, **broken} if broken and broken != {"certified": True} else broken
    with pytest.raises(UsageError, match=r"malformed|not a certificate"):
        finding_of({"Smoothapi": written})


@google
def test_each_part_of_a_batch_has_its_own(kit, wrapped):
    from google.cloud import vision

    features = [{"type_": vision.Feature.Type.LABEL_DETECTION}]
    with serve("google", labeller) as service:
        client = wrapped(kit.client(service))
        response = client.batch_annotate_images(
            requests=[{"image": {"content": PHOTO}, "features": features}, {"features": features}]
        )
        alone = client.batch_annotate_images(
            requests=[{"image": {"content": PHOTO}, "features": features}]
        ).responses[0]
        client.close()
    assert certificate_of(response.responses[0]) == certificate_of(response, 0)
    assert certificate_of(alone) == certificate_of(response)
    with pytest.raises(UsageError):
        certificate_of(response.responses[1])
    with pytest.raises(UsageError, match="picture 1 of this response nothing was to be certified"):
        certificate_of(response, 1)
    for none in (2, -1):
        with pytest.raises(UsageError, match="this response is about 2, counted from 0"):
            certificate_of(response, none)


@given(st.integers(0, 100_000_000))
def test_percents_come_back_to_the_digit(millionths):
    """A caller's `Confidence >= 57` decides as before: 57.0 is not 56.99999999999999."""
    said = millionths / 1_000_000
    assert _percent(said / 100) == said


@given(st.floats(0, 100, width=32))
def test_percents_are_never_more_than_what_was_certified(said):
    shown = _percent(said / 100)
    assert shown / 100 <= said / 100
    assert shown == pytest.approx(said, rel=1e-15)
