"""Latency of a fake provider: a seeded distribution, written as text.

::

    0.2                     always 0.2 seconds
    uniform 0.1 0.4         anything between
    lognormal 0.2 0.5       median 0.2 s, shape 0.5: the long tail of a real service
    empirical 0.1 0.1 0.9   one of these, each as often
    empirical times.txt     one of those that the file holds, a number a line
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Self

from smoothapi.errors import UsageError
from smoothapi.services.seeded import uniform

_PARAMETERS = {"constant": 1, "uniform": 2, "lognormal": 2, "empirical": None}


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that each request takes.

    Attributes:
        kind: "constant", "uniform", "lognormal" or "empirical".
        values: constant: the seconds; uniform: least and most; lognormal: the median and the
            standard deviation of the logarithm; empirical: measured seconds.
        seed: decides which request takes how long.

    Raises:
        UsageError: the values do not fit the kind of distribution.
    """

    kind: str = "constant"
    values: tuple[float, ...] = (0.0,)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _PARAMETERS:
            raise UsageError(
                f"latency: unknown distribution {self.kind!r}. Use {', '.join(_PARAMETERS)}."
            )
        if not all(math.isfinite(value) and value >= 0.0 for value in self.values):
            raise UsageError(f"latency: seconds are finite and not below 0, not {self.values}.")
        wanted = _PARAMETERS[self.kind]
        if len(self.values) != wanted if wanted else not self.values:
            raise UsageError(
                f"latency: {self.kind} takes {wanted or 'some'} numbers, not {len(self.values)}."
            )
        if self.kind == "uniform" and self.values[0] > self.values[1]:
            low, high = self.values
            raise UsageError(f"latency: uniform from {low} to {high}: write the smaller one first.")

    @classmethod
    def parse(cls, value: str | float | Self, *, seed: int = 0) -> Self:
        """Read a distribution: seconds as a number or text, or as the module's docstring shows.

        Raises:
            UsageError: the text says something else, or its file cannot be read.
        """
        if isinstance(value, cls):
            return value
        first, *rest = str(value).split() or ["?"]
        try:
            if first not in _PARAMETERS:
                return cls("constant", (float(str(value)),), seed)
            if first == "empirical" and len(rest) == 1 and not _is_number(rest[0]):
                rest = Path(rest[0]).read_text(encoding="utf-8").split()
            return cls(first, tuple(float(number) for number in rest), seed)
        except UsageError:
            raise
        except OSError as error:
            raise UsageError(f"latency: {rest[0]!r} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise UsageError(
                f"latency={value!r} cannot be read. Give seconds, or 'uniform 0.1 0.4', "
                "'lognormal 0.2 0.5' (median, shape), 'empirical 0.1 0.3 0.9'."
            ) from error

    def seconds(self, number: int) -> float:
        """Return how long request `number` takes, in seconds: always the same."""
        if self.kind == "constant":
            return self.values[0]
        drawn = uniform("latency", self.seed, number)
        if self.kind == "empirical":
            return self.values[int(drawn * len(self.values))]
        one, two = self.values
        if self.kind == "uniform":
            return one + drawn * (two - one)
        return one * math.exp(two * NormalDist().inv_cdf(drawn))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
