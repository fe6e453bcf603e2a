"""Whoever was given another quota says so by the same option, whichever the provider."""

from __future__ import annotations

import pytest

from smoothapi import UsageError
from smoothapi.dispatch import Dispatcher
from smoothapi.encode import Codec
from smoothapi.provider import make_adapter
from smoothapi.services import serve
from tests.conftest import Clock
from tests.unit.dispatch.harness import FAST, Job, home_of
from tests.unit.gateway.conftest import options_of
from tests.unit.wrapping.conftest import PIXELS, labeller

PROVIDERS = ("aws", "azure", "azure4", "clarifai", "google")
PICTURES, PACE = 12, 10


@pytest.fixture(autouse=True)
def _keys_of_aws(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_pace_of_the_options_is_kept_and_is_no_part_of_what_decides(name, store):
    def pictures(indices):
        return [lambda i=i: Codec().encode(PIXELS + i) for i in indices]

    home, delivered = home_of(store, clock=Clock()), []  # which stands still
    with serve(name, labeller) as service:
        options = options_of(name, service.url)
        if name == "google":
            options["transport"] = "rest"
        adapter = make_adapter(name, **options, per_second=str(PACE))
        assert adapter.identity == make_adapter(name, **options).identity
        dispatcher = Dispatcher.open(adapter, store, home, retry=FAST)
        with dispatcher.run(Job(lambda: PICTURES - len(delivered), pictures)) as run:
            delivered.extend(run)
        dispatcher.close()
        adapter.close()
        assert sum(received.pictures for received in service.received) == PICTURES
    assert all(delivery.answer for delivery in delivered)
    # A second's worth went at once; each of the others, and the next one, a tenth later.
    assert home.pace(name, PACE).take(1) == pytest.approx(PICTURES / PACE - 1.0, abs=1e-3)
    home.close()


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("pace", [0, -1, "fast", float("nan"), float("inf")])
def test_a_pace_that_is_none_is_refused(name, pace):
    with pytest.raises(UsageError, match="per_second"):
        make_adapter(name, **options_of(name, "http://127.0.0.1:9"), per_second=pace)
