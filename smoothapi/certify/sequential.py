"""Certify a label by a test that may be looked at after every vote, and stops once it has enough.

Votes are added in order of index. A vote is a label, or None for "no answer": an answer without
labels, or a variant that failed for good. None counts against every label and is never certified.

Every label is tested on every vote
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

All radii at once
    Every q from q0 up is tested at once, q0 being that of sigma / 8 (or of the radius asked for, if
    that is smaller), at the level of q0. A label with share s is wronged if it passes some q >= s.
    The e-value falls as q grows (`smoothapi.certify.evalue` proves it), so at that vote it had
    passed s as well: for a label with s > q0 this has at most the chance level (Ville), and all
    other labels have at most 1 - s < 1 - q0 between them and must pass q0, which by 2 and 3 costs
    at most level * ((1 - q0) / q0)^m. If no share is above q0, a label is wronged only where it
    passes q0, and the proof above holds as it stands.

    So the certificates of a photo at all radii from sigma / 8 up hold jointly, with probability
    1 - alpha, and which of them is used may be chosen after the votes.

Used in full
    This level leaves some of alpha unused. `smoothapi.certify.calibration` sums exactly what it
    leaves, and finds a larger one that does for all radii as well; `levels` is what tests take. (By
    rules 1 and 2 the level above was taken as it is.)

Nothing here assumes when or why a run is stopped, so giving up early is free.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.ballot import Ballot
from smoothapi.certify.bounds import (
    check_alpha,
    check_delta,
    check_max_votes,
    check_radius,
    check_sigma,
    radius_from_p,
    required_p,
)
from smoothapi.certify.calibration import Levels, for_last_cap, joint
from smoothapi.certify.decision import (
    RADIUS_DECIMALS,
    RULES,
    SHARE_DECIMALS,
    Claim,
    Decision,
    Reason,
    Vote,
    check_vote,
)
from smoothapi.certify.evalue import Boundary, boundary
from smoothapi.certify.futility import DEFAULT_RULE, Futility
from smoothapi.certify.reach import check_reachable
from smoothapi.errors import UnreachableRadiusError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST_RADIUS = 0.125
"""The smallest radius that is worth a certificate where a larger one was asked for, in sigmas.

All radii from here up are certified jointly."""

_BETWEEN = 1.0 / 32.0  # sigmas between the radii that are tested below the one wanted


class VoteTerms(TypedDict):
    """On which terms votes are tested: the arguments of `SequentialCertify`, of every target."""

    sigma: float
    alpha: float
    max_votes: int
    radius: float | None
    delta: NotRequired[float]
    or_less: NotRequired[bool]
    final: NotRequired[bool]
    rules: NotRequired[int]


class SequentialCertify:
    """Certify a label at a wanted radius, or at the largest that the votes allow.

    With probability at least 1 - alpha over the noise, whatever the labeller does and whenever
    the run is stopped: no L2 change up to the returned radius changes the label that has the
    largest share of votes under noise. (Cohen, Rosenfeld, Kolter, ICML 2019, theorem 1, with the
    test of `smoothapi.certify.evalue` in place of a fixed sample; the top of this module says why
    no candidate has to be chosen first, and why all radii from sigma / 8 up hold jointly.)

    *The largest radius* is the running maximum of a confidence sequence. A run for it ends at
    `max_votes`, or whenever you stop: `result` is valid at any time. A run for a wanted radius has
    it as `Decision.largest`, also where it abstains.

    Args:
        sigma: noise level, positive.
        alpha: chance of a wrong certificate, in (0, 1).
        max_votes: most votes to count.
        radius: the L2 radius wanted, in the units of sigma; None for the largest.
        delta: what arithmetic takes off the share of votes (`share_deduction`).
        or_less: go on where the radius wanted is given up, for the largest below it.
        final: the photo is asked about neither with a larger `max_votes` nor at another radius, so
            the test is calibrated to these and needs fewer votes. What it gives up: another run of
            the same photo has a test of its own, and alpha holds for one of the two, not for both.
        futility: when a run is given up although an unbroken run of votes could still suffice
            (`smoothapi.certify.futility`). It decides about cost, never about validity.
        rules: those of the certificate to be checked; see `RULES`.

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
        radius: float | None,
        delta: float = 0.0,
        or_less: bool = False,
        final: bool = False,
        futility: Futility = DEFAULT_RULE,
        rules: int = RULES,
    ) -> None:
        check_sigma(sigma)
        check_alpha(alpha)
        check_max_votes(max_votes)
        check_delta(delta)
        refuse_or_less(radius, or_less=or_less)
        self._radius = None if radius is None else float(radius)
        self._sigma = sigma
        self._alpha = alpha
        self._or_less = or_less
        self._final = final
        self._futility = futility
        self._rules = rules
        self._smallest = smallest_radius(self._radius, sigma, rules)
        wanted = self._smallest if self._radius is None else self._radius
        last_cap = max_votes if final else None
        check_reachable(
            wanted,
            shortest_run(wanted, sigma, alpha, delta, rules, last_cap=last_cap),
            sigma=sigma,
            alpha=alpha,
            max_votes=max_votes,
            named="any radius" if radius is None else "",
        )
        self._levels = levels(self._radius, sigma, alpha, delta, rules, last_cap=last_cap)
        self._least_boundary = boundary(self._levels.least, self._levels.upto)
        self._boundary = boundary(self._levels.wanted, self._levels.upto)
        self._ballot = Ballot(max_votes)
        self._robust: str | None = None  # the label certified at some radius
        self._certified: str | None = None  # the label certified at the radius wanted
        self._p_lower = 0.0  # of the robust label
        self._risen = False
        self._ends: list[tuple[int, int]] = []  # (k, n) where the bound may have risen
        self._ended: Reason | None = None

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        return self._ended is not None

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: a label, or None for "no answer".

        Only a label with more votes than all others together can be certified, so only the
        leader needs to be looked at, and only when it gains a vote.

        Raises:
            UsageError: the test is done, or the vote is neither text nor None.
        """
        check_vote(vote, done=self.done)
        if vote != self._robust:
            self._note_end()
        self._ballot.add(vote)
        if vote is None or vote != self._candidate():
            self._ended = self._give_up()
            return
        if self._robust is None and self._missing(self._least_boundary) <= 0:
            self._robust = vote
        if self._certified is None and self._missing(self._boundary) <= 0:
            self._certified = vote
            self._keep_bound_of(vote)
        self._risen = self._risen or vote == self._robust
        if self._certified is not None and self._radius is not None:
            self._ended = Reason.CERTIFIED
        elif self._ballot.left == 0:
            self._ended = Reason.CAP

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain.

        That is the fewest further votes, all for one label, that could end the run well; 0 once
        done. In a run for the largest radius, or for less than the one that was given up, every
        vote up to the cap may still enlarge it.
        """
        if self.done:
            return 0
        left = self._ballot.left
        if self._radius is None:
            return left
        missing = self._missing(self._boundary)
        return left if self._or_less and missing > left else min(left, missing)

    def result(self) -> Decision:
        """Return the decision on the votes so far."""
        self._raise_bound()
        candidate = self._candidate()
        votes = self._ballot.votes
        k = 0 if candidate is None else self._ballot.tally[candidate]
        p_low = floor_to(self._p_lower, SHARE_DECIMALS)
        radius = 0.0
        if self._certified is not None:
            radius = self._found(p_low) if self._radius is None else self._radius
        return Decision(
            label=self._certified,
            reason=self._reason(),
            radius=radius,
            radius_requested=self._radius,
            p_lower=p_low if self._certified is not None else 0.0,
            votes=votes,
            tally=self._ballot.sorted_tally(),
            candidate=candidate,
            candidate_votes=(k, votes),
            alpha=self._alpha,
            level=self._levels.upto,
            largest=self._largest(p_low, radius),
            or_less=self._or_less,
            final=self._final,
        )

    def _found(self, p_low: float) -> float:
        return radius_above(p_low, self._levels.delta, self._sigma, 0.0)

    def _largest(self, p_low: float, radius: float) -> tuple[Claim, ...]:
        if self._robust is None or self._rules == 1:
            return ()
        most = max(radius, radius_above(p_low, self._levels.delta, self._sigma, self._smallest))
        votes = (self._ballot.tally[self._robust], self._ballot.votes)
        return (Claim(self._robust, "top", most, p_low, votes),)

    def _candidate(self) -> str | None:
        return self._ballot.leader if self._certified is None else self._certified

    def _losses(self) -> int:
        candidate = self._candidate()
        wins = 0 if candidate is None else self._ballot.tally[candidate]
        return self._ballot.votes - wins

    def _missing(self, enough: Boundary) -> int:
        """Return how many votes in a row the candidate needs.

        No other label can need fewer: it has more losses.
        """
        return enough[self._losses()] - self._ballot.votes

    def _keep_bound_of(self, label: str) -> None:
        """Follow the bound of the label that is certified, should another have been robust."""
        if label != self._robust:
            self._robust, self._p_lower, self._risen = label, 0.0, False
            self._ends.clear()

    def _note_end(self) -> None:
        """Note the end of a run of votes for the robust label: there its bound is highest."""
        if self._risen and self._robust is not None:
            self._ends.append((self._ballot.tally[self._robust], self._ballot.votes))
            self._risen = False

    def _raise_bound(self) -> None:
        """Take the largest bound so far, of all ends that were noted since."""
        self._note_end()
        if self._ends:
            proved = self._levels.least if self._certified is None else self._levels.wanted
            self._p_lower = max(self._p_lower, self._levels.exceeded(self._ends), proved)
            self._ends.clear()

    def _give_up(self) -> Reason | None:
        ballot = self._ballot
        if ballot.left == 0:
            return Reason.CAP
        if self._certified is not None:
            return None  # the largest radius: every vote may enlarge it
        if self._or_less:
            return None if self._robust else self._hopeless(self._least_boundary)
        return self._hopeless(self._boundary)

    def _hopeless(self, enough: Boundary) -> Reason | None:
        """Return why the candidate will not pass a boundary within the cap; None if it may."""
        ballot, losses = self._ballot, self._losses()
        if self._missing(enough) > ballot.left:
            return Reason.FUTILE
        given_up = self._futility.gives_up(ballot.votes, losses, enough, ballot.max_votes)
        return Reason.UNLIKELY if given_up else None

    def _reason(self) -> Reason:
        if self._certified is not None:
            return Reason.CERTIFIED
        if self._ballot.leader is None and self._ballot.votes:
            return Reason.NO_ANSWER
        return self._ended or Reason.STOPPED


def smallest_radius(radius: float | None, sigma: float, rules: int = RULES) -> float:
    """Return the radius from which on all radii are certified jointly.

    Args:
        radius: the one wanted, None for the largest.
        sigma: noise level, positive.
        rules: by rules 1, where a radius was wanted, that one alone.
    """
    smallest = SMALLEST_RADIUS * sigma
    if radius is None:
        return smallest
    return radius if rules == 1 else min(radius, smallest)


def refuse_or_less(radius: float | None, *, or_less: bool) -> None:
    """Raise UsageError if a run for the largest radius is to go on for less than one."""
    if or_less and radius is None:
        raise UsageError(
            "or_less goes on where the radius asked for is given up, and the largest is asked for, "
            "which is never given up: leave out or_less (--or-less), or name a radius."
        )


def refuse_final(*, final: bool, what: str) -> None:
    """Raise UsageError if a test is to be calibrated to its cap that cannot be."""
    if final:
        raise UsageError(
            f"The test of {what} cannot be calibrated to its cap, only those of the top label, of "
            "presence and of scores: leave out final (--final)."
        )


def radius_above(p_low: float, delta: float, sigma: float, smallest: float) -> float:
    """Return the radius that a share is certified for which passed that of the smallest one.

    Args:
        p_low: lower bound of the share, rounded down.
        delta: what arithmetic takes off it.
        sigma: noise level, positive.
        smallest: a radius that is known to be certified; the rounding may have lost it.

    Returns:
        The radius in the units of sigma, rounded down.
    """
    found = radius_from_p(max(p_low - delta, 0.0), sigma)
    return floor_to(max(found, smallest), RADIUS_DECIMALS)


def joint_level(
    radius: float | None, sigma: float, alpha: float, delta: float, rules: int = RULES
) -> float:
    """Return the level at which every label is tested, at every radius that counts.

    By rules 1 and 2 it is the `label_level` of `smallest_radius`; now it is larger, by exact sums
    (`smoothapi.certify.calibration.joint`). Raises as `needed_share` and `label_level` do.
    """
    least = needed_share(smallest_radius(radius, sigma, rules), sigma, delta)
    level = label_level(least, alpha)
    if rules < 3:
        return level
    # Rounded down, so that photos of nearly one size share what is worked out: a smaller share has
    # a smaller level, and more is tested at it.
    rounded = max(0.5, math.floor(least * 1e4) / 1e4)
    alpha = min(alpha, math.exp(-1.0))
    return max(level, joint(rounded, alpha, label_level(rounded, alpha)))


def label_level(share: float, alpha: float) -> float:
    """Return the level at which every label may be tested against `share` on every vote.

    alpha / (1 + ((1 - q) / q)^m) with m the fewest votes that reach alpha (fewer than those that
    reach the level, which only makes it smaller). The top of this module derives it.

    Args:
        share: q, the smallest share that the run tests, in [1/2, 1).
        alpha: chance that the run certifies anything wrongly, in (0, 1); above 1/e, where the
            derivation ends, 1/e is taken.

    Raises:
        UsageError: a value is out of range.
    """
    check_alpha(alpha)
    if not (0.5 <= share < 1.0):
        raise UsageError(
            f"share={share}: the share to be exceeded is from 1/2 to below 1. Below 1/2 several "
            "labels can exceed it at once, and testing each of them at this level would certify "
            "wrongly more often than alpha."
        )
    alpha = min(alpha, math.exp(-1.0))
    rival = ((1.0 - share) / share) ** boundary(share, alpha)[0]
    return alpha / (1.0 + rival)


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
            f"radius {radius:g} at sigma {sigma:g}: no number of votes certifies it. Ask for a "
            "smaller radius, or use a larger sigma."
        )
    return share


def levels(
    radius: float | None,
    sigma: float,
    alpha: float,
    delta: float,
    rules: int = RULES,
    *,
    last_cap: int | None = None,
) -> Levels:
    """Return which shares a run tests, and at which levels.

    Args:
        radius: the one wanted, None for the largest.
        sigma: noise level, positive.
        alpha: chance that the run certifies anything wrongly, in (0, 1).
        delta: what arithmetic takes off the share of votes.
        rules: see `RULES`.
        last_cap: most votes that will ever be asked for, None if that is not certain.

    Raises as `needed_share` does.
    """
    smallest = smallest_radius(radius, sigma, rules)
    wanted = smallest if radius is None else radius
    if last_cap is None or rules < 3:
        shares = (needed_share(smallest, sigma, delta), needed_share(wanted, sigma, delta))
        level = joint_level(radius, sigma, alpha, delta, rules)
        return Levels(shares, level, level, every=True, delta=delta)
    delta = _two_digits_up(delta)
    between = np.arange(smallest, wanted, _BETWEEN * sigma)[1:]
    radii = (smallest, *(float(r) for r in between if r < wanted), wanted)
    tested = tuple(sorted({needed_share(r, sigma, delta) for r in radii}))
    alpha = min(alpha, math.exp(-1.0))
    return for_last_cap(tested, alpha, label_level(tested[0], alpha), delta, last_cap)


def _two_digits_up(delta: float) -> float:
    """Return a deduction rounded up, so that photos of nearly one size share their levels."""
    if delta == 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(delta)) - 1)
    return max(delta, math.ceil(delta / unit * (1.0 - 1e-12)) * unit)


def fewest_votes(
    radius: float,
    sigma: float,
    alpha: float,
    delta: float,
    rules: int = RULES,
    *,
    last_cap: int | None = None,
) -> int:
    """Return how many votes in a row certify a label at `radius`; errors as `needed_share`."""
    found = levels(radius, sigma, alpha, delta, rules, last_cap=last_cap)
    return boundary(found.wanted, found.upto)[0]


def shortest_run(
    wanted: float,
    sigma: float,
    alpha: float,
    delta: float,
    rules: int = RULES,
    *,
    last_cap: int | None = None,
) -> Callable[[float], int]:
    """Return `fewest_votes` as `check_reachable` asks for it: exact for the radius wanted.

    For the others that it tries it is what suffices without a last cap, so none has to be
    calibrated to say that the one wanted is out of reach.
    """

    def least(radius: float) -> int:
        if last_cap is None or radius == wanted:
            return fewest_votes(radius, sigma, alpha, delta, rules, last_cap=last_cap)
        return fewest_votes(radius, sigma, alpha, delta, rules)

    return least
