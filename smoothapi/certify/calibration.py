"""How large an e-value has to be, so that alpha is used in full: exact sums over all ends of a run.

The e-value of a run that certifies exceeds the threshold, since votes come one at a time. Under a
share q it has mean 1 (optional stopping), so with threshold c the chance to certify is 1 over the
mean e-value at the end, less than 1 / c: from 0.83 of it at a radius of sigma / 8 to 0.98 at 1.5
sigma. What is left is given back by a smaller threshold. Nor do rivals cost what the level of
`smoothapi.certify.sequential` assumes, as few runs end with the fewest votes of all.

What is summed
    Let R(s) be the ends (votes, losses) that certify a share s. Let P_t(R) be the chance that the
    votes of a label with share t reach R. It is summed exactly up to a horizon of N votes, on the
    lattice of votes and losses. Beyond it, for t = s, what has not been certified has mean e-value
    1 - (sum of P * E over the ends up to N), so it reaches c with at most that, over c (Ville). For
    a rival's share t <= 1 - s the chance of each end is at most ((1 - s) / s)^(w - l) of that under
    s, and the lead w - l of later ends is no smaller than that of the last one before. So the sums
    are upper bounds whatever N is, and hold at all votes: the horizon decides about cost only.

All radii at once, again
    Let q be the share that the radius wanted needs, and q_0 < q_1 < ... < q_M = q the shares of the
    radii from sigma / 8 up to it, 1/32 sigma apart. Only these are tested up to q, at one threshold
    c; above q every share is, at a threshold d >= c. As E falls in q (`smoothapi.certify.evalue`),
    R(s) shrinks as s grows. Let s be the largest share of all labels; the others' sum to at most
    1 - s. Losses turned into votes never take a run out of R, so P_t(R) grows with t, and (sequential,
    1) it is convex in t up to the share that R tests: the others together reach R(q_0) with at most
    P_{1 - s}(R(q_0)).

    1. q_{j-1} < s <= q_j: the top label is wronged only in R(q_j), the others only in R(q_0). In
       all at most P_{q_j}(R(q_j)) + P_{1 - q_{j-1}}(R(q_0)).
    2. s <= q_0: the sum over the labels is convex in their shares, and largest at a corner: at most
       P_{q_0}(R(q_0)) + P_{1 - q_0}(R(q_0)).
    3. s > q: the top label is wronged only where E(s) >= d: at most 1 / d + P_{1 - q}(R(q_0)).

    c is a small threshold at which all of 1 and 2 are at most alpha, and 1 / d is what 3 leaves. Where
    a vote more or less makes one of them too large, that share is not tested: the next one covers it.
    c is at least e, as 1 in `sequential` assumes.

A last cap
    A run that will never go on beyond its cap can only certify up to there. Then N is the cap, and
    what lies beyond it is left out of the sums: a smaller c. It gives up what other runs have, that
    more votes may be asked for later: a run with a larger cap has a threshold of its own, and alpha
    holds for one of the two, not for both.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from smoothapi.certify.evalue import largest_p_lower, log_evalue_lower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

_HORIZON = 256
_LONGEST = 2048  # up to which a last cap is summed; of a longer one what lies beyond is bounded
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
def calibrated(
    shares: tuple[float, ...], alpha: float, level: float, delta: float, last_cap: int | None
) -> Levels:
    """Return levels at which a run certifies anything wrongly with at most the chance alpha.

    Args:
        shares: those to be tested, ascending, in [1/2, 1).
        alpha: at most 1/e.
        level: one that is known to do for all shares from the first one up; it is improved on.
        delta: to be noted.
        last_cap: most votes that will ever be asked for, None if that is not certain.
    """
    tried = _searched((shares[0], *shares[-2:]), alpha, level, last_cap)
    for _ in range(_ROUNDS):
        ends = _Ends(shares, tried, last_cap)
        kept = ends.that_hold(alpha)
        if kept and kept[-1] == len(shares) - 1:
            beyond = min(tried, alpha - ends.wrong(kept[-1], kept[-1]) + ends.by_itself(kept[-1]))
            tested = tuple(shares[place] for place in kept)
            return Levels(tested, tried, beyond, every=False, delta=delta)
        tried = max(level, 0.97 * tried)
    return Levels((shares[0], shares[-1]), level, level, every=True, delta=delta)


def _searched(
    shares: tuple[float, ...], alpha: float, level: float, last_cap: int | None
) -> float:
    """Return a large level at which the first and the last of some shares hold."""
    good, too_large, most = level, math.inf, math.exp(-1.0)
    wrong = _Ends(shares, level, last_cap).ends_wrong
    for _ in range(_ROUNDS):
        tried = min(good * alpha / wrong, most)
        if tried >= too_large:
            tried = math.sqrt(good * too_large)
        if tried <= good * (1.0 + _STEP):
            break
        found = _Ends(shares, tried, last_cap).ends_wrong
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
        last_cap: see `calibrated`.
    """

    def __init__(self, shares: tuple[float, ...], level: float, last_cap: int | None) -> None:
        self.level = level
        self._shares = np.array(shares)
        self._horizon = _HORIZON if last_cap is None else min(last_cap, _LONGEST)
        self._goes_on = last_cap is None or last_cap > self._horizon
        self._fewest = self._boundaries()
        reached, later = self._of_itself()
        self._by_itself = reached + later
        self._by_rivals = self._of_rivals(float(later[0]))

    def _of_itself(self) -> tuple[Floats, Floats]:
        """Return how likely a label is to be certified for the share that it has, by share.

        Up to the horizon, and beyond it.
        """
        losses = np.arange(self._fewest.shape[1])
        at = np.maximum(self._fewest, losses)
        excess = np.exp(log_evalue_lower(at - losses, at, self._shares[:, None])) * self.level
        ends = self._walk(self._fewest, self._shares)
        later = np.maximum(self.level - (ends * excess).sum(axis=1), 0.0)
        return ends.sum(axis=1), later if self._goes_on else np.zeros_like(later)

    def _of_rivals(self, later: float) -> Floats:
        """Return, for each share s, how likely labels with 1 - s between them are to be certified.

        Args:
            later: how likely a label with the least share is, beyond the horizon.
        """
        fewest, least = self._fewest[0], float(self._shares[0])
        last = int(np.flatnonzero(fewest <= self._horizon)[-1:].sum())
        lead = int(fewest[last]) - 2 * last
        reached = self._walk(self._fewest[:1], 1.0 - self._shares).sum(axis=1)
        return np.asarray(reached + later * ((1.0 - least) / least) ** lead)

    def by_itself(self, place: int) -> float:
        """How likely a label that has a share is to be certified for it."""
        return float(self._by_itself[place])

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

    def _boundaries(self) -> NDArray[np.int64]:
        """Return by share and losses the fewest votes that certify; above the horizon, if none."""
        threshold, most = -math.log(self.level), self._horizon * (1.0 - self._shares)
        losses = np.arange(int(most[0]) + 1)
        high = np.full((len(most), len(losses)), self._horizon + 1)
        # At an end k / n is above q.
        low = np.where(losses <= most[:, None], losses - 1, self._horizon)
        share, lost = np.indices(high.shape)
        while (open_ := high - low > 1).any():
            votes, against = np.maximum((low + high) // 2, losses)[open_], lost[open_]
            e = log_evalue_lower(votes - against, votes, self._shares[share[open_]])
            high[open_] = np.where(e >= threshold, votes, high[open_])
            low[open_] = np.where(e >= threshold, low[open_], votes)
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
