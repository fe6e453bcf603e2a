"""What is taken for the pace of a provider, and how it yields."""

from __future__ import annotations

import logging


def test_one_refusal_in_the_first_moments_does_not_make_a_run_crawl(home):
    """Ten pictures in a few milliseconds are not ten a second."""
    pace = home.pace("unlimited", None)
    for _ in range(10):
        assert pace.take(1) == 0.0
    pace.throttled(None)
    waits = [pace.take(1) for _ in range(60)]
    assert 0.0 < waits[-1] < 2.0


def test_each_further_second_of_refusals_halves_it(home, clock, caplog):
    caplog.set_level(logging.DEBUG, "smoothapi")
    pace = home.pace("limited", 100.0)
    assert pace.take(1) == 0.0
    for _ in range(3):
        clock.now += 1.0
        pace.throttled(None)
        pace.throttled(None)  # of the same second: others in flight
    told = [record.smoothapi["per_second"] for record in caplog.records][1::2]
    assert told == [50.0, 27.5, 16.25]  # less what a second gives back
