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
