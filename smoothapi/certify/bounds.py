"""From a share of votes to a radius, and from votes to bounds on the share.

Notation as in Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized
Smoothing" (ICML 2019): sigma is the noise level, p the probability that the labeller votes for the
label under noise, k of n the votes seen, alpha the chance of error.
"""

from __future__ import annotations

import math

from smoothapi._special import special
from smoothapi.errors import UsageError
from smoothapi.worked_out import worked_out

# More than the special functions used here are off, relative (they are good to about 1e-15).
_SLACK = 1e-14
# The inverse of the incomplete beta function is good to about 1e-13.
_INVERSE_SLACK = 1e-11


def required_p(radius: float, sigma: float) -> float:
    """Return the share of votes that a label must exceed to be certified at `radius`.

    Cohen et al., theorem 1 with the runner-up bounded by 1 - p: if p > Phi(radius / sigma), no
    change of L2 norm up to `radius` changes the smoothed label. Rounded up.

    Args:
        radius: L2 radius from 0 up, in the units of sigma.
        sigma: noise level, positive.

    Returns:
        A number in (1/2, 1]; 1 where float64 cannot tell the share from 1.

    Raises:
        UsageError: a value is out of range.
    """
    check_sigma(sigma)
    check_radius(radius)
    # The exponentially small 1 - p is what must not be rounded up to nothing.
    beyond = worked_out("ndtr", (-radius / sigma,), lambda: float(special.ndtr(-radius / sigma)))
    missing = beyond * (1.0 - _SLACK)
    return min(1.0, math.nextafter(1.0 - missing, 2.0))


def radius_from_p(p_low: float, sigma: float) -> float:
    """Return the radius that a lower bound of the share of votes certifies, rounded down.

    sigma * Phi^-1(p_low), Cohen et al., theorem 1 with the runner-up bounded by 1 - p_low.

    Args:
        p_low: lower bound of the share, in [0, 1].
        sigma: noise level, positive.

    Returns:
        The L2 radius in the units of sigma; 0.0 if p_low <= 1/2, where nothing is certified.

    Raises:
        UsageError: a value is out of range.
    """
    check_sigma(sigma)
    if not (0.0 <= p_low <= 1.0):
        raise UsageError(f"p_low={p_low}: a share of votes is in [0, 1].")
    if p_low <= 0.5:
        return 0.0
    # A bound of 1 would be a radius without end; no number of votes proves that.
    p_low = min(p_low, math.nextafter(1.0, 0.0))
    quantile = worked_out("ndtri", (p_low,), lambda: float(special.ndtri(p_low)))
    return max(0.0, sigma * quantile * (1.0 - _SLACK) - _SLACK * sigma)


def clopper_pearson_lower(k: int, n: int, alpha: float) -> float:
    """Return p_low such that P(p_low > p) <= alpha, for k of n votes and n fixed beforehand.

    Clopper and Pearson (Biometrika 1934): the p at which k or more of n has probability alpha.
    Exact for a fixed n only: looking at it while votes come in, and stopping when it looks good,
    voids it. Rounded down.

    Args:
        k: votes for the label, 0 <= k <= n.
        n: all votes, at least 1.
        alpha: chance of error, in (0, 1).

    Returns:
        A number in [0, 1); 0 at k = 0.

    Raises:
        UsageError: a value is out of range, or k is above n.
    """
    check_counts(k, n)
    check_alpha(alpha)
    if k == 0:
        return 0.0
    return max(0.0, float(special.betaincinv(k, n - k + 1.0, alpha)) * (1.0 - _INVERSE_SLACK))


def clopper_pearson_upper(k: int, n: int, alpha: float) -> float:
    """Return p_high such that P(p_high < p) <= alpha; the mirror of `clopper_pearson_lower`.

    Rounded up; 1 at k = n.
    """
    return min(1.0, math.nextafter(1.0 - clopper_pearson_lower(n - k, n, alpha), 2.0))


def check_alpha(alpha: float) -> None:
    """Raise UsageError unless alpha is in (0, 1)."""
    if not (0.0 < alpha < 1.0):
        raise UsageError(
            f"alpha={alpha}: the chance of a wrong certificate is between 0 and 1, both excluded; "
            "0.001 is usual."
        )


def check_sigma(sigma: float) -> None:
    """Raise UsageError unless sigma is a positive number."""
    if not (math.isfinite(sigma) and sigma > 0.0):
        raise UsageError(f"sigma={sigma}: the noise level is a positive number, such as 0.25.")


def check_radius(radius: float) -> None:
    """Raise UsageError unless radius is a number from 0 up."""
    if not (math.isfinite(radius) and radius >= 0.0):
        raise UsageError(f"radius={radius}: a radius is a number from 0 up, such as 0.25.")


def check_counts(k: int, n: int) -> None:
    """Raise UsageError unless 0 <= k <= n and n >= 1, in whole votes."""
    if not (k == int(k) and n == int(n) if math.isfinite(k) and math.isfinite(n) else False):
        raise UsageError(f"{k} of {n} votes: votes are whole numbers.")
    if n < 1:
        raise UsageError(f"{k} of {n} votes: nothing can be said without votes.")
    if not (0 <= k <= n):
        raise UsageError(
            f"{k} of {n} votes: a label has at least 0 votes and at most as many as there are. "
            "Count each vote once."
        )


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
