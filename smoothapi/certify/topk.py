"""A label that stays among the k best (Jia, Cao, Wang and Gong, ICLR 2020), tested sequentially.

Their radius needs a lower bound for the label's share of the votes and upper bounds for all other
labels', holding together. Here they hold together at every vote.

*Upper bounds, for all labels at once, however many.* A label with share s is given level
beta * s: as shares sum to 1, the levels sum to beta. With E the e-value against "share at least u"
(the mirrored one of `smoothapi.certify.evalue`),

    upper = sup { u : E_n(u) < 1 / (beta u) },

so a label is wronged only if E_n(s) reaches 1 / (beta s), which has probability at most beta * s.
A label that was never seen has the upper bound of 0 votes.

*The lower bound* is that of a candidate (`smoothapi.certify.ballot`), tested on the votes after it
took the lead.

Both use the uniform mixture, for which the e-values are monotone on the whole way from the observed
share outward (`smoothapi.certify.evalue`), so a bisection is exact.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from smoothapi._special import special
from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.ballot import Ballot, Candidates
from smoothapi.certify.bounds import (
    check_alpha,
    check_counts,
    check_delta,
    check_max_votes,
    check_radius,
    check_sigma,
)
from smoothapi.certify.decision import (
    RADIUS_DECIMALS,
    RULES,
    SHARE_DECIMALS,
    UNLIKELY,
    Claim,
    Decision,
    Reason,
    Vote,
    check_vote,
)
from smoothapi.certify.evalue import log_evalue_lower
from smoothapi.certify.reach import check_reachable
from smoothapi.certify.sequential import refuse_final, refuse_or_less
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNIFORM = (1.0, 1.0)
# A bisection of many points at once: 32^5 is a resolution of 3e-8.
_POINTS = 33
_ROUNDS = 5


@lru_cache(maxsize=4096)
def share_lower(k: int, n: int, alpha: float) -> float:
    """Return a lower bound of a label's share: P(it exceeds the share at some n) <= alpha.

    For k of n votes (n may be 0). Unlike `p_lower` it goes below 1/2. Rounded down.
    """
    check_alpha(alpha)
    if n == 0 or k == 0:
        return 0.0
    check_counts(k, n)
    low, high = 0.0, min(k / n, 1.0 - 1e-12)
    for _ in range(_ROUNDS):
        inner = np.linspace(low, high, _POINTS)[1:-1]
        fails = log_evalue_lower(k, n, inner, _UNIFORM) < -math.log(alpha)
        first = int(np.argmax(fails)) if fails.any() else len(inner)
        low, high = (
            float(inner[first - 1]) if first > 0 else low,
            float(inner[first]) if first < len(inner) else high,
        )
    return low


@lru_cache(maxsize=4096)
def share_upper(k: int, n: int, alpha: float) -> float:
    """Return an upper bound of a label's share; those of all labels hold at once and at every n.

    For k of n votes (n may be 0). The chance that any label's share ever exceeds its bound is at
    most alpha; see the top of this module. Rounded up.
    """
    check_alpha(alpha)
    if k == n:
        return 1.0  # also of no votes
    check_counts(k, n)
    low, high = k / n, 1.0
    for _ in range(_ROUNDS):
        inner = np.linspace(low, high, _POINTS)[1:-1]
        log_e = log_evalue_lower(n - k, n, 1.0 - inner, _UNIFORM)
        holds = log_e >= -np.log(alpha * inner)
        first = int(np.argmax(holds)) if holds.any() else len(inner)
        low, high = (
            float(inner[first - 1]) if first > 0 else low,
            float(inner[first]) if first < len(inner) else high,
        )
    return high


def topk_holds(
    radius: float,
    sigma: float,
    p_low: float,
    uppers: Sequence[float],
    *,
    here: float = 0.0,
    there: float = 0.0,
) -> bool:
    """Return whether a label stays among the k best within `radius` (Jia et al., theorem 1).

    Shares may fall below 1/2 here, where moving the photo makes a difference of shares smaller, so
    what arithmetic costs at the moved photo is taken off there.

    Args:
        radius: L2 radius, in the units of sigma.
        sigma: noise level, positive.
        p_low: lower bound of the label's share.
        uppers: the k largest upper bounds of other labels' shares.
        here: what arithmetic may have moved the probability of any event by, at the photo.
        there: the same, at the moved photo.
    """
    shift = radius / sigma
    own = float(special.ndtr(special.ndtri(max(p_low - here, 0.0)) - shift)) - there
    room = min(1.0, 1.0 - p_low + here)
    # The sum of the t-th to the k-th largest, for t = 1..k.
    sums = np.cumsum(np.sort(np.asarray(uppers, dtype=np.float64)))[::-1] + here
    ranks = np.arange(len(sums), 0, -1)
    rivals = (special.ndtr(special.ndtri(np.minimum(sums, room)) + shift) + there) / ranks
    return own > float(rivals.min()) * (1.0 + 1e-12)


class TopKTest:
    """Certify that a label stays among the k labels with the largest shares of votes.

    With probability at least 1 - alpha over the noise, whenever the run is stopped: everywhere
    within the returned radius the returned label is among the k best. Half of alpha goes to the
    label's lower bound, half to the others' upper bounds. "No answer" competes as a label does.

    Args:
        k: how many labels are among the best, at least 1.
        sigma, alpha, max_votes, delta: as for `SequentialCertify`.
        radius: the L2 radius wanted; None for the largest that the votes at the end allow.
        or_less: go on to the cap where the radius wanted is given up, for the largest below it.
        unlikely: give up once even a share of the leader that is above the true one with
            probability 1 - unlikely would not suffice at the cap.
        rules: those of the certificate to be checked; see `RULES`.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(
        self,
        k: int,
        *,
        sigma: float,
        alpha: float,
        max_votes: int,
        radius: float | None,
        delta: float = 0.0,
        or_less: bool = False,
        final: bool = False,
        unlikely: float = UNLIKELY,
        rules: int = RULES,
    ) -> None:
        check_sigma(sigma)
        check_alpha(alpha)
        check_max_votes(max_votes)
        check_delta(delta)
        if k < 1:
            raise UsageError(f"k={k}: the best are at least one label.")
        refuse_or_less(radius, or_less=or_less)
        refuse_final(final=final, what="the best k")
        if radius is not None:
            check_radius(radius)
            radius = float(radius)
        self._k = k
        self._sigma = sigma
        self._alpha = alpha
        half = 0.5 * delta
        self._deductions = {"here": delta} if rules == 1 else {"here": half, "there": half}
        self._or_less = or_less
        self._unlikely = unlikely
        self._rules = rules
        self._radius = radius
        self._ballot = Ballot(max_votes)
        self._candidates = Candidates(self._ballot, 0.5 * alpha)
        self._ended: Reason | None = None
        check_reachable(
            radius or 0.0,
            self._least,
            sigma=sigma,
            alpha=alpha,
            max_votes=max_votes,
            named="any radius" if radius is None else "",
        )
        self._best_case = self._fewest_more()

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
        self._candidates.name_leader()
        leader = ballot.leader
        best = self._best_case
        if best is not None and vote is not None and vote == best[0]:
            self._best_case = (vote, best[1] - 1)
        else:
            self._best_case = self._fewest_more()
        if self._radius is not None and self._best_case == (leader, 0):
            self._ended = Reason.CERTIFIED
        elif ballot.left == 0:
            self._ended = Reason.CAP
        elif self._or_less:
            return
        elif self._best_case is None:
            self._ended = Reason.FUTILE
        elif vote != leader and self._hopeless():
            self._ended = Reason.UNLIKELY

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain.

        In a run for the largest radius every vote up to the cap may still enlarge it.
        """
        if self.done:
            return 0
        best = self._best_case
        return self._ballot.left if self._radius is None or best is None else best[1]

    def result(self) -> Decision:
        """Return the decision on the votes so far; its claim is "among the best"."""
        ballot, candidates = self._ballot, self._candidates
        leader = ballot.leader
        candidate = candidates.get(leader)
        p_low, votes, radius, most = 0.0, (0, 0), 0.0, 0.0
        if candidate is not None:
            lower, uppers = self._bounds(leader, 0)
            p_low = floor_to(lower, SHARE_DECIMALS)
            votes = (candidates.count(candidate, leader), candidates.total(candidate))
            most = self._largest(p_low, uppers)
            if self._radius is None:
                radius = most
            elif self._ended is Reason.CERTIFIED:
                radius = self._radius
        certified = leader is not None and (radius > 0.0 or self._ended is Reason.CERTIFIED)
        reason = Reason.CERTIFIED if certified else self._ended or Reason.STOPPED
        if leader is None and ballot.votes:
            reason = Reason.NO_ANSWER
        claims: tuple[Claim, ...] = ()
        largest: tuple[Claim, ...] = ()
        if certified and leader is not None:
            claims = (Claim(leader, "among the best", radius, p_low, votes),)
        most = max(most, radius)
        if leader is not None and most > 0.0 and self._rules > 1:
            largest = (Claim(leader, "among the best", most, p_low, votes),)
        return Decision(
            label=leader if certified else None,
            reason=reason,
            radius=radius,
            radius_requested=self._radius,
            p_lower=p_low if certified else 0.0,
            votes=ballot.votes,
            tally=ballot.sorted_tally(),
            candidate=leader,
            candidate_votes=votes,
            alpha=self._alpha,
            level=0.0 if candidate is None else candidate.level,
            claims=claims,
            largest=largest,
            or_less=self._or_less,
        )

    def _bounds(self, label: str | None, more: int) -> tuple[float, list[float]]:
        """Return a label's lower and the k largest other upper bounds, `more` votes for it on.

        None stands for a label that was never seen. A label that has not led is named by the one
        of these votes that takes the lead, and only those after it count.
        """
        ballot = self._ballot
        n = ballot.votes + more
        candidates = self._candidates
        candidate = candidates.get(label)
        if candidate is not None:
            wins = candidates.count(candidate, label) + more
            counted = candidates.total(candidate) + more
            level = candidate.level
        else:
            wins = counted = max(0, more - ballot.behind(label or "") - 1)
            level = candidates.next_level
        others = sorted(
            (votes for vote, votes in ballot.tally.items() if vote is None or vote != label),
            reverse=True,
        )[: self._k]
        others += [0] * (self._k - len(others))
        bound_of = {votes: share_upper(votes, n, 0.5 * self._alpha) for votes in set(others)}
        return share_lower(wins, counted, level), [bound_of[votes] for votes in others]

    def _suffices(self, label: str | None, more: int) -> bool:
        p_low, uppers = self._bounds(label, more)
        return topk_holds(self._radius or 0.0, self._sigma, p_low, uppers, **self._deductions)

    def _fewest_more(self) -> tuple[str | None, int] | None:
        """Return the label that needs the fewest votes in a row, and how many.

        None if no label can within the cap. A label needs the lead and bounds that suffice.
        """
        ballot = self._ballot
        others = [vote for vote in ballot.tally if vote is not None and vote != ballot.leader]
        others.sort(key=ballot.behind)
        best, limit = None, ballot.left
        for label in (*([ballot.leader] if ballot.leader is not None else []), *others, None):
            gap = 0 if label is not None and label == ballot.leader else self._gap(label)
            if gap > limit:
                break  # the rest is further behind
            more = self._fewest_for(label, gap, limit)
            if more is not None:
                best, limit = (label, more), more - 1
        return best

    def _least(self, radius: float) -> int | None:
        """Return the fewest votes that certify a radius before there is any; None above the cap."""
        wanted, self._radius = self._radius, radius
        best = self._fewest_more()
        self._radius = wanted
        return None if best is None else best[1]

    def _gap(self, label: str | None) -> int:
        return self._ballot.behind(label or "") + 1

    def _fewest_for(self, label: str | None, low: int, limit: int) -> int | None:
        """Return the fewest votes in [low, limit] that suffice for the label."""
        if self._suffices(label, low):
            return low
        step = 1
        high = low
        while not self._suffices(label, high):
            if high >= limit:
                return None
            low, high = high, min(limit, high + step)
            step *= 2
        while high - low > 1:
            middle = (low + high) // 2
            if self._suffices(label, middle):
                high = middle
            else:
                low = middle
        return high

    def _largest(self, p_low: float, uppers: Sequence[float]) -> float:
        low, high = 0, math.ceil(8.0 * self._sigma * 10**RADIUS_DECIMALS)
        if not topk_holds(0.0, self._sigma, p_low, uppers, **self._deductions):
            return 0.0
        while high - low > 1:
            middle = (low + high) // 2
            radius = middle / 10**RADIUS_DECIMALS
            if topk_holds(radius, self._sigma, p_low, uppers, **self._deductions):
                low = middle
            else:
                high = middle
        return float(low / 10**RADIUS_DECIMALS)

    def _hopeless(self) -> bool:
        """Return whether the shares seen, made better for the leader, fail even at the cap."""
        ballot = self._ballot
        leader = ballot.leader
        n, cap = ballot.votes, ballot.max_votes
        k = 0 if leader is None else ballot.tally[leader]
        hoped = float(special.betaincinv(k + 0.5, n - k + 0.5, 1.0 - self._unlikely))
        scale = (1.0 - hoped) / max(n - k, 1)
        others = sorted((v for label, v in ballot.tally.items() if label != leader), reverse=True)
        counts = [int(votes * scale * cap) for votes in others[: self._k]]
        counts += [0] * (self._k - len(counts))
        level = 0.5 * self._alpha
        uppers = [share_upper(votes, cap, level) for votes in counts]
        p_low = share_lower(math.ceil(hoped * cap), cap, level)
        return not topk_holds(self._radius or 0.0, self._sigma, p_low, uppers, **self._deductions)
