"""Certifying one vote after another: what a run leads to."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from smoothapi.certify import (
    MostSpecific,
    Presence,
    Reason,
    Scores,
    SequentialCertify,
    Target,
    Top1,
    TopK,
    label_level,
    p_lower,
    queries_needed,
    replay,
    required_p,
)
from smoothapi.certify.futility import NEVER
from smoothapi.errors import UnreachableRadiusError, UsageError

ALPHA = 0.001


def certify(**changes: Any) -> SequentialCertify:
    options: dict[str, Any] = {
        "sigma": 0.25,
        "alpha": ALPHA,
        "max_votes": 1000,
        "radius": 0.25,
        **changes,
    }
    return SequentialCertify(**options)


def test_an_unbroken_run_takes_exactly_as_many_votes_as_it_said() -> None:
    test = certify()
    least = test.needed()
    assert least == queries_needed(0.25, 0.25, ALPHA, 1.0).at_least
    for left in range(least, 0, -1):
        assert not test.done
        assert test.needed() == left
        test.add("cat")
    decision = test.result()
    assert test.done
    assert test.needed() == 0
    assert (decision.label, decision.reason, decision.radius) == ("cat", Reason.CERTIFIED, 0.25)
    assert decision.candidate_votes == (least, least)  # no vote is spent on choosing a candidate
    assert decision.p_lower >= required_p(0.25, 0.25) - 1e-9


def test_a_done_test_takes_no_votes() -> None:
    test = certify()
    replay(test, ["cat"] * test.needed())
    with pytest.raises(UsageError, match="decided"):
        test.add("cat")


def test_needed_is_the_best_case_at_every_moment() -> None:
    # After any history, needed() votes for the best label certify, and one fewer does not.
    history = ["cat", "dog", "cat", None, "cat", "cat", "dog"]
    for length in range(len(history)):
        votes = history[:length]
        most = 0
        for label in ("cat", "dog", "new"):
            test = certify(futility=NEVER)
            for vote in votes:
                test.add(vote)
            need = test.needed()
            added = 0
            while not test.done:
                test.add(label)
                added += 1
            assert added >= need
            most = most or (added == need)
        assert most


def test_no_answer_counts_but_is_never_certified() -> None:
    decision = replay(certify(futility=NEVER), [None] * 30)
    assert decision.candidate is None
    assert decision.reason is Reason.NO_ANSWER
    assert decision.tally == {None: 30}
    votes = ["cat"] * 30 + [None] * 2
    with_failures = certify()
    replay(with_failures, votes)
    without = certify()
    replay(without, ["cat"] * 30)
    assert with_failures.needed() > without.needed()


def test_the_candidate_is_the_leader_and_nothing_is_lost_by_a_wrong_start() -> None:
    test = certify(futility=NEVER)
    assert replay(test, ["cat", "dog", "dog"]).candidate == "dog"
    decision = replay(test, ["cat", "cat"])
    assert decision.candidate == "cat"
    assert decision.candidate_votes == (3, 5)
    right = certify(futility=NEVER)
    replay(right, ["cat", "cat", "cat", "dog", "dog"])
    assert test.needed() == right.needed()


def test_the_level_is_alpha_where_shares_leave_room_for_one_label_only() -> None:
    assert label_level(0.5, ALPHA) == pytest.approx(ALPHA / 2)
    assert 0.9 * ALPHA < label_level(0.55, ALPHA) < ALPHA
    assert label_level(0.84, ALPHA) == pytest.approx(ALPHA, rel=1e-30)
    assert label_level(0.84, 0.9) == pytest.approx(math.exp(-1), rel=1e-4)


@pytest.mark.parametrize("share", [0.499, 0.0, -1.0, 1.0, math.nan])
def test_no_level_is_given_for_a_share_that_several_labels_can_exceed(share: float) -> None:
    with pytest.raises(UsageError, match="from 1/2 to below 1"):
        label_level(share, ALPHA)


def test_a_hopeless_run_is_given_up() -> None:
    votes = ["cat", "dog"] * 100
    test = certify()
    used = 0
    for vote in votes:
        test.add(vote)
        used += 1
        if test.done:
            break
    decision = test.result()
    assert decision.abstained
    assert decision.reason is Reason.UNLIKELY
    assert used < 40
    assert decision.reason.text


def test_the_cap_ends_a_run() -> None:
    test = certify(max_votes=60, futility=NEVER)
    while not test.done:
        test.add("cat" if test.result().votes % 6 else "dog")
    assert test.result().reason is Reason.FUTILE
    assert test.needed() == 0


def test_the_largest_radius_grows_to_the_cap() -> None:
    test = certify(radius=None, max_votes=300)
    radii = []
    while not test.done:
        assert test.needed() <= 300 - test.result().votes
        test.add("dog" if test.result().votes == 100 else "cat")
        radii.append(test.result().radius)
    decision = test.result()
    assert radii == sorted(radii)
    assert decision.votes == 300
    assert decision.label == "cat"
    assert decision.reason is Reason.CERTIFIED
    assert decision.p_lower >= p_lower(299, 300, decision.level) - 1e-9
    assert decision.radius_requested is None


def test_unreachable_radii_say_what_they_need() -> None:
    least = certify(radius=0.5).needed()
    with pytest.raises(UnreachableRadiusError, match=str(least)):
        certify(radius=0.5, max_votes=least - 1)
    certify(radius=0.5, max_votes=least)
    with pytest.raises(UnreachableRadiusError, match="no number of votes"):
        certify(radius=5.0)


@pytest.mark.parametrize("max_votes", [100, 1000])
@pytest.mark.parametrize("radius", [0.9, 5.0, 1e300])
@pytest.mark.parametrize(
    "target", [Top1(), TopK(3), Presence(("a", "b"), 0.5), MostSpecific(0.5), Scores("a")], ids=repr
)
def test_an_unreachable_radius_says_the_largest_that_can_be_had(
    target: Target, radius: float, max_votes: int
) -> None:
    """The border is one and the same, whatever the radius asked for, and it can be certified."""
    terms: dict[str, Any] = {"sigma": 0.25, "alpha": 0.001, "max_votes": max_votes, "delta": 4e-4}
    with pytest.raises(UnreachableRadiusError) as caught:
        target.start(radius=radius, **terms)
    found = re.search(r"The largest radius .* certify here is ([0-9.]+):", str(caught.value))
    assert found is not None
    border = float(found[1])
    target.start(radius=border, **terms)
    with pytest.raises(UnreachableRadiusError, match=re.escape(found[0])):
        target.start(radius=1.02 * border, **terms)


def test_delta_raises_the_share_that_is_needed() -> None:
    assert certify(radius=0.5, delta=0.005).needed() > certify(radius=0.5).needed()
    plain = replay(certify(radius=None, max_votes=200), ["cat"] * 200)
    less = replay(certify(radius=None, max_votes=200, delta=0.001), ["cat"] * 200)
    assert less.p_lower == pytest.approx(plain.p_lower, abs=1e-4)
    assert less.radius < plain.radius


@pytest.mark.parametrize(
    "bad",
    [
        {"sigma": 0.0}, {"sigma": float("nan")}, {"alpha": 0.0}, {"alpha": 1.0},
        {"alpha": float("nan")}, {"radius": -0.1}, {"radius": float("nan")}, {"max_votes": 0},
        {"delta": 0.5}, {"delta": -1e-9},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        certify(**bad)


def test_the_largest_radius_is_the_running_maximum() -> None:
    votes = (["cat"] * 40 + ["dog"]) * 3 + ["cat"] * 9 + ["dog"] * 3
    test = certify(radius=None, max_votes=400)
    level = test.result().level
    best, k = 0.0, 0
    for n, vote in enumerate(votes, start=1):
        test.add(vote)
        k += vote == "cat"
        best = max(best, p_lower(k, n, level))
    assert test.result().p_lower == pytest.approx(best, abs=2e-9)
    asked_every_time = certify(radius=None, max_votes=400)
    for vote in votes:
        asked_every_time.add(vote)
        asked_every_time.result()
    assert asked_every_time.result() == test.result()


def test_what_a_decision_says_follows_from_its_votes_alone() -> None:
    votes = ["cat", "cat", None, "dog"] + ["cat"] * 80
    first = certify()
    used = 0
    for vote in votes:
        first.add(vote)
        used += 1
        if first.done:
            break
    assert replay(certify(), votes[:used]) == first.result()
    with pytest.raises(UsageError):
        replay(certify(), votes)


@pytest.mark.parametrize("vote", [1, b"cat", ("cat",)])
def test_a_vote_is_a_name_or_none(vote: Any) -> None:
    with pytest.raises(UsageError, match="vote"):
        certify().add(vote)
