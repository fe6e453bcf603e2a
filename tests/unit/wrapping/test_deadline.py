"""Steps of a call with a deadline: the threads that take them are few, and end with the call."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from smoothapi import Smoother
from smoothapi.errors import StoppedError
from smoothapi.wrapping.deadline import Deadline, Left
from smoothapi_adapters.mock import MockAdapter

pytestmark = pytest.mark.timeout(60)


def test_the_steps_of_a_call_are_taken_by_one_thread_that_ends_with_it():
    def fails():
        raise ValueError

    with Deadline(50.0) as deadline:
        first, second = deadline.steps(), deadline.steps()
        threads = {steps.take(threading.current_thread) for steps in [first, second] * 3}
        with pytest.raises(ValueError):
            first.take(fails)
        threads.add(first.take(threading.current_thread))
    assert len(threads) == 1
    assert threads != {threading.current_thread()}
    assert not threads.pop().is_alive()


def test_steps_at_once_do_not_wait_for_each_other():
    both = threading.Barrier(2, timeout=30)

    def meet():
        both.wait()
        return threading.current_thread()

    with Deadline(50.0) as deadline, ThreadPoolExecutor(2) as pool:
        met = [pool.submit(deadline.steps().take, meet) for _ in range(2)]
        threads = {each.result() for each in met}
    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)


def test_a_step_that_the_deadline_left_is_finished_and_its_thread_ends():
    may, left, taken = threading.Event(), Left(), []

    def late():
        may.wait(30)
        taken.append(threading.current_thread())

    with Deadline(0.1, left=left) as deadline, pytest.raises(StoppedError):
        deadline.steps().take(late)
    assert not taken
    may.set()
    for thread in threading.enumerate():
        if thread.name == "smoothapi-call":
            thread.join()
    [thread] = taken
    assert not thread.is_alive()


def test_what_a_thread_takes_when_the_call_is_over_does_not_keep_it():
    with Deadline(50.0) as deadline:
        steps = deadline.steps()
    thread = steps.take(threading.current_thread)
    thread.join()


def test_the_steps_of_a_call_open_the_store_once(monkeypatch):
    opened = []
    connect = sqlite3.connect

    def counted(path, **options):
        opened.append(threading.current_thread().name)
        return connect(path, **options)

    options = {"denoiser": "none", "plain": False, "max_votes": 60, "radius": 0.1}
    with Smoother(MockAdapter({"bus": 1.0}), **options) as smoother:
        photo = np.zeros((8, 8, 3), np.uint8)
        smoother.certify(photo)
        monkeypatch.setattr(sqlite3, "connect", counted)
        with Deadline(50.0) as deadline:
            steps = deadline.steps()
            for _ in range(3):
                assert steps.take(lambda: smoother.certify(photo)).queries == 0
    assert opened.count("smoothapi-call") == 1
