"""Small photos, a denoiser that does little, and providers with tastes of their own."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from smoothapi.adapting import KnobTuning
from smoothapi.denoise.knobs import Knobs
from smoothapi.denoise.networks import UNet
from smoothapi_adapters.mock import MockAdapter
from tests.unit.denoise.conftest import TINY, save

SHARP = Knobs(sharpen=3.0)
SOFT = Knobs(sharpen=-1.0)
NOISY = Knobs(blend=0.5)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A network that was not trained: it halves the noise, and all else about grey."""
    return save(UNet(TINY), tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def photos():
    """Eighty smooth pictures, each another one."""
    random = np.random.default_rng(7)
    coarse = random.integers(60, 196, (80, 3, 3, 3))
    return {
        f"{number:02d}.png": np.kron(each, np.ones((6, 6, 1))).astype(np.uint8)
        for number, each in enumerate(coarse)
    }


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


@pytest.fixture
def make(weights, photos, tmp_path):
    """Return a function that makes a small tuning."""

    def make(adapter, **options):
        defaults = {
            "provider": adapter,
            "weights": weights,
            "sigma": 0.25,
            "size": 18,
            "settings": (SHARP, SOFT),
            "truth": dict.fromkeys(photos, "bus"),
            "budget": "400",
            "home": tmp_path / "adapt-home",
            "device": "cpu",
        }
        return KnobTuning(photos, **(defaults | options))

    return make
