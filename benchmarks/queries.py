"""How many queries a certificate takes: `python benchmarks/queries.py` prints five tables.

All figures are exact (dynamic programming over votes and losses); only the past runs that a mix of
shares is learnt from are drawn, with a seed.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtrc, ndtr

from smoothapi.certify import SequentialCertify, joint_level, queries_needed, required_p
from smoothapi.certify.evalue import boundary
from smoothapi.certify.futility import NEVER, ChanceRule, Mix, PriceRule
from smoothapi.errors import UnreachableRadiusError
from smoothapi.study.figures import fewest_wins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from smoothapi.certify.futility import Futility

ALPHA = 0.001
SIGMA = 0.25

# Radii that Cohen, Rosenfeld and Kolter published for ImageNet (ResNet-50, noise and test at sigma
# 0.25, n = 100,000, alpha 0.01; github.com/locuslab/smoothing, data/certify): the 427 photos of
# the stored version, in units of 10^-4, without 38 abstentions and 122 at the top (0.978: all
# 100,000 votes for one label, which fixes alpha).
PUBLISHED = """
149 155 160 175 208 281 283 359 395 437 441 442 484 493 495 497 504 511 542 559 569 573 577 586 609
652 713 777 798 816 843 859 1010 1020 1030 1030 1040 1130 1160 1170 1170 1170 1200 1210 1230 1270
1280 1310 1330 1380 1400 1420 1540 1600 1630 1650 1650 1700 1720 1750 1810 1860 1880 1890 1920 1950
2050 2060 2080 2080 2090 2120 2130 2160 2170 2190 2260 2280 2350 2350 2380 2380 2420 2450 2460 2470
2500 2510 2540 2540 2560 2590 2610 2620 2620 2710 2710 2730 2850 2870 2990 3060 3070 3300 3310 3310
3370 3450 3530 3660 3660 3700 3710 3720 3780 3880 3900 3900 3910 3950 4020 4050 4050 4050 4070 4230
4230 4260 4370 4370 4410 4430 4490 4550 4550 4570 4590 4600 4640 4640 4680 4700 4800 4980 4990 5030
5090 5100 5100 5170 5220 5230 5270 5280 5290 5350 5370 5370 5410 5430 5530 5600 5610 5620 5660 5700
5710 5770 5960 5970 6030 6070 6090 6090 6100 6160 6170 6230 6230 6290 6310 6340 6380 6410 6490 6530
6620 6640 6720 6720 6810 6810 6820 6850 6850 6870 6900 6910 6920 6960 7070 7100 7120 7160 7180 7180
7220 7260 7310 7350 7400 7540 7550 7720 7730 7750 7860 7930 7940 7970 8020 8050 8140 8170 8260 8310
8310 8370 8390 8420 8440 8440 8460 8460 8490 8510 8570 8590 8630 8660 8730 8730 8800 9000 9000 9000
9060 9060 9130 9130 9130 9200 9200 9290 9290 9290 9290 9290 9410 9410 9410 9550 9550 9550 9550 9550
9550
"""
ABSTAINED, AT_THE_TOP, TOP = 38, 122, 0.978


def published_shares() -> NDArray[np.float64]:
    """Return p = Phi(radius / sigma) for each published photo; an abstention counts as 0.4."""
    radii = np.array([int(word) for word in PUBLISHED.split()]) * 1e-4
    radii = np.concatenate([radii, np.full(AT_THE_TOP, TOP)])
    return np.concatenate([np.full(ABSTAINED, 0.4), ndtr(radii / SIGMA)])


def against_the_floor(ratios: Sequence[float], shares: Sequence[float]) -> None:
    """Print mean votes / (log(1/alpha) / KL(p, q)) over the grid."""
    print("Mean queries divided by the floor log(1/alpha) / KL(p, q), alpha 0.001 (0 = p too low)")
    print("  radius/sigma  at least  " + "".join(f"p={p:<8}" for p in shares))
    everything = []
    for ratio in ratios:
        row, least = [], 0
        for p in shares:
            count = queries_needed(ratio, 1.0, ALPHA, p, max_votes=30_000, futility=NEVER)
            least = count.at_least
            # Where the floor itself is above 4,000 votes nobody would run it.
            row.append(count.mean / count.floor if count.floor < 4000 else 0.0)
        everything += [value for value in row if value]
        print(f"  {ratio:<12}  {least:>8}  " + "".join(f"{value:<10.3f}" for value in row))
    print(f"  mean {np.mean(everything):.3f}, largest {max(everything):.3f}\n")


def given_up_by(
    rule: Futility, radius: float, p: NDArray[np.float64], cap: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (certified, mean votes) of runs that a rule gives up, by p."""
    share = required_p(radius, SIGMA)
    enough = boundary(share, joint_level(radius, SIGMA, ALPHA, 0.0))
    certify = enough.upto(cap)
    losses = np.arange(len(certify))
    alive = np.zeros((len(p), len(certify)))
    alive[:, 0] = 1.0
    certified, votes, wins = np.zeros(len(p)), np.zeros(len(p)), p[:, None]
    for n in range(1, cap + 1):
        left = alive.sum(axis=1)
        if left.max() < 1e-12:
            break
        votes += left
        lost = alive[:, :-1] * (1.0 - wins)
        alive *= wins
        alive[:, 1:] += lost
        enough_now = certify <= n
        certified += alive[:, enough_now].sum(axis=1)
        hopeless = rule.gives_up(n, losses, enough, cap) & (losses > 0)
        alive[:, enough_now | hopeless] = 0.0
    return certified, votes


def past_runs(radius: float, p: NDArray[np.float64], cap: int, seed: int) -> list[tuple[int, int]]:
    """Return (k, n) of a run of each photo as it would have been stored, stopped as runs are."""
    draws = np.random.default_rng(seed).random((len(p), cap))
    runs = []
    for wins in draws < p[:, None]:
        test = SequentialCertify(sigma=SIGMA, alpha=ALPHA, max_votes=cap, radius=radius)
        for win in wins:
            test.add("label" if win else None)
            if test.done:
                break
        runs.append((int(wins[: test.result().votes].sum()), test.result().votes))
    return runs


def learnt_on_the_other_half(radius: float, cap: int = 1_000) -> dict[str, tuple[float, float]]:
    """Return (certified, mean votes) by rule; a mix is learnt on the photos that are left out."""
    photos = np.sort(published_shares())
    totals: dict[str, list[NDArray[np.float64]]] = {}
    for half in (0, 1):
        shares, counts = np.unique(photos[half::2], return_counts=True)
        past = past_runs(radius, photos[1 - half :: 2], cap, seed=half)
        rules: dict[str, Futility] = {
            "chance below 1%": ChanceRule(),
            "price, mix assumed": PriceRule(),
            "price, mix learnt": PriceRule(Mix.learnt(past)),
            "never": NEVER,
        }
        for name, rule in rules.items():
            found = np.array(given_up_by(rule, radius, shares, cap))
            totals.setdefault(name, []).append(found @ counts)
    sums = {name: np.sum(halves, axis=0) / len(photos) for name, halves in totals.items()}
    return {name: (float(found[0]), float(found[1])) for name, found in sums.items()}


def when_runs_are_given_up() -> None:
    """Print what a mix of shares saves, measured on photos that it was not learnt from."""
    print(f"Runs given up, cap 1,000, sigma {SIGMA}: mean queries (share of photos certified)")
    for radius in (0.25, 0.5):
        found = learnt_on_the_other_half(radius)
        cells = [f"{name} {votes:.1f} ({share:.4f})" for name, (share, votes) in found.items()]
        print(f"  radius {radius:<5} " + ", ".join(cells))
    print()


def looks_at_powers(
    share: float, p: NDArray[np.float64], cap: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (certified, mean votes) of Clopper-Pearson at 1.1^i votes, alpha split over looks."""
    looks = sorted(
        {min(cap, math.ceil(1.1**i)) for i in range(int(math.log(cap) / math.log(1.1)) + 2)}
    )
    looks = [n for n in looks if n >= 10]
    enough = np.array([fewest_wins(n, share, ALPHA / len(looks)) for n in looks])
    alive = np.zeros((len(p), cap + 2))
    alive[:, 0] = 1.0
    certified, votes, before = np.zeros(len(p)), np.zeros(len(p)), 0
    for n, wins in zip(looks, enough, strict=True):
        for _ in range(n - before):
            before += 1
            now = alive[:, : before + 1]
            now[:, 1:] = now[:, 1:] * (1 - p[:, None]) + now[:, :-1] * p[:, None]
            now[:, 0] *= 1 - p
        stop = alive[:, wins:].sum(axis=1)
        certified += stop
        votes += n * stop
        alive[:, wins:] = 0.0
    return certified, votes + cap * alive.sum(axis=1)


def against_fixed_samples(radius: float, shares: Sequence[float]) -> None:
    """Print queries and power of fixed samples, of the union bound, and of ours, by p."""
    share = required_p(radius, SIGMA)
    print(f"Radius {radius}, sigma {SIGMA} (p above {share:.4f}): mean queries (chance to certify)")
    print(
        "  p        floor   "
        + "".join(f"fixed {n:<10}" for n in (100, 1_000, 10_000))
        + "looks 1.1^k, 1,000   ours, cap 1,000    ours, cap 10,000"
    )
    for p in shares:
        cells = []
        for n in (100, 1_000, 10_000):
            power = float(bdtrc(fewest_wins(n, share, ALPHA) - 1, n, p))
            cells.append(f"{n:<6}({power:.3f})  ")
        certified, votes = looks_at_powers(share, np.array([p]), 1_000)
        cells.append(f"{votes[0]:<8.0f}({certified[0]:.3f})     ")
        floor = math.inf
        for cap in (1_000, 10_000):
            count = queries_needed(radius, SIGMA, ALPHA, p, max_votes=cap)
            floor = count.floor
            cells.append(f"{count.mean:<8.0f}({count.certified:.3f})   ")
        print(f"  {p:<7}  {floor:<6.0f}  " + "".join(cells))
    print("  (fixed samples need some 100 votes more, to name the candidate)\n")


def realistic_mix(radius: float) -> None:
    """Print what the published ImageNet radii make of a fixed sample and of ours."""
    shares, counts = np.unique(published_shares(), return_counts=True)
    weights = counts / counts.sum()
    q = required_p(radius, SIGMA)
    print(f"Published ImageNet radii, sigma {SIGMA}, radius {radius}, {counts.sum()} photos")
    print(
        "  cap      fixed certifies   ours certifies   of the fixed   ours, mean   median photo  1/"
    )
    for cap in (1_000, 10_000):
        fixed = bdtrc(fewest_wins(cap, q, ALPHA) - 1, cap, shares)
        runs = [queries_needed(radius, SIGMA, ALPHA, float(p), max_votes=cap) for p in shares]
        ours = np.array([run.certified for run in runs])
        mean = float(weights @ np.array([run.mean for run in runs]))
        order = np.argsort([run.mean for run in runs])
        middle = order[np.searchsorted(np.cumsum(weights[order]), 0.5)]
        median = round(runs[middle].mean)
        print(
            f"  {cap:<7}  {weights @ fixed:<16.4f}  {weights @ ours:<15.4f}  "
            f"{(weights @ ours) / (weights @ fixed):<13.4f}  {mean:<11.1f}  {median:<13}  "
            f"{cap / mean:.1f}"
        )
    certified, votes = looks_at_powers(q, shares, 1_000)
    print(
        f"  looks at 1.1^k, cap 1,000: certifies {weights @ certified:.4f} with "
        f"{weights @ votes:.0f} queries"
    )
    # No valid test of this power can do without log(1/alpha)/KL votes where it certifies.
    floors = np.array(
        [queries_needed(radius, SIGMA, ALPHA, float(p), max_votes=1_000).floor for p in shares]
    )
    floor = float(weights @ np.minimum(np.where(np.isfinite(floors), floors, 0.0), 1_000))
    print(
        "  floor of the photos above q, at most 1,000 each, all others given up for nothing: "
        f"{floor:.1f}\n"
    )


def what_the_parts_cost() -> None:
    """Print what choosing the label costs: ours, and by naming a candidate first."""
    print("Votes of an unbroken run: every label tested (ours), a candidate named, one label given")
    for ratio in (0.1, 0.25, 0.5, 1.0, 1.5, 2.0):
        share = required_p(ratio, 1.0)
        ours = boundary(share, joint_level(ratio, 1.0, ALPHA, 0.0))[0]
        named = 1 + boundary(share, 0.9 * ALPHA)[0]
        given = boundary(share, ALPHA)[0]
        ideal = math.ceil(math.log(1 / ALPHA) / -math.log(share))
        print(
            f"  radius/sigma {ratio:<5} ours {ours:<4} named {named:<4} given {given:<4} "
            f"no test below {ideal}"
        )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    began = time.perf_counter()
    against_the_floor((0.25, 0.5, 1.0, 1.5, 2.0), (0.8, 0.9, 0.95, 0.99, 0.999))
    what_the_parts_cost()
    try:
        against_fixed_samples(0.25, (0.999, 0.99, 0.95, 0.9, 0.88, 0.8, 0.6))
        against_fixed_samples(0.5, (0.9999, 0.999, 0.995, 0.99, 0.95))
    except UnreachableRadiusError as error:
        print(error)
    realistic_mix(0.25)
    realistic_mix(0.5)
    when_runs_are_given_up()
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
