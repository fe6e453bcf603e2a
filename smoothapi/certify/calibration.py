"""How large an e-value has to be, so that alpha is used: exact sums over the ends of a run.

Let R(s) be the ends (votes, losses) of a run that certify a share s, at the threshold c, and P_t(R)
the chance that the votes of a label with share t reach R. A vote in place of a loss takes no run
out of R, so P_t(R) grows with t; and R(s) shrinks as s grows, as E does (`smoothapi.certify.evalue`
proves it). By Ville's inequality P_s(R(s)) <= 1 / c. It is less, since the e-value at an end
exceeds c: 0.83 / c at a radius of sigma / 8. And rivals cost less than the level of
`smoothapi.certify.sequential` assumes: few runs end with the fewest votes of all.

One level for all radii, used in full (`joint`)
    Every share from q_0, that of sigma / 8, is tested at one level L = 1 / c. Let s be the largest
    share of all labels; those of the others sum to at most 1 - s, and as P_t(R(q_0)) is convex in t
    (sequential, 1) they are certified for anything with at most the chance P_{1-s}(R(q_0)). With a
    ladder q_0 = u_0 < u_1 < ... < u_M:

    1. u_i < s <= u_{i+1}: the top label is wronged only in R(s), which lies in R(u_i). So all are
       wronged with at most P_{u_{i+1}}(R(u_i)) + P_{1 - u_i}(R(q_0)).
    2. s <= q_0: the sum over the labels is convex in their shares, and largest at a corner: at most
       P_{q_0}(R(q_0)) + P_{1 - q_0}(R(q_0)).
    3. s > u_M: at most L + P_{1 - u_M}(R(q_0)).

    L is what 3 leaves of alpha, and 1 and 2 are summed to see that they leave more: where rivals
    are likely, a label is certified with less than its L. It depends neither on the cap nor on the
    radius wanted, so all certificates of a photo hold jointly, whichever were asked for.

What is summed
    Chances are summed up to a horizon of N votes, on the lattice of votes and losses. What comes
    later is bounded: under s, what has not been certified by then has mean e-value 1 - (sum of P E
    over the ends up to N), and reaches c with at most that, over c. That sum is the chance that a
    label with a share drawn from the prior above s ends by then; a larger share drawn, or a larger
    R, only adds to it, so for all s of a step of the ladder it is at least that of shares above u_i
    and of R(u_{i+1}). For a rival's share t <= 1 - q_0 the chance of each end is at most
    ((1 - q_0) / q_0)^(w - l) of that under q_0, and the lead w - l of later ends is no smaller than
    that of the last one before. So the sums are upper bounds, whatever N is.

A last cap (`for_last_cap`)
    A run that never goes on beyond its cap, at the one radius wanted, can only certify up to there:
    N is the cap, nothing comes later, and c is lowered until the sums reach alpha. Then up to the
    share of the radius wanted, q, only those are tested that were summed, q_0 < ... < q_M = q, of
    radii 1/32 sigma apart, and those above q at a threshold d >= c.

    1. q_{j-1} < s <= q_j: at most P_{q_j}(R(q_j)) + P_{1 - q_{j-1}}(R(q_0)), as R(q_j) is the
       largest region that wrongs the top label.
    2. s <= q_0: as above.
    3. s > q: at most 1 / d + P_{1 - q}(R(q_0)).

    Where a vote more or less makes 1 too large, that share is not tested: the next one covers it.
    What this gives up: a run with another cap, or for another radius, has a threshold of its own,
    and alpha holds for one of the two, not for both.

In both, c is at least e, as 1 in `sequential` assumes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from smoothapi.certify.evalue import largest_p_lower, log_evalue_lower
from smoothapi.worked_out import worked_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

_HORIZON = 10.0  # times the fewest votes that certify the least share
_STEPS, _WIDTH = 32, 2.5e-3  # of the ladder
_LONGEST = 2048  # votes that are summed at most; what lies beyond is bounded
_SLACK = 1e-9  # of alpha: more than float64 can have summed too little
_STEP = 2e-3  # relative: no better level is looked for
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Levels:
    """The shares that a run tests, and at which levels.

    Attributes:
        shares: ascending; the first is the smallest that is tested, the last that of the radius
            wanted. All that are tested hold jointly.
        upto: 1 over the threshold of the e-values up to the share wanted.
        beyond: the same of every larger share.
        every: whether all shares in between are tested too, not these alone.
        delta: what arithmetic takes off the share of votes, as it is in `shares`.
    """

    shares: tuple[float, ...]
    upto: float
    beyond: float
    every: bool
    delta: float

    @property
    def least(self) -> float:
        """The smallest share that is tested."""
        return self.shares[0]

    @property
    def wanted(self) -> float:
        """The share of the radius wanted."""
        return self.shares[-1]

    def exceeded(self, counts: Sequence[tuple[int, int]]) -> float:
        """Return the largest share that any of some (k, n) shows to be exceeded, 0.0 if none."""
        found = largest_p_lower(counts, self.beyond)
        if self.every or found >= self.wanted:
            return found
        place = bisect_right(self.shares, largest_p_lower(counts, self.upto))
        return self.shares[place - 1] if place else 0.0


@lru_cache(maxsize=512)
def joint(least: float, alpha: float, level: float) -> float:
    """Return the level at which every share from `least` up may be tested, for every label.

    Args:
        least: in [1/2, 1).
        alpha: chance that anything is certified wrongly, at most 1/e.
        level: one that is known to do; it is improved on.
    """
    return worked_out("joint", (least, alpha, level), lambda: _joint(least, alpha, level))


def _joint(least: float, alpha: float, level: float) -> float:
    steps = least + _WIDTH * np.arange(_STEPS + 1)
    ladder: tuple[float, ...] = tuple(steps[steps < 1.0 - _WIDTH].tolist()) or (least,)
    horizon = min(_LONGEST, math.ceil(_HORIZON * math.log(alpha) / math.log(least)))
    tried, ends = alpha, None
    for _ in range(_ROUNDS):
        ends = _Ends(ladder, tried, horizon, goes_on=True, before=ends)
        left, wrong = alpha - ends.by_rivals(len(ladder) - 1), ends.most_wrong()
        if tried <= left and wrong <= alpha:
            return tried
        tried = min(left, (1.0 - _STEP) * tried * min(1.0, alpha / wrong))
        if tried <= level:
            break
    return level


@lru_cache(maxsize=512)
def for_last_cap(
    shares: tuple[float, ...], alpha: float, level: float, delta: float, cap: int
) -> Levels:
    """Return levels of a run that certifies anything wrongly with at most the chance alpha.

    Args:
        shares: those to be tested, ascending, in [1/2, 1); the last is that of the radius wanted.
        alpha: at most 1/e.
        level: one that is known to do for all shares from the first one up; it is improved on.
        delta: to be noted.
        cap: most votes that will ever be asked for.
    """
    horizon, goes_on = min(cap, _LONGEST), cap > _LONGEST
    tried = _searched((shares[0], *shares[-2:]), alpha, level, horizon, goes_on=goes_on)
    for _ in range(_ROUNDS):
        ends = _Ends(shares, tried, horizon, goes_on=goes_on)
        kept = ends.that_hold(alpha)
        if kept and kept[-1] == len(shares) - 1:
            beyond = min(tried, alpha - ends.by_rivals(kept[-1]))
            tested = tuple(shares[place] for place in kept)
            return Levels(tested, tried, beyond, every=False, delta=delta)
        tried = max(level, 0.97 * tried)
    return Levels((shares[0], shares[-1]), level, level, every=True, delta=delta)


def _searched(
    shares: tuple[float, ...], alpha: float, level: float, horizon: int, *, goes_on: bool
) -> float:
    """Return a large level at which the first and the last of some shares hold."""
    good, too_large, most = level, math.inf, math.exp(-1.0)
    wrong = _Ends(shares, level, horizon, goes_on=goes_on).ends_wrong
    for _ in range(_ROUNDS):
        tried = min(good * alpha / wrong, most)
        if tried >= too_large:
            tried = math.sqrt(good * too_large)
        if tried <= good * (1.0 + _STEP):
            break
        found = _Ends(shares, tried, horizon, goes_on=goes_on).ends_wrong
        if found <= alpha:
            good, wrong = tried, found
        else:
            too_large = tried
    return good


class _Ends:
    """Bounds of the chances of all ends that certify one of some shares, at one level.

    Args:
        shares: ascending.
        level: 1 over the threshold.
        horizon: votes up to which ends are summed.
        goes_on: whether a run may go on beyond.
        before: the same for a larger level, if that is known: it makes these quicker to find.
    """

    def __init__(
        self,
        shares: tuple[float, ...],
        level: float,
        horizon: int,
        *,
        goes_on: bool,
        before: _Ends | None = None,
    ) -> None:
        self.level = level
        self._shares = np.array(shares)
        self._horizon = horizon
        self._goes_on = goes_on
        self.fewest = self._boundaries(before)
        reached, later = self._of_itself()
        self._by_itself = reached + later
        self._by_rivals = self._of_rivals(float(later[0]))

    def _of_itself(self) -> tuple[Floats, Floats]:
        """Return how likely a label is to be certified for the share that it has, by share.

        Up to the horizon, and beyond it.
        """
        ends = self._walk(self.fewest, self._shares)
        later = np.maximum(self.level - (ends * self._excess(0, self._shares)).sum(axis=1), 0.0)
        return ends.sum(axis=1), later if self._goes_on else np.zeros_like(later)

    def _excess(self, first: int, shares: Floats) -> Floats:
        """Return the e-values of some shares over the threshold, at the ends from `first` on."""
        losses = np.arange(self.fewest.shape[1])
        at = np.maximum(self.fewest[first:], losses)
        return np.asarray(np.exp(log_evalue_lower(at - losses, at, shares[:, None])) * self.level)

    def _of_rivals(self, later: float) -> Floats:
        """Return, for each share s, how likely labels with 1 - s between them are to be certified.

        Args:
            later: how likely a label with the least share is, beyond the horizon.
        """
        fewest, least = self.fewest[0], float(self._shares[0])
        last = int(np.flatnonzero(fewest <= self._horizon)[-1:].sum())
        lead = int(fewest[last]) - 2 * last
        reached = self._walk(self.fewest[:1], 1.0 - self._shares).sum(axis=1)
        return np.asarray(reached + later * ((1.0 - least) / least) ** lead)

    def by_rivals(self, place: int) -> float:
        """How likely labels are certified that have 1 - s between them, s being a share."""
        return float(self._by_rivals[place]) + _SLACK * self.level

    def most_wrong(self) -> float:
        """How likely anything is certified wrongly if the largest share is up to the last one."""
        low, high = self._shares[:-1], self._shares[1:]
        inside = self._walk(self.fewest[:-1], high).sum(axis=1)
        later = self.level - (self._walk(self.fewest[1:], low) * self._excess(1, low)).sum(axis=1)
        between = inside + np.maximum(later, 0.0) + self._by_rivals[:-1]
        return max(self.wrong(0, 0), float(np.max(between, initial=0.0)) + _SLACK * self.level)

    def wrong(self, place: int, before: int) -> float:
        """How likely anything is certified wrongly if the largest share is at most that at `place`.

        Args:
            place: of a share that is tested.
            before: of the one that is tested before it, than which it is larger; or its own, if
                there is none.
        """
        return float(self._by_itself[place] + self._by_rivals[before]) + _SLACK * self.level

    @property
    def ends_wrong(self) -> float:
        """The same for the first and the last share, whichever is more likely."""
        last = len(self._shares) - 1
        return max(self.wrong(0, 0), self.wrong(last, max(0, last - 1)))

    def that_hold(self, alpha: float) -> list[int]:
        """Return the places of the shares that may be tested together; none if the first may not.

        One at which a vote more or less makes the chance too large is passed over.
        """
        kept: list[int] = []
        for place in range(len(self._shares)):
            if self.wrong(place, kept[-1] if kept else 0) <= alpha:
                kept.append(place)
            elif not kept:
                break
        return kept

    def _boundaries(self, before: _Ends | None) -> NDArray[np.int64]:
        """Return by share and losses the fewest votes that certify; above the horizon, if none.

        Those before, of a larger level, are no more: a few votes above them are looked at first.
        """
        threshold, most = -math.log(self.level), self._horizon * (1.0 - self._shares)
        losses, none = np.arange(int(most[0]) + 1), self._horizon + 1
        high = np.full((len(most), len(losses)), none)
        # At an end k / n is above q.
        low = np.where(losses <= most[:, None], losses - 1, self._horizon)
        if before is not None:
            low = np.maximum(low, before.fewest - 1)
        share, lost = np.indices(high.shape)
        step = 1
        while (open_ := high - low > 1).any():
            below, above, against = low[open_], high[open_], lost[open_]
            votes = (below + above) // 2
            if before is not None:
                votes = np.where(above == none, np.minimum(below + step, self._horizon), votes)
                step *= 2
            votes = np.maximum(votes, against)
            e = log_evalue_lower(votes - against, votes, self._shares[share[open_]])
            high[open_] = np.where(e >= threshold, votes, above)
            low[open_] = np.where(e >= threshold, below, votes)
        return high

    def _walk(self, fewest: NDArray[np.int64], shares: Floats) -> Floats:
        """Return the chance of each end within the horizon, by share and losses.

        A run comes to its end by a vote for the label, and so with the fewest votes of that end.
        """
        wins, losing = shares[:, None], 1.0 - shares[:, None]
        alive = np.zeros((len(shares), fewest.shape[1]))
        alive[:, 0] = 1.0
        ended = np.zeros_like(alive)
        for n in range(1, self._horizon + 1):
            lost = alive[:, :-1] * losing
            alive *= wins
            alive[:, 1:] += lost
            if (ends := fewest == n).any():
                ends = np.broadcast_to(ends, alive.shape)
                ended[ends] = alive[ends]
                alive[ends] = 0.0
        return ended
