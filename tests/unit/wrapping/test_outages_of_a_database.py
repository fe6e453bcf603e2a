"""A call's deadline holds for its store, too: whatever a database does, the caller has an answer.

Statements are made again for a minute; so what takes half of one has not waited for them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from smoothapi import Answer, Budget, Label, StoppedError, telemetry
from smoothapi.events import Attempted
from smoothapi.wiring import open_session
from smoothapi.wrapping import Call, CallPolicy, Certifier, Item, OwnCall
from smoothapi.wrapping import deadline as deadline_module
from smoothapi_adapters.mock import MockAdapter
from tests.postgres import Away
from tests.unit.wrapping.conftest import FAST, PIXELS, png

pytest.importorskip("psycopg")

pytestmark = pytest.mark.timeout(120)

WITHIN, FAR_BEYOND = 1.0, 30.0


class Caller:
    """Makes calls of a service whose every request it counts."""

    def __init__(self, url, key):
        self.own = []
        self.votes = 0
        self.in_own_call = lambda: None
        options = {**FAST, "home": url, "noise_key_file": key, "concurrency": 2}
        opening = partial(open_session, plain=False, budget=Budget(), **options)
        self.certifier = Certifier(opening)

    def call(self, *photos, otherwise="plain", within=WITHIN):
        items = [self._item(png(PIXELS + photo)) for photo in photos]
        policy = CallPolicy(within=within, otherwise=otherwise)
        return self.certifier.certify(Call(items, join=list), policy)

    def settle(self):
        """Wait for what was left to threads."""
        for thread in threading.enumerate():
            if thread.name == "smoothapi-call":
                thread.join()

    def _item(self, photo):
        votes = MockAdapter(self._vote, labeller_id="away")
        own = OwnCall(votes, self._own_call, lambda said: Answer((Label(said, 1.0),), "away"))
        return Item(photo, own, votes, None, lambda said, verdict: [said] * verdict.keeps("Bus"))

    def _own_call(self):
        self.own.append(threading.current_thread().name)
        self.in_own_call()
        return "Bus"

    def _vote(self, _):
        self.votes += 1
        return [("Bus", 1.0)]


@pytest.fixture(params=["refusing", "silent"])
def away(request, postgres, database):
    away = Away(postgres, database, request.param)
    yield away
    away.close()


@pytest.fixture
def caller(away, noise_key_file):
    caller = Caller(away.url, noise_key_file)
    yield caller
    away.returns()
    caller.settle()
    caller.certifier.close()


@pytest.fixture
def answers(postgres, database):
    """Return how many answers are in the database."""
    return lambda: postgres.sql("SELECT count(*) FROM smoothapi.answers", database)[0][0]


@pytest.mark.parametrize("begins", ["first", "later"])
def test_a_call_ends_in_time_and_gives_what_otherwise_says(begins, away, caller):
    if begins == "later":
        assert caller.call(0, within=60.0).findings[0].certified
    votes, calls = caller.votes, len(caller.own)
    away.goes()
    began = time.monotonic()
    with pytest.raises(StoppedError, match="deadline of 1 s"):
        caller.call(1, otherwise="raise")
    assert len(caller.own) == calls, "nothing is sent for a call that is to fail uncounted"
    given = {otherwise: caller.call(1, otherwise=otherwise) for otherwise in ("plain", "none")}
    assert time.monotonic() - began < FAR_BEYOND
    assert (given["plain"].response, given["none"].response) == ([["Bus"]], [[]])
    for each in given.values():
        assert (each.findings[0].certified, each.findings[0].ended) == (False, "deadline")
    assert len(caller.own) == calls + 2
    away.returns()
    caller.settle()
    assert len(caller.own) == calls + 2, "nothing is sent after the deadline"
    assert caller.votes == votes
    assert caller.call(1, within=60.0).findings[0].certified


def test_calls_of_other_threads_and_pictures_of_a_batch_end_in_time_too(away, caller):
    away.goes()
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        given = list(pool.map(lambda photo: caller.call(photo, photo + 9), range(3)))
    assert time.monotonic() - began < FAR_BEYOND
    assert [each.response for each in given] == [[["Bus"], ["Bus"]]] * 3
    assert len(caller.own) == 6
    assert caller.certifier.uncertified == {"deadline": 6}


@pytest.mark.parametrize("otherwise", ["raise", "plain"])
def test_an_answer_that_was_paid_for_is_kept_when_the_database_is_back(
    otherwise, away, caller, answers, passing_when, monkeypatch
):
    assert caller.call(0, within=60.0).findings[0].certified
    kept = answers()
    caller.in_own_call = away.goes
    counted = threading.Semaphore(0)
    monkeypatch.setattr(
        telemetry,
        "HOOKS",
        (*telemetry.HOOKS, lambda event: isinstance(event, Attempted) and counted.release()),
    )
    began = time.monotonic()
    with passing_when(counted):
        if otherwise == "raise":
            with pytest.raises(StoppedError) as caught:
                caller.call(1, otherwise=otherwise, within=60.0)
            assert caught.value.attempts == 1
        else:
            given = caller.call(1, otherwise=otherwise, within=60.0)
            assert (given.response, given.findings[0].ended) == ([["Bus"]], "deadline")
    assert time.monotonic() - began < FAR_BEYOND
    assert len(caller.own) == 2, "and not paid for twice"
    assert answers() == kept
    away.returns()
    caller.settle()
    assert answers() == kept + 1


def test_an_outage_gathers_no_more_than_so_many_waiting_threads(away, caller, monkeypatch):
    monkeypatch.setattr(deadline_module, "_MOST_LEFT", 2)
    assert caller.call(0, within=60.0).findings[0].certified
    before = set(threading.enumerate())

    def waiting():
        others = set(threading.enumerate()) - before
        return sum(thread.name == "smoothapi-call" for thread in others)

    away.goes()
    given = [caller.call(photo, within=0.5) for photo in range(1, 6)]
    assert [each.response for each in given] == [[["Bus"]]] * 5
    ends = time.monotonic() + 30.0
    while waiting() != 2 and time.monotonic() < ends:  # one may be on its way out
        time.sleep(0.01)
    assert waiting() == 2
    assert "2 calls before it" in given[-1].findings[0].why
    away.returns()
    caller.settle()
    assert caller.call(1, within=60.0).findings[0].certified
