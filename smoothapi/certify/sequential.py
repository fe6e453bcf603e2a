"""Sequential tests of votes: looked at after every vote, and stopped as soon as they have enough.

Votes are added in order of index. A vote is a label, or None for "no answer": an answer without
labels, or a variant that failed for good. None counts against every label and is never certified.

Which label
    The *candidate* is the current leader of the votes. A label is *named* when it first becomes
    the leader (the first vote names the first; later a label must have strictly more votes than
    the leader), and its test counts only the votes that come after that one. A label is named
    once: if it loses the lead, its test goes on counting (losses, mostly), and if it regains the
    lead nothing starts again and nothing is paid again. The j-th label named has level
    alpha * w_j, w = 0.9, 0.05, 0.025, ..., and w sums to 1.

Why this is valid
    When the j-th label is named, it and its number j are known from votes that its test does not
    count. So its e-value is a nonnegative supermartingale from there on whenever its share is not
    above the share asked for, and by Ville's inequality the chance that it is ever certified
    wrongly is at most alpha * w_j, given all that came before. Summed over j: alpha. Nothing is
    assumed about when the run is stopped, so giving up early is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

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
    from collections.abc import Iterable, Mapping, Sequence

Vote: TypeAlias = str | None
"""A label, or None for "no answer"."""

FIRST_WEIGHT = 0.9
"""Share of alpha for the first label named; each later one gets half of what is left."""

UNLIKELY = 0.01
"""A run is given up when its label's share is above the one asked for with less probability."""

_RADIUS_DECIMALS = 6
_SHARE_DECIMALS = 9


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
class Decision:
    """What the votes say.

    Attributes:
        label: the label certified (or predicted), None where the test abstains.
        reason: why the run ended so.
        radius: L2 radius that is certified; 0.0 where none is. A radius asked for is returned
            unchanged; one found is rounded down.
        radii: the radii asked for, ascending; empty for the largest and for a prediction.
        p_lower: lower bound of the candidate's share of votes, rounded down and before `delta` is
            taken off; 0.0 where not even 1/2 is exceeded, and for a prediction.
        votes: how many were counted.
        tally: votes by label, most first; the key None stands for "no answer".
        candidate: the label certified, else the leader, None if no vote was for a label.
        candidate_votes: (k, n) of the candidate's own test: votes for it, and all votes, since it
            was named.
        weight: share of alpha that the candidate's test has.
        alpha: chance that a test like this certifies anything wrongly.
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
    weight: float
    alpha: float

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


@dataclass(slots=True)
class _Named:
    """A label from the vote on that made it the leader."""

    label: str
    weight: float
    alpha: float
    since: int
    before: dict[Vote, int]
    reached: int = 0
    p_lower: float = 0.0


@dataclass(slots=True)
class _Ballot:
    """The votes so far, and who was named when."""

    alpha: float
    max_votes: int
    votes: int = 0
    tally: dict[Vote, int] = field(default_factory=dict)
    leader: str | None = None
    named: dict[str, _Named] = field(default_factory=dict)

    def add(self, vote: Vote) -> bool:
        """Count a vote; return whether it named its label."""
        self.votes += 1
        count = self.tally[vote] = self.tally.get(vote, 0) + 1
        if vote is None or vote == self.leader or count <= self._lead():
            return False
        self.leader = vote
        if vote in self.named:
            return False
        weight = _weight(len(self.named))
        self.named[vote] = _Named(vote, weight, self.alpha * weight, self.votes, dict(self.tally))
        return True

    def _lead(self) -> int:
        return 0 if self.leader is None else self.tally[self.leader]

    @property
    def left(self) -> int:
        return self.max_votes - self.votes

    def since_named(self, named: _Named, vote: Vote) -> int:
        """Return the votes for `vote` that the test of `named` counts."""
        return self.tally.get(vote, 0) - named.before.get(vote, 0)

    def votes_to_name(self) -> int:
        """Return how many votes in a row would make some label that is not named the leader."""
        behind = (
            count
            for vote, count in self.tally.items()
            if vote is not None and vote not in self.named
        )
        return self._lead() - max(behind, default=0) + 1

    def sorted_tally(self) -> dict[Vote, int]:
        return dict(sorted(self.tally.items(), key=lambda item: (-item[1], item[0] or "")))


def _weight(earlier: int) -> float:
    """Return w_j for a label named after `earlier` others; the w_j sum to 1."""
    return FIRST_WEIGHT if earlier == 0 else (1.0 - FIRST_WEIGHT) * 0.5**earlier


class SequentialCertify:
    """Certify a label at a wanted radius, at several, or at the largest that the votes allow.

    With probability at least 1 - alpha over the noise, whatever the labeller does and whenever
    the run is stopped: no L2 change up to the returned radius changes the label that has the
    largest share of votes under noise. (Cohen, Rosenfeld, Kolter, ICML 2019, theorem 1, with the
    test of `smoothapi.certify.evalue` in place of a fixed sample.)

    *Several radii* are tested in ascending order, each as soon as all smaller ones are certified,
    so that one level alpha serves all. The run ends when the largest is certified, or when the
    next is given up. *The largest radius* is the running maximum of a confidence sequence; the
    run ends at `max_votes`, or whenever you stop: `result` is valid at any time.

    Args:
        sigma: noise level, positive.
        alpha: chance of a wrong certificate, in (0, 1).
        max_votes: most votes to count.
        radius: the L2 radius wanted, in the units of sigma; several as a sequence; None for the
            largest.
        delta: what arithmetic may have moved the share of votes by (`noise_delta`).
        unlikely: give up once the Beta(1/2, 1/2) posterior probability that the leader's share
            suffices falls below this; 0 never gives up for that reason. It never affects validity.

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
        _check_max_votes(max_votes)
        _check_delta(delta)
        if radius is None:
            self._radii: tuple[float, ...] = ()
        elif isinstance(radius, (int, float)):
            self._radii = (float(radius),)
        else:
            self._radii = tuple(sorted({float(r) for r in radius}))
            if not self._radii:
                raise UsageError("radius=(): name at least one radius, or None for the largest.")
        self._sigma = sigma
        self._delta = delta
        self._unlikely = unlikely
        self._shares = tuple(needed_share(radius, sigma, delta) for radius in self._radii or (0.0,))
        self._ballot = _Ballot(alpha, max_votes)
        self._certified: str | None = None
        self._ended: Reason | None = None
        self._refuse_unreachable()

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        return self._ended is not None

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: a label, or None for "no answer".

        Raises:
            UsageError: the test is done, or the vote is neither text nor None.
        """
        _check_vote(vote, done=self.done)
        ballot = self._ballot
        just_named = ballot.add(vote)
        named = None if vote is None else ballot.named.get(vote)
        if named is not None and not just_named:
            self._advance(named)
        if self._finished():
            self._ended = Reason.CERTIFIED
        else:
            self._ended = self._give_up(vote)

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain.

        That is the fewest further votes, all for one label, that could decide; 0 once done. In a
        run for the largest radius every vote up to the cap may still enlarge it.
        """
        if self.done:
            return 0
        return min(self._ballot.left, self._best_case())

    def result(self) -> Decision:
        """Return the decision on the votes so far."""
        ballot = self._ballot
        candidate = self._certified or ballot.leader
        named = ballot.named[candidate] if candidate is not None else None
        k = n = 0
        p_low = radius = weight = 0.0
        if named is not None:
            k, n = self._counts(named)
            weight = named.weight
            p_low = named.p_lower
            if self._radii and n:
                p_low = p_lower(k, n, named.alpha)
                if named.reached:
                    # The share that the test exceeded when it ended is a bound as well.
                    p_low = max(p_low, self._shares[named.reached - 1])
            p_low = floor_to(p_low, _SHARE_DECIMALS)
        if self._certified is not None and named is not None:
            radius = self._radii[named.reached - 1] if self._radii else self._radius_of(p_low)
        certified = self._certified is not None and (bool(self._radii) or radius > 0.0)
        return Decision(
            label=self._certified if certified else None,
            reason=self._reason(certified=certified),
            radius=radius if certified else 0.0,
            radii=self._radii,
            p_lower=p_low,
            votes=ballot.votes,
            tally=ballot.sorted_tally(),
            candidate=candidate,
            candidate_votes=(k, n),
            weight=weight,
            alpha=ballot.alpha,
        )

    def _refuse_unreachable(self) -> None:
        least = 1 + boundary(self._shares[0], self._ballot.alpha * _weight(0))[0]
        top = 1 + boundary(self._shares[-1], self._ballot.alpha * _weight(0))[0]
        if top > self._ballot.max_votes:
            asked = f"radius {self._radii[-1]:g}" if self._radii else "any radius"
            raise UnreachableRadiusError(
                f"{asked} at sigma {self._sigma:g} and alpha {self._ballot.alpha:g} needs at least "
                f"{max(least, top):,} votes even if every one is for the same label, and only "
                f"{self._ballot.max_votes:,} are allowed. Allow more queries, or ask for a smaller "
                "radius, a larger alpha, or a larger sigma."
            )

    def _counts(self, named: _Named) -> tuple[int, int]:
        return (
            self._ballot.since_named(named, named.label),
            self._ballot.votes - named.since,
        )

    def _advance(self, named: _Named) -> None:
        """Take in a vote for a named label: only such a vote can certify anything."""
        k, n = self._counts(named)
        while (
            named.reached < len(self._shares)
            and n >= boundary(self._shares[named.reached], named.alpha)[n - k]
        ):
            named.reached += 1
            self._certified = self._certified or named.label
        if not self._radii and named.reached:
            named.p_lower = max(named.p_lower, p_lower(k, n, named.alpha))

    def _finished(self) -> bool:
        return bool(self._radii) and any(
            named.reached == len(self._shares) for named in self._ballot.named.values()
        )

    def _best_case(self) -> int:
        """Return the fewest further votes, all for one label, that would end the run well."""
        ballot = self._ballot
        if not self._radii and self._certified is not None:
            return ballot.left
        fresh = self._shares[0] if not self._radii else self._shares[-1]
        best = (
            ballot.votes_to_name() + boundary(fresh, ballot.alpha * _weight(len(ballot.named)))[0]
        )
        for named in ballot.named.values():
            k, n = self._counts(named)
            best = min(best, boundary(fresh, named.alpha)[n - k] - n)
        if not self._radii:
            # Once 1/2 is exceeded every further vote may still enlarge the radius.
            return max(ballot.left, best)
        return best

    def _next_step(self) -> int:
        """Return the fewest further votes, all for one label, that would certify anything more."""
        ballot = self._ballot
        best = (
            ballot.votes_to_name()
            + boundary(self._shares[0], ballot.alpha * _weight(len(ballot.named)))[0]
        )
        for named in ballot.named.values():
            if named.reached < len(self._shares):
                k, n = self._counts(named)
                share = self._shares[named.reached]
                best = min(best, boundary(share, named.alpha)[n - k] - n)
        return best

    def _give_up(self, vote: Vote) -> Reason | None:
        ballot = self._ballot
        if ballot.left == 0:
            return Reason.CAP
        if not self._radii and self._certified is not None:
            return None
        if vote is not None and vote == ballot.leader:
            return None  # good news never ends a run
        if self._next_step() > ballot.left:
            return Reason.FUTILE
        named = None if self._certified is None else ballot.named[self._certified]
        share = self._shares[named.reached if named else 0]
        k = ballot.tally.get(ballot.leader, 0) if ballot.leader is not None else 0
        chance = betaincc(k + PRIOR[0], ballot.votes - k + PRIOR[1], share)
        return Reason.UNLIKELY if chance < self._unlikely else None

    def _radius_of(self, p_low: float) -> float:
        share = min(max(p_low - self._delta, 0.0), 1.0)
        return floor_to(radius_from_p(share, self._sigma), _RADIUS_DECIMALS)

    def _reason(self, *, certified: bool) -> Reason:
        if certified:
            return Reason.CERTIFIED
        if self._ballot.leader is None and self._ballot.votes:
            return Reason.NO_ANSWER
        return self._ended or Reason.STOPPED


class SequentialPredict:
    """Return the label with the largest share of votes under noise, or abstain.

    With probability at least 1 - alpha over the noise, whenever the run is stopped: a label that
    is returned has a larger share of votes than any other, and than "no answer". A label A is
    returned when for every other label B the e-value for "A has more than half of the votes for
    A or B" has reached 1 / (alpha w). If A is not the top, the true top is one of those B, whose
    e-value alone would have to be wrong: no level is split over the labels B. (The sequential
    form of Cohen et al., ICML 2019, PREDICT.)

    Args:
        alpha: chance of a wrong label, in (0, 1).
        max_votes: most votes to count.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(self, *, alpha: float, max_votes: int) -> None:
        check_alpha(alpha)
        _check_max_votes(max_votes)
        self._ballot = _Ballot(alpha, max_votes)
        self._predicted: str | None = None
        self._ended: Reason | None = None
        least = 1 + boundary(0.5, alpha * _weight(0))[0]
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
        _check_vote(vote, done=self.done)
        ballot = self._ballot
        just_named = ballot.add(vote)
        named = None if vote is None else ballot.named.get(vote)
        if named is not None and not just_named and self._missing(named) <= 0:
            self._predicted = named.label
            self._ended = Reason.CERTIFIED
        elif ballot.left == 0:
            self._ended = Reason.CAP
        elif self._best_case() > ballot.left:
            self._ended = Reason.FUTILE

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain."""
        return 0 if self.done else min(self._ballot.left, self._best_case())

    def result(self) -> Decision:
        """Return the decision on the votes so far."""
        ballot = self._ballot
        candidate = self._predicted or ballot.leader
        named = ballot.named[candidate] if candidate is not None else None
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
                (ballot.since_named(named, named.label), ballot.votes - named.since)
                if named
                else (0, 0)
            ),
            weight=named.weight if named else 0.0,
            alpha=ballot.alpha,
        )

    def _missing(self, named: _Named) -> int:
        """Return how many votes in a row the label still needs against its strongest rival."""
        ballot = self._ballot
        k = ballot.since_named(named, named.label)
        rival = max(
            (ballot.since_named(named, vote) for vote in ballot.tally if vote != named.label),
            default=0,
        )
        return boundary(0.5, named.alpha)[rival] - (k + rival)

    def _best_case(self) -> int:
        ballot = self._ballot
        fresh = boundary(0.5, ballot.alpha * _weight(len(ballot.named)))[0]
        best = ballot.votes_to_name() + fresh
        return min([best, *(self._missing(named) for named in ballot.named.values())])


def replay(test: VoteTest, votes: Iterable[Vote]) -> Decision:
    """Feed votes in their order and return the decision; the same votes give the same decision.

    Raises:
        UsageError: there are votes after the one that decided.
    """
    for vote in votes:
        test.add(vote)
    return test.result()


def fewest_votes(radius: float, sigma: float, alpha: float, delta: float = 0.0) -> int:
    """Return how many votes a certificate needs at least: all for one label, the first naming it.

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
    _check_delta(delta)
    return 1 + boundary(needed_share(radius, sigma, delta), alpha * _weight(0))[0]


def needed_share(radius: float, sigma: float, delta: float) -> float:
    """Return the share of votes that must be exceeded: Phi(radius / sigma) + delta, rounded up.

    Raises:
        UnreachableRadiusError: no share can exceed it.
        UsageError: a value is out of range.
    """
    check_radius(radius)
    share = min(1.0, math.nextafter(required_p(radius, sigma) + delta, 2.0))
    if share >= 1.0 - 1e-12:
        raise UnreachableRadiusError(
            f"radius={radius:g} is {radius / sigma:.3g} times sigma={sigma:g}: no number of votes "
            "certifies it. Ask for a radius below about 4 sigma, or use a larger sigma."
        )
    return share


def _check_vote(vote: object, *, done: bool) -> None:
    if done:
        raise UsageError(
            "The test has decided and takes no more votes: stop when `done` is true. Votes that "
            "come after the decision must not be counted."
        )
    if vote is not None and not isinstance(vote, str):
        raise UsageError(f"A vote is a label's name or None, not {type(vote).__name__}.")


def _check_max_votes(max_votes: int) -> None:
    if max_votes < 1:
        raise UsageError(f"max_votes={max_votes}: at least one vote must be allowed.")


def _check_delta(delta: float) -> None:
    if not (0.0 <= delta < 0.5):
        raise UsageError(
            f"delta={delta}: what is taken off the share of votes is in [0, 1/2). A working image "
            "of so many pixels cannot be certified."
        )
