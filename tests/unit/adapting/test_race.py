"""The race takes what is better, seldom what is not, and never what lost votes."""

from __future__ import annotations

import numpy as np
import pytest

from smoothapi.adapting.race import Race, Vote
from smoothapi.adapting.schedule import spread
from smoothapi.certify import log_evalue
from smoothapi.errors import UsageError


def run(race, draw, photos):
    for _ in range(photos):
        if race.over:
            break
        race.add({number: draw(number) for number in race.field})
    return race


def drawn(random, *gains):
    """Votes with soft shares about 0.5 that are higher by a setting's gain."""

    def draw(number):
        soft = float(np.clip(random.normal(0.5 + (0.0, *gains)[number], 0.15), 0, 1))
        return Vote(soft, soft > 0.5)

    return draw


def test_a_better_setting_is_taken_and_a_worse_one_never():
    random = np.random.default_rng(1)
    better = [run(Race(2), drawn(random, 0.08, -0.08), 200).taken for _ in range(50)]
    worse = [run(Race(2), drawn(random, -0.08, -0.02), 200).taken for _ in range(50)]
    assert better.count(1) >= 45
    assert 2 not in better
    assert not any(worse)


def test_equal_settings_are_taken_as_seldom_as_said_whenever_it_is_looked():
    random = np.random.default_rng(2)
    wrong = sum(
        run(Race(4, chance=0.1), drawn(random, 0, 0, 0, 0), 150).taken > 0 for _ in range(120)
    )
    assert wrong <= 0.1 * 120
    # So it is with a setting that lets nearly all be, and gains as it loses.
    loose = sum(
        run(
            Race(1, chance=0.1),
            lambda n: Vote(float(random.random() < 0.5) if n else 0.5, False),
            150,
        ).taken
        for _ in range(120)
    )
    assert loose <= 0.1 * 120


def test_a_few_photos_that_turn_whole_do_not_hide_what_all_others_say():
    random = np.random.default_rng(3)

    def draw(number):
        if number == 0:
            return Vote(0.5, True)
        if random.random() < 0.05:
            return Vote(float(random.integers(2)), True)
        return Vote(float(random.normal(0.52, 0.03)), True)

    assert [run(Race(1), draw, 200).taken for _ in range(30)].count(1) >= 27


def test_the_evidence_on_plain_votes_is_that_of_discordant_pairs():
    race = Race(1)
    for new, old in [(1, 0)] * 9 + [(0, 1)] * 2 + [(1, 1)] * 30 + [(0, 0)] * 5:
        race.add({0: Vote(old, bool(old)), 1: Vote(new, bool(new))})
    # The same family of mixtures against 1/2, with a uniform prior above it.
    exact = float(log_evalue(9, 11, 0.5, prior=(1.0, 1.0)))
    assert race.standing(1).log_evidence == pytest.approx(exact, abs=0.01)


def test_what_only_looks_better_but_loses_votes_is_not_taken():
    race = Race(1)
    for number in range(100):
        race.add({0: Vote(0.55, number >= 5), 1: Vote(0.9, number >= 6)})
    assert race.standing(1).evidence > race.needed
    assert race.taken == 0


def test_the_field_is_halved_where_it_was_said():
    race = Race(5, halvings=(10, 20, 30))
    sizes = []
    for _ in range(40):
        sizes.append(len(race.live))
        assert race.ahead == next((h - race.photos for h in (10, 20, 30) if h > race.photos), None)
        race.add({number: Vote(0.5 + number / 100, True) for number in race.field})
    assert sizes == [5] * 10 + [3] * 10 + [2] * 10 + [1] * 10
    assert race.live == (5,)


@pytest.mark.parametrize("queries", [None, 200, 500, 1000, 5000])
@pytest.mark.parametrize("plain", [True, False])
def test_a_schedule_never_needs_more_than_the_budget(queries, plain):
    schedule = spread(400, 3, queries, plain=plain)
    spent = schedule.held_out * (2 + plain)
    live = 3
    for until, before in zip(
        (*schedule.halvings, schedule.tuning), (0, *schedule.halvings), strict=True
    ):
        spent += (until - before) * (1 + live + plain)
        live = -(-live // 2)
    assert spent == schedule.queries <= (queries or spent)
    assert schedule.tuning + schedule.held_out <= 400
    if queries in (None, 5000):
        assert schedule.tuning + schedule.held_out == 400


def test_too_little_for_a_race_is_refused_with_what_it_takes():
    with pytest.raises(UsageError, match="at least 25 photos"):
        spread(20, 3, None, plain=True)
    with pytest.raises(UsageError, match="queries"):
        spread(400, 3, 50, plain=True)
    for wrong in ({"settings": 0}, {"settings": 1, "chance": 1.0}):
        with pytest.raises(UsageError, match="chance"):
            Race(**wrong)
