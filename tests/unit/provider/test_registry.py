"""Adapters by name: what a stranger's broken entry point is told as."""

from importlib.metadata import EntryPoint

import pytest

from smoothapi.errors import UsageError
from smoothapi.provider import registry


@pytest.mark.parametrize("value", ["json:NoSuchAdapter", "json:decoder.NoSuchAdapter"])
def test_an_entry_point_that_names_nothing_is_said_with_what_it_names(value, monkeypatch):
    point = EntryPoint("acme", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UsageError, match=rf"'acme'.*{value}.*NoSuchAdapter"):
        registry.make_adapter("acme")


def test_an_option_that_does_not_exist_is_said_with_those_that_do():
    with pytest.raises(UsageError) as caught:
        registry.make_adapter("aws", regoin="eu-west-1", profile="SECRET")
    said = str(caught.value)
    assert "no option 'regoin'. Did you mean 'region'? It takes: operation, " in said
    assert "[providers.aws] in smoothapi.toml or from SMOOTHAPI_PROVIDERS__AWS__NAME" in said
    assert "SECRET" not in said
    assert "__init__" not in said


@pytest.mark.parametrize("order", [1, -1])
def test_nobody_takes_a_name_that_comes_with_smoothapi(order, monkeypatch):
    ours = EntryPoint("mock", "smoothapi_adapters.mock:MockAdapter", registry.GROUP)
    theirs = EntryPoint("mock", "json:JSONDecoder", registry.GROUP)
    more = EntryPoint("acme", "json:JSONDecoder", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [ours, theirs, more][::order])
    assert registry.registered(registry.GROUP)["mock"] == ours
    assert registry.registered(registry.GROUP)["acme"] == more
    assert registry.make_adapter("mock").name == "mock"


def test_what_comes_with_smoothapi_is_found_without_a_look_at_all_that_is_installed(monkeypatch):
    monkeypatch.delattr(registry, "entry_points")
    assert registry.make_adapter("mock").name == "mock"
