"""How sure a labeller is of photos under noise: the distribution that a plan rests on.

What a certificate costs depends on p, the top label's share of the answers, and p differs from
photo to photo. Here it is what was counted: k of n answers, photo by photo, at several sigmas.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smoothapi._special import special
from smoothapi.errors import UsageError
from smoothapi.files import parse_json
from smoothapi.study.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SCHEMA = "smoothapi.shares/1"

# A photo with k of n stands for five with p at these quantiles of its Beta(1/2, 1/2) posterior.
_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_NEAR = 1.1  # a sigma within this factor of a measured one is taken for it


@dataclass(frozen=True)
class Shares:
    """Counts of the top label's answers, by sigma and photo.

    Attributes:
        source: what was measured, and how, in words.
        counts: {sigma: ((k, n), ...)}, k of n answers being for the top label of a photo.
    """

    source: str
    counts: Mapping[float, tuple[tuple[int, int], ...]]

    def __post_init__(self) -> None:
        for sigma, counts in self.counts.items():
            if not (math.isfinite(sigma) and sigma > 0.0) or not counts:
                raise UsageError(f"At sigma {sigma} there must be counts of at least one photo.")
            if not all(0 <= k <= n and n >= 1 for k, n in counts):
                raise UsageError(f"At sigma {sigma} a count is not k of n with 0 <= k <= n.")
        if not self.counts:
            raise UsageError("A distribution of shares needs at least one sigma.")

    def at(self, sigma: float) -> NDArray[np.float64]:
        """Return values of p that stand for the photos at a sigma, ascending.

        Between two measured sigmas the quantiles of Phi^-1(p) are interpolated along log sigma.

        Raises:
            UsageError: sigma is outside of what was measured.
        """
        known = sorted(self.counts)
        near = min(known, key=lambda other: abs(math.log(other / sigma)))
        if 1.0 / _NEAR <= sigma / near <= _NEAR:
            return self._values(near)
        for low, high in pairwise(known):
            if low < sigma < high:
                weight = math.log(sigma / low) / math.log(high / low)
                size = np.linspace(0.0, 1.0, 500)
                below, above = (
                    np.quantile(special.ndtri(self._values(one)), size) for one in (low, high)
                )
                return np.asarray(special.ndtr((1.0 - weight) * below + weight * above))
        raise UsageError(
            f"sigma={sigma:g}: shares were measured at {', '.join(f'{one:g}' for one in known)}. "
            "Give --distribution with the result.json of a study at this sigma, or assume a share "
            "with --p."
        )

    def _values(self, sigma: float) -> NDArray[np.float64]:
        k, n = np.array(self.counts[sigma], dtype=float).T
        quantiles = np.array(_QUANTILES)[:, None]
        values = np.sort(special.betaincinv(k + 0.5, n - k + 0.5, quantiles), axis=None)
        return np.asarray(np.clip(values, 1e-9, 1.0 - 1e-9))

    @classmethod
    def of(cls, p: float) -> Shares:
        """Return the assumption that each photo has the share `p`; for any sigma."""
        if not 0.0 < p <= 1.0:
            raise UsageError(f"p={p}: a share of answers is in (0, 1].")
        return _Assumed(f"assumed: every photo has p = {p:g}", {1.0: ((1, 1),)}, p)

    @classmethod
    def shipped(cls) -> Shares:
        """Return what was measured of the labeller and the denoiser that come with smoothapi."""
        path = resources.files("smoothapi.study") / "data" / "shares.json"
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def of_study(
        cls, result: Findings, provider: str | None = None, denoiser: str | None = None
    ) -> Shares:
        """Return what a study counted, of its first provider and denoiser or of those named."""
        provider = provider or result.providers[0].name
        denoiser = denoiser or result.denoisers[0].name
        counts: dict[float, list[tuple[int, int]]] = {}
        for cell in result.cells:
            if (cell.provider, cell.denoiser) == (provider, denoiser) and cell.votes:
                counts.setdefault(cell.sigma, []).append(cell.share)
        if not counts:
            raise UsageError(f"The study has no votes of {provider!r} through {denoiser!r}.")
        source = (
            f"study of {len(result.photos)} photos ({result.name}) with {provider} through "
            f"{denoiser}, {result.created[:10]}"
        )
        return cls(source, {sigma: tuple(rows) for sigma, rows in counts.items()})

    @classmethod
    def load(cls, path: str | Path) -> Shares:
        """Read a distribution, or the result.json of a study; raises UsageError."""
        try:
            data = parse_json(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"The distribution {str(path)!r} cannot be read: {error}.") from error
        if isinstance(data, dict) and str(data.get("schema", "")).startswith("smoothapi.study/"):
            return cls.of_study(Findings.from_dict(data))
        return cls.from_dict(data)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_dict` is its inverse."""
        counts = {f"{sigma:g}": [list(row) for row in self.counts[sigma]] for sigma in self.counts}
        return {"schema": SCHEMA, "source": self.source, "counts": counts}

    @classmethod
    def from_dict(cls, data: Any) -> Shares:
        """Rebuild a distribution; raises UsageError."""
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        if found != SCHEMA:
            raise UsageError(
                f"This is neither a distribution ({SCHEMA!r}) nor a study's result: its schema is "
                f"{found!r}."
            )
        try:
            counts = {
                float(sigma): tuple((int(k), int(n)) for k, n in rows)
                for sigma, rows in data["counts"].items()
            }
            return cls(str(data["source"]), counts)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"The distribution is malformed: {error!r}.") from error


@dataclass(frozen=True)
class _Assumed(Shares):
    """One share for all photos, whatever sigma is."""

    p: float

    def at(self, sigma: float) -> NDArray[np.float64]:
        del sigma
        return np.array([min(self.p, 1.0 - 1e-9)])
