"""A call that never comes back: the deadline ends it, and a second Ctrl-C, and nothing waits on."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

from smoothapi import Smoother
from smoothapi.dispatch import Retry
from smoothapi.dispatch.breaker import Breaker
from smoothapi.dispatch.sending import Sender
from smoothapi.dispatch.threads import Threads
from smoothapi.dispatch.under_way import CallsUnderWay
from smoothapi.errors import ProviderError, TransientError
from smoothapi.store import Budget
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import Program, home_of, labels, run, stored, until

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SHORT = Retry(attempts=3, base=0.01, deadline=0.5)
FOR_EVER = 30.0  # longer than any of these tests waits

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def hang():
    """Calls wait for it; it ends with the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def overdue_at_an_answer(monkeypatch):
    """The deadline passes for one variant, given by its payload, when another is answered next."""
    hanging, calls = [], []
    begin, succeeded = CallsUnderWay.begin, Breaker.succeeded

    def begins(under_way, call):
        object.__setattr__(call, "until", math.inf)
        if hanging[0] in call.indices:
            calls.append(call)
        begin(under_way, call)

    def succeeds(breaker):
        succeeded(breaker)
        for call in calls:
            object.__setattr__(call, "until", 0.0)

    monkeypatch.setattr(CallsUnderWay, "begin", begins)
    monkeypatch.setattr(Breaker, "succeeded", succeeds)
    return hanging.append


def spent(store):
    home = home_of(store)
    try:
        return [(a.attempts, a.reserved) for a in home.accounts()]
    finally:
        home.close()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_where_nobody_answers_the_run_ends_at_the_deadline(store, hang, concurrency):
    adapter = ScriptedAdapter(lambda *_: hang.wait(FOR_EVER) and answer())
    began = time.monotonic()
    with pytest.raises(ProviderError, match=r"not answered a request for 0.5 s") as caught:
        run(
            adapter, store, retry=SHORT, concurrency=concurrency,
            budget=Budget(attempts=100, name="all"),
        )  # fmt: skip
    assert time.monotonic() - began < FOR_EVER / 2
    assert caught.value.attempts <= adapter.sent <= concurrency
    assert spent(store) == [(adapter.sent, 0)], "what was left under way counts as spent"


def test_nobody_takes_the_place_of_the_call_after_which_a_run_ends(store, hang, monkeypatch):
    """The thread that waits for it has its turn before the run goes on to end."""
    had_its_turn, calls = threading.Event(), []
    check, leave = Sender._check_stopped, Threads.leave

    def script(payload, attempt):
        calls.append(payload)
        if len(calls) > 1:
            had_its_turn.set()
        return hang.wait(FOR_EVER) and answer()

    def checks(sender):
        try:
            check(sender)
        except TransientError:
            had_its_turn.set()
            raise

    def leaves(threads, thread):
        assert had_its_turn.wait(FOR_EVER)
        leave(threads, thread)

    monkeypatch.setattr(Sender, "_check_stopped", checks)
    monkeypatch.setattr(Threads, "leave", leaves)
    with pytest.raises(ProviderError, match="not answered a request"):
        run(ScriptedAdapter(script), store, retry=SHORT, concurrency=1)
    assert len(calls) == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_where_others_are_answered_its_variant_is_a_vote_for_no_answer(
    store, hang, overdue_at_an_answer, batch
):
    overdue_at_an_answer(4)

    def script(payload, attempt):
        if payload == b"4":
            hang.wait(FOR_EVER)
        return answer()

    adapter = ScriptedAdapter(script, batch=batch)
    began = time.monotonic()
    delivered, totals = run(
        adapter, store, count=40, retry=SHORT, concurrency=3,
        budget=Budget(attempts=100, name="all"), max_failed=0.5,
    )  # fmt: skip
    assert time.monotonic() - began < FOR_EVER / 2
    found = labels(delivered)
    assert found[4] is None
    assert "within the deadline of 0.5 s" in delivered[4].error
    assert found.count(None) <= batch
    assert totals.attempts == adapter.sent == 40
    assert spent(store) == [(40, 0)]


def test_an_answer_that_comes_too_late_is_kept(store, hang, overdue_at_an_answer):
    overdue_at_an_answer(2)

    def script(payload, attempt):
        if payload == b"2":
            hang.wait(FOR_EVER)
        return answer()

    adapter = ScriptedAdapter(script)
    delivered, _ = run(adapter, store, retry=SHORT, concurrency=2, max_failed=0.5)
    assert labels(delivered)[2] is None
    assert stored(store, 2) is None
    hang.set()
    until(lambda: stored(store, 2) is not None)
    again, totals = run(adapter, store)
    assert labels(again) == ["bus"] * 20
    assert (totals.attempts, totals.cached) == (0, 20)


PROGRAM = """
import sys, threading, time
from decimal import Decimal
import numpy as np
from smoothapi import Answer, Budget, Label, Smoother
from smoothapi.provider import Limits, Price

class Hangs:
    name = "hangs"; identity = {"op": "x"}; price = Price(Decimal(1))
    limits = Limits(batch=1, max_bytes=10**7)
    sent = 0
    lock = threading.Lock()
    def ask(self, payloads):
        with self.lock:
            self.sent += 1
            number = self.sent
        if number > 6:
            print("hanging", flush=True)
            time.sleep(600)
        return [Answer((Label("bus", 0.9),), "v", "") for _ in payloads]
    def close(self): pass

adapter = Hangs()
with Smoother(adapter, denoiser="none", home=sys.argv[1], plain=False, concurrency=3,
              budget=Budget(attempts=100, name="all")) as smoother:
    smoother.certify(np.zeros((8, 8, 3), np.uint8), radius=0.1)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_two_ctrl_c_end_a_program_and_say_what_may_be_lost(tmp_path):
    with Program([sys.executable, "-c", PROGRAM, str(tmp_path)]) as program:
        program.wait_for_words("hanging", times=3)
        program.send_signal(signal.SIGINT)
        # One that comes before the first was heard would be one with it.
        program.wait_for_words("Waiting for 3 queries under way")
        time.sleep(0.2)
        assert program.is_running, "what is under way is paid for, and awaited"
        program.send_signal(signal.SIGINT)
        code, err = program.end()
    assert code == -signal.SIGINT, err
    assert "Ended with 3 queries under way" in err
    assert "counted as spent" in err
    from smoothapi.store import Home

    with Home(tmp_path) as home:
        [account] = home.accounts()
        assert (account.attempts, account.reserved) == (9, 0)
        assert len(home.answers) == 6


def test_a_time_limit_in_asyncio_comes_back_at_once_and_close_waits(hang):
    def script(payload, attempt):
        if not hang.is_set():
            tell_begun()
            hang.wait(FOR_EVER)
        return answer()

    adapter = ScriptedAdapter(script)
    tell_begun = None

    async def limited():
        nonlocal tell_begun
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        tell_begun = partial(loop.call_soon_threadsafe, begun.set)

        async def end_once_begun(limit):
            await begun.wait()
            limit.reschedule(loop.time())

        async with Smoother(adapter, denoiser="none", plain=False, concurrency=4) as smoother:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    ending = asyncio.ensure_future(end_once_begun(limit))
                    await smoother.certify_async(PHOTO, 0.1, abandon_on_cancel=True)
            await ending
            assert not hang.is_set(), "it came back while calls were under way"
            loop.call_later(0.3, hang.set)
        assert hang.is_set(), "close waits for what is under way"

    asyncio.run(limited())
    sent = adapter.sent
    assert 0 < sent <= 4, "nothing more is sent"
    with Smoother(adapter, denoiser="none", plain=False) as smoother:
        again = smoother.certify(PHOTO, 0.1)
    assert again.cached == sent, "nothing is lost"
