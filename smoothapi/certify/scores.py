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

From above
    "score <= u" is tested likewise, and the smallest u reported. Only t >= least is reported from
    below and only u < least from above, so the two events that could be rejected wrongly exclude
    each other: their shares sum to at most 1, and one level (`label_level`) covers both.

Several labels, named before the first vote, share alpha evenly.

A variant that failed for good counts against both directions of every label.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.bounds import check_alpha
from smoothapi.certify.decision import SHARE_DECIMALS, Claim, Decision, Reason, Vote, check_vote
from smoothapi.certify.evalue import boundary, p_lower
from smoothapi.certify.sequential import SequentialCertify, label_level, needed_share
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.certify.presence import Wanted


@dataclass
class _Scores:
    """One label's scores so far, ascending, and the best bound that has passed."""

    values: list[float] = field(default_factory=list)
    at_least: float | None = None
    at_most: float | None = None
    votes: tuple[int, int] = (0, 0)  # (k, n) when the bound passed


class ScoresTest:
    """Certify for each of some labels, named beforehand, a score that it keeps.

    With probability at least 1 - alpha, whenever the run is stopped, every claim holds: no L2
    change up to its radius brings the label's median score under noise below t (or, from above,
    over u).

    A label's run ends when it is certified at `least`, or below it, or given up, as that of
    `PresenceTest` does: the largest t comes out of the same votes. While other labels still need
    votes, they count for it too.

    Args:
        labels: the labels asked for; votes are JSON, [their scores in this order, least].
        least: the score from which on a label is wanted.
        wanted: "present" buys no votes for labels that stay below `least`, "absent" none for those
            that stay above; "either" certifies whichever it is.
        unlisted: the least that is reported from above.
        sigma, alpha, max_votes, delta: as for `SequentialCertify`.
        radius: the L2 radius wanted. None, the largest, is refused: score and radius are traded for
            each other.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(
        self,
        labels: Sequence[str],
        least: float,
        wanted: Wanted = "either",
        unlisted: float = 0.0,
        *,
        sigma: float,
        alpha: float,
        max_votes: int,
        radius: float | None,
        delta: float = 0.0,
    ) -> None:
        check_alpha(alpha)
        if radius is None:
            raise UsageError(
                "A larger radius can be had for a smaller score, so the largest cannot be searched "
                "for: name a radius, such as 0.25."
            )
        self._labels = tuple(labels)
        self._least = least
        self._wanted = wanted
        self._unlisted = unlisted
        self._alpha = alpha
        each = alpha / len(self._labels)
        self._tests = {
            label: SequentialCertify(
                sigma=sigma, alpha=each, max_votes=max_votes, radius=radius, delta=delta
            )
            for label in self._labels
        }
        self._share = needed_share(radius, sigma, delta)
        self._level = label_level(self._share, each)
        self._boundary = boundary(self._share, self._level)
        self._allowed = -1  # losses that so many votes may have
        self._failed = 0
        self._scores = {label: _Scores() for label in self._labels}
        self._tally: Counter[Vote] = Counter()

    @property
    def done(self) -> bool:
        """Whether all labels are decided or given up."""
        return all(test.done for test in self._tests.values())

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
        for place, (label, test) in enumerate(self._tests.items()):
            if scores is not None:
                insort(self._scores[label].values, scores[place])
            if not test.done:
                test.add(None if scores is None else self._answer(scores[place]))
            self._raise_bounds(self._scores[label])

    def needed(self) -> int:
        """Return the most further votes that may be in flight: what the slowest label needs."""
        return max(test.needed() for test in self._tests.values())

    def result(self) -> Decision:
        """Return the decision on the votes so far, with a claim for each label decided."""
        claims = tuple(claim for label in self._labels for claim in self._claims(label))
        decisions = [test.result() for test in self._tests.values()]
        undecided = [decision for decision in decisions if decision.label is None]
        first = decisions[0] if claims else (undecided or decisions)[0]
        return replace(
            first,
            label=", ".join(f"{c.label} {c.relation} {c.score!r}" for c in claims) or None,
            reason=Reason.CERTIFIED if claims else first.reason,
            radius=min((c.radius for c in claims), default=0.0),
            p_lower=min((c.p_lower for c in claims), default=0.0),
            votes=self._tally.total(),
            tally=dict(self._tally.most_common()),
            alpha=self._alpha,
            claims=claims,
        )

    def _claims(self, label: str) -> list[Claim]:
        scores, radius = self._scores[label], self._tests[label].result().radius_requested
        if scores.at_least is not None:
            relation, score = "at least", scores.at_least
        elif scores.at_most is not None:
            relation, score = "at most", max(scores.at_most, self._unlisted)
        else:
            return []
        k, n = scores.votes
        bound = max(p_lower(k, n, self._level), self._share)
        return [
            Claim(
                label=label,
                relation="at least" if relation == "at least" else "at most",
                radius=float(radius or 0.0),
                p_lower=floor_to(bound, SHARE_DECIMALS),
                votes=(k, n),
                score=score,
            )
        ]

    def _raise_bounds(self, scores: _Scores) -> None:
        """Note the best bounds that pass now; what has passed once stands."""
        spare = self._allowed - self._failed  # losses besides the failed votes
        if spare < 0 or not scores.values:
            return
        n, values = self._tally.total(), scores.values
        if spare >= len(values):  # q >= 1/2: never more losses than wins
            return
        if self._wanted != "absent":
            t = values[spare]  # at most `spare` scores lie below it
            if t >= self._least and (scores.at_least is None or t > scores.at_least):
                scores.at_least = t
                scores.votes = (len(values) - bisect_left(values, t), n)
        if self._wanted != "present" and scores.at_least is None:
            u = values[-1 - spare]  # at most `spare` scores lie above it
            if u < self._least and (scores.at_most is None or u < scores.at_most):
                scores.at_most = u
                scores.votes = (bisect_right(values, u), n)

    def _answer(self, score: float) -> Vote:
        """Return the vote at `least`; an outcome that is not wanted counts against the other."""
        outcome = "present" if score >= self._least else "absent"
        return outcome if self._wanted in ("either", outcome) else None

    def _read(self, vote: str) -> list[float]:
        try:
            scores, least = json.loads(vote)
            numbers = [float(score) for score in scores if not isinstance(score, bool)]
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise UsageError(
                f"The vote {vote!r} is not of this target's form: expected JSON, the scores of "
                f"{', '.join(self._labels)}, and the least score."
            ) from error
        if len(numbers) != len(self._labels) or least != self._least:
            raise UsageError(
                f"The vote {vote!r} is of another target: this one asks about "
                f"{len(self._labels)} labels from a score of {self._least!r}."
            )
        if not all(math.isfinite(score) and 0.0 <= score <= 1.0 for score in numbers):
            raise UsageError(f"The vote {vote!r} has a score outside [0, 1].")
        return numbers
