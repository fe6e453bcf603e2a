"""Simulated runs of votes, and a verdict on how often they went wrong.

Rules are simulated for many runs at once. A rule is given as "the fewest votes with so many
losses that certify", as `Boundary` does; the mutants bring wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtrc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ALPHA = 0.05
RUNS = 20_000
SURE = 1e-4
"""Chance that a valid rule is called wrong (or better, as its rate is below alpha)."""


@dataclass(frozen=True)
class Rate:
    """How many of how many runs went wrong."""

    errors: int
    runs: int

    @property
    def refutes(self) -> bool:
        """Whether the errors are more than chance makes of a rate of ALPHA."""
        return bool(bdtrc(self.errors - 1, self.runs, ALPHA) < SURE) if self.errors else False

    def __str__(self) -> str:
        return f"{self.errors / self.runs:.4f} of {self.runs}"


def votes(shares: Sequence[float], n: int, runs: int, seed: int) -> NDArray[np.int16]:
    """Return (runs, n) labels; what the shares leave over goes to label len(shares)."""
    uniform = np.random.default_rng(seed).random((runs, n), dtype=np.float32)
    return np.searchsorted(np.cumsum(shares), uniform, side="right").astype(np.int16)


def ever_certified(wins: NDArray[np.bool_], enough: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return, for each run, whether it ever has enough votes for its number of losses."""
    n = np.arange(1, wins.shape[1] + 1)
    allowed = np.searchsorted(enough, n, side="right") - 1  # losses among n votes
    losses = np.cumsum(~wins, axis=1, dtype=np.int16)
    result: NDArray[np.bool_] = np.any(losses <= allowed.astype(np.int16), axis=1)
    return result


def chance_to_certify(enough: NDArray[np.int64], p: float, n: int) -> float:
    """Return the exact chance that a label with share p is certified within n votes."""
    alive = np.zeros(len(enough))
    alive[0] = 1.0
    total, first = 0.0, 0
    for vote in range(1, n + 1):
        alive[1:] = alive[1:] * p + alive[:-1] * (1.0 - p)
        alive[0] *= p
        while first < len(enough) and enough[first] <= vote:
            total += alive[first]
            alive[first] = 0.0
            first += 1
    return float(total)
