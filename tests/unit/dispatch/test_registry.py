"""Adapters by name: what a stranger's broken entry point is told as."""

from importlib.metadata import EntryPoint

import pytest

from smoothapi.dispatch import registry
from smoothapi.errors import UsageError


@pytest.mark.parametrize("value", ["json:NoSuchAdapter", "json:decoder.NoSuchAdapter"])
def test_an_entry_point_that_names_nothing_is_said_with_what_it_names(value, monkeypatch):
    point = EntryPoint("acme", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UsageError, match=rf"'acme'.*{value}.*NoSuchAdapter"):
        registry.make_adapter("acme")
