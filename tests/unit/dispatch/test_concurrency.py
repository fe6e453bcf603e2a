"""What a hostile review broke: midnight, Ctrl-C, two runs at once, needs that shrink."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from unittest.mock import Mock

import pytest

from smoothapi import telemetry
from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.errors import (
    BudgetExceededError,
    FatalError,
    StoppedError,
    StoreError,
    ThrottledError,
    UsageError,
)
from smoothapi.provider import Price
from smoothapi.store import Budget, answer_key
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import Job, asked, home_of, run, until

DOLLAR = Price(Decimal("1.00"))


def job(count, left=None, *, name=None, **options):
    """Ask for `count` answers; `left`, if given, is counted down by the test."""
    left = [count] if left is None else left
    return Job(
        asked=asked if name is None else lambda index: {name: index},
        prepare=lambda indices: [lambda i=i: b"%s%d" % ((name or "").encode(), i) for i in indices],
        needed=lambda: left[0],
        **options,
    )


def test_a_day_that_ends_while_the_ledger_is_waited_for_is_not_passed(home, clock, monkeypatch):
    """Another process may hold the database for a minute; what is full must be refused still."""
    clock.now = 20_000 * 86_400.0 - 1.0
    book = home.ledger([Budget(attempts=64, per="day")], "a", DOLLAR)
    for _ in range(64):
        book.settle(book.reserve(1), 1)
    transaction = home.database.transaction

    @contextmanager
    def waits(**options):
        with transaction(**options) as database:
            clock.now += 2.0
            yield database

    with monkeypatch.context() as patch:
        patch.setattr(home.database, "transaction", waits)
        book.settle(book.reserve(1), 1)
    for _ in range(63):
        book.settle(book.reserve(1), 1)
    with pytest.raises(BudgetExceededError):
        book.reserve(1)
    book.rest()
    assert [account.attempts for account in home.accounts()] == [64, 64]


def test_ctrl_c_as_variants_are_leased_does_not_block_the_next_run(store, monkeypatch):
    """In a notebook the next run is in the same process, which lives: only expiry would help."""
    dispatcher = Dispatcher.open(ScriptedAdapter(), store, home := home_of(store))
    get, asked_for = store.get, []

    def interrupted(key):
        asked_for.append(key)
        if asked_for.count(key) == 2:  # when it was leased already
            raise KeyboardInterrupt
        return get(key)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "get", interrupted)
        with dispatcher.run(job(4)) as deliveries:
            next(iter(deliveries))
    began = time.monotonic()
    with dispatcher.run(job(4)) as deliveries:
        assert next(iter(deliveries)).answer
    assert time.monotonic() - began < 30.0
    dispatcher.close()
    home.close()


def test_a_run_that_ends_does_not_wait_for_the_answers_of_another(store, monkeypatch):
    """On a slow disk there is always another answer to be written."""
    put = store.put

    def slowly(*answers):
        time.sleep(0.02)
        put(*answers)

    monkeypatch.setattr(store, "put", slowly)
    dispatcher = Dispatcher.open(ScriptedAdapter(delay=0.002), store, home := home_of(store))
    left, going = [100_000], threading.Event()

    def go_on():
        with dispatcher.run(job(0, left, name="other")) as deliveries:
            for _ in deliveries:
                left[0] -= 1
                going.set()

    other = threading.Thread(target=go_on)
    other.start()
    assert going.wait(60.0)
    timer = threading.Timer(30.0, left.__setitem__, (0, 0))  # if need be
    timer.start()
    with dispatcher.run(job(1)) as deliveries:
        next(iter(deliveries))
    assert other.is_alive()
    assert left[0] > 0
    timer.cancel()
    left[0] = 0
    other.join()
    dispatcher.close()
    home.close()


@pytest.mark.parametrize(("batch", "concurrency"), [(1, 4), (1, 16), (4, 2)])
def test_what_is_needed_no_more_is_not_bought(store, batch, concurrency):
    """What a test needs shrinks by many at once when it gives a label up (`PresenceTest`)."""
    delivered, early = [], []

    def script(payload, attempt):
        if len(delivered) >= 30 and int(payload) >= len(delivered) + 2:
            early.append(payload)
        return answer()

    def needed():
        return 100 if len(delivered) < 30 else min(2, 150 - len(delivered))

    adapter = ScriptedAdapter(script, batch=batch, delay=0.002)
    run(adapter, store, needed=needed, delivered=delivered, concurrency=concurrency, lot=16)
    assert [delivery.index for delivery in delivered] == list(range(150))
    # Only what had begun, or was with a thread already, when less was needed.
    assert len(early) <= 1.5 * concurrency * batch
    assert adapter.sent == 150


def test_what_was_prepared_and_is_not_needed_does_not_stand_in_the_way(store):
    """Another holds the next variant; when it gives that back, it is prepared at once."""
    adapter, delivered = ScriptedAdapter(delay=0.005), []
    home = home_of(store)
    other = home.leases()
    keys = [answer_key(asked(index)) for index in range(40)]
    assert other.take(keys[10:11])

    def needed():
        if len(delivered) == 10:
            other.drop(keys)
            return 1
        return 30 - len(delivered)

    began = time.monotonic()
    run(adapter, store, needed=needed, delivered=delivered, concurrency=2, lot=16)
    assert time.monotonic() - began < 20.0
    assert len(delivered) == adapter.sent == 30
    home.close()


def test_a_run_that_ends_does_not_wait_for_what_it_did_not_begin(store):
    """All threads are at work for another run, on requests that take their time."""
    go, at_work = threading.Event(), threading.Semaphore(0)

    def script(payload, attempt):
        if payload.startswith(b"other"):
            go.wait(60.0)
        return answer()

    def encode(index):
        at_work.release()
        return b"other%d" % index

    adapter = ScriptedAdapter(script)
    dispatcher = Dispatcher.open(adapter, store, home := home_of(store), concurrency=2)
    left = [3]
    others = replace(
        job(3, left, name="other"),
        prepare=lambda indices: [lambda i=i: encode(i) for i in indices],
    )

    def occupy():
        with dispatcher.run(others) as deliveries:
            for _ in deliveries:
                left[0] -= 1

    other = threading.Thread(target=occupy)
    other.start()
    for _ in range(dispatcher.workers.threads):
        assert at_work.acquire(timeout=30.0)
    deliveries = dispatcher.run(job(1))
    pressed = Future()
    pressed.set_exception(KeyboardInterrupt())

    def press():
        until(lambda: deliveries._sending)
        deliveries._news.put(pressed)

    pressing = threading.Thread(target=press)
    pressing.start()
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), deliveries:
            next(iter(deliveries))
        assert time.monotonic() - begun < 30.0
        assert not go.is_set()
    finally:
        go.set()
        pressing.join()
        other.join()
    assert adapter.sent == 3
    dispatcher.close()
    home.close()


def test_a_block_that_cannot_be_set_aside_ahead_costs_no_query(home, monkeypatch):
    book = home.ledger([Budget(attempts=100_000, name="x")], "a", DOLLAR)
    sent = 0
    with monkeypatch.context() as patch, pytest.raises(StoreError):
        while True:
            book.settle(book.reserve(1), 1)
            sent += 1
            patch.setattr(home.database, "transaction", Mock(side_effect=StoreError("disk full")))
    book.rest()
    [account] = home.accounts()
    assert (account.attempts, account.reserved) == (sent, 0)


def test_closing_while_other_threads_begin_runs(store):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    home = home_of(store)
    try:
        for _ in range(10):
            dispatcher = Dispatcher.open(ScriptedAdapter(), store, home, concurrency=1)
            runs = []

            def begin(dispatcher=dispatcher, runs=runs):
                with suppress(UsageError):
                    while True:
                        runs.append(dispatcher.run(job(1)))

            threads = [threading.Thread(target=begin) for _ in range(3)]
            for thread in threads:
                thread.start()
            while len(runs) < 1000:
                time.sleep(0.001)
            try:
                dispatcher.close()
            finally:
                for thread in threads:
                    thread.join()
    finally:
        sys.setswitchinterval(interval)
        home.close()


def test_a_run_that_is_left_alone_blocks_nobody_once_it_is_closed(store):
    """A traceback, as a notebook keeps it, holds what was iterated at the time."""
    dispatcher = Dispatcher.open(ScriptedAdapter(delay=0.01), store, home := home_of(store))
    deliveries = dispatcher.run(job(100, batch=32))
    next(iter(deliveries))
    dispatcher.close()
    home.close()
    began = time.monotonic()
    delivered, _ = run(ScriptedAdapter(), store, count=100)
    assert len(delivered) == 100
    assert time.monotonic() - began < 20.0
    with pytest.raises(StoppedError, match="was closed"):
        next(iter(deliveries))


def test_a_run_that_is_stopped_ends(store):
    dispatcher = Dispatcher.open(ScriptedAdapter(delay=0.01), store, home := home_of(store))
    deliveries = dispatcher.run(job(100))
    timer = threading.Timer(0.1, deliveries.stop)
    timer.start()
    with pytest.raises(StoppedError, match="was stopped"):
        list(deliveries)
    timer.join()
    with dispatcher.run(job(1)) as others:
        assert next(iter(others)).answer
    dispatcher.close()
    home.close()


@pytest.mark.parametrize("per_second", [None, 0.1])
def test_waits_that_were_cut_short_are_counted_as_they_were(store, per_second):
    first = threading.Event()  # is asked; else "slow down", or the pace, may keep it waiting too

    def script(payload, attempt):
        if payload == b"0":
            first.set()
            until(lambda: deliveries.totals.waited)
            return FatalError("no permission")
        return ThrottledError("slow down", retry_after=50.0)

    def encode(index):
        assert index == 0 or first.wait(30.0)
        return b"%d" % index

    adapter, home = ScriptedAdapter(script), home_of(store)
    adapter.limits = replace(adapter.limits, per_second=per_second)
    dispatcher = Dispatcher.open(adapter, store, home, retry=Retry(deadline=1000.0))
    eight = replace(job(8), prepare=lambda indices: [lambda i=i: encode(i) for i in indices])
    began = time.monotonic()
    deliveries = dispatcher.run(eight)
    with pytest.raises(FatalError) as caught, deliveries:
        next(iter(deliveries))
    # Of the clock, though many waited at the same time.
    assert 0.0 < caught.value.waited <= time.monotonic() - began
    dispatcher.close()
    home.close()


def test_whoever_listens_and_fails_costs_no_answer(store, monkeypatch, caplog):
    """A handler's filter or a span processor of the user's own may raise; what came was paid."""

    class Broken:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            raise ValueError("exporter")

    def fail(record):
        if getattr(record, "smoothapi", {}).get("event") == "attempt":
            raise ValueError("filter")
        return True

    tracer = Mock(start_as_current_span=lambda *_, **__: Broken())
    monkeypatch.setattr(telemetry, "_tracer", lambda: tracer)
    monkeypatch.setattr(telemetry, "_nobody_traces", lambda: False)
    caplog.set_level("DEBUG", "smoothapi")
    telemetry.log.addFilter(fail)
    try:
        adapter = ScriptedAdapter()
        delivered, totals = run(adapter, store, count=5)
    finally:
        telemetry.log.removeFilter(fail)
    assert [delivery.answer for delivery in delivered] == [answer()] * 5
    assert totals.attempts == adapter.sent == 5
    assert "could not be told" in caplog.text
