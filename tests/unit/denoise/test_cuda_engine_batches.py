"""Batches of one shape, with a stand-in for the card whose copies arrive as late as they may."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

from smoothapi.denoise import load
from smoothapi.denoise.cuda import MOST_A_BATCH, Engine, _fixed_algorithms
from smoothapi.denoise.device_noise import plain_generator
from smoothapi.denoise.judge import Facts, judge
from smoothapi.errors import DenoiserError
from smoothapi.image import load_image
from smoothapi.noise import NoiseKey, noisy_variants, variant_seeds

from .harness import random_unet

KEY = NoiseKey(bytes(range(32)))
IMAGE = load_image(np.random.default_rng(0).integers(0, 256, (20, 26, 3), dtype=np.uint8))


class FakeCard:
    device = torch.device("cpu")

    def __init__(self):
        self.recorded, self.settled, self.forgot = 0, 0, 0

    def computing(self):
        return nullcontext()

    def record(self, step):
        self.recorded += 1
        step()
        return step

    def pinned(self, *shape, dtype):
        return torch.zeros(shape, dtype=dtype)

    def send(self, pairs):
        def arrive():
            for source, target in pairs:
                target.copy_(source)

        return arrive

    def settle(self):
        self.settled += 1

    def forget(self):
        self.forgot += 1


class Watched:
    """A network that notes what it is given."""

    def __init__(self):
        self.shapes = set()

    def __call__(self, noisy, sigma):
        assert noisy.is_contiguous(memory_format=torch.channels_last)
        assert sigma.shape == (1,)
        self.shapes.add(tuple(noisy.shape))
        return noisy


def engine_of(network, batch=4, card=None, check=lambda facts, sigma: None):
    return Engine(card or FakeCard(), network, plain_generator(), check, batch * 20 * 26)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9, 21])
def test_every_batch_has_one_shape_and_every_variant_comes_back(count: int) -> None:
    network = Watched()
    card = FakeCard()
    engine = engine_of(network, card=card)
    seeds = variant_seeds(IMAGE, 0.25, range(count), KEY)
    noisy = noisy_variants(IMAGE, 0.25, range(count), KEY)
    expected = load(None).variants(noisy, 0.25)
    assert np.array_equal(engine.of_seeds(IMAGE.pixels, 0.25, seeds), expected)
    assert np.array_equal(engine.of_noisy(noisy, 0.25), expected)
    assert np.array_equal(engine.of_noisy(noisy.astype(np.float64), 0.25), expected)
    assert network.shapes == {(4, 3, 20, 26)}
    assert card.recorded == 1


def test_our_network_gets_what_it_gets_elsewhere() -> None:
    network = random_unet()
    engine = engine_of(network)
    noisy = noisy_variants(IMAGE, 0.5, range(6), KEY)
    expected = load(network, device="cpu", name="tiny").variants(noisy, 0.5)
    found = engine.of_noisy(noisy, 0.5).astype(int)
    # One tiny network in two memory formats.
    assert np.abs(found - expected).max() <= 1


def test_sigma_and_size_may_change_from_call_to_call() -> None:
    def network(noisy, sigma):
        return (sigma / 2).expand(noisy.shape)

    card = FakeCard()
    engine = engine_of(network, card=card)
    for sigma in (0.5, 1.0, 0.5):
        pictures = engine.of_noisy(np.full((5, 20, 26, 3), 0.5), sigma)
        assert (pictures == round(127.5 * sigma)).all()
    for side in range(8, 8 + 2 * 10, 2):
        assert engine.of_noisy(np.zeros((1, side, 16, 3)), 0.5).shape == (1, side, 16, 3)
        assert engine.batch_of(side, 16) == 4 * 20 * 26 // (16 * side)
    assert engine.batch_of(10_000, 10_000) == 1
    assert engine_of(network, batch=1000).batch_of(20, 26) == MOST_A_BATCH
    assert card.recorded == 11
    engine.of_noisy(np.zeros((1, 26, 16, 3)), 0.5)
    assert card.recorded == 11, "sizes in use must not be recorded again"
    engine.of_noisy(np.zeros((1, 20, 26, 3)), 0.5)
    assert card.recorded == 12, "but not all are kept"


def test_what_fills_a_batch_up_is_not_judged() -> None:
    seen = []
    engine = engine_of(Watched(), check=lambda facts, sigma: seen.append((facts, sigma)))
    bad = np.full((4, 20, 26, 3), np.nan)
    engine.of_noisy(bad, 0.25)
    assert np.isnan(seen[0][0].low)
    half = np.full((1, 20, 26, 3), 0.5)
    half[0, :10] = -1.0
    engine.of_noisy(half, 0.25)
    assert seen[1] == (Facts(low=-1.0, high=0.5, below=0.5, noisy_below=0.5), 0.25)


def test_what_is_no_picture_is_refused_and_the_next_call_is_whole() -> None:
    card = FakeCard()
    factor = torch.ones(1)
    engine = engine_of(lambda noisy, sigma: noisy * factor, card=card, check=partial(judge, "bad"))
    noisy = noisy_variants(IMAGE, 0.25, range(10), KEY)
    factor.fill_(255.0)
    with pytest.raises(DenoiserError, match=r"\[0, 255\]"):
        engine.of_noisy(noisy, 0.25)
    assert card.settled == 1
    factor.fill_(1.0)
    assert np.array_equal(engine.of_noisy(noisy, 0.25), load(None).variants(noisy, 0.25))


def _on_the_fake_card(monkeypatch, file, card, *, pixels=4 * 20 * 26):
    """A runtime that takes the stand-in for a CUDA device."""
    monkeypatch.setattr("smoothapi.denoise.cuda.CudaCard", lambda device: card)
    monkeypatch.setattr("smoothapi.denoise.runtime.describe_card", lambda device: "fake")
    runtime = load(file, device="cpu", precision="fp32")
    monkeypatch.setattr(type(runtime), "_replays", property(lambda _: True))
    monkeypatch.setattr(runtime, "_graph_pixels", pixels)
    return runtime


class ScarceCard(FakeCard):
    """Has no memory for as many batches as it is told."""

    def __init__(self, failures=1):
        super().__init__()
        self.failures = failures

    def record(self, step):
        if self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().record(step)


def test_a_runtime_that_nobody_named_goes_on_with_smaller_batches(
    monkeypatch, tiny_file, caplog
) -> None:
    whole = _on_the_fake_card(monkeypatch, tiny_file, FakeCard())
    seeds = variant_seeds(IMAGE, 0.25, range(6), KEY)
    expected = whole.variants_of(IMAGE.pixels, 0.25, seeds)
    card = ScarceCard()
    runtime = _on_the_fake_card(monkeypatch, tiny_file, card)
    assert np.array_equal(runtime.variants_of(IMAGE.pixels, 0.25, seeds), expected)
    assert "goes on with 2" in caplog.text
    assert runtime._engine.batch_of(20, 26) == 2
    assert card.forgot == 1
    assert runtime.fingerprint != whole.fingerprint


def test_votes_of_batches_of_two_sizes_are_not_mixed(monkeypatch, tiny_file) -> None:
    runtime = _on_the_fake_card(monkeypatch, tiny_file, ScarceCard(2))
    seeds = variant_seeds(IMAGE, 0.25, range(6), KEY)
    before = runtime.fingerprint
    for _ in range(2):
        named = runtime.fingerprint
        with pytest.raises(DenoiserError, match="Nothing was sent of this lot"):
            runtime.variants_of(IMAGE.pixels, 0.25, seeds)
        assert runtime.fingerprint not in {before, named}
    assert len(runtime.variants_of(IMAGE.pixels, 0.25, seeds)) == 6


def test_a_single_picture_that_does_not_fit_is_refused(monkeypatch, tiny_file) -> None:
    runtime = _on_the_fake_card(monkeypatch, tiny_file, ScarceCard(99))
    with pytest.raises(DenoiserError, match="single picture of 26x20"):
        runtime.variants(np.zeros((2, 20, 26, 3)), 0.25)


def test_a_graph_that_cannot_be_recorded_says_what_to_do(monkeypatch, tiny_file) -> None:
    class Broken(FakeCard):
        def record(self, step):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    runtime = _on_the_fake_card(monkeypatch, tiny_file, Broken())
    with pytest.raises(DenoiserError, match=r"stream is capturing\. Use device='cpu'"):
        runtime.variants(np.zeros((2, 20, 26, 3)), 0.25)


def test_no_setting_of_torch_is_left_behind() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    try:
        cudnn.benchmark, cudnn.deterministic = True, False
        with pytest.raises(ZeroDivisionError), _fixed_algorithms():
            assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
            _ = 1 / 0
        assert (cudnn.benchmark, cudnn.deterministic) == (True, False)
    finally:
        cudnn.benchmark, cudnn.deterministic = before
