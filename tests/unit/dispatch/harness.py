"""One run over numbered pictures, as the tests of this room begin it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.dispatch.breaker import Breaker
from smoothapi.dispatch.sending import Sender
from smoothapi.errors import TransientError
from smoothapi.store import Home, answer_key
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


def until(condition, *, seconds=30.0):
    """Wait for what another thread, or another process, is about to do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for in vain"
        time.sleep(0.001)


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
