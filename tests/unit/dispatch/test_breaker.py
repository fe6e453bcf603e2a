"""A bad picture is no outage, and an outage is no bad picture."""

from __future__ import annotations

import threading
import time

import pytest

from smoothapi.dispatch import Retry
from smoothapi.dispatch.breaker import Breaker, Caller
from smoothapi.errors import ProviderError, TransientError
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import Outage, labels, run, until

SLOW_TO_GIVE_UP = Retry(attempts=4, base=0.001, cap=0.002, deadline=60.0)


def eight_at_a_time(delivered, count):
    """Return what is needed so that variants that are far from each other are not asked at once."""
    return lambda: min(8, count - len(delivered))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_variant_that_always_fails_is_a_vote_after_its_attempts(store, concurrency):
    adapter = ScriptedAdapter(
        lambda p, n: TransientError("500") if p in (b"3", b"19") else answer()
    )
    began, delivered = time.monotonic(), []
    _, totals = run(
        adapter, store, retry=SLOW_TO_GIVE_UP, concurrency=concurrency,
        needed=eight_at_a_time(delivered, 20), delivered=delivered,
    )  # fmt: skip
    assert labels(delivered) == ["bus"] * 3 + [None] + ["bus"] * 15 + [None]
    assert adapter.attempts[b"3"] == adapter.attempts[b"19"] == SLOW_TO_GIVE_UP.attempts
    assert totals.attempts == adapter.sent == 18 + 2 * SLOW_TO_GIVE_UP.attempts
    assert time.monotonic() - began < SLOW_TO_GIVE_UP.deadline / 2


@pytest.mark.parametrize("concurrency", [1, 4])
def test_it_is_one_again_when_it_alone_is_left_to_be_asked(store, concurrency):
    bad = ScriptedAdapter(lambda p, n: TransientError("500") if p == b"3" else answer())
    for sent in (19 + 4, 4, 4):
        before = bad.sent
        delivered, _ = run(bad, store, retry=SLOW_TO_GIVE_UP, concurrency=concurrency)
        assert labels(delivered)[2:5] == ["bus", None, "bus"]
        assert bad.sent - before == sent


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_outage_pauses_and_is_given_up_at_the_deadline(store, concurrency):
    adapter = ScriptedAdapter(lambda *_: TransientError("refused"))
    retry = Retry(attempts=4, base=0.001, cap=0.002, deadline=1.0)
    began = time.monotonic()
    with pytest.raises(ProviderError, match="has not answered"):
        run(adapter, store, count=30, retry=retry, concurrency=concurrency)
    assert time.monotonic() - began < 30.0
    assert adapter.sent < 40


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_outage_costs_no_votes(store, monkeypatch, concurrency):
    outage = Outage(monkeypatch)
    adapter = ScriptedAdapter(lambda *_: outage.answer())
    delivered, _ = run(adapter, store, count=30, concurrency=concurrency, retry=SLOW_TO_GIVE_UP)
    assert labels(delivered) == ["bus"] * 30


def test_one_that_failed_before_the_outage_does_not_keep_the_others_waiting(store, monkeypatch):
    """While the breaker is open they take turns to probe, so a bad variant cannot hold it."""
    outage = Outage(monkeypatch)

    def script(payload, attempt):
        now = outage.answer()
        return TransientError("refused") if payload == b"0" else now

    began = time.monotonic()
    delivered, _ = run(
        ScriptedAdapter(script), store, count=12, retry=SLOW_TO_GIVE_UP, concurrency=3
    )
    assert labels(delivered) == [None] + ["bus"] * 11
    assert time.monotonic() - began < SLOW_TO_GIVE_UP.deadline / 2


def test_one_caller_opens_nothing_however_often_it_fails():
    breaker, one, two = Breaker(3, 60.0), Caller(), Caller()
    for _ in range(20):
        breaker.failed(TransientError("500"), one)
    assert not breaker.open
    breaker.failed(TransientError("500"), two)
    assert breaker.open


def test_a_caller_that_failed_while_others_were_answered_is_no_witness_of_an_outage():
    breaker, one, two = Breaker(3, 60.0), Caller(), Caller()
    breaker.failed(TransientError("500"), one)
    breaker.succeeded()
    for _ in range(20):
        breaker.failed(TransientError("500"), one)
        breaker.failed(TransientError("500"), two)
    assert not breaker.open
    breaker.failed(TransientError("500"), Caller())
    assert breaker.open


def test_probes_are_made_in_turn():
    breaker, stop, turns = Breaker(1, 60.0), threading.Event(), []
    breaker.failed(TransientError("down"), Caller())

    def probe(name):
        for _ in range(3):
            if breaker.enter(stop):
                turns.append(name)
                # The other waits for its turn by now, unless it has had all.
                until(lambda: breaker._waiting or len(turns) - turns.count(name) == 3)
                breaker.leave()

    threads = [threading.Thread(target=probe, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert "".join(turns) in ("ababab", "bababa")


def test_variants_that_an_earlier_run_gave_up_are_no_outage_when_they_alone_are_left(store):
    def broken(payload, attempt):
        return TransientError("dead") if payload in (b"3", b"17", b"29") else answer()

    quick, first = SLOW_TO_GIVE_UP, []
    run(
        ScriptedAdapter(broken), store, retry=quick,
        needed=eight_at_a_time(first, 40), delivered=first,
    )  # fmt: skip
    again = ScriptedAdapter(broken)
    second, totals = run(again, store, count=40, retry=quick)
    assert labels(second) == labels(first)
    assert labels(second).count(None) == 3
    assert again.attempts == {b"3": 4, b"17": 4, b"29": 4}
    assert totals.cached == 37


def test_one_that_was_given_up_before_and_is_answered_now_is_a_vote(store):
    quick = Retry(attempts=2, base=0.001, cap=0.002)
    run(
        ScriptedAdapter(lambda p, _: TransientError("dead") if p == b"3" else answer()),
        store,
        count=20,
        retry=quick,
    )
    second, totals = run(ScriptedAdapter(), store, count=20, retry=quick)
    assert labels(second) == ["bus"] * 20
    assert (totals.queries, totals.cached) == (1, 19)
