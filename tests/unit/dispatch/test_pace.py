"""What is taken for the pace of a provider that states none."""

from __future__ import annotations

import time

from smoothapi.store import SharedState
from smoothapi.store.local.pace import Pace


def test_one_refusal_in_the_first_moments_does_not_make_a_run_crawl(tmp_path):
    """Ten pictures in a few milliseconds are not ten a second."""
    state = SharedState(tmp_path / "ledger.db")
    pace = Pace(state, "unlimited", None)
    for _ in range(10):
        assert pace.take(1) == 0.0
    pace.throttled(None)
    waits = [pace.take(1) for _ in range(60)]
    assert 0.0 < waits[-1] < 2.0
    state.close()


def test_each_further_second_of_refusals_halves_it(tmp_path, monkeypatch):
    state = SharedState(tmp_path / "ledger.db")
    clock = [time.time()]
    monkeypatch.setattr("smoothapi.store.local.pace.time.time", lambda: clock[0])
    pace = Pace(state, "limited", 100.0)
    assert pace.take(1) == 0.0
    last = []
    for _ in range(3):
        clock[0] += 1.0
        pace.throttled(None)
        pace.throttled(None)  # of the same second: others in flight
        with state.transaction() as database:
            _, rate, lowered = pace._row(database, clock[0])
        last.append(pace._rates(rate, lowered, clock[0])[1])
    assert last == [50.0, 27.5, 16.25]  # less what a second gives back
    state.close()
