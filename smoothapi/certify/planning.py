"""What a run will need, worked out exactly and before anything is paid for.

A run is a walk on the lattice (votes, losses). For a label with a known share p of the votes the
chance of being at each point is carried forward vote by vote; walks end where the boundary
certifies them, where they are given up, and at the cap. No simulation, so no noise in the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincc

from smoothapi.certify.bounds import check_alpha
from smoothapi.certify.evalue import PRIOR, boundary
from smoothapi.certify.sequential import FIRST_WEIGHT, UNLIKELY, fewest_votes, needed_share
from smoothapi.errors import UnreachableRadiusError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class QueryCount:
    """How many queries a certificate takes, for a label with a known share of the votes.

    Attributes:
        at_least: of an unbroken run.
        mean: on average, over runs that certify and runs that do not.
        p90: nine of ten runs need no more.
        certified: chance that the run ends with a certificate.
    """

    at_least: int
    mean: float
    p90: int
    certified: float


def queries_needed(
    radius: float,
    sigma: float,
    alpha: float,
    p: float,
    *,
    max_votes: int = 10_000,
    delta: float = 0.0,
    unlikely: float = UNLIKELY,
) -> QueryCount:
    """Return how many queries certifying takes if the label has share `p` of the votes.

    Exact for a label that the first vote names, as it does with probability p; the plan leaves
    out runs in which another label is named first.

    Args:
        radius: L2 radius wanted, in the units of sigma.
        sigma: noise level, positive.
        alpha: chance of a wrong certificate, in (0, 1).
        p: the label's share of votes, in [0, 1].
        max_votes: most votes of a run.
        delta: what is taken off the share for arithmetic.
        unlikely: when a run is given up; see `SequentialCertify`.

    Raises:
        UnreachableRadiusError: no run within `max_votes` reaches the radius.
        UsageError: a value is out of range.
    """
    if not (0.0 <= p <= 1.0):
        raise UsageError(f"p={p}: a share of votes is in [0, 1].")
    least = fewest_votes(radius, sigma, alpha, delta)
    if least > max_votes:
        raise UnreachableRadiusError(
            f"radius {radius:g} at sigma {sigma:g} and alpha {alpha:g} needs at least {least:,} "
            f"votes, and {max_votes:,} are allowed."
        )
    ended, certified = _walk(needed_share(radius, sigma, delta), alpha, p, max_votes, unlikely)
    total = np.cumsum(ended)
    return QueryCount(
        at_least=least,
        mean=float(np.arange(len(ended)) @ ended),
        p90=int(np.searchsorted(total, 0.9 * total[-1])),
        certified=certified,
    )


def expected_queries(
    radius: float,
    sigma: float,
    alpha: float,
    p: float,
    *,
    max_votes: int = 10_000,
    delta: float = 0.0,
) -> float:
    """Return the mean of `queries_needed`."""
    return queries_needed(radius, sigma, alpha, p, max_votes=max_votes, delta=delta).mean


@lru_cache(maxsize=256)
def _walk(
    share: float, alpha: float, p: float, max_votes: int, unlikely: float
) -> tuple[NDArray[np.float64], float]:
    """Return P(run ends at vote n) for n = 0..max_votes, and P(it certifies)."""
    check_alpha(alpha)
    room = max_votes - 1  # the first vote names the label and is not counted
    enough = boundary(share, alpha * FIRST_WEIGHT).upto(room)
    losses = np.arange(len(enough))
    hopeful = _hopeful_from(losses, share, max_votes, unlikely) - 1
    alive = np.zeros(len(enough))
    alive[0] = 1.0
    ended = np.zeros(max_votes + 1)
    certified = 0.0
    for n in range(1, room + 1):
        too_many = alive[-1] * (1.0 - p)  # one loss more than any certificate can have
        alive[1:] = alive[1:] * p + alive[:-1] * (1.0 - p)
        alive[0] *= p
        done = enough <= n
        certified += float(alive[done].sum())
        over = done | (hopeful > n)
        ended[n + 1] = alive[over].sum() + too_many
        alive[over] = 0.0
        if n == room:
            ended[n + 1] += alive.sum()
    return ended, certified


def _hopeful_from(
    losses: NDArray[np.int64], share: float, max_votes: int, unlikely: float
) -> NDArray[np.int64]:
    """Return, for each number of losses, the fewest votes at which a run is not given up."""
    low, high = losses.copy(), np.full_like(losses, max_votes)
    while np.any(high > low):
        middle = (low + high) // 2
        chance = betaincc(middle - losses + PRIOR[0], losses + PRIOR[1], share)
        low = np.where(chance < unlikely, middle + 1, low)
        high = np.where(chance < unlikely, high, middle)
    return low
