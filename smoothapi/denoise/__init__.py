"""The local denoiser: networks, runtime, training and the weights that ship.

Importing this package loads no torch: `load` names and fingerprints a denoiser without it, and
the network is read when the first variants are asked for.
"""

from __future__ import annotations

from smoothapi.denoise.runtime import Denoiser, DenoiserRuntime, load

__all__ = ["Denoiser", "DenoiserRuntime", "load"]
