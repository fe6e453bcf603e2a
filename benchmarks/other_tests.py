"""What other sequential tests would save: `python benchmarks/other_tests.py` prints a table.

Each is a mixture of likelihood ratios, as ours is, of another distribution over the shares above q.
It is used at the level of ours, which does for all radii at once, and then with a threshold of its
own at each radius, so low that the chance of a wrong certificate *at any vote* is alpha: summed up
to a horizon and bounded beyond by Ville's inequality. Boundaries that do not fall as the radius
grows make such thresholds hold for all radii at once, too; the rivals' part of alpha is left out,
which favours them. The last row knows the shares and the radius it is measured at, and may certify
within a last cap only: no test can do better there.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from queries import ALPHA, SIGMA, published_shares
from scipy.special import log_ndtr, logsumexp, ndtr

from smoothapi.certify import joint_level

Floats: TypeAlias = NDArray[np.float64]
Prior: TypeAlias = Callable[[float], tuple[Floats, Floats]]
"""Radius in sigmas -> margins in sigmas, p = Phi(radius + margin), and the weights of them."""

SHARES = (0.8, 0.9, 0.95, 0.99, 0.999)
HORIZONS = {0.25: 1_500, 0.5: 3_000, 1.0: 12_000, 1.5: 24_000, 2.0: 12_000}
LAST_CAPS = {0.25: 700, 0.5: 1_600, 1.0: 5_000, 1.5: 7_000, 2.0: 8_000}

# In parts of the way from the radius to 3.4 sigma. Weights by a random search for the fewest votes
# over 45 other pairs of radius and share than those below, none above 1.265 times its floor.
PARTS = np.geomspace(0.012, 0.95, 18)
FITTED = np.array([
    0.0005, 0.0013, 0.0027, 0.0042, 0.0046, 0.0212, 0.0589, 0.0343, 0.0286, 0.0369, 0.0242, 0.0921,
    0.0738, 0.0679, 0.1631, 0.1394, 0.0905, 0.1559,
])  # fmt: skip


def on_a_line(to: float, power: float = 2.0, points: int = 80) -> tuple[Floats, Floats]:
    """Return points and weights to integrate from 0 to some end, closest at 0."""
    x, w = np.polynomial.legendre.leggauss(points)
    u = (x + 1.0) / 2.0
    return to * u**power, w * u ** (power - 1.0)


def beta_half(radius: float) -> tuple[Floats, Floats]:
    """Ours: Beta(1/2, 1/2), cut at q."""
    z, w = on_a_line(7.0 - radius, 3.0, 120)
    at = radius + z
    return z, w * np.exp(-(at**2) / 2.0 - 0.5 * (log_ndtr(at) + log_ndtr(-at)))


def exponential(radius: float) -> tuple[Floats, Floats]:
    """The same distribution of the margin at each radius: boundaries never fall, as log Phi is concave."""
    del radius
    z, w = on_a_line(3.2)
    return z, w * np.exp(-z)


def half_normal(radius: float) -> tuple[Floats, Floats]:
    """The margin has the absolute value of a normal distribution with standard deviation 1.5."""
    del radius
    z, w = on_a_line(3.2)
    return z, w * np.exp(-(z**2) / 4.5)


def fitted(radius: float) -> tuple[Floats, Floats]:
    """The margin is a part of what is left up to 3.4 sigma."""
    return PARTS * (3.4 - radius), FITTED


class Test:
    """The test of one share with one mixture."""

    def __init__(self, radius: float, prior: Prior, horizon: int) -> None:
        z, w = prior(radius)
        self.q, self.horizon = float(ndtr(radius)), horizon
        self._win = log_ndtr(radius + z) - log_ndtr(radius)
        self._loss = log_ndtr(-radius - z) - log_ndtr(-radius)
        self._weight = np.log(w / w.sum())
        self._losses = np.arange(int((1.0 - self.q) * horizon) + 6)

    def log_e(self, n: NDArray[np.int64]) -> Floats:
        """Return log e-values of n votes, by losses."""
        parts = np.outer(n - self._losses, self._win) + np.outer(self._losses, self._loss)
        return np.asarray(logsumexp(self._weight + parts, axis=1))

    def boundary(self, threshold: float) -> NDArray[np.int64]:
        """Return by losses the fewest votes that certify; above the horizon, if none."""
        low, high = self._losses - 1, np.full_like(self._losses, self.horizon + 1)
        while np.any(high - low > 1):
            middle = np.maximum((low + high) // 2, self._losses)
            enough = self.log_e(middle) >= threshold
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return high

    def exact(self) -> tuple[float, float]:
        """Return the threshold at which alpha is used, and the part of it beyond the horizon."""
        threshold, later = -math.log(ALPHA), 0.0
        for _ in range(4):
            fewest = self.boundary(threshold)
            ends, _ = walk(fewest, np.array([self.q]), self.horizon)
            reached = np.where(ends[0] > 0.0, self.log_e(fewest), 0.0)
            later = max(0.0, 1.0 - float(ends[0] @ np.exp(reached))) * math.exp(-threshold)
            threshold += math.log((float(ends.sum()) + later) / ALPHA)
        return threshold, later / ALPHA


def walk(fewest: NDArray[np.int64], p: Floats, horizon: int) -> tuple[Floats, Floats]:
    """Return (chance of each end, mean votes) by share."""
    alive = np.zeros((len(p), len(fewest)))
    alive[:, 0] = 1.0
    ended, votes, wins, first = np.zeros_like(alive), np.zeros(len(p)), p[:, None], 0
    for n in range(1, horizon + 1):
        left = alive[:, first : n + 1].sum(axis=1)
        if left.max() < 1e-10:
            break
        votes += left
        now = alive[:, first : n + 1]
        lost = now[:, :-1] * (1.0 - wins)
        now *= wins
        now[:, 1:] += lost
        while first < len(fewest) and fewest[first] <= n:
            ended[:, first] += alive[:, first]
            alive[:, first] = 0.0
            first += 1
    return ended, votes


def floor_of(p: float, q: float) -> float:
    """Return log(1 / alpha) / KL(p, q)."""
    divergence = p * math.log(p / q) + (1.0 - p) * math.log((1.0 - p) / (1.0 - q))
    return math.log(1.0 / ALPHA) / divergence


def cells(radius: float) -> list[float]:
    """Return the shares that a radius is measured at: those with a floor below 4,000 votes."""
    q = float(ndtr(radius))
    return [p for p in SHARES if p > q and floor_of(p, q) < 4_000]


def by_cells(prior: Prior, *, exact: bool) -> tuple[list[float], float]:
    """Return votes over floor, and the largest part of alpha that lies beyond a horizon."""
    found, beyond = [], 0.0
    for radius, horizon in HORIZONS.items():
        test = Test(radius, prior, horizon)
        threshold, later = -math.log(joint_level(radius, 1.0, ALPHA, 0.0)), 0.0
        if exact:
            threshold, later = test.exact()
        p = np.array(cells(radius))
        _, votes = walk(test.boundary(threshold), p, horizon)
        found += [float(n) / floor_of(float(s), test.q) for s, n in zip(p, votes, strict=True)]
        beyond = max(beyond, later)
    return found, beyond


def by_photos(prior: Prior, radius: float, *, exact: bool, cap: int = 1_000) -> float:
    """Return mean votes of the published photos above q, at most `cap` each."""
    ratio = radius / SIGMA
    test = Test(ratio, prior, HORIZONS[ratio])
    level = test.exact()[0] if exact else -math.log(joint_level(radius, SIGMA, ALPHA, 0.0))
    shares, counts = np.unique(published_shares(), return_counts=True)
    above = shares > test.q
    _, votes = walk(test.boundary(level), shares[above], cap)
    return float(votes @ counts[above] / counts[above].sum())


def best_that_knows(radius: float) -> list[float]:
    """Return votes over floor of the test with the fewest on average over the cells of a radius.

    By a dynamic program under q, where the chances of the other shares are likelihood ratios: stop
    where a wrong certificate, at a price, costs less than the votes still to come. The price is
    raised until the chance of a wrong one is alpha.
    """
    q, cap, p = float(ndtr(radius)), LAST_CAPS[radius], np.array(cells(radius))
    lost = np.arange(int((1.0 - q) * cap + 6.0 * math.sqrt(cap * q * (1.0 - q))) + 6)
    floors = np.array([floor_of(float(share), q) for share in p])
    wins, losses = np.log(p / q)[:, None], np.log((1.0 - p) / (1.0 - q))[:, None]

    def cost(n: int) -> Floats:
        ratio = np.exp(np.minimum((n - lost) * wins + lost * losses, 600.0))
        return np.where(lost <= n, (ratio / floors[:, None]).sum(axis=0) / len(p), 0.0)

    def stops(price: float) -> NDArray[np.int64]:
        value = np.minimum(price, 3.0 * floors.max() * cost(cap))
        fewest = np.full(len(lost), cap + 1)
        for n in range(cap - 1, 0, -1):
            here = cost(n)
            later = here + np.append(q * value[:-1] + (1.0 - q) * value[1:], value[-1])
            stop = (later >= price) & (lost <= n)
            fewest[stop] = n
            value = np.minimum(later, price)
        return fewest

    low, high = 10.0, 1e8
    for _ in range(14):
        price = math.sqrt(low * high)
        wrong = walk(stops(price), np.array([q]), cap)[0].sum()
        low, high = (price, high) if wrong > ALPHA else (low, price)
    _, votes = walk(stops(high), p, cap)
    return [float(n) / floor for n, floor in zip(votes, floors, strict=True)]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    began = time.perf_counter()
    print(f"Votes over log(1/alpha) / KL(p, q), alpha {ALPHA}, radius / sigma in {list(HORIZONS)},")
    print(f"p in {SHARES}; mean votes of published photos above q, cap 1,000, at two radii")
    print(f"{'mixture':<12} {'threshold':<10} mean   worst  beyond  0.25    0.5")
    for prior in (beta_half, half_normal, exponential, fitted):
        for exact in (False, True):
            found, beyond = by_cells(prior, exact=exact)
            photos = [by_photos(prior, radius, exact=exact) for radius in (0.25, 0.5)]
            print(
                f"{prior.__name__:<12} {'own' if exact else 'ours':<10} {np.mean(found):.3f}  "
                f"{max(found):.3f}  {beyond:<6.0%}  {photos[0]:<6.1f}  {photos[1]:.1f}"
            )
    found = [ratio for radius in HORIZONS for ratio in best_that_knows(radius)]
    print(f"{'best':<12} {'last cap':<10} {np.mean(found):.3f}  {max(found):.3f}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
