"""What a review found: clocks, forks, numbers of processes, damage, and money beside an error."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from decimal import Decimal

import pytest

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.dispatch.breaker import Breaker
from smoothapi.errors import (
    FatalError,
    ProviderError,
    StoppedError,
    StoreError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Limits, Price
from smoothapi.store import Budget, Home, StoredAnswer, answer_key, rows
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.database import _STEPS
from smoothapi.store.owners import owner, owner_is_dead
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import Job, asked, home_of, run, stored

DOLLAR = Price(Decimal("1.00"))


def test_answers_beside_a_fatal_one_are_kept(store):
    """They came in one request, and were paid for."""
    adapter = ScriptedAdapter(lambda p, n: FatalError("quota") if p == b"0" else answer(), batch=4)
    with pytest.raises(FatalError):
        run(adapter, store, count=4, concurrency=1)
    assert [stored(store, i) is not None for i in range(4)] == [False, True, True, True]


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit()])
def test_an_adapter_that_raises_what_ends_programs_is_told_so(store, error):
    with pytest.raises(FatalError, match="defect of the adapter"):
        run(ScriptedAdapter(lambda *_: error), store)


def test_requests_are_split_by_their_bytes(store):
    adapter = ScriptedAdapter(lambda p, n: answer(p.decode().strip()), batch=8)
    adapter.limits = replace(adapter.limits, max_request_bytes=250)
    done = []
    job = Job(
        asked=asked,
        prepare=lambda indices: [lambda i=i: (b"%d" % i).ljust(100) for i in indices],
        needed=lambda: 20 - len(done),
    )
    home = home_of(store)
    dispatcher = Dispatcher.open(adapter, store, home, [Budget(attempts=20)], concurrency=3)
    with dispatcher.run(job) as deliveries:
        done.extend(next(iter(deliveries)) for _ in range(20))
        totals = deliveries.totals
    dispatcher.close()
    home.close()
    assert [d.answer.labels[0].name for d in done] == [str(i) for i in range(20)]
    assert max(sum(map(len, request)) for request in adapter.requests) == 200
    assert (totals.queries, totals.attempts, adapter.sent) == (20, 20, 20)


def test_one_picture_above_the_bytes_of_a_request_is_refused_before_it_is_sent(store):
    adapter = ScriptedAdapter()
    adapter.limits = replace(adapter.limits, max_request_bytes=1)
    with pytest.raises(UsageError, match="takes up to 1"):
        run(adapter, store, count=20)
    assert adapter.attempts[b"10"] == 0


@pytest.mark.parametrize("bad", [{"batch": 0}, {"per_second": 0.0}, {"max_request_bytes": 0}])
def test_impossible_limits(bad):
    if bad == {"max_request_bytes": 0}:
        bad = {"max_request_bytes": -1}
    with pytest.raises(UsageError):
        Limits(**bad)


def test_closing_in_mid_run_says_so_and_loses_nothing(store):
    adapter = ScriptedAdapter(delay=0.02)
    home = home_of(store)
    dispatcher = Dispatcher.open(adapter, store, home, concurrency=4)
    job = Job(
        asked=asked,
        prepare=lambda indices: [lambda i=i: b"%d" % i for i in indices],
        needed=lambda: 10_000,
    )
    closing = threading.Thread(target=dispatcher.close)
    with (
        pytest.raises(StoppedError, match="was closed") as caught,
        dispatcher.run(job) as deliveries,
    ):
        for delivery in deliveries:
            if delivery.index == 10:
                closing.start()
    closing.join()
    assert caught.value.attempts == adapter.sent
    # Which variants were under way when it closed is the threads' affair: the last need not be next.
    assert all(stored(store, int(payload)) is not None for payload in adapter.attempts)
    with pytest.raises(UsageError, match="was closed"):
        dispatcher.run(job)
    home.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_it_is_refused_rather_than_hung(store, home, monkeypatch):
    dispatcher = Dispatcher.open(ScriptedAdapter(), store, home)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)  # as in the child
    with pytest.raises(UsageError, match="forked"):
        dispatcher.run(Job(asked=asked, prepare=list, needed=lambda: 1))
    with pytest.raises(UsageError, match="forked"), home.database.transaction():
        pass
    monkeypatch.undo()
    dispatcher.close()


def test_ctrl_c_between_two_lines_leaves_no_open_transaction(home):
    with pytest.raises(KeyboardInterrupt), home.database.transaction():
        raise KeyboardInterrupt
    with home.database.transaction() as database:
        database.execute("SELECT 1")


def test_a_number_given_to_another_process_is_not_its_owner():
    assert not owner_is_dead(owner())
    mine, _, _ = owner().partition("@")
    space = owner().partition("@")[2].partition("/")[0]
    if space:
        assert owner_is_dead(f"{mine}@{space}/1")
        assert not owner_is_dead(f"{mine}@another/1")
    assert not owner_is_dead(f"{socket.gethostname()}:99999999999999999999")


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="no zombies here")
def test_a_zombie_owns_nothing():
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
        space = owner().partition("@")[2].partition("/")[0]
        assert owner_is_dead(f"{socket.gethostname()}:{child.pid}@{space}/1")
    finally:
        child.wait()


def test_an_outage_that_ended_a_run_does_not_forbid_the_next(clock):
    clock.now = 0.0
    breaker = Breaker(1, deadline=10.0, clock=clock)
    stop = threading.Event()
    breaker.failed(TransientError("down"))
    clock.now = 100.0
    with pytest.raises(ProviderError, match="has not answered"):
        breaker.enter(stop)
    assert not breaker.enter(stop)


def test_calls_that_were_under_way_do_not_lengthen_the_waits():
    breaker = Breaker(2, deadline=60.0)
    for _ in range(40):
        breaker.failed(TransientError("down"))
    began = time.monotonic()
    assert breaker.enter(threading.Event())
    assert time.monotonic() - began < 25.0


def test_a_clock_set_back_does_not_stop_the_pace(home, clock):
    pace = home.pace("aws", 5.0)
    for _ in range(8):
        pace.take(1)
    clock.now -= 3600.0
    assert home.pace("aws", 5.0).take(1) < 5.0


def test_many_attempts_do_not_overflow(store):
    adapter = ScriptedAdapter(lambda p, n: TransientError("busy") if n < 1200 else answer())
    retry = Retry(attempts=3000, base=1e-9, cap=1e-9)
    home = home_of(store)
    dispatcher = Dispatcher.open(adapter, store, home, retry=retry)
    unbreakable = replace(dispatcher.route, breaker=Breaker(10**6, 60.0))
    dispatcher = replace(dispatcher, route=unbreakable)
    job = Job(asked=asked, prepare=lambda i: [lambda: b"0"], needed=lambda: 1)
    with dispatcher.run(job) as deliveries:
        assert next(iter(deliveries)).answer == answer()
    dispatcher.close()
    home.close()


def test_two_limits_on_one_account_count_once(home):
    book = home.ledger([Budget(attempts=10, per="day"), Budget(dollars=1, per="day")], "a", DOLLAR)
    for _ in range(10):
        book.settle(book.reserve(1), 1)
    book.rest()
    [account] = home.accounts()
    assert (account.attempts, account.attempt_limit, account.dollar_limit) == (10, 10, 1)
    assert account.attempts_left == 0


def test_a_reset_in_mid_run_gives_nothing_to_the_new_account(home):
    book = home.ledger([Budget(attempts=5000, name="x")], "a", DOLLAR)
    book.settle(book.reserve(1), 1)  # sets several aside
    home.reset("x")
    other = home.ledger([Budget(attempts=5, name="x")], "a", DOLLAR)
    for _ in range(5):
        other.settle(other.reserve(1), 1)
    book.rest()
    assert other.room() == 0


def test_a_failed_write_keeps_what_is_to_be_given_back(home, monkeypatch):
    book = home.ledger([Budget(attempts=5000, name="x")], "a", DOLLAR)
    book.settle(book.reserve(1), 1)
    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(
            "smoothapi.store.local.ledger.reduce_reservation",
            lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("disk full")),
        )
        book.rest()
    book.rest()
    assert home.accounts()[0].attempts == 1


@pytest.mark.parametrize("text", ["1__0", "1_", "9" * 30, "$1e400", "$1e30"])
def test_odd_amounts_are_refused_in_words(text):
    with pytest.raises(UsageError):
        Budget.parse(text)


def test_what_is_bought_after_the_files_were_deleted_is_kept_all_the_same(store):
    store.put(StoredAnswer({"n": 0}, answer()))
    for file in store.directory.glob("cache.db*"):
        file.unlink()
    store.put(StoredAnswer({"n": 1}, answer()))
    other = AnswerStore(store.directory)
    assert other.get(answer_key({"n": 1})) == answer()
    other.close()


def test_a_store_that_cannot_be_written_says_so_and_does_not_spin(store, monkeypatch):
    """diskcache, asked to retry, would try a read-only database for ever."""
    store.put(StoredAnswer({"n": 0}, answer()))
    store._cache._con.execute("PRAGMA query_only = 1")
    began = time.monotonic()
    with pytest.raises(StoreError, match="readonly"):
        store.put(StoredAnswer({"n": 1}, answer()))
    assert time.monotonic() - began < 30.0


def test_of_a_damaged_store_what_can_be_read_is_kept(tmp_path):
    store = AnswerStore(tmp_path)
    for number in range(300):
        store.put(StoredAnswer({"n": number}, answer("x" * 200)))
    store.close()
    file = tmp_path / "cache.db"
    data = bytearray(file.read_bytes())
    data[-4096 * 3 : -4096] = b"\xff" * 8192
    file.write_bytes(data)
    store = AnswerStore(tmp_path)
    found = sum(store.get(answer_key({"n": n})) is not None for n in range(300))
    assert list(tmp_path.glob("damaged-*.db")) or found == 300
    store.put(StoredAnswer({"n": 1000}, answer()))
    assert store.get(answer_key({"n": 1000})) == answer()
    store.close()


def test_an_older_ledger_is_brought_up_to_date(tmp_path):
    path = tmp_path / "ledger.db"
    database = sqlite3.connect(path)
    assert isinstance(_STEPS[0], str)
    database.executescript(_STEPS[0] + "PRAGMA user_version = 1;")
    with database:
        database.execute("INSERT INTO accounts VALUES ('study', 'run', 7, 7, 10, NULL)")
    database.close()
    home = Home(path.parent)
    assert home.accounts()[0].attempts == 7
    with home.database.transaction() as opened:
        assert opened.execute("PRAGMA user_version").fetchone() == (len(_STEPS),)
        assert opened.execute(
            "SELECT name FROM sqlite_master WHERE name = 'leases_until'"
        ).fetchone()
    home.close()


def test_older_answers_are_brought_up_to_date_and_newer_ones_refused(store, monkeypatch):
    store.put(StoredAnswer({"n": 0}, answer()))
    monkeypatch.setattr(
        rows, "_STEPS", (lambda row: {**row, "answer": {**row["answer"]}, "two": 2},)
    )
    key = answer_key({"n": 0})
    assert store.get(key) == answer()
    assert (store.row(key)["schema"], store.row(key)["two"]) == (2, 2)
    store.put(StoredAnswer({"n": 1}, answer()))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="later smoothapi"):
        store.get(answer_key({"n": 1}))
