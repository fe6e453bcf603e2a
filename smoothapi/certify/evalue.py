"""The e-value behind every sequential test here, and the votes at which it is large enough.

For a label with k of n votes and a share q to be exceeded, with a, b the parameters of a beta
distribution,

    E_n(q) = integral over p in (q, 1] of (p / q)^k ((1 - p) / (1 - q))^(n - k) w(p) dp,

w being Beta(a, b) cut to (q, 1] and scaled to 1: a mixture of likelihood ratios (Robbins, Annals
of Mathematical Statistics 1970). Whenever the label's true share is at most q, E_n(q) is a
nonnegative supermartingale that starts at 1, so by Ville's inequality

    P(E_n(q) >= 1 / alpha for some n) <= alpha:

it may be looked at after every vote. Given the number of votes *against* the label, E grows with
every vote for it, so for each number of losses there is a first n at which it reaches 1 / alpha.
Those numbers are the whole test; `Boundary` holds them.

Why E_n falls as q grows, for 1/2 <= q <= k / n
    Write E for E_n(q), l(q) = k log q + (n - k) log(1 - q) for the log likelihood, and
    h(q) = w(q) / (integral of w over (q, 1]) for the hazard rate of w. E is the mean of
    exp(l(P) - l(q)) for P drawn from w given P > q, and differentiating the quotient gives

        dE/dq = h (E - 1) - E l'.

    1. If l' >= h, this is at most h (E - 1) - E h = -h < 0.
    2. If l' < h: l is concave, so l(P) - l(q) <= l' T with T = P - q, the residual life, and
       E <= mean of exp(l' T). If the hazard rate of w increases from q on, T is stochastically
       smaller than an exponential variable with rate h; as l' >= 0 for q <= k / n, that mean is at
       most h / (h - l'). So E (h - l') <= h, which says dE/dq <= 0.

    The hazard rate increases wherever w does, its denominator falling: for Beta(1/2, 1/2) on
    [1/2, 1). For the uniform w it is 1 / (1 - q), so there E falls for all q <= k / n. Hence a
    label that passes q passes every smaller share at the same vote, down to 1/2, and the q at which
    E_n(q) reaches 1 / alpha are an interval that a bisection finds (`p_lower`).
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from smoothapi._special import special
from smoothapi.certify.bounds import check_alpha, check_counts
from smoothapi.errors import UsageError
from smoothapi.worked_out import worked_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]

PRIOR = (0.5, 0.5)
"""(a, b) of the mixture. It decides about cost, never about validity."""

_TINY = 1e-280
_TERMS = 400


def log_evalue(
    k: ArrayLike, n: ArrayLike, q: ArrayLike, prior: tuple[float, float] = PRIOR
) -> Floats:
    """Return log E_n(q), element by element.

    Args:
        k: votes for the label, 0 <= k <= n.
        n: all votes, 0 or more (tried up to 10^7).
        q: the share to be exceeded, in (0, 1).
        prior: (a, b) of the beta mixture, positive.

    Returns:
        float64 of the broadcast shape. Against 50 digits the error is below 2e-14 * (n + 100).

    Nothing is checked: this is the inner loop. `p_lower` and the tests check what they are given.
    """
    k, n, q = (np.asarray(value, dtype=np.float64) for value in (k, n, q))
    a, b = prior
    wins, losses = k + a, n - k + b
    log_q, log_rest = np.log(q), special.log1p(-q)
    scale = special.betaln(a, b) + np.log(special.betaincc(a, b, q))
    tail = special.betaincc(wins, losses, q)
    with np.errstate(divide="ignore"):
        plain = special.betaln(wins, losses) + np.log(tail) - k * log_q - (n - k) * log_rest
    if np.any(tail < _TINY):
        # The tail underflows where k / n is far below q. The fraction's leading factor
        # q^wins (1 - q)^losses cancels against the likelihood, so nothing large is left.
        cut = a * log_q + b * log_rest - np.log(losses) + np.log(_fraction(wins, losses, q, tail))
        plain = np.where(tail < _TINY, cut, plain)
    result: Floats = plain - scale
    return result


def _fraction(wins: Floats, losses: Floats, q: Floats, tail: Floats) -> Floats:
    """Return the continued fraction in 1 - I_q = q^wins (1 - q)^losses / (losses B) * fraction.

    DLMF 8.17.22 with the roles of the two sides exchanged, by the modified Lentz algorithm. Used
    far out in the tail, where it converges in a few dozen terms.
    """
    wins, losses, q = np.broadcast_arrays(wins, losses, q)
    # Where it is not used it need not converge: any point far in the tail will do.
    used = np.broadcast_to(tail < _TINY, wins.shape)
    x = np.where(used, 1.0 - q, 0.0)
    a, b = losses, wins
    c = np.ones_like(x)
    d = 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    value = d.copy()
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d)
            c = 1.0 + term / c
            value = value * (d * c)
        if np.all(np.abs(value - before) <= 1e-15 * np.abs(value)):
            break
    return value


def log_evalue_lower(
    k: ArrayLike, n: ArrayLike, q: ArrayLike, prior: tuple[float, float] = PRIOR
) -> Floats:
    """Return `log_evalue` less more than it may have been computed too large: what tests compare.

    Arguments as for `log_evalue`.
    """
    error = 1e-13 * (np.asarray(n, dtype=np.float64) + 100.0)
    result: Floats = log_evalue(k, n, q, prior) - error
    return result


def p_lower(k: int, n: int, alpha: float) -> float:
    """Return p_low(n) = inf { q >= 1/2 : E_n(q) < 1 / alpha }, rounded down.

    A confidence sequence: P(p_low(n) > p for some n) <= alpha, p being the label's true share, so
    votes may be added until the bound is good enough and its running maximum may be kept.

    On [1/2, k / n] E_n falls as q grows (the top of this module), which makes a bisection exact.

    Args:
        k: votes for the label, 0 <= k <= n.
        n: all votes, at least 1.
        alpha: chance of error, in (0, 1).

    Returns:
        A number in [1/2, 1), or 0.0 where not even 1/2 is exceeded.

    Raises:
        UsageError: a value is out of range, or k is above n.
    """
    check_counts(k, n)
    check_alpha(alpha)
    return _p_lower(int(k), int(n), float(alpha))


@lru_cache(maxsize=10_000)  # photos of a study meet the same counts again and again
def _p_lower(k: int, n: int, alpha: float) -> float:
    return largest_p_lower([(k, n)], alpha)


def largest_p_lower(counts: Sequence[tuple[int, int]], alpha: float) -> float:
    """Return the largest `p_lower` of some (k, n), in little more time than one of them takes.

    Arguments, return value and errors as for `p_lower`; 0.0 of none.
    """
    check_alpha(alpha)
    for wins, votes in counts:
        check_counts(wins, votes)
    given = (alpha, *(number for pair in counts for number in pair))
    return worked_out("p_lower", given, lambda: _largest_p_lower(counts, alpha))


def _largest_p_lower(counts: Sequence[tuple[int, int]], alpha: float) -> float:
    k, n = np.array(counts, dtype=np.float64).reshape(-1, 2).T
    threshold = -math.log(alpha)

    def reached(q: float) -> NDArray[np.bool_]:
        return np.asarray((k > q * n) & (log_evalue_lower(k, n, q) >= threshold))

    low, passed = 0.5, reached(0.5)
    if not passed.any():
        return 0.0
    high = math.nextafter(1.0, 0.0)
    while True:
        k, n = k[passed], n[passed]  # the others' bounds are smaller
        high = min(high, float(np.max(k / n)))
        passed = np.zeros_like(k, dtype=bool)
        while not passed.any():
            if high - low <= 1e-12:
                return low
            middle = 0.5 * (low + high)
            passed = reached(middle)
            low, high = (middle, high) if passed.any() else (low, middle)


def _reaches(k: int, n: int, q: float, threshold: float) -> bool:
    return float(log_evalue_lower(k, n, q)) >= threshold


class Boundary:
    """How many votes suffice for `E_n(q) >= 1 / alpha`, by the number of losses among them.

    boundary[losses] is the fewest n such that n votes, `losses` of them against the label, reach
    the threshold. Strictly increasing. The label is certified as soon as n >= boundary[losses],
    and boundary[losses] - n is how many votes for it, without another loss, it still needs.

    Args:
        q: the share to be exceeded, in (0, 1).
        alpha: level of this test, in (0, 1).

    Raises:
        UsageError: a value is out of range.

    Values are worked out when asked for and kept; threads may share one.
    """

    def __init__(self, q: float, alpha: float) -> None:
        check_alpha(alpha)
        if not (0.0 < q < 1.0):
            raise UsageError(f"q={q}: the share to be exceeded is between 0 and 1.")
        self.q = q
        self.alpha = alpha
        self._threshold = -math.log(alpha)
        self._fewest: list[int] = []
        self._most: dict[int, int] = {}
        self._lock = threading.Lock()

    def __getitem__(self, losses: int) -> int:
        if losses >= len(self._fewest):
            with self._lock:
                while losses >= len(self._fewest):
                    given = (self.q, self.alpha, len(self._fewest))
                    self._fewest.append(worked_out("boundary", given, self._next))
        return self._fewest[losses]

    def most_losses(self, votes: int) -> int:
        """Return how many of `votes` votes may be losses; -1 if even without losses they fail."""
        if votes not in self._most:
            low, high = -1, votes
            while high - low > 1:
                middle = (low + high) // 2
                if self._enough(middle, votes):
                    low = middle
                else:
                    high = middle
            self._most[votes] = low
        return self._most[votes]

    def upto(self, votes: int) -> NDArray[np.int64]:
        """Return boundary[0], boundary[1], ... as long as they are at most `votes`."""
        losses = np.arange(self.most_losses(votes) + 1)
        low, high = losses - 1, np.full_like(losses, votes)
        while np.any(high - low > 1):
            middle = np.maximum((low + high) // 2, losses)
            enough = log_evalue_lower(middle - losses, middle, self.q) >= self._threshold
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return high

    def _next(self) -> int:
        """Return the value after those known: double the step, then bisect."""
        losses = len(self._fewest)
        low = self._fewest[-1] if self._fewest else 0  # too few: one more loss never helps
        step = low - self._fewest[-2] if losses > 1 else 4
        high = low + step
        while not self._enough(losses, high):
            low, high = high, high + step
            step *= 2
        while high - low > 1:
            middle = (low + high) // 2
            if self._enough(losses, middle):
                high = middle
            else:
                low = middle
        return high

    def _enough(self, losses: int, n: int) -> bool:
        return n >= losses and _reaches(n - losses, n, self.q, self._threshold)


@lru_cache(maxsize=512)
def boundary(q: float, alpha: float) -> Boundary:
    """Return the shared `Boundary` for (q, alpha)."""
    return Boundary(q, alpha)
