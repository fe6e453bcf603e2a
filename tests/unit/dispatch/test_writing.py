"""Answers on their way to the disk: none is handed on before, none is lost, few wait."""

from __future__ import annotations

import threading
import time

import pytest

from smoothapi.dispatch import Dispatcher
from smoothapi.dispatch.writing import AnswerWriter
from smoothapi.errors import StoreError
from smoothapi.store import StoredAnswer
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import Job, asked, home_of, run, stored


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


def test_what_is_handed_on_is_on_disk(store, slow):
    dispatcher = Dispatcher.open(ScriptedAdapter(), store, home := home_of(store))
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
    assert max(slow) > 1, "what gathers while one transaction is made goes into the next"


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
            others.wait(10.0)
        else:  # is under way when the run ends
            others.set()
            delivered.wait(10.0)
        return answer()

    def full(*answers):
        if any(kept.asked != asked(0) for kept in answers):
            raise StoreError("disk full")
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
    assert "could not be kept: disk full" in caplog.text


def test_a_stalled_disk_stalls_the_senders(store, monkeypatch):
    adapter, go = ScriptedAdapter(), threading.Event()
    put = store.put

    def stall(*answers):
        go.wait(10.0)
        put(*answers)

    monkeypatch.setattr(store, "put", stall)
    caller = threading.Thread(target=run, args=(adapter, store), kwargs={"count": 100})
    caller.start()
    until = time.monotonic() + 5.0
    while adapter.sent < 8 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)  # for more, if they were let
    sent = adapter.sent
    go.set()
    caller.join()
    # Eight in flight, as many waiting for the disk, four more threads that wait to hand over.
    assert 8 <= sent <= 8 + 8 + 4
    assert adapter.sent == len(store) == 100


def test_each_is_told_what_prevented_its_answer(store, monkeypatch):
    def full(*_):
        raise StoreError("disk full")

    monkeypatch.setattr(store, "put", full)
    writer, told = AnswerWriter(store, 8), []
    for number in range(5):
        writer.write(StoredAnswer({"n": number}, answer()), told.append)
    writer.flush()
    writer.close()
    assert [str(error) for error in told] == ["disk full"] * 5


def test_a_last_answer_is_kept_though_its_thread_is_gone(store):
    writer, told = AnswerWriter(store, 1), []
    writer.close()
    for number in range(2):
        writer.write(StoredAnswer({"n": number}, answer()), told.append)
        writer.flush()
    assert told == [None, None]
    assert len(store) == 2
