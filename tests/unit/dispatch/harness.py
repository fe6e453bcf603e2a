"""One run over numbered pictures, as the tests of this room begin it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.store import Home, answer_key

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
