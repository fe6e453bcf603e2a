"""A second implementation of the statistics, which the first one is held against.

It shares no code and no formula with `smoothapi.certify`: where that has beta functions, continued
fractions, inverses and closed forms, this integrates, sums, searches and walks. All of it is
independent of `smoothapi`, so that a mistake would have to be made twice, and differently.

An angle t stands for each share, p = sin^2 t. That makes the prior Beta(1/2, 1/2) flat, and the
likelihood an entire function of t that is log-concave with a curvature of at least 2 n: so its bulk
is where a few lines say, and Gauss-Legendre quadrature over it is exact to rounding.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

import mpmath
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Walls = Sequence[NDArray[np.int64]]

ARCSINE = (0.5, 0.5)
UNIFORM = (1.0, 1.0)
NEVER = np.iinfo(np.int64).max

_NORMAL = NormalDist()
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_BULK = 45.0  # what lies further below the maximum, in logs, adds less than 1e-18


# The e-value.


def log_evalue(
    k: ArrayLike, n: ArrayLike, q: ArrayLike, prior: tuple[float, float] = ARCSINE
) -> Floats:
    """Return log E_n(q): the mean likelihood ratio against q over the prior cut to (q, 1].

    Exact to a few units in the last place of the likelihood's own logarithm: 1e-12 for n up to
    10,000, relative where |log E| is above 1. q in [1/2, 1), or smaller with the likelihood's bulk
    above it.
    """
    k, n, q = (np.asarray(x, dtype=np.float64)[..., None] for x in np.broadcast_arrays(k, n, q))
    losses = n - k
    # Angles are measured down from p = 1, where they are smallest and need most digits.
    end = np.arcsin(np.sqrt(1.0 - q))
    mode = np.minimum(np.arcsin(np.sqrt(losses / np.maximum(n, 1.0))), end)
    slope = np.where(mode < end, 0.0, 2.0 * k * np.tan(end) - 2.0 * losses / np.tan(end))
    width = 2.0 * _BULK / (np.abs(slope) + np.sqrt(slope**2 + 4.0 * _BULK * np.maximum(n, 1.0)))
    low, high = np.maximum(mode - width, 0.0), np.minimum(mode + width, end)
    v = low + (high - low) * 0.5 * (1.0 + _NODES)
    log_ratio = _log_ratio(v, end, k, losses, q)
    peak = np.max(log_ratio, axis=-1, keepdims=True)
    a, b = prior
    density = np.cos(v) ** (2.0 * a - 1.0) * np.sin(v) ** (2.0 * b - 1.0)
    above = (
        np.sum(_WEIGHTS * density * np.exp(log_ratio - peak), axis=-1) * 0.5 * (high - low)[..., 0]
    )
    v = end * 0.5 * (1.0 + _NODES)
    density = np.cos(v) ** (2.0 * a - 1.0) * np.sin(v) ** (2.0 * b - 1.0)
    whole = np.sum(_WEIGHTS * density, axis=-1) * 0.5 * end[..., 0]
    result: Floats = np.log(above / whole) + peak[..., 0]
    return result


def _log_ratio(v: Floats, end: Floats, k: Floats, losses: Floats, q: Floats) -> Floats:
    """Return k log(p / q) + (n - k) log((1 - p) / (1 - q)) at p = cos^2 v, without cancellation."""
    more = np.sin(end - v) * np.sin(end + v)  # p - q
    fewer = np.where(v < 0.5 * end, (np.sin(v) / np.sin(end)) ** 2, 1.0 - more / (1.0 - q))
    log_fewer = np.where(v < 0.5 * end, np.log(fewer), np.log1p(-more / (1.0 - q)))
    return k * np.log1p(more / q) + losses * log_fewer


def exact_log_evalue(k: int, n: int, q: float) -> mpmath.mpf:
    """Return log E_n(q) by adaptive quadrature with 30 digits: the referee of `log_evalue`."""
    with mpmath.workdps(30):
        share = mpmath.mpf(q)
        start, top = mpmath.asin(mpmath.sqrt(share)), mpmath.pi / 2

        def log_ratio(t: mpmath.mpf) -> mpmath.mpf:
            p = mpmath.sin(t) ** 2
            losses = (n - k) * mpmath.log((1 - p) / (1 - share)) if n > k else 0
            return k * mpmath.log(p / share) + losses

        mode = max(start, mpmath.asin(mpmath.sqrt(mpmath.mpf(k) / n))) if n else start
        peak = log_ratio(mode) if mode < top else -k * mpmath.log(share)
        spread = 1 / mpmath.sqrt(4 * n + 1)
        steps = [mode + s * spread for s in (-24, -12, -6, -3, -1.5, 0, 1.5, 3, 6, 12, 24)]
        inner = [start + spread * mpmath.mpf(2) ** -i for i in range(9)]
        points = sorted({start, top, *(t for t in (*steps, *inner) if start < t < top)})
        area = sum(
            mpmath.quad(lambda t: mpmath.exp(log_ratio(t) - peak), pair, method="gauss-legendre")
            for pair in pairwise(points)
        )
        return mpmath.log(area / (top - start)) + peak


def rational_evalue(k: int, n: int, q: Fraction) -> Fraction:
    """Return E_n(q) of the uniform prior, in whole numbers: the binomial sum for its integral."""
    u, d = q.numerator, q.denominator
    tail = sum(math.comb(n + 1, j) * u**j * (d - u) ** (n + 1 - j) for j in range(k + 1))
    area = Fraction(tail, (n + 1) * math.comb(n, k) * d ** (n + 1))
    return area / ((1 - q) * q**k * (1 - q) ** (n - k))


# What follows from it by search.


def boundary(
    q: float, level: float, most: int, prior: tuple[float, float] = ARCSINE
) -> NDArray[np.int64]:
    """Return, by losses 0, 1, ..., the fewest votes with which E_n(q) >= 1 / level, up to `most`.

    Searched for every number of losses by itself.
    """
    losses = np.arange(most)
    high = np.full_like(losses, most + 1)
    low = losses - 1  # too few: fewer votes than losses
    while np.any(high - low > 1):
        middle = np.where(high - low > 1, (low + high) // 2, np.maximum(low, losses))
        passes = log_evalue(middle - losses, middle, q, prior) >= -math.log(level)
        open_ = high - low > 1
        high = np.where(open_ & passes, middle, high)
        low = np.where(open_ & ~passes, middle, low)
        # Losses that no number of votes up to `most` makes good: neither do more of them.
        keep = low < most
        losses, low, high = losses[keep], low[keep], high[keep]
    return high[high <= most]


def share_passed(
    k: ArrayLike, n: ArrayLike, level: float, prior: tuple[float, float] = ARCSINE
) -> Floats:
    """Return the q in [1/2, k / n] at which E_n(q) is 1 / level, 0 where it is below at 1/2.

    By false position that halves the weight of an end that stays (Illinois).
    """
    k, n = (np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(k, n))

    def above(q: Floats) -> Floats:
        result: Floats = log_evalue(k, n, q, prior) + math.log(level)
        return result

    low = np.full(k.shape, 0.5)
    high = np.maximum(np.minimum(k / n, np.nextafter(1.0, 0.0)), low)
    at_low, at_high = above(low), above(high)
    never = at_low < 0.0
    for _ in range(60):
        with np.errstate(divide="ignore", invalid="ignore"):
            root = (low * at_high - high * at_low) / (at_high - at_low)
        inside = (root > low) & (root < high)
        root = np.where(inside, root, 0.5 * (low + high))
        found = above(root)
        passes = found >= 0.0
        at_low = np.where(passes, found, 0.5 * at_low)
        at_high = np.where(passes, 0.5 * at_high, found)
        low, high = np.where(passes, root, low), np.where(passes, high, root)
        if np.all(never | (high - low < 1e-15)):
            break
    return np.where(never, 0.0, low)


def fewest_unbroken(q: float, level: float) -> int:
    """Return the fewest votes, all for one label, with which E_n(q) >= 1 / level."""
    n = np.arange(1, 65)
    while not np.any(passes := log_evalue(n, n, q) >= -math.log(level)):
        n = np.arange(n[-1] + 1, 2 * n[-1] + 1)
    return int(n[np.argmax(passes)])


def label_level(q: float, alpha: float) -> float:
    """Return the level of every label's test by the union over two labels."""
    alpha = min(alpha, math.exp(-1.0))
    return alpha / (1.0 + ((1.0 - q) / q) ** fewest_unbroken(q, alpha))


# The paper's own numbers.


def normal_share(radius: float, sigma: float) -> mpmath.mpf:
    """Return Phi(radius / sigma) to 40 digits."""
    with mpmath.workdps(40):
        return mpmath.ncdf(mpmath.mpf(radius) / mpmath.mpf(sigma))


def normal_radius(share: mpmath.mpf | float, sigma: float) -> mpmath.mpf:
    """Return sigma * Phi^-1(share) to 40 digits, as the root of the error function's inverse."""
    with mpmath.workdps(40):
        return mpmath.mpf(sigma) * mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(share) - 1)


def topk_margin(
    radius: float, sigma: float, p_low: float, uppers: Sequence[float], here: float, there: float
) -> mpmath.mpf:
    """Return by how much Jia et al.'s inequality holds, to 40 digits.

    `here` and `there` are what computed noise may have moved any share by, at both photos.
    """
    with mpmath.workdps(40):

        def shifted(share: mpmath.mpf, by: mpmath.mpf) -> mpmath.mpf:
            return mpmath.ncdf(normal_radius(share, 1.0) + by) if 0 < share < 1 else share

        ratio = mpmath.mpf(radius) / sigma
        ordered = sorted(map(mpmath.mpf, uppers), reverse=True)
        k = len(ordered)
        room = 1 - mpmath.mpf(p_low) + here
        rival = min(
            (shifted(min(sum(ordered[t - 1 :]) + here, room), ratio) + there) / (k - t + 1)
            for t in range(1, k + 1)
        )
        return shifted(mpmath.mpf(p_low) - here, -ratio) - there - rival


@cache
def binomial_tail(k: int, n: int, p: Fraction) -> Fraction:
    """Return P(k or more of n), term by term and exactly."""
    u, d = p.numerator, p.denominator
    terms = sum(math.comb(n, j) * u**j * (d - u) ** (n - j) for j in range(k, n + 1))
    return Fraction(terms, d**n)


def noise_moves(sigma: float, step: float, error: float, grid: float) -> float:
    """Return the chance that one noise value is rounded to another multiple, boundary by boundary.

    `step` between neighbours of the uniform number, `error` relative of Phi^-1. At the boundary
    z sigma it is the chance of a uniform number within step + error z phi(z) of Phi(z); beyond the
    last two steps at either end nothing is known.
    """
    end = -_NORMAL.inv_cdf(2.0 * step)
    z = (np.arange(math.floor(end * sigma / grid + 0.5)) + 0.5) * grid / sigma  # as many below 0
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return float(2.0 * np.sum(2.0 * (step + error * z * density)) + 4.0 * step)


def noise_moves_cell_by_cell(sigma: float, bits: int, error: float, grid: float) -> float:
    """Return the same chance with so few bits that every uniform number can be visited.

    The computed value may be that of any number in its cell, and err by up to `error`. A cell is
    safe where all of these are rounded to the same multiple, and so is every real value in it.
    """
    edges = [-math.inf, *map(_NORMAL.inv_cdf, np.arange(1, 2**bits) * 2.0**-bits), math.inf]
    z = np.array(edges) * sigma / grid
    spread = error * np.abs(np.nan_to_num(z))
    return float(np.mean(np.rint(z[:-1] - spread[:-1]) != np.rint(z[1:] + spread[1:])))


# Chances, by exact walks over all the votes there can be.


def first_wall(walls: Walls, most: int) -> NDArray[np.int64]:
    """Return, by losses 0 to `most`, the fewest votes at which any of the boundaries is reached."""
    result = np.full(most + 1, NEVER)
    for wall in walls:
        size = min(len(wall), most + 1)
        result[:size] = np.minimum(result[:size], wall[:size])
    return result


def chance_of_two(p: float, own: NDArray[np.int64], rival: NDArray[np.int64], most: int) -> float:
    """Return the chance that a label with share p or its only rival reaches its wall by `most`.

    The walls are by losses 0 to `most`, as `first_wall` gives them.
    """
    wins = np.arange(most + 1)
    alive = np.zeros(most + 1)
    alive[0] = 1.0
    total = 0.0
    for n in range(1, most + 1):
        alive[1 : n + 1] = alive[1 : n + 1] * (1.0 - p) + alive[:n] * p
        alive[0] *= 1.0 - p
        hit = (own[n - wins[: n + 1]] <= n) | (rival[wins[: n + 1]] <= n)
        total += float(alive[: n + 1] @ hit)
        alive[: n + 1][hit] = 0.0
    return total


def chance_of_three(shares: Sequence[float], walls: Walls, most: int) -> float:
    """Return the chance that any of three labels reaches its wall by `most` votes."""
    a, b = np.ogrid[: most + 1, : most + 1]
    alive = np.zeros((most + 1, most + 1))
    alive[0, 0] = 1.0
    total = 0.0
    for n in range(1, most + 1):
        new = alive * shares[2]
        new[1:] += alive[:-1] * shares[0]
        new[:, 1:] += alive[:, :-1] * shares[1]
        losses = (n - a, n - b, np.minimum(a + b, n))
        hit = np.zeros_like(alive, dtype=bool)
        for wall, lost in zip(walls, losses, strict=True):
            hit |= wall[np.clip(lost, 0, most)] <= n
        total += float(np.sum(new[hit]))
        new[hit] = 0.0
        alive = new
    return total


def chance_to_tell_two_alike_apart(first: float, second: float, most: int) -> float:
    """Return the chance of a prediction between two labels with share 1/2 each.

    The first vote names one label, tested at level `first` on what follows; the other is named when
    it overtakes, and tested at level `second` on what follows that.
    """
    walls = [first_wall([boundary(0.5, level, most)], 2 * most) for level in (first, second)]
    wins = np.arange(most + 1)
    # By rows: the other label has not been named yet, or was when the first had so many wins.
    alive = np.zeros((most + 2, most + 1))
    alive[0, 0] = 1.0
    total = 0.0
    since = np.arange(-1, most + 1)[:, None]
    for n in range(1, most):
        alive[:, 1:] = 0.5 * (alive[:, 1:] + alive[:, :-1])
        alive[:, 0] *= 0.5
        losses = n - wins
        hit = np.broadcast_to((losses >= 0) & (walls[0][np.maximum(losses, 0)] <= n), alive.shape)
        counted = n - (2 * since + 2)
        other = (since >= 0) & (wins >= since) & (counted > 0)
        hit = hit | (other & (walls[1][np.clip(wins - since, 0, 2 * most)] <= counted))
        total += float(np.sum(alive[hit]))
        alive[hit] = 0.0
        if n % 2 == 0:  # overtaken: two more losses than wins, the first vote being counted too
            named = (n - 2) // 2
            alive[named + 1, named] += alive[0, named]
            alive[0, named] = 0.0
    return total
