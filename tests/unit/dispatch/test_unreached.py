"""A service that is never reached: a setting before the first answer, an outage after it."""

from __future__ import annotations

import time

import pytest

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.dispatch.breaker import Breaker
from smoothapi.errors import FatalError, ProviderError, TransientError
from smoothapi.store import Budget
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import FAST, Job, home_of, labels, run

UNREACHED = "the connection was refused"


def unreached(*_):
    return TransientError(UNREACHED, sent=False)


def spent(store):
    home = home_of(store)
    try:
        return sum(account.attempts for account in home.accounts())
    finally:
        home.close()


@pytest.mark.parametrize("attempts", [1, 4, 1000])
@pytest.mark.parametrize(("batch", "concurrency"), [(1, 1), (1, 8), (5, 4)])
@pytest.mark.timeout(60)
def test_before_any_answer_it_ends_within_seconds_and_costs_nothing(
    store, monkeypatch, attempts, batch, concurrency
):
    monkeypatch.setattr("smoothapi.dispatch.sending._PATIENCE", 0.2)
    adapter = ScriptedAdapter(batch=batch)
    adapter.ask = lambda payloads: (_ for _ in ()).throw(unreached())
    adapter.identity = {"region": "mars-1", "endpoint": "rekognition.mars-1.example"}
    began = time.monotonic()
    with pytest.raises(FatalError, match=UNREACHED) as caught:
        run(
            adapter, store, budget=Budget(attempts=100, per="day"), concurrency=concurrency,
            retry=Retry(attempts=attempts, base=0.01, cap=0.05),
        )  # fmt: skip
    assert time.monotonic() - began < 20.0
    assert (caught.value.attempts, caught.value.cost, spent(store)) == (0, 0.0, 0)
    for part in ("region mars-1", "endpoint rekognition.mars-1.example", "proxy"):
        assert part in str(caught.value)
    assert caught.value.provider == "scripted"


def test_a_start_that_is_late_by_a_moment_is_waited_for(store, monkeypatch):
    """As of a proxy beside a container, which is up a moment after it."""
    monkeypatch.setattr("smoothapi.dispatch.sending._PATIENCE", 60.0)

    def script(payload, attempt):
        return unreached() if adapter.sent <= 40 else answer()

    adapter = ScriptedAdapter(script)
    retry = Retry(attempts=100, base=0.05, cap=0.1)
    delivered, totals = run(adapter, store, retry=retry)
    assert labels(delivered) == ["bus"] * 20
    assert totals.attempts == 20, "what never left this machine is no attempt"


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.timeout(60)
def test_after_an_answer_it_is_an_outage_that_is_waited_out_and_costs_nothing(store, concurrency):

    def script(payload, attempt):
        return unreached() if 8 < adapter.sent <= 17 else answer()

    adapter = ScriptedAdapter(script)
    delivered, totals = run(
        adapter, store, concurrency=concurrency, budget=Budget(attempts=20, per="day"), retry=FAST
    )
    assert labels(delivered) == ["bus"] * 20
    assert adapter.sent > totals.attempts == spent(store) == 20


@pytest.mark.timeout(60)
def test_one_variant_alone_is_enough_to_see_that_nothing_leaves_this_machine(store):
    """Others are answered meanwhile, as by a proxy that fails now and then."""

    def script(payload, attempt):
        return unreached() if payload == b"9" and attempt < 7 else answer()

    adapter = ScriptedAdapter(script)
    delivered, totals = run(adapter, store, concurrency=4, retry=FAST)
    assert labels(delivered) == ["bus"] * 20
    assert totals.attempts == 20


@pytest.mark.timeout(60)
def test_what_never_left_is_no_attempt_though_another_is_answered_at_that_moment(
    store, monkeypatch
):
    """The breaker that it opens is closed before its thread looks whether it is open."""
    failed = Breaker.failed

    def and_another_is_answered(breaker, *given, **more):
        found = failed(breaker, *given, **more)
        breaker.succeeded()
        return found

    monkeypatch.setattr(Breaker, "failed", and_another_is_answered)
    adapter = ScriptedAdapter(lambda p, n: unreached() if p == b"9" and n < 7 else answer())
    delivered, totals = run(adapter, store, retry=FAST)
    assert labels(delivered) == ["bus"] * 20
    assert (totals.attempts, adapter.attempts[b"9"]) == (20, 7)


def test_an_answer_to_an_earlier_run_of_the_same_dispatcher_counts(store):
    up = [True]
    adapter = ScriptedAdapter(lambda *_: answer() if up[0] else unreached())
    home = home_of(store)
    dispatcher = Dispatcher.open(adapter, store, home, retry=Retry(base=0.001, deadline=0.5))
    try:
        for wanted in (2, 40):
            got: list[object] = []
            with dispatcher.run(Job(needed=lambda n=wanted, g=got: n - len(g))) as deliveries:
                if up[0]:
                    got.extend(deliveries)
                else:
                    with pytest.raises(ProviderError, match="has not answered"):
                        got.extend(deliveries)
            up[0] = False
    finally:
        dispatcher.close()
        home.close()


def test_waited_is_time_of_the_clock_not_a_sum_over_threads(store):
    adapter = ScriptedAdapter(lambda _, n: TransientError("500") if n == 1 else answer())
    retry = Retry(attempts=5, base=0.1, cap=0.1)
    began = time.monotonic()
    _, totals = run(adapter, store, count=16, concurrency=16, retry=retry)
    assert 0.0 < totals.waited <= time.monotonic() - began
