"""Sequential tests of votes: looked at after every vote, and stopped as soon as they have enough.

Votes are added in order of index. A vote is a label, or None for "no answer": an answer without
labels, or a variant that failed for good. None counts against every label and is never certified.

Certifying: every label is tested on every vote
    A label is certified for a share q >= 1/2 as soon as its e-value (`smoothapi.certify.evalue`)
    on all votes so far reaches 1 / level. No vote is spent on naming a candidate, and nothing is
    lost when the first vote goes to the wrong label. What has to be paid for is that *some* label
    may be certified wrongly, and that costs next to nothing, because shares of votes sum to 1 and
    q >= 1/2: only one label can have a share near q. With m the fewest votes that can certify,

        level = alpha / (1 + ((1 - q) / q)^m)

    keeps the chance of any wrong certificate, over all labels and all times, at alpha. (At
    radius = sigma, alpha = 0.001 the power is 10^-34; at radius 0 it is 1, and alpha is halved.)

Why this is valid
    Let c(s) be the chance that a label with share s <= q is ever certified. Its test ends after w
    votes for it and l against it, and changing q to s changes the chance of such an end by the
    factor r(s) = (s / q)^w ((1 - s) / (1 - q))^l, so c(s) is the mean of r(s) over the ends under
    q, whose chances sum to at most the level (Ville).

    1. r is convex on [0, q]: s^w (1 - s)^l, n = w + l, is convex up to one standard error
       sqrt((w/n) (l/n) / (n - 1)) below w/n, and q lies below that. For e-value >= 1 / level
       implies n KL(w/n, q) >= log(1 / level), and KL(v, q) <= (v - q)^2 / (2 v (1 - v)) for
       v > q >= 1/2, so v - q is at least sqrt(2 log(1 / level)) standard errors of v, more than
       one as alpha is taken to be at most 1/e.
    2. So the sum of c over labels is a convex function of the shares; over all shares up to q
       that sum to at most 1 it is largest at a corner: one label at q, one at 1 - q. There it is
       c(q) + c(1 - q), c(q) <= level, and at 1 - q the factor is r = ((1 - q) / q)^(w - l).
    3. w - l >= m: one more loss and one more win together multiply the e-value by the mean of
       p (1 - p) / (q (1 - q)) over p > q, less than 1, so each further loss costs at least two
       votes and w - l is least in an unbroken run.

    Several radii in one run are tested in ascending order at the level of the smallest: a label
    with share s can be certified wrongly only through the first q above s. If s is above the
    smallest q, the label itself costs at most the level, all others have at most 1 - s between
    them and must pass the smallest q, which by 2 costs level * ((1 - q) / q)^m.

Predicting: candidates
    Without a radius q is 1/2 between any two labels, and many labels can be near the top. There
    the current leader is *named*: its test counts only votes that come later. The j-th label named
    has level alpha * w_j, w = 0.9, 0.05, 0.025, ..., which sum to 1. A label is named once: if it
    loses the lead its test goes on counting, and if it regains the lead nothing starts again and
    nothing is paid again. When a label is named, it and its number are known from votes that its
    test does not count; so its chance of being wrongly returned is at most alpha * w_j.

Nothing here assumes when or why a run is stopped, so giving up early is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from scipy.special import betaincc

from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.bounds import (
    check_alpha,
    check_radius,
    check_sigma,
    radius_from_p,
    required_p,
)
from smoothapi.certify.evalue import PRIOR, boundary, p_lower
from smoothapi.errors import UnreachableRadiusError, UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

Vote: TypeAlias = str | None
"""A label, or None for "no answer"."""

UNLIKELY = 0.01
"""A run is given up when its label succeeds within the cap with less probability than this."""

SMALLEST_RADIUS = 0.125
"""In a run for the largest radius, what is below this many sigma counts as none."""

FIRST_WEIGHT = 0.9
"""Of alpha, for the first label that a prediction names; each later one gets half of the rest."""

RADIUS_DECIMALS = 6
SHARE_DECIMALS = 9


class Reason(StrEnum):
    """Why a run ended as it did."""

    CERTIFIED = "certified"
    CAP = "cap"
    FUTILE = "futile"
    UNLIKELY = "unlikely"
    NO_ANSWER = "no-answer"
    STOPPED = "stopped"

    @property
    def text(self) -> str:
        """The reason in words."""
        return _TEXTS[self]


_TEXTS = {
    Reason.CERTIFIED: "the votes suffice",
    Reason.CAP: "the votes allowed were used up before the test could decide",
    Reason.FUTILE: "not even an unbroken run of the votes left could suffice",
    Reason.UNLIKELY: "success had become unlikely, so no more votes were bought",
    Reason.NO_ANSWER: "there was no label to certify",
    Reason.STOPPED: "the run was stopped before the test could decide",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a decision says about a label.

    Attributes:
        label: the label.
        relation: what holds of it everywhere within the radius.
        radius: L2 radius that is certified.
        p_lower: lower bound of the share of answers of which it holds, rounded down.
        votes: (k, n): answers of which it held, and all that were counted for it.
    """

    label: str
    relation: Literal["present", "absent", "among the best"]
    radius: float
    p_lower: float
    votes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the votes say.

    Attributes:
        label: the label certified (or predicted), None where the test abstains.
        reason: why the run ended so.
        radius: L2 radius that is certified; 0.0 where none is. A radius asked for is returned
            unchanged; one found is rounded down.
        radii: the radii asked for, ascending; empty for the largest and for a prediction.
        p_lower: lower bound of the label's share of votes, rounded down and before `delta` is
            taken off; 0.0 where nothing is certified (the levels hold for shares that certify, not
            for smaller ones), and for a prediction.
        votes: how many were counted.
        tally: votes by label, most first; the key None stands for "no answer".
        candidate: the label certified, else the leader, None if no vote was for a label.
        candidate_votes: (k, n) of the candidate's test: votes for it, and all votes it counts.
        alpha: chance that a run like this certifies anything wrongly.
        level: chance that the candidate's test alone does.
        claims: what is certified by targets other than the top label; `label` then says it in
            words. All claims of a decision hold together with probability 1 - alpha.
    """

    label: str | None
    reason: Reason
    radius: float
    radii: tuple[float, ...]
    p_lower: float
    votes: int
    tally: Mapping[Vote, int]
    candidate: str | None
    candidate_votes: tuple[int, int]
    alpha: float
    level: float
    claims: tuple[Claim, ...] = ()

    @property
    def abstained(self) -> bool:
        """Whether no label is claimed."""
        return self.label is None

    @property
    def radius_requested(self) -> float | None:
        """The largest radius asked for; None if simply the largest was."""
        return self.radii[-1] if self.radii else None

    @property
    def certified_radii(self) -> tuple[float, ...]:
        """Those of the radii asked for that are certified, ascending."""
        return tuple(
            radius for radius in self.radii if not self.abstained and radius <= self.radius
        )


class VoteTest(Protocol):
    """A test that is fed votes one by one."""

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        ...

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index."""
        ...

    def needed(self) -> int:
        """Return how many further votes may be in flight: those an unbroken run would need."""
        ...

    def result(self) -> Decision:
        """Return the decision on the votes so far."""
        ...


class SequentialCertify:
    """Certify a label at a wanted radius, at several, or at the largest that the votes allow.

    With probability at least 1 - alpha over the noise, whatever the labeller does and whenever
    the run is stopped: no L2 change up to the returned radius changes the label that has the
    largest share of votes under noise. (Cohen, Rosenfeld, Kolter, ICML 2019, theorem 1, with the
    test of `smoothapi.certify.evalue` in place of a fixed sample; the top of this module says why
    no candidate has to be chosen first.)

    *Several radii* are tested in ascending order, each as soon as all smaller ones are certified.
    The run ends when the largest is certified, or when the next is given up. *The largest radius*
    is the running maximum of a confidence sequence; the run ends at `max_votes`, or whenever you
    stop: `result` is valid at any time.

    Args:
        sigma: noise level, positive.
        alpha: chance of a wrong certificate, in (0, 1).
        max_votes: most votes to count.
        radius: the L2 radius wanted, in the units of sigma; several as a sequence; None for the
            largest.
        delta: what arithmetic may have moved the share of votes by (`noise_delta`).
        unlikely: give up once the leader, by the Beta(1/2, 1/2) posterior of its share, has less
            than this chance of a share that `max_votes` votes can certify; 0 never gives up for
            that reason. It decides about cost, never about validity.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(
        self,
        *,
        sigma: float,
        alpha: float,
        max_votes: int,
        radius: float | Sequence[float] | None,
        delta: float = 0.0,
        unlikely: float = UNLIKELY,
    ) -> None:
        check_sigma(sigma)
        check_alpha(alpha)
        check_max_votes(max_votes)
        check_delta(delta)
        self._radii = _ascending(radius)
        self._sigma = sigma
        self._delta = delta
        self._alpha = alpha
        self._unlikely = unlikely
        wanted = self._radii or (SMALLEST_RADIUS * sigma,)
        shares = tuple(needed_share(radius, sigma, delta) for radius in wanted)
        self._shares = shares
        self._level = label_level(shares[0], alpha)
        self._boundaries = tuple(boundary(share, self._level) for share in shares)
        self._ballot = Ballot(max_votes)
        self._certified: str | None = None
        self._reached = 0
        self._p_lower = 0.0
        self._risen = False
        self._ended: Reason | None = None
        least = self._boundaries[-1][0]
        if least > max_votes:
            what = f"radius {wanted[-1]:g}" if self._radii else "any radius"
            raise UnreachableRadiusError(_too_few(what, sigma, alpha, least, max_votes))
        # The share that the cap can certify: below it a run would only use up its votes.
        self._hopes = tuple(
            max(share, 1.0 - bound.most_losses(max_votes) / max_votes)
            for share, bound in zip(shares, self._boundaries, strict=True)
        )

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        return self._ended is not None

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: a label, or None for "no answer".

        Raises:
            UsageError: the test is done, or the vote is neither text nor None.
        """
        check_vote(vote, done=self.done)
        if vote != self._candidate():
            self._raise_bound()
        self._ballot.add(vote)
        if vote is not None and vote == self._candidate():
            self._advance(vote)
            if self._radii and self._reached == len(self._shares):
                self._ended = Reason.CERTIFIED
            elif self._ballot.left == 0:
                self._ended = Reason.CAP
        else:
            self._ended = self._give_up()

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain.

        That is the fewest further votes, all for one label, that could end the run well; 0 once
        done. In a run for the largest radius every vote up to the cap may still enlarge it.
        """
        if self.done:
            return 0
        if not self._radii:
            return self._ballot.left
        return min(self._ballot.left, self._missing(len(self._shares) - 1))

    def result(self) -> Decision:
        """Return the decision on the votes so far."""
        self._raise_bound()
        candidate = self._candidate()
        votes = self._ballot.votes
        k = 0 if candidate is None else self._ballot.tally[candidate]
        p_low = self._p_lower
        if self._radii and self._reached:
            p_low = max(p_lower(k, votes, self._level), self._shares[self._reached - 1])
        p_low = floor_to(p_low, SHARE_DECIMALS)
        radius = 0.0
        if self._reached:
            radius = self._radii[self._reached - 1] if self._radii else self._radius_of(p_low)
        return Decision(
            label=self._certified,
            reason=self._reason(),
            radius=radius,
            radii=self._radii,
            p_lower=p_low,
            votes=votes,
            tally=self._ballot.sorted_tally(),
            candidate=candidate,
            candidate_votes=(k, votes),
            alpha=self._alpha,
            level=self._level,
        )

    def _candidate(self) -> str | None:
        return self._ballot.leader if self._certified is None else self._certified

    def _losses(self) -> int:
        candidate = self._candidate()
        wins = 0 if candidate is None else self._ballot.tally[candidate]
        return self._ballot.votes - wins

    def _missing(self, step: int) -> int:
        """Return how many votes in a row the candidate needs for the share of this step.

        No other label can need fewer: it has more losses.
        """
        return self._boundaries[step][self._losses()] - self._ballot.votes

    def _advance(self, label: str) -> None:
        """Take in a vote for the candidate.

        Only a label with more votes than all others together can be certified, so only the
        leader needs to be looked at, and only when it gains a vote.
        """
        while self._reached < len(self._shares) and self._missing(self._reached) <= 0:
            self._reached += 1
            self._certified = label
        self._risen = bool(self._reached) and not self._radii

    def _raise_bound(self) -> None:
        """Take the largest radius so far: the bound is highest at the end of a run of votes."""
        if self._risen and self._certified is not None:
            ballot = self._ballot
            now = p_lower(ballot.tally[self._certified], ballot.votes, self._level)
            self._p_lower = max(self._p_lower, now, self._shares[0])
            self._risen = False

    def _give_up(self) -> Reason | None:
        ballot = self._ballot
        if ballot.left == 0:
            return Reason.CAP
        if self._reached == len(self._shares):
            return None  # the largest radius: every vote may enlarge it
        if self._missing(self._reached) > ballot.left:
            return Reason.FUTILE
        losses = self._losses()
        chance = betaincc(
            ballot.votes - losses + PRIOR[0], losses + PRIOR[1], self._hopes[self._reached]
        )
        return Reason.UNLIKELY if chance < self._unlikely else None

    def _radius_of(self, p_low: float) -> float:
        share = max(p_low - self._delta, 0.0)
        return floor_to(radius_from_p(share, self._sigma), RADIUS_DECIMALS)

    def _reason(self) -> Reason:
        if self._certified is not None:
            return Reason.CERTIFIED
        if self._ballot.leader is None and self._ballot.votes:
            return Reason.NO_ANSWER
        return self._ended or Reason.STOPPED


def label_level(share: float, alpha: float) -> float:
    """Return the level at which every label may be tested against `share` on every vote.

    alpha / (1 + ((1 - q) / q)^m) with m the fewest votes that reach alpha (fewer than those that
    reach the level, which only makes it smaller). The top of this module derives it.

    Args:
        share: q, the smallest share that the run tests, at least 1/2.
        alpha: chance that the run certifies anything wrongly, in (0, 1); above 1/e, where the
            derivation ends, 1/e is taken.
    """
    alpha = min(alpha, math.exp(-1.0))
    rival = ((1.0 - share) / share) ** boundary(share, alpha)[0]
    return alpha / (1.0 + rival)


def fewest_votes(radius: float, sigma: float, alpha: float, delta: float = 0.0) -> int:
    """Return how many votes a certificate needs at least: those of an unbroken run.

    Args:
        radius: L2 radius wanted, in the units of sigma.
        sigma: noise level, positive.
        alpha: chance of a wrong certificate, in (0, 1).
        delta: what arithmetic may have moved the share of votes by.

    Raises:
        UnreachableRadiusError: no number of votes would do.
        UsageError: a value is out of range.
    """
    check_alpha(alpha)
    share = needed_share(radius, sigma, delta)
    return boundary(share, label_level(share, alpha))[0]


def needed_share(radius: float, sigma: float, delta: float) -> float:
    """Return the share of votes that must be exceeded: Phi(radius / sigma) + delta, rounded up.

    Raises:
        UnreachableRadiusError: no share can exceed it.
        UsageError: a value is out of range.
    """
    check_sigma(sigma)
    check_radius(radius)
    check_delta(delta)
    share = math.nextafter(required_p(radius, sigma) + delta, 2.0)
    if share >= 1.0 - 1e-12:
        raise UnreachableRadiusError(
            f"radius={radius:g} is {radius / sigma:.3g} times sigma={sigma:g}: no number of votes "
            "certifies it. Ask for a radius below about 4 sigma, or use a larger sigma."
        )
    return share


class SequentialPredict:
    """Return the label with the largest share of votes under noise, or abstain.

    With probability at least 1 - alpha over the noise, whenever the run is stopped: a label that
    is returned has a larger share of votes than any other, and than "no answer". A label A is
    returned when for every other label B the e-value for "A has more than half of the votes for
    A or B" has reached 1 / (alpha w), w being the weight of A (see the top of this module). If A
    is not the top, the true top is one of those B, whose e-value alone would have to be wrong: so
    nothing is split over the labels B. (The sequential form of PREDICT, Cohen et al., ICML 2019.)

    Args:
        alpha: chance of a wrong label, in (0, 1).
        max_votes: most votes to count.
        unlikely: give up once the leader, by the posterior of its share of the votes for it or
            its strongest rival, has less than this chance of a share that `max_votes` votes can
            tell from 1/2.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(self, *, alpha: float, max_votes: int, unlikely: float = UNLIKELY) -> None:
        check_alpha(alpha)
        check_max_votes(max_votes)
        self._alpha = alpha
        self._unlikely = unlikely
        self._ballot = Ballot(max_votes)
        self._named: dict[str, _Named] = {}
        self._predicted: str | None = None
        self._ended: Reason | None = None
        least = self._missing_unnamed()
        if least > max_votes:
            raise UnreachableRadiusError(
                f"A prediction at alpha {alpha:g} needs at least {least} votes even if every one "
                f"is for the same label, and only {max_votes:,} are allowed. Allow more queries, "
                "or a larger alpha."
            )

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        return self._ended is not None

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: a label, or None for "no answer".

        Raises:
            UsageError: the test is done, or the vote is neither text nor None.
        """
        check_vote(vote, done=self.done)
        ballot = self._ballot
        ballot.add(vote)
        leader = ballot.leader
        if leader is not None and leader not in self._named:
            level = self._alpha * candidate_weight(len(self._named))
            self._named[leader] = _Named(leader, level, ballot.votes, dict(ballot.tally))
        elif vote in self._named and self._missing(self._named[vote]) <= 0:
            self._predicted = vote
            self._ended = Reason.CERTIFIED
            return
        if ballot.left == 0:
            self._ended = Reason.CAP
        elif vote == leader:
            return  # good news ends no run
        elif self._best_case() > ballot.left:
            self._ended = Reason.FUTILE
        elif self._hopeless():
            self._ended = Reason.UNLIKELY

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain."""
        return 0 if self.done else min(self._ballot.left, self._best_case())

    def result(self) -> Decision:
        """Return the decision on the votes so far; its radius is 0."""
        ballot = self._ballot
        candidate = self._predicted or ballot.leader
        named = self._named[candidate] if candidate is not None else None
        if self._predicted is None and ballot.leader is None and ballot.votes:
            reason = Reason.NO_ANSWER
        else:
            reason = self._ended or Reason.STOPPED
        return Decision(
            label=self._predicted,
            reason=reason,
            radius=0.0,
            radii=(),
            p_lower=0.0,
            votes=ballot.votes,
            tally=ballot.sorted_tally(),
            candidate=candidate,
            candidate_votes=(
                (self._counted(named, named.label), ballot.votes - named.since) if named else (0, 0)
            ),
            alpha=self._alpha,
            level=named.level if named else 0.0,
        )

    def _counted(self, named: _Named, vote: Vote) -> int:
        """Return the votes for `vote` that the test of `named` counts."""
        return self._ballot.tally.get(vote, 0) - named.before.get(vote, 0)

    def _missing(self, named: _Named) -> int:
        """Return how many votes in a row the label still needs against its strongest rival."""
        rivals = (self._counted(named, vote) for vote in self._ballot.tally if vote != named.label)
        rival = max(rivals, default=0)
        return boundary(0.5, named.level)[rival] - (self._counted(named, named.label) + rival)

    def _missing_unnamed(self) -> int:
        """Return how many votes in a row some label that is not named needs: first the lead."""
        fresh = boundary(0.5, self._alpha * candidate_weight(len(self._named)))[0]
        return self._ballot.votes_to_lead(self._named) + fresh

    def _best_case(self) -> int:
        return min(
            [self._missing_unnamed(), *(self._missing(named) for named in self._named.values())]
        )

    def _hopeless(self) -> bool:
        ballot = self._ballot
        ours = 0 if ballot.leader is None else ballot.tally[ballot.leader]
        rival = max((n for vote, n in ballot.tally.items() if vote != ballot.leader), default=0)
        both = (ours + rival) * ballot.max_votes // ballot.votes
        at_most = boundary(0.5, self._alpha * FIRST_WEIGHT).most_losses(both)
        if at_most < 0:
            return True
        chance = betaincc(ours + PRIOR[0], rival + PRIOR[1], 1.0 - at_most / both)
        return bool(chance < self._unlikely)


def replay(test: VoteTest, votes: Iterable[Vote]) -> Decision:
    """Feed votes in their order and return the decision; the same votes give the same decision.

    Raises:
        UsageError: there are votes after the one that decided.
    """
    for vote in votes:
        test.add(vote)
    return test.result()


@dataclass(slots=True)
class Ballot:
    """The votes so far."""

    max_votes: int
    votes: int = 0
    tally: dict[Vote, int] = field(default_factory=dict)
    leader: str | None = None

    def add(self, vote: Vote) -> None:
        """Count a vote. A label takes the lead when it has strictly more votes than the leader."""
        self.votes += 1
        count = self.tally[vote] = self.tally.get(vote, 0) + 1
        if vote is not None and (self.leader is None or count > self.tally[self.leader]):
            self.leader = vote

    @property
    def left(self) -> int:
        """How many further votes are allowed."""
        return self.max_votes - self.votes

    def behind(self, label: str) -> int:
        """Return how many votes the label is behind the leader."""
        lead = 0 if self.leader is None else self.tally[self.leader]
        return lead - self.tally.get(label, 0)

    def votes_to_lead(self, named: Container[str]) -> int:
        """Return how many votes in a row make some label that is not named the leader."""
        others = (n for vote, n in self.tally.items() if vote is not None and vote not in named)
        lead = 0 if self.leader is None else self.tally[self.leader]
        return lead - max(others, default=0) + 1

    def sorted_tally(self) -> dict[Vote, int]:
        """Return the tally, most votes first, then by name."""
        return dict(sorted(self.tally.items(), key=lambda item: (-item[1], item[0] or "")))


@dataclass(frozen=True, slots=True)
class _Named:
    """A label that became the leader, and the votes before it did."""

    label: str
    level: float
    since: int
    before: Mapping[Vote, int]


def candidate_weight(earlier: int) -> float:
    """Return w_j for a label named after `earlier` others; the w_j sum to 1."""
    return FIRST_WEIGHT if earlier == 0 else (1.0 - FIRST_WEIGHT) * 0.5**earlier


def _ascending(radius: float | Sequence[float] | None) -> tuple[float, ...]:
    if radius is None:
        return ()
    if isinstance(radius, (int, float)):
        return (float(radius),)
    radii = tuple(sorted({float(one) for one in radius}))
    if not radii:
        raise UsageError("radius=(): name at least one radius, or None for the largest.")
    return radii


def one_radius(radius: float | Sequence[float] | None, what: str) -> float | None:
    """Return the radius wanted, None for the largest.

    Raises:
        UsageError: it is several; `what` begins the sentence.
    """
    if radius is None:
        return None
    if isinstance(radius, (int, float)):
        check_radius(radius)
        return float(radius)
    raise UsageError(
        f"{what} is certified at one radius in a run, not at several: run once for each. The "
        "answers are the same, so the further runs cost next to nothing."
    )


def _too_few(what: str, sigma: float, alpha: float, least: int, max_votes: int) -> str:
    return (
        f"{what} at sigma {sigma:g} and alpha {alpha:g} needs at least {least:,} votes even if "
        f"every one is for the same label, and only {max_votes:,} are allowed. Allow more queries, "
        "or ask for a smaller radius, a larger alpha, or a larger sigma."
    )


def check_vote(vote: object, *, done: bool) -> None:
    """Raise UsageError if the test is done, or the vote is neither text nor None."""
    if done:
        raise UsageError(
            "The test has decided and takes no more votes: stop when `done` is true. Votes that "
            "come after the decision must not be counted."
        )
    if vote is not None and not isinstance(vote, str):
        raise UsageError(f"A vote is a label's name or None, not {type(vote).__name__}.")


def check_max_votes(max_votes: int) -> None:
    """Raise UsageError unless a vote is allowed."""
    if max_votes < 1:
        raise UsageError(f"max_votes={max_votes}: at least one vote must be allowed.")


def check_delta(delta: float) -> None:
    """Raise UsageError unless delta is in [0, 1/2)."""
    if not (0.0 <= delta < 0.5):
        raise UsageError(
            f"delta={delta}: what is taken off the share of votes is in [0, 1/2). A working image "
            "of so many pixels cannot be certified."
        )
