"""Certified scores: the largest score that a label keeps, whatever threshold is used later.

For one label let p_t be the share of variants whose score is at least t; it falls in t. A vote for
"score >= t" is a vote of the same answer for every t, so one set of votes tests all t at once, each
by the e-value of `smoothapi.certify.evalue` for the share q that the radius asks for. Reported is
the largest t whose test has ever passed.

Why looking at all t costs nothing
    Let t* = sup {t : p_t > q}. A report of t is wrong only if t > t*, and then p_t <= q. The votes
    for any such t are among the votes for "score > t*", a single event whose share is at most q (it
    is the limit of p_t as t falls to t*). E grows with the votes for, so the test of that one event
    has passed too: a wrong report, of whatever t and at whatever time, is the rejection of one true
    hypothesis, and the chance of that is at most the level (Ville). There is no multiplicity within
    a label, and the reports hold jointly for all thresholds that a caller may use. At the changed
    photo the share of "score >= t" is above 1/2: so t bounds the median of the scores from below,
    as in median smoothing (Chiang, Curry, Abdelkader, Kumar, Dickerson, Goldstein, "Detection as
    Regression: Certified Object Detection with Median Smoothing", NeurIPS 2020).

Only from below: that a label stays *under* a score cannot be told from answers that may leave it
out, below the provider's least score or beyond its longest list. `Absence` asks at a score that the
provider lists.

Several labels, named before the first vote, share alpha evenly.

A variant that failed for good counts against every label, and an answer without it has score 0.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.decision import RULES, SHARE_DECIMALS, Claim, Decision, Vote, check_vote
from smoothapi.certify.evalue import boundary
from smoothapi.certify.presence import LabelsTest
from smoothapi.certify.sequential import VoteTerms, levels
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Scores:
    """One label's scores so far, ascending, and the largest that has passed."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.certified: float | None = None
        self.votes = (0, 0)  # (k, n) when it passed


class ScoresTest(LabelsTest):
    """Certify for each of some labels, named beforehand, a score that it keeps.

    With probability at least 1 - alpha, whenever the run is stopped, every claim holds: no L2
    change up to its radius brings the label's median score under noise below t.

    A label's run ends when it is certified at `least`, or given up, as that of `PresenceTest` does:
    the largest t comes out of the same votes. While other labels still need votes, they count for
    it too.

    Args:
        labels: the labels asked for; votes are JSON, [{label: score, ...}, least].
        least: the score from which on a label is wanted; no smaller one is reported.
        terms: the other arguments of `SequentialCertify`. No radius, for the largest, is refused:
            score and radius are traded for each other.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(self, labels: Sequence[str], least: float, **terms: Unpack[VoteTerms]) -> None:
        radius = terms["radius"]
        if radius is None:
            raise UsageError(
                "A larger radius can be had for a smaller score, so the largest cannot be searched "
                "for: name a radius, such as 0.25."
            )
        super().__init__(labels, **terms)
        self._least = least
        self._radius = float(radius)
        sigma, delta = terms["sigma"], terms.get("delta", 0.0)
        alpha = self._alpha / len(self._labels)
        last_cap = terms["max_votes"] if terms.get("final") else None
        rules = terms.get("rules", RULES)
        at = levels(self._radius, sigma, alpha, delta, rules, last_cap=last_cap)
        self._share = at.wanted
        self._boundary = boundary(self._share, at.upto)
        self._allowed = -1  # losses that so many votes may have
        self._failed = 0
        self._scores = {label: _Scores() for label in self._labels}

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: what `Scores.vote` made of the answer.

        Raises:
            UsageError: the test is done, or the vote is not such a text.
        """
        check_vote(vote, done=self.done)
        scores = None if vote is None else self._read(vote)
        self._tally[vote] += 1
        self._failed += scores is None
        while self._boundary[self._allowed + 1] <= self._tally.total():
            self._allowed += 1
        for label, test in self._tests.items():
            if scores is not None:
                insort(self._scores[label].values, scores[label])
            if not test.done:
                there = scores is not None and scores[label] >= self._least
                test.add(_PRESENT if there else None)
            self._raise(self._scores[label])

    def result(self) -> Decision:
        """Return the decision on the votes so far, with a claim for each label certified."""
        claims = tuple(
            Claim(
                label=label,
                relation="at least",
                radius=self._radius,
                p_lower=floor_to(self._share, SHARE_DECIMALS),
                votes=scores.votes,
                score=scores.certified,
            )
            for label, scores in self._scores.items()
            if scores.certified is not None
        )
        words = [f"{claim.label} {claim.relation} {claim.score!r}" for claim in claims]
        return self._decided(claims, words, self._largest(claims))

    def _largest(self, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        """Return the claims, and for each label given up how far `least` is certified.

        Only below the radius asked for: beyond it, `least` at a larger radius and a larger score
        at this one would be two events, and the level covers one.
        """
        known = {claim.label: claim for claim in claims}
        found = []
        for label, test in self._tests.items():
            less = test.result().largest
            if label in known:
                found.append(known[label])
            elif less and less[0].radius < self._radius:
                found.append(replace(less[0], label=label, relation="at least", score=self._least))
        return tuple(found)

    def _raise(self, scores: _Scores) -> None:
        """Note the largest score that passes now; what has passed once stands."""
        spare = self._allowed - self._failed  # losses besides the failed votes
        if not 0 <= spare < len(scores.values):
            return
        t = scores.values[spare]  # at most `spare` scores lie below it
        if t >= self._least and (scores.certified is None or t > scores.certified):
            scores.certified = t
            scores.votes = (len(scores.values) - bisect_left(scores.values, t), self._tally.total())

    def _read(self, vote: str) -> dict[str, float]:
        try:
            found = json.loads(vote)
        except (ValueError, RecursionError):
            found = None
        if (
            not isinstance(found, list)
            or len(found) != 2
            or not isinstance(found[0], dict)
            or not all(_is_score(score) for score in (*found[0].values(), found[1]))
        ):
            raise UsageError(
                f"The vote {vote!r} is not of this target's form: expected JSON, the labels with "
                "their scores, in [0, 1], and the least score."
            )
        scores, least = found
        if tuple(scores) != self._labels or least != self._least:
            raise UsageError(
                f"The vote {vote!r} is of another target: this one asks about "
                f"{', '.join(self._labels)} from a score of {self._least!r}."
            )
        return {label: float(score) for label, score in scores.items()}


_PRESENT = "present"


def _is_score(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]
