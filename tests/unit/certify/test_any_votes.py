"""What holds of any run of votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi.certify import (
    Reason,
    SequentialCertify,
    SequentialPredict,
    p_lower,
    radius_from_p,
    replay,
    required_p,
)
from smoothapi.certify.evalue import boundary
from smoothapi.certify.futility import NEVER
from smoothapi.certify.sequential import needed_share

if TYPE_CHECKING:
    from smoothapi.certify import Decision, Vote, VoteTest

CAP = 80
# Mostly one label, as in practice, so that runs end in every way.
VOTES = st.lists(
    st.sampled_from(["cat"] * 30 + ["dog", "cow", None]) | st.sampled_from(["cat", "dog", None]),
    max_size=CAP,
)
RADII = st.sampled_from([None, 0.0, 0.1, 0.25])


def certify(radius: float | None) -> SequentialCertify:
    return SequentialCertify(sigma=0.25, alpha=0.01, max_votes=CAP, radius=radius)


def run(test: VoteTest, votes: list[Vote]) -> tuple[Decision, list[Vote]]:
    used: list[Vote] = []
    for vote in votes:
        if test.done:
            break
        assert 1 <= test.needed() <= CAP - len(used)
        test.add(vote)
        used.append(vote)
    return test.result(), used


def holds_of_any(decision: Decision, used: list[Vote], test: VoteTest) -> None:
    assert decision.votes == len(used) == sum(decision.tally.values())
    assert all(decision.tally[vote] == used.count(vote) for vote in set(used))
    assert decision.abstained == (decision.reason is not Reason.CERTIFIED)
    assert decision.label in (None, decision.candidate)
    assert test.done == (test.needed() == 0)
    assert decision.reason.text
    if decision.abstained:
        assert decision.radius == 0.0


@given(VOTES, RADII)
@settings(max_examples=200, deadline=None)
def test_of_a_certificate(votes: list[Vote], radius: float | None) -> None:
    test = certify(radius)
    decision, used = run(test, votes)
    holds_of_any(decision, used, test)
    assert replay(certify(radius), used) == decision
    k, n = decision.candidate_votes
    assert n == len(used)
    if decision.label is not None:
        assert k == used.count(decision.label) > n - k
        assert decision.radius <= radius_from_p(decision.p_lower, 0.25) + 1e-6
        if radius is not None:
            share = needed_share(decision.radius, 0.25, 0.0)
            best = max(
                i - boundary(share, decision.level)[i - used[:i].count(decision.label)]
                for i in range(1, n + 1)
            )
            assert best >= 0  # at some vote it had enough
            assert decision.p_lower >= required_p(decision.radius, 0.25) - 1e-8
        else:
            most = max(
                p_lower(used[:i].count(decision.label), i, decision.level) for i in range(1, n + 1)
            )
            assert decision.p_lower <= most + 1e-9 or decision.p_lower <= needed_share(
                0.125 * 0.25, 0.25, 0.0
            )


@given(VOTES)
@settings(max_examples=100, deadline=None)
def test_of_a_prediction(votes: list[Vote]) -> None:
    def fresh() -> SequentialPredict:
        return SequentialPredict(alpha=0.01, max_votes=CAP)

    test = fresh()
    decision, used = run(test, votes)
    holds_of_any(decision, used, test)
    assert replay(fresh(), used) == decision
    if decision.label is not None:
        assert decision.tally[decision.label] == max(decision.tally.values())


@given(VOTES, RADII)
@settings(max_examples=60, deadline=None)
def test_names_do_not_matter(votes: list[Vote], radius: float | None) -> None:
    other = {"cat": "zebra", "dog": "ant", "cow": "", None: None}
    decision, _ = run(certify(radius), votes)
    renamed, _ = run(certify(radius), [other[vote] for vote in votes])
    assert (decision.votes, decision.radius, decision.reason, decision.p_lower) == (
        renamed.votes, renamed.radius, renamed.reason, renamed.p_lower
    )  # fmt: skip


@given(VOTES)
@settings(max_examples=60, deadline=None)
def test_a_vote_turned_from_the_label_never_helps_it(votes: list[Vote]) -> None:
    test = SequentialCertify(sigma=0.25, alpha=0.01, max_votes=CAP, radius=0.1, futility=NEVER)
    decision, used = run(test, votes)
    if decision.label is not None:
        worse = list(used)
        worse[worse.index(decision.label)] = None
        again = SequentialCertify(sigma=0.25, alpha=0.01, max_votes=CAP, radius=0.1, futility=NEVER)
        later, _ = run(again, worse)
        assert later.label is None or later.votes > decision.votes
