"""Small photos, a denoiser that does little, and a tuning that is over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smoothapi.denoise.networks import UNet
from tests.unit.denoise.harness import TINY, save

from .harness import Tuned, likes_sharp, tuning


@pytest.fixture(scope="module", autouse=True)
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


@pytest.fixture(scope="module")
def tuned(weights, photos, tmp_path_factory):
    """A tuning that is over: tests that only look at it share one."""
    folder = tmp_path_factory.mktemp("tuned")
    adapter = likes_sharp()
    result = tuning(adapter, photos, weights=weights, home=folder / "home").run()
    file = folder / "out" / "adapted.json"
    return Tuned(result, adapter.sent, folder / "home", file, result.write(file))


@pytest.fixture
def make(weights, photos, tmp_path):
    """Return a function that makes a small tuning with a home of its own."""

    def make(adapter, **options):
        chosen = {"weights": weights, "home": tmp_path / "adapt-home"} | options
        return tuning(adapter, photos, **chosen)

    return make
