"""Providers with tastes of their own, and a small tuning of knobs to them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smoothapi.adapting import KnobTuning
from smoothapi.denoise.knobs import Knobs
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import with_noise_key

SHARP = Knobs(sharpen=3.0)
SOFT = Knobs(sharpen=-1.0)
NOISY = Knobs(blend=0.5)


def roughness(pixels):
    """The mean step between neighbours, of the [0, 255] range."""
    return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())


class Taste(MockAdapter):
    """Says "bus" with a score that depends on how rough the picture is; counts what it is asked."""

    def __init__(self, score, name="taste"):
        def labeller(pixels):
            bus = float(np.clip(score(roughness(pixels)), 0.02, 0.98))
            return [("bus", bus), ("van", 1.0 - bus)]

        super().__init__(labeller, labeller_id=name)
        self.lock = threading.Lock()
        self.sent = 0
        self.asked = set()

    def ask(self, payloads):
        with self.lock:
            self.sent += len(payloads)
            self.asked.update(payloads)
        return super().ask(payloads)


def likes_sharp(name="sharp"):
    return Taste(lambda rough: rough / 150, name)


def tuning(adapter, photos, *, weights, home, **options):
    """A small tuning, with `options` in place of what it has otherwise."""
    defaults = {
        "provider": adapter,
        "weights": weights,
        "sigma": 0.25,
        "size": 18,
        "settings": (SHARP, SOFT),
        "truth": dict.fromkeys(photos, "bus"),
        "budget": "400",
        "home": with_noise_key(home),
        "device": "cpu",
    }
    return KnobTuning(photos, **(defaults | options))


@dataclass(frozen=True)
class Tuned:
    """A tuning to `likes_sharp` that is over.

    Attributes:
        result: what it returned.
        sent: queries that its provider was asked.
        home: of its answers.
        file: the adapted denoiser.
        card: what was written beside it.
    """

    result: Any
    sent: int
    home: Path
    file: Path
    card: Path
