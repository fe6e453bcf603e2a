"""The denoiser: where it runs, and how long it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from smoothapi import denoise
from smoothapi.denoise.device import choose_device
from smoothapi.doctor.result import CheckResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.config import Resolved

_ON_CPU, _ON_DEVICE = 4, 64  # variants in a lot
_LEAST_SECONDS, _MOST_LOTS = 1.0, 16
_SLOW = 250.0  # ms: a certificate of a hundred votes takes half a minute


def examine(resolved: Resolved) -> Iterator[CheckResult]:
    """Load the denoiser that the settings name, run it on noise, and say what a variant takes.

    Raises:
        DenoiserError: it cannot be loaded, or its device does not exist.
        UsageError: a folder's settings file names it, and nobody vouches for that file.
    """
    resolved.require_trust(("denoiser",))
    settings = resolved.settings
    wanted, device = settings.device, choose_device(settings.device)
    if settings.denoiser == "none":
        yield CheckResult(
            "denoiser",
            "warning",
            "none: the provider is shown the noise itself",
            'Most photos abstain that way. Leave denoiser out, or set it to "default".',
        )
        return
    runtime = denoise.load(settings.denoiser, device=wanted)
    each = _milliseconds(runtime, settings.size, settings.sigma)
    said = (
        f"{runtime.name} on {runtime.device} in {runtime.precision}: {each:.1f} ms a variant of "
        f"{settings.size} x {settings.size}"
    )
    if wanted not in ("auto", "cpu") and device == "cpu":
        yield CheckResult(
            "denoiser",
            "warning",
            f"{said}; {wanted} was asked for, and is not here",
            "Check the driver and that this build of torch is for it, or set device to auto.",
        )
    elif each > _SLOW:
        yield CheckResult(
            "denoiser",
            "warning",
            f"{said}, which is slow",
            'Use a GPU, a smaller size, or denoiser = "small".',
        )
    else:
        yield CheckResult("denoiser", "ok", said)


def _milliseconds(runtime: denoise.DenoiserRuntime, size: int, sigma: float) -> float:
    lot = _ON_CPU if runtime.device == "cpu" else _ON_DEVICE
    noisy = np.random.default_rng(0).normal(0.5, sigma, (lot, size, size, 3)).astype(np.float32)
    runtime.variants(noisy, sigma)  # what is loaded and compiled once
    began, done = time.perf_counter(), 0
    while done < _MOST_LOTS and time.perf_counter() - began < _LEAST_SECONDS:
        runtime.variants(noisy, sigma)
        done += 1
    return 1000.0 * (time.perf_counter() - began) / (done * lot)
