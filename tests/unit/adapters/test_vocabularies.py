"""What each adapter states of its labels, by operation, feature, endpoint and options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoothapi import Presence, UnknownLabelError, UsageError
from smoothapi.known_labels import KnownLabels
from smoothapi.provider import Vocabulary, make_adapter
from smoothapi.store import Seen

AZURE = "https://x.cognitiveservices.azure.com"
LOCAL = "http://127.0.0.1:1"
ARN = "arn:aws:rekognition:eu-west-1:1:project/p/version/v/1"


class Nothing:
    """A store in which nothing was seen."""

    def seen(self, provider, identity):
        return Seen()


def stated(name, **options):
    adapter = make_adapter(name, **options)
    try:
        return adapter.vocabulary()
    finally:
        adapter.close()


def refused(name, label, **options):
    """Return what is said of a label that is asked for."""
    adapter = make_adapter(name, **options)
    try:
        with pytest.raises(UnknownLabelError) as caught:
            KnownLabels(adapter, Nothing()).check(Presence(label, 0.8))
    finally:
        adapter.close()
    return str(caught.value)


def test_the_moderation_of_aws_is_closed_with_the_levels_of_its_taxonomy():
    found = stated("aws", operation="moderation", region="eu-west-1")
    assert found.closed
    assert len(found.names) == len(set(map(str.casefold, found.names))) == 52
    assert found.parents["Violence"] == ()
    assert found.parents["Weapon Violence"] == ("Graphic Violence", "Violence")
    assert found.as_of
    assert "docs.aws.amazon.com" in found.source


def test_the_objects_of_aws_are_an_open_list_with_their_aliases():
    found = stated("aws", region="eu-west-1")
    assert not found.closed
    assert len(set(map(str.casefold, found.names))) == 3082
    assert {"Weapon", "Rifle", "School Bus", "Woodland"} <= set(found.names)
    assert found.aliases["Forest"] == "Woodland"
    assert set(found.aliases.values()) <= set(found.names)
    assert not set(map(str.casefold, found.aliases)) & set(map(str.casefold, found.names))
    assert found.as_of


def test_words_of_an_earlier_moderation_are_refused_as_such():
    options = {"operation": "moderation", "region": "eu-west-1"}
    assert "'Suggestive' (its model gave it until 6.1)" in refused("aws", "Suggestive", **options)
    assert "did you mean 'Weapons' or 'Weapon Violence'?" in refused("aws", "Weapon", **options)
    assert "aws (moderation) has no label" in refused("aws", "Rifle", **options)


def test_a_moderation_adapter_of_ones_own_may_rest_on_either_model():
    found = stated("aws", operation="moderation", region="eu-west-1", project_version_arn=ARN)
    assert {"Suggestive", "Swimwear or Underwear"} <= set(found.names)
    assert (found.closed, dict(found.retired)) == (True, {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("aws", {"region": "eu-west-1"}),
        ("aws", {"operation": "custom", "project_version_arn": ARN, "region": "eu-west-1"}),
        ("aws", {"operation": "moderation", "region": "eu-west-1", "endpoint": LOCAL}),
        ("google", {"api_key": "k"}),
        ("azure", {"endpoint": AZURE, "key": "k"}),
        ("azure", {"endpoint": AZURE, "key": "k", "features": "adult,tags"}),
        ("azure", {"endpoint": LOCAL, "key": "k", "features": "categories"}),
        ("azure4", {"endpoint": AZURE, "key": "k"}),
        ("clarifai", {"pat": "k"}),
        ("http", {"url": LOCAL, "labels": "a"}),
    ],
)
def test_others_are_open(name, options):
    assert not stated(name, **options).closed


def test_a_safe_search_has_five_labels():
    found = stated("google", operation="safe_search", api_key="k")
    assert (found.names, found.closed) == (("adult", "spoof", "medical", "violence", "racy"), True)


def test_azure_has_86_categories_in_their_groups():
    found = stated("azure", features="categories,adult", endpoint=AZURE, key="k")
    assert found.closed
    assert len(found.names) == 86 + 3
    assert found.parents["trans_bus"] == ("trans_",)
    assert "trans_" in found.all_names  # a group that is no category of its own
    assert "did you mean 'trans_bus'" in refused(
        "azure", "trans bus", features="categories", endpoint=AZURE, key="k"
    )


def test_the_default_labeller_of_the_mock_is_closed():
    pytest.importorskip("efficientnet_lite_pytorch")
    found = stated("mock")
    assert found.closed
    assert "school bus" in found.names
    assert len(found.names) > 990


def test_a_torch_model_has_the_classes_that_it_is_given(tmp_path):
    torch = pytest.importorskip("torch")
    found = stated("torch", model=torch.nn.Flatten(), labels=["bus", "van", "bus"])
    assert (found.names, found.closed) == (("bus", "van"), True)
    assert stated("torch", model=torch.nn.Flatten()) == Vocabulary()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.txt", "Rifle\nBus \n"),
        ("labels.json", json.dumps(["Rifle", "Bus"])),
        ("labels.csv", "Parent,Label\nWeapons,Rifle\nVehicle,Bus\n"),
    ],
)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("aws", {"region": "eu-west-1"}),
        ("google", {"api_key": "k"}),
        ("azure", {"endpoint": AZURE, "key": "k"}),
        ("azure4", {"endpoint": AZURE, "key": "k"}),
        ("clarifai", {"pat": "k"}),
        ("http", {"url": LOCAL, "labels": "a"}),
    ],
)
def test_the_labels_of_an_open_service_can_be_given(name, options, file, text):
    Path(file).write_text(text, encoding="utf-8")
    found = stated(name, vocabulary=file, **options)
    assert (found.names, found.closed, found.source) == (("Rifle", "Bus"), True, file)
    assert "did you mean 'Rifle'" in refused(name, "Riffle", vocabulary=["Rifle"], **options)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("gone.csv", "gone.csv cannot be read .there is no such file"),
        ("/dev/zero", "there is no such file"),
        ("wrong.csv", "no column has such a name"),
        ("empty.txt", "at least one name"),
        (["Bus", ""], "not empty"),
        ([], "at least one name"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_refused(given, match):
    Path("wrong.csv").write_text("what,ever\n1,2\n", encoding="utf-8")
    Path("empty.txt").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=match):
        stated("google", api_key="k", vocabulary=given)


def test_what_answers_is_the_same_whatever_vocabulary_is_given():
    one, other = (
        make_adapter("google", api_key="k"),
        make_adapter("google", api_key="k", vocabulary=["Bus"]),
    )
    assert one.identity == other.identity
