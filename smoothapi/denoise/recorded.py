"""The denoiser of answers that were recorded: it is known, and not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothapi.denoise.adaptation import Adaptation


@dataclass(frozen=True, slots=True)
class RecordedDenoiser:
    """Which denoiser made the variants of a recording: a `DenoiserIdentity`, and no runtime.

    Attributes:
        name: for reports and certificates.
        fingerprint: as recorded.
        adaptation: None: a recording does not say.
    """

    name: str
    fingerprint: str
    adaptation: Adaptation | None = None
