"""What a hostile review broke: midnight, Ctrl-C, two runs at once, needs that shrink."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from decimal import Decimal

import pytest

from smoothapi.dispatch import (
    AnswerStore,
    Budget,
    Dispatcher,
    Job,
    Ledger,
    Price,
    SharedState,
    accounts,
)
from smoothapi.errors import BudgetExceededError
from tests.conftest import ScriptedAdapter
from tests.unit.dispatch.test_dispatcher import asked, run, state_of, stored

DOLLAR = Price(Decimal("1.00"))


@pytest.fixture
def store(tmp_path):
    store = AnswerStore(tmp_path / "answers")
    yield store
    store.close()


@pytest.fixture
def state(tmp_path):
    state = SharedState(tmp_path / "ledger.db")
    yield state
    state.close()


def job(count, left=None, *, name=None, **options):
    """Ask for `count` answers; `left`, if given, is counted down by the test."""
    left = [count] if left is None else left
    return Job(
        asked=asked if name is None else lambda index: {name: index},
        prepare=lambda indices: [lambda i=i: b"%s%d" % ((name or "").encode(), i) for i in indices],
        needed=lambda: left[0],
        **options,
    )


def test_a_day_that_ends_while_the_ledger_is_waited_for_is_not_passed(state, monkeypatch):
    """Another process may hold the database for a minute; what is full must be refused still."""
    now = [20_000 * 86_400.0 - 1.0]
    book = Ledger(state, [Budget(queries=64, per="day")], "a", DOLLAR, clock=lambda: now[0])
    for _ in range(64):
        book.settle(book.reserve(1), 1)
    transaction = state.transaction

    @contextmanager
    def waits(**options):
        with transaction(**options) as database:
            now[0] += 2.0
            yield database

    with monkeypatch.context() as patch:
        patch.setattr(state, "transaction", waits)
        book.settle(book.reserve(1), 1)
    for _ in range(63):
        book.settle(book.reserve(1), 1)
    with pytest.raises(BudgetExceededError):
        book.reserve(1)
    book.rest()
    assert [account.queries for account in accounts(state)] == [64, 64]


def test_ctrl_c_as_variants_are_leased_does_not_block_the_next_run(store, monkeypatch):
    """In a notebook the next run is in the same process, which lives: only expiry would help."""
    dispatcher = Dispatcher(ScriptedAdapter(), store, state := state_of(store))
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
    assert time.monotonic() - began < 20.0
    dispatcher.close()
    state.close()


def test_a_run_that_ends_does_not_wait_for_the_answers_of_another(store, monkeypatch):
    """On a slow disk there is always another answer to be written."""
    put = store.put

    def slowly(*answers):
        time.sleep(0.02)
        put(*answers)

    monkeypatch.setattr(store, "put", slowly)
    dispatcher = Dispatcher(ScriptedAdapter(delay=0.002), store, state := state_of(store))
    left, going = [10_000], threading.Event()

    def go_on():
        with dispatcher.run(job(0, left, name="other")) as deliveries:
            for _ in deliveries:
                left[0] -= 1
                going.set()

    other = threading.Thread(target=go_on)
    other.start()
    going.wait(20.0)
    timer = threading.Timer(10.0, left.__setitem__, (0, 0))  # if need be
    timer.start()
    with dispatcher.run(job(1)) as deliveries:
        next(iter(deliveries))
    assert other.is_alive()
    assert left[0] > 0
    timer.cancel()
    left[0] = 0
    other.join()
    dispatcher.close()
    state.close()
