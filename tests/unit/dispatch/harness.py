"""One run over numbered pictures, as the tests of this room begin it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.dispatch.breaker import Breaker
from smoothapi.dispatch.sending import Sender
from smoothapi.errors import TransientError
from smoothapi.store import Home, answer_key
from tests import waiting
from tests.conftest import answer

FAST = Retry(attempts=4, base=0.001, cap=0.002)


def asked(index):
    return {"picture": index}


def pictures(indices):
    return [lambda i=i: b"%d" % i for i in indices]


@dataclass(frozen=True)
class Job:
    """A `Work` of three functions."""

    needed: Callable[[], int]
    prepare: Callable[[Any], Any] = pictures
    asked: Callable[[int], Any] = asked
    batch: int = 8
    refresh: bool = False
    refreshes: int = 0


def stored(store, index):
    return store.get(answer_key(asked(index)))


def home_of(store, *, clock=time.time):
    """A home whose ledger is beside a store of answers."""
    return Home(store.directory.parent / f"{store.directory.name}.home", clock=clock)


def run(adapter, store, *, count=20, needed=None, budget=None, delivered=None, **options):
    """Ask for `count` answers; return the deliveries and the run's totals."""
    delivered = [] if delivered is None else delivered
    job = Job(
        needed=needed or (lambda: count - len(delivered)),
        batch=options.pop("lot", 4),
        refresh=options.pop("refresh", False),
    )
    options.setdefault("retry", FAST)
    home = home_of(store, clock=options.pop("clock", time.time))
    dispatcher = Dispatcher.open(adapter, store, home, [budget] if budget else [], **options)
    try:
        with dispatcher.run(job) as deliveries:
            for delivery in deliveries:
                delivered.append(delivery)
            return delivered, deliveries.totals
    finally:
        dispatcher.close()
        home.close()


def labels(delivered):
    return [d.answer.labels[0].name if d.answer else None for d in delivered]


until = partial(waiting.until, seconds=30.0)
"""Less than what the threads that are waited for wait themselves, or a test may last."""


class Program:
    """A process, and what it has said so far."""

    def __init__(self, command, **options):
        self._process = subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        self._said = {"stdout": [], "stderr": []}
        self._listening = [
            threading.Thread(target=self._listen, args=(getattr(self._process, name), lines))
            for name, lines in self._said.items()
        ]
        for thread in self._listening:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self.end()

    @property
    def out(self):
        return "".join(self._said["stdout"])

    @property
    def err(self):
        return "".join(self._said["stderr"])

    @property
    def is_running(self):
        return self._process.poll() is None

    def send_signal(self, number):
        self._process.send_signal(number)

    def wait_for_words(self, words, *, times=1):
        """Wait until it has said so, so many times; it may not end before."""
        end = time.monotonic() + 90.0
        while (self.out + self.err).count(words) < times:
            assert self.is_running, self.err
            assert time.monotonic() < end, self.err
            time.sleep(0.01)

    def ends_within(self, seconds):
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_running

    def end(self):
        """Wait until it has ended; return with what, and all that it said on stderr."""
        self._process.wait(90.0)
        for thread in self._listening:
            thread.join()
        return self._process.returncode, self.err

    def _listen(self, stream, lines):
        with stream:
            for line in stream:
                lines.append(line)


class Outage:
    """A service that is down until its breaker has let so many probes fail.

    Who is quicker decides nothing: nobody tries again before a second caller has failed too, and
    the first is answered when all that were asked before have heard that they were not.
    """

    def __init__(self, monkeypatch, *, probes=3):
        self._probes = probes
        self._asked = self._heard = 0
        self._failed = set()
        self._changed = threading.Condition()
        self._over = False
        wait, failed = Sender._wait, Breaker.failed

        def hears(breaker, error, caller=None, *, probe=False):
            found = failed(breaker, error, caller, probe=probe)
            with self._changed:
                self._heard += 1
                self._probes -= probe
                self._failed.add(caller)
                self._changed.notify_all()
            return found

        def waits(sender, seconds):
            with self._changed:
                assert self._changed.wait_for(lambda: len(self._failed) > 1, 30.0)
            wait(sender, seconds)

        monkeypatch.setattr(Breaker, "failed", hears)
        monkeypatch.setattr(Sender, "_wait", waits)

    def answer(self):
        """Return what a call gets now."""
        with self._changed:
            if not self._over:
                self._asked += 1
                self._over = self._probes <= 0 and self._heard == self._asked - 1
            return answer() if self._over else TransientError("connection refused")
