"""Noise, denoising and encoding go on while the provider answers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from smoothapi import Smoother, denoise
from tests.conftest import ScriptedAdapter, answer

if TYPE_CHECKING:
    import torch

    from smoothapi.answer import Answer

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
PATIENCE = 60.0


def test_the_next_variants_are_denoised_while_requests_are_under_way() -> None:
    later = threading.Event()
    lots = 0

    def denoiser(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        nonlocal lots
        assert sigma == 0.25
        lots += 1
        if lots > 1:
            later.set()
        return noisy

    waited: list[bool] = []

    def script(payload: bytes, attempt: int) -> Answer:
        del payload, attempt
        waited.append(later.wait(PATIENCE))
        return answer()

    adapter = ScriptedAdapter(script)
    runtime = denoise.load(denoiser, device="cpu", name="counting")
    with Smoother(adapter, sigma=0.25, denoiser=runtime, plain=False, concurrency=2) as s:
        certificate = s.certify(PHOTO, radius=0.25)
    assert certificate.label == "bus"
    assert lots > 1
    # Two requests were waiting for an answer when the second lot was denoised: had it come after
    # their answers, they would have waited in vain.
    assert waited
    assert all(waited)
