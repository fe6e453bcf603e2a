"""The local denoiser: protocol, runtime and the weights that ship.

Importing this package loads no torch: `load` names and fingerprints a denoiser without it, and
the network is read when the first variants are asked for.
"""

from __future__ import annotations

from smoothapi.denoise.gathering import Gathering, gathered
from smoothapi.denoise.protocol import Denoiser, DenoiserIdentity, DenoiserRuntime, is_runtime
from smoothapi.denoise.recorded import RecordedDenoiser
from smoothapi.denoise.runtime import load

__all__ = [
    "Denoiser",
    "DenoiserIdentity",
    "DenoiserRuntime",
    "Gathering",
    "RecordedDenoiser",
    "gathered",
    "is_runtime",
    "load",
]
