"""Answers on their way to the disk: none is handed on before, none is lost, few wait."""

from __future__ import annotations

import threading
import time

import pytest

from smoothapi.dispatch import Dispatcher
from smoothapi.dispatch.writing import AnswerWriter
from smoothapi.errors import FatalError, PermanentError, StoreError, TransientError
from smoothapi.store import StoredAnswer
from smoothapi.store.local.ledger import LocalLedger
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import Job, asked, home_of, run, stored, until


@pytest.fixture
def slow(store, monkeypatch):
    """Return the sizes of the batches that a slow disk was given."""
    put, batches = store.put, []

    def slowly(*answers):
        batches.append(len(answers))
        time.sleep(0.02)
        put(*answers)

    monkeypatch.setattr(store, "put", slowly)
    return batches


def test_what_is_handed_on_is_on_disk(store, monkeypatch):
    dispatcher = Dispatcher.open(ScriptedAdapter(), store, home := home_of(store))
    put, slow = store.put, []

    def slowly(*answers):
        slow.append(len(answers))
        if len(slow) == 1:
            until(lambda: len(dispatcher.workers.writer._waiting) > 1)
        put(*answers)

    monkeypatch.setattr(store, "put", slowly)
    left = [40]
    job = Job(
        asked=asked,
        prepare=lambda indices: [lambda i=i: b"%d" % i for i in indices],
        needed=lambda: left[0],
    )
    with dispatcher.run(job) as deliveries:
        for delivery in deliveries:
            assert stored(store, delivery.index) == delivery.answer
            left[0] -= 1
    dispatcher.close()
    home.close()
    assert sum(slow) == 40
    assert slow[1] > 1, "what gathers while one transaction is made goes into the next"


def test_a_run_that_ends_early_keeps_what_was_under_way(store, slow):
    adapter = ScriptedAdapter(delay=0.01)
    dispatcher = Dispatcher.open(adapter, store, home := home_of(store))
    job = Job(
        asked=asked,
        prepare=lambda indices: [lambda i=i: b"%d" % i for i in indices],
        needed=lambda: 100,
    )
    with dispatcher.run(job) as deliveries:
        next(iter(deliveries))
    assert len(store) == adapter.sent
    dispatcher.close()
    home.close()


def test_answers_that_are_lost_at_the_end_are_said(store, monkeypatch, caplog):
    put, others, delivered = store.put, threading.Event(), threading.Event()

    def script(payload, attempt):
        if payload == b"0":
            others.wait(30.0)
        else:  # is under way when the run ends
            others.set()
            delivered.wait(30.0)
        return answer()

    def full(*answers):
        if any(kept.asked != asked(0) for kept in answers):
            raise StoreError("The disk is full.")
        put(*answers)

    monkeypatch.setattr(store, "put", full)
    dispatcher = Dispatcher.open(ScriptedAdapter(script), store, home := home_of(store))
    job = Job(
        asked=asked,
        prepare=lambda indices: [lambda i=i: b"%d" % i for i in indices],
        needed=lambda: 5,
        batch=1,
    )
    with dispatcher.run(job) as deliveries:
        next(iter(deliveries))
        delivered.set()
    dispatcher.close()
    home.close()
    assert "more requests under way: The disk is full." in caplog.text


def test_a_stalled_disk_stalls_the_senders(store, monkeypatch):
    adapter, go = ScriptedAdapter(), threading.Event()
    put = store.put

    def stall(*answers):
        go.wait(60.0)
        put(*answers)

    monkeypatch.setattr(store, "put", stall)
    caller = threading.Thread(target=run, args=(adapter, store), kwargs={"count": 100})
    caller.start()
    # Each thread that sends waits with what it was answered: eight requests, and four more.
    until(lambda: adapter.sent >= 8 + 4)
    time.sleep(0.2)  # for more, if they were let
    sent = adapter.sent
    go.set()
    caller.join()
    assert sent == 8 + 4
    assert adapter.sent == len(store) == 100


def test_each_is_told_what_prevented_its_answer(store, monkeypatch):
    def full(*_):
        raise StoreError("disk full")

    monkeypatch.setattr(store, "put", full)
    writer = AnswerWriter(store)
    written = [writer.write([StoredAnswer({"n": number}, answer())]) for number in range(5)]
    writer.close()
    assert [str(each.exception()) for each in written] == ["disk full"] * 5


def test_a_last_answer_is_kept_though_its_thread_is_gone(store):
    writer = AnswerWriter(store)
    writer.close()
    for number in range(2):
        assert writer.write([StoredAnswer({"n": number}, answer())]).result() is None
    assert len(store) == 2


@pytest.mark.parametrize(("batch", "concurrency"), [(1, 1), (16, 2), (128, 2), (16, 5), (1, 8)])
def test_no_more_is_sent_than_a_crash_may_lose(store, monkeypatch, batch, concurrency):
    """What was sent and is not on disk, at every moment: a request of each thread that sends."""
    adapter, put, most = ScriptedAdapter(batch=batch), store.put, [0, 0]
    in_one = []

    def slowly(*answers):
        time.sleep(0.01)
        waiting = adapter.sent - len(store)
        most[:] = max(most[0], waiting), max(most[1], len(adapter.requests))
        in_one.append(len(answers))
        put(*answers)

    monkeypatch.setattr(store, "put", slowly)
    run(adapter, store, count=4 * batch * concurrency, lot=batch, concurrency=concurrency)
    assert most[0] <= batch * (concurrency + max(1, concurrency // 2))
    assert len(store) == adapter.sent
    # A request's answers are never parted.
    assert all(len(request) == batch for request in adapter.requests)
    assert all(number % batch == 0 for number in in_one)


@pytest.mark.parametrize("outcome", ["answered", "refused", "some answered", "fatal among them"])
def test_what_arrived_is_on_disk_before_anything_is_made_of_it(store, outcome):
    """Before it is settled, counted as sent, told as an event, or a vote."""
    failures = {"refused": PermanentError, "some answered": TransientError}
    failure = failures.get(outcome, FatalError)
    script = ScriptedAdapter(
        lambda payload, n: (
            failure("no")
            if n == 1 and outcome != "answered" and (payload == b"0" or outcome == "refused")
            else answer()
        ),
        batch=1 if outcome == "refused" else 4,
    )
    steps = []
    put, settle = store.put, LocalLedger.settle
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "put", lambda *kept: (put(*kept), steps.append(len(kept)))[0])
        patch.setattr(LocalLedger, "settle", lambda *_: (_wait_for(steps), settle(*_))[1])
        try:
            run(script, store, count=4, lot=4, concurrency=1)
        except FatalError:
            assert outcome == "fatal among them"
    assert sum(steps) == len(store) == (3 if outcome == "fatal among them" else 4)


def _wait_for(steps):
    """Return when an answer is on disk: what settles was handed over before."""
    until(lambda: steps)


@pytest.mark.parametrize("batch", [1, 16])
def test_the_error_of_a_full_disk_counts_what_was_paid(store, monkeypatch, batch):
    """Also where the ledger is full too, when all is closed."""
    adapter, put, close = ScriptedAdapter(batch=batch), store.put, LocalLedger.close

    def full(*answers):
        if len(store) >= 2 * batch:
            raise StoreError("disk full")
        put(*answers)

    def cannot(self):
        close(self)
        raise StoreError("the ledger is full, too")

    monkeypatch.setattr(store, "put", full)
    monkeypatch.setattr(LocalLedger, "close", cannot)
    with pytest.raises(StoreError, match="disk full") as caught:
        run(adapter, store, count=20 * batch, lot=batch, concurrency=2)
    assert caught.value.attempts == adapter.sent > 0
    assert caught.value.cost == pytest.approx(adapter.sent / 1000)
