"""Between money and noise: order, bounds, retries, and what is left when something fails."""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.dispatch.breaker import Breaker
from smoothapi.errors import (
    BudgetExceededError,
    FatalError,
    PermanentError,
    ProviderError,
    StoppedError,
    StoreError,
    ThrottledError,
    TooManyFailuresError,
    TransientError,
)
from smoothapi.store import Budget, answer_key
from smoothapi.store.block_ledger import BlockLedger
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.pace import LocalPace
from tests.conftest import Clock, ScriptedAdapter, answer
from tests.unit.dispatch.harness import (
    FAST,
    Job,
    Outage,
    asked,
    home_of,
    labels,
    run,
    stored,
    until,
)


def told(caplog, event):
    """Return what was logged of an event, in order."""
    records = [record for record in caplog.records if hasattr(record, "smoothapi")]
    return [record for record in records if record.smoothapi["event"] == event]


def test_answers_come_in_order_of_index_whatever_the_order_of_arrival(store):
    def slow_first(payload, attempt):
        time.sleep(0.03 if int(payload) % 4 == 0 else 0.0)
        return answer(payload.decode())

    delivered, totals = run(ScriptedAdapter(slow_first), store, count=30)
    assert [d.index for d in delivered] == list(range(30))
    assert labels(delivered) == [str(i) for i in range(30)]
    assert (totals.queries, totals.attempts, totals.cached) == (30, 30, 0)


@pytest.mark.parametrize(("needed", "concurrency"), [(1, 8), (3, 8), (8, 3), (100, 16)])
def test_never_more_in_flight_than_needed_nor_than_allowed(store, needed, concurrency):
    adapter = ScriptedAdapter(delay=0.002)
    delivered = []
    run(
        adapter,
        store,
        needed=lambda: min(needed, 40 - len(delivered)),
        delivered=delivered,
        concurrency=concurrency,
    )
    assert adapter.most_in_flight <= min(needed, concurrency)
    assert adapter.sent == 40


def test_nothing_is_bought_that_could_not_have_been_needed(store):
    """An unbroken run that shrinks what is needed by one per vote ends with nothing wasted."""
    adapter = ScriptedAdapter(delay=0.001)
    delivered = []
    run(adapter, store, needed=lambda: 17 - len(delivered), delivered=delivered, concurrency=8)
    assert adapter.sent == len(delivered) == 17


def test_stored_answers_are_used_and_prepare_is_not_called(store):
    first, _ = run(ScriptedAdapter(), store)
    adapter = ScriptedAdapter()
    second, totals = run(adapter, store)
    assert adapter.sent == 0
    assert (totals.queries, totals.cached) == (0, 20)
    assert labels(second) == labels(first)


def test_refresh_asks_again_and_overwrites(store):
    run(ScriptedAdapter(), store)
    fresh, _ = run(ScriptedAdapter(lambda *_: answer("van")), store, refresh=True)
    again, totals = run(ScriptedAdapter(), store)
    assert labels(fresh) == labels(again) == ["van"] * 20
    assert totals.cached == 20


def test_an_answer_is_on_disk_before_it_is_handed_on(store):
    delivered = []

    def needed():
        assert all(stored(store, d.index) is not None for d in delivered)
        return 20 - len(delivered)

    run(ScriptedAdapter(), store, needed=needed, delivered=delivered)
    assert len(delivered) == 20


def test_the_same_variant_is_tried_again_and_attempts_are_counted(store):
    def flaky(payload, attempt):
        odd = int(payload) % 2
        return TransientError("busy") if odd and attempt < 3 else answer()

    adapter = ScriptedAdapter(flaky)
    delivered, totals = run(adapter, store, count=10, concurrency=2)
    assert labels(delivered) == ["bus"] * 10
    assert [adapter.attempts[b"%d" % index] for index in range(10)] == [1, 3] * 5
    assert (totals.queries, totals.attempts, totals.failed) == (10, 20, 0)
    assert totals.waited > 0


def test_retry_after_is_obeyed(store, caplog):
    caplog.set_level("DEBUG", logger="smoothapi")

    def throttled(payload, attempt):
        return ThrottledError("slow down", retry_after=0.2) if attempt == 1 else answer()

    run(ScriptedAdapter(throttled), store, count=1)
    [wait] = [record.smoothapi["wait"] for record in told(caplog, "retry")]
    assert wait >= 0.2


def test_a_wait_beyond_the_deadline_is_not_begun(store):
    began = time.monotonic()
    adapter = ScriptedAdapter(lambda *_: ThrottledError("later", retry_after=3600))
    delivered, _ = run(adapter, store, count=1, retry=Retry(deadline=60.0))
    assert labels(delivered) == [None]
    assert time.monotonic() - began < 30.0


def test_a_variant_that_fails_for_good_is_a_vote_and_is_never_replaced(store):
    def one_bad(payload, attempt):
        return PermanentError("bad picture") if payload == b"5" else answer()

    adapter = ScriptedAdapter(one_bad)
    delivered, totals = run(adapter, store)
    assert labels(delivered) == ["bus"] * 5 + [None] + ["bus"] * 14
    assert delivered[5].error == "bad picture"
    assert adapter.attempts[b"5"] == 1
    assert totals.failed == 1


def test_a_permanent_failure_is_remembered_an_exhausted_one_is_asked_again(store):
    def bad(payload, attempt):
        if payload == b"3":
            return PermanentError("bad picture")
        return TransientError("busy") if payload == b"4" else answer()

    run(ScriptedAdapter(bad), store, max_failed=0.5)
    healthy = ScriptedAdapter()
    delivered, _ = run(healthy, store)
    assert list(healthy.attempts) == [b"4"]
    assert labels(delivered)[3:5] == [None, "bus"]


@pytest.mark.parametrize("error", [FatalError("no permission"), ValueError("a bug")])
def test_a_fatal_error_stops_the_run_at_once(store, error):
    adapter = ScriptedAdapter(lambda *_: error, delay=0.01)
    with pytest.raises(FatalError) as caught:
        run(adapter, store, count=500, concurrency=4)
    assert adapter.sent <= 4
    assert set(adapter.attempts.values()) == {1}
    assert caught.value.attempts == adapter.sent
    assert caught.value.cost == pytest.approx(adapter.sent / 1000)
    assert caught.value.provider == "scripted"


def test_no_second_attempt_is_sent_after_a_fatal_error(store):
    def script(payload, attempt):
        if payload == b"0":
            time.sleep(0.05)
            return FatalError("key revoked")
        return TransientError("busy")

    adapter = ScriptedAdapter(script)
    with pytest.raises(FatalError):
        run(adapter, store, retry=Retry(attempts=50, base=0.3, cap=0.3), concurrency=8)
    sent = adapter.sent
    time.sleep(0.1)
    assert adapter.sent == sent


def test_too_many_failures_stop_the_run(store):
    def half(payload, attempt):
        return PermanentError("bad") if int(payload) % 2 else answer()

    adapter = ScriptedAdapter(half)
    with pytest.raises(TooManyFailuresError, match="of 10 variants"):
        run(adapter, store, count=1000)
    assert adapter.sent < 100  # what may wait for its turn to be judged


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_budget_counts_attempts_and_is_never_passed(store, concurrency):
    adapter = ScriptedAdapter(lambda p, n: TransientError("busy") if n == 1 else answer())
    with pytest.raises(BudgetExceededError) as caught:
        run(adapter, store, count=100, budget=Budget(attempts=25), concurrency=concurrency)
    # What was reserved by the others when one was refused is given back.
    assert 25 - concurrency < adapter.sent <= 25
    assert caught.value.attempts == adapter.sent


def test_a_stopped_run_resumes_for_the_rest(store):
    with pytest.raises(BudgetExceededError):
        run(ScriptedAdapter(), store, count=100, budget=Budget(attempts=25), concurrency=1)
    adapter = ScriptedAdapter()
    delivered, totals = run(adapter, store, count=100)
    assert len(delivered) == 100
    assert (adapter.sent, totals.cached) == (75, 25)


@settings(max_examples=30, deadline=None)
@given(
    limit=st.integers(0, 60),
    concurrency=st.integers(1, 12),
    batch=st.integers(1, 5),
    failures=st.sets(st.integers(0, 39), max_size=15),
)
def test_whatever_happens_the_budget_holds_and_no_answer_is_lost(
    tmp_path_factory, limit, concurrency, batch, failures
):
    def script(payload, attempt):
        return TransientError("busy") if int(payload) in failures and attempt == 1 else answer()

    adapter = ScriptedAdapter(script, batch=batch)
    store = AnswerStore(tmp_path_factory.mktemp("answers"))
    delivered = []
    try:
        run(
            adapter,
            store,
            count=40,
            budget=Budget(attempts=limit),
            concurrency=concurrency,
            delivered=delivered,
        )
    except BudgetExceededError:
        pass
    else:
        assert len(delivered) == 40
    assert adapter.sent <= limit
    answered = {p for p, n in adapter.attempts.items() if n > (int(p) in failures)}
    assert answered == {b"%d" % i for i in range(40) if stored(store, i) is not None}
    store.close()


def test_closing_early_awaits_and_stores_what_is_under_way(store):
    adapter = ScriptedAdapter(delay=0.05)
    home = home_of(store)
    dispatcher = Dispatcher.open(adapter, store, home, concurrency=4, retry=FAST)
    job = Job(
        asked=asked,
        prepare=lambda indices: [lambda i=i: b"%d" % i for i in indices],
        needed=lambda: 50,
    )
    with dispatcher.run(job) as deliveries:
        next(iter(deliveries))
    sent = adapter.sent
    assert adapter.in_flight == 0
    assert sum(stored(store, i) is not None for i in range(50)) == sent
    dispatcher.close()
    home.close()
    assert adapter.sent == sent


def test_batches_are_filled_but_not_waited_for(store):
    adapter = ScriptedAdapter(batch=16, delay=0.01)
    run(adapter, store, count=64, lot=16, concurrency=2)
    assert max(len(request) for request in adapter.requests) == 16
    single = ScriptedAdapter(batch=16)
    run(single, store, count=1, refresh=True)
    assert [len(request) for request in single.requests] == [1]


def test_in_a_batch_only_the_failed_items_are_sent_again(store):
    adapter = ScriptedAdapter(
        lambda p, n: TransientError("busy") if p in (b"1", b"2") and n == 1 else answer(), batch=4
    )
    delivered, totals = run(adapter, store, count=4)
    assert labels(delivered) == ["bus"] * 4
    assert adapter.requests == [[b"0", b"1", b"2", b"3"], [b"1", b"2"]]
    assert totals.attempts == 6


def test_an_adapter_that_returns_too_few_answers_is_told_so(store):
    class Short(ScriptedAdapter):
        def ask(self, payloads):
            return []

    with pytest.raises(FatalError, match="defect of the adapter"):
        run(Short(), store)


@pytest.mark.parametrize("sent", [True, False])
def test_what_never_left_this_machine_is_not_charged(store, sent):
    adapter = ScriptedAdapter(lambda *_: FatalError("no credentials", sent=sent))
    budget = Budget(attempts=100, name="all")
    with pytest.raises(FatalError, match="no credentials") as caught:
        run(adapter, store, budget=budget, concurrency=1)
    home = home_of(store)
    assert sum(account.attempts for account in home.accounts()) == caught.value.attempts == sent
    assert caught.value.cost == 0.001 * sent
    home.close()


def test_a_full_disk_stops_the_run_before_more_is_bought(store, monkeypatch):
    def full(*_):
        raise StoreError("disk full")

    monkeypatch.setattr(store, "put", full)
    adapter = ScriptedAdapter(delay=0.005)
    with pytest.raises(StoreError):
        run(adapter, store, count=500, concurrency=4)
    assert adapter.sent <= 4 + 4 + 2  # in flight, waiting for the disk, waiting to hand over


def test_a_failing_denoiser_stops_the_run(store):
    def prepare(indices):
        raise MemoryError

    home = home_of(store)
    dispatcher = Dispatcher.open(ScriptedAdapter(), store, home)
    job = Job(asked=asked, prepare=prepare, needed=lambda: 10)
    with pytest.raises(MemoryError), dispatcher.run(job) as deliveries:
        next(iter(deliveries))
    dispatcher.close()
    home.close()


def test_ctrl_c_awaits_running_calls_and_sends_nothing_more(store):
    """KeyboardInterrupt reaches the thread that iterates; here it is thrown from `needed`."""
    adapter = ScriptedAdapter(delay=0.05)
    delivered, before = [], set(threading.enumerate())

    def needed():
        if len(delivered) == 3:
            raise KeyboardInterrupt
        return 100

    with pytest.raises(KeyboardInterrupt):
        run(adapter, store, needed=needed, delivered=delivered, concurrency=6)
    kept = sum(stored(store, i) is not None for i in range(100))
    assert kept == adapter.sent
    until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.timeout(60)
def test_a_run_stopped_while_its_store_is_waited_for_sends_nothing_then(store, monkeypatch):
    waits, answers_again = threading.Event(), threading.Event()
    reserve = BlockLedger.reserve

    def slow(self, attempts):
        waits.set()
        answers_again.wait(30)
        return reserve(self, attempts)

    monkeypatch.setattr(BlockLedger, "reserve", slow)
    adapter, home = ScriptedAdapter(), home_of(store)
    budget = Budget(attempts=9, name="b")
    dispatcher = Dispatcher.open(adapter, store, home, [budget], retry=FAST)
    run = dispatcher.run(Job(needed=lambda: 5))

    def stop():
        waits.wait(30)
        run.stop()
        answers_again.set()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(StoppedError):
        list(run)
    stopping.join()
    dispatcher.close()
    assert adapter.sent == 0
    [account] = home.accounts()
    assert (account.attempts, account.reserved) == (0, 0)
    home.close()


def test_an_outage_is_waited_out_and_costs_no_votes(store, monkeypatch):
    """A service that is down for longer than all attempts of a variant would last."""
    outage = Outage(monkeypatch, probes=4)
    adapter = ScriptedAdapter(lambda *_: outage.answer())
    delivered, totals = run(adapter, store, count=30, concurrency=4, retry=FAST)
    assert labels(delivered) == ["bus"] * 30
    assert totals.attempts == adapter.sent < 30 + 4 * FAST.attempts + 6


def test_an_outage_beyond_the_deadline_ends_the_run(store):
    adapter = ScriptedAdapter(lambda *_: TransientError("connection refused"))
    began = time.monotonic()
    with pytest.raises(ProviderError, match="has not answered"):
        run(adapter, store, count=30, retry=Retry(attempts=4, base=0.001, cap=0.002, deadline=1.0))
    assert time.monotonic() - began < 20.0


def test_throttling_slows_all_workers_down(store, caplog, monkeypatch):
    """After a throttled answer the pace is halved, although no limit was stated."""
    caplog.set_level("DEBUG", logger="smoothapi")

    def script(payload, attempt):
        return ThrottledError("slow down") if payload == b"20" and attempt == 1 else answer()

    delivered, throttled = [], []
    real = LocalPace.throttled
    monkeypatch.setattr(
        LocalPace, "throttled", lambda *given: (throttled.append(time.time()), real(*given))
    )
    # By a clock that stands still, so that the pace is due later with every picture.
    run(
        ScriptedAdapter(script), store, concurrency=8, clock=Clock(),
        needed=lambda: min(8, 60 - len(delivered)), delivered=delivered,
    )  # fmt: skip
    assert len(told(caplog, "throttled")) == len(throttled) == 1
    paced = told(caplog, "paced")
    # All but the 20 before it, the 8 that were in flight beside it, and the first one after it.
    assert len(paced) >= 60 - 20 - 8 - 1
    assert all(record.created >= throttled[0] for record in paced)


def test_a_stated_pace_is_kept(store, caplog):
    caplog.set_level("DEBUG", logger="smoothapi")
    adapter = ScriptedAdapter()
    adapter.limits = replace(adapter.limits, per_second=50.0)
    _, totals = run(adapter, store, count=70, clock=Clock())
    assert (
        len(told(caplog, "paced")) == 70 - 51
    )  # a second's worth may go at once, and the next is due
    assert totals.waited > 0.0


def test_two_runs_at_once_never_buy_a_variant_twice(store):
    adapter = ScriptedAdapter(delay=0.01)
    results = []

    def one():
        results.append(run(adapter, store, count=40))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert set(adapter.attempts.values()) == {1}
    assert adapter.sent == 40
    assert sum(totals.queries for _, totals in results) == 40


def test_what_a_dead_process_was_asking_is_asked_again_at_once(store):
    home = home_of(store)
    with home.database.transaction() as database:
        database.execute(
            "INSERT INTO leases VALUES (?, ?, ?)",
            (answer_key(asked(0)), f"{socket.gethostname()}:999999999:1", time.time() + 3600),
        )
    home.close()
    began = time.monotonic()
    delivered, _ = run(ScriptedAdapter(), store, count=3)
    assert labels(delivered) == ["bus"] * 3
    assert time.monotonic() - began < 30.0


def test_events_tell_what_happened_and_nothing_secret(store, caplog):
    with caplog.at_level(logging.DEBUG, logger="smoothapi"):
        run(
            ScriptedAdapter(lambda p, n: TransientError("busy") if n == 1 else answer()),
            store,
            count=3,
        )
        run(ScriptedAdapter(), store, count=3)
    events = [record.smoothapi for record in caplog.records if hasattr(record, "smoothapi")]
    attempts = [event for event in events if event["event"] == "attempt"]
    assert [event["outcome"] for event in attempts].count("failed") == 3
    assert [event["outcome"] for event in attempts].count("answered") == 3
    assert sum(event["event"] == "stored" for event in events) == 3


def test_a_probe_that_ends_otherwise_lets_another_probe():
    """A fatal error or a spent budget in the probe must not leave the others waiting for ever."""
    breaker = Breaker(2, deadline=60.0)
    stop = threading.Event()
    for _ in range(2):
        breaker.failed(TransientError("down"))
    assert breaker.enter(stop)
    breaker.leave()
    assert breaker.enter(stop)
    breaker.succeeded()
    assert not breaker.enter(stop)


def test_a_run_after_one_that_died_in_an_outage_is_not_stuck(store):
    home = home_of(store)
    down = [True]
    adapter = ScriptedAdapter(
        lambda *_: (
            (FatalError("revoked") if adapter.sent > 6 else TransientError("down"))
            if down[0]
            else answer()
        )
    )
    dispatcher = Dispatcher.open(adapter, store, home, concurrency=4, retry=FAST)

    def job(done):
        return Job(
            asked=asked,
            prepare=lambda indices: [lambda i=i: b"%d" % i for i in indices],
            needed=lambda: 5 - len(done),
        )

    with pytest.raises(FatalError), dispatcher.run(job([])) as deliveries:
        list(deliveries)  # one may be given up before a second has failed
    down[0] = False
    done = []
    with dispatcher.run(job(done)) as deliveries:
        done.extend(next(iter(deliveries)) for _ in range(5))
    assert labels(done) == ["bus"] * 5
    dispatcher.close()
    home.close()


def test_a_wait_beyond_the_deadline_stops_the_run_instead_of_hanging_in_the_pace(store):
    adapter = ScriptedAdapter(
        lambda p, n: ThrottledError("later", retry_after=3600) if p == b"0" else answer(),
        delay=0.01,
    )
    began = time.monotonic()
    with pytest.raises(ProviderError, match="deadline"):
        run(adapter, store, count=200, concurrency=2, retry=Retry(deadline=1.0))
    assert time.monotonic() - began < 30.0
