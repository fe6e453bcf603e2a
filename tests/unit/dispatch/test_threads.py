"""What one thread does between two lines of another, in the pool and in a run."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future

import pytest

from smoothapi.dispatch import Dispatcher
from smoothapi.dispatch.run import Run
from smoothapi.dispatch.threads import Threads
from smoothapi.errors import StoreError
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import Job, home_of, until


class Jobs(queue.SimpleQueue):
    """Jobs of a pool, of which one comes just after a thread found none; it takes it."""

    def __init__(self):
        super().__init__()
        self.first, self.resting = None, set()
        self.found_none, self.go_on, self.taken = (threading.Event() for _ in range(3))

    def get_nowait(self):
        if self.first in (None, this := threading.current_thread()):
            self.first = this
        else:
            assert self.taken.wait(30.0)
        try:
            return super().get_nowait()
        except queue.Empty:
            if not self.found_none.is_set():
                self.found_none.set()
                assert self.go_on.wait(30.0)
            raise

    def get(self):
        self.resting.add(this := threading.current_thread())
        job = super().get()
        self.resting.remove(this)
        return job


def test_a_thread_that_is_given_no_rest_does_not_count_as_idle():
    """Else what comes next would wait for it, though another thread may be started."""
    threads, jobs = Threads(4, "test"), Jobs()
    threads._crew._jobs = jobs
    last_ran = threading.Event()

    def takes():
        jobs.taken.set()
        return last_ran.wait(30.0)

    threads.submit(lambda: None).result(30.0)
    assert jobs.found_none.wait(30.0)
    at_work = [threads.submit(takes)]
    jobs.go_on.set()
    until(lambda: jobs.resting - {jobs.first})  # the thread that was started for it, in vain
    at_work.append(threads.submit(last_ran.wait, 30.0))
    until(jobs.empty)
    threads.submit(last_ran.set).result(20.0)
    assert [future.result(30.0) for future in at_work] == [True, True]
    threads.shutdown()


class Late(Future):
    """A future whose callbacks run in a while, as of a thread that the machine lets wait."""

    def __init__(self, inner, go_on):
        super().__init__()

        def ends(ended):
            self._callbacks_wait = go_on
            error = ended.exception()
            self.set_exception(error) if error else self.set_result(None)

        inner.add_done_callback(ends)

    def _invoke_callbacks(self):
        assert self._callbacks_wait.wait(30.0)
        super()._invoke_callbacks()


@pytest.fixture
def late(monkeypatch):
    """Callbacks of what is sent run when this is set."""
    go_on = threading.Event()
    submit = Threads.submit

    def submits(threads, function, *arguments):
        future = submit(threads, function, *arguments)
        if threads._crew._name == "smoothapi-send":
            return Late(future, go_on)
        return future

    monkeypatch.setattr(Threads, "submit", submits)
    yield go_on
    go_on.set()


@pytest.mark.timeout(100)
def test_what_waits_for_a_thread_is_sent_when_one_has_ended_after_its_answer_was_taken(
    store, late, monkeypatch
):
    """Nothing else tells the run so: all that it had sent were answered, and taken."""
    looked = threading.Event()
    await_work = Run._await_work

    def awaits(run):
        if len(run._sending) == threads and len(run._ended) + taken[0] == threads:
            looked.set()
        await_work(run)

    monkeypatch.setattr(Run, "_await_work", awaits)
    adapter, taken = ScriptedAdapter(), [0]
    dispatcher = Dispatcher.open(adapter, store, home := home_of(store), concurrency=1)
    threads = dispatcher.workers.threads

    def let_go_on():
        assert looked.wait(30.0)
        until(deliveries._news.empty)
        late.set()

    going_on = threading.Thread(target=let_go_on)
    going_on.start()
    deliveries = dispatcher.run(Job(needed=lambda: 6 - taken[0]))
    deliveries._look_again = lambda: 600.0
    with deliveries:
        for _ in deliveries:
            taken[0] += 1
    going_on.join()
    assert adapter.sent == taken[0] == 6
    dispatcher.close()
    home.close()


def test_what_is_lost_at_the_end_is_said_though_its_thread_is_late(store, monkeypatch, caplog):
    first, others = threading.Event(), threading.Event()

    def script(payload, attempt):
        if payload != b"0":
            others.set()
            first.wait(30.0)
        return others.wait(30.0) and answer()

    put = store.put

    def full(*answers):
        if first.is_set():
            raise StoreError("The disk is full.")
        put(*answers)

    monkeypatch.setattr(store, "put", full)
    sent = Run._sent

    def late(run, sending):
        until(lambda: "The disk is full." in caplog.text or sending.exception() is None)
        sent(run, sending)

    monkeypatch.setattr(Run, "_sent", late)
    dispatcher = Dispatcher.open(ScriptedAdapter(script), store, home := home_of(store))
    with dispatcher.run(Job(needed=lambda: 5, batch=1)) as deliveries:
        next(iter(deliveries))
        first.set()
    assert "more requests under way: The disk is full." in caplog.text
    dispatcher.close()  # its threads have ended, the late ones too
    deliveries._halt()  # as a run does that ended by an error and is closed then
    assert caplog.text.count("The disk is full.") == 1
    home.close()
