from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from smoothapi.denoise import DenoiserRuntime, Gathering, is_runtime, load


@pytest.mark.parametrize("make", [lambda: load("none"), load, lambda: Gathering(load())])
def test_every_runtime_has_the_members_of_the_protocol(make):
    runtime = make()
    assert is_runtime(runtime)
    public = {name for name in dir(DenoiserRuntime) if not name.startswith("_")}
    assert public <= set(dir(runtime))


def test_what_is_not_at_work_yet_is_no_runtime():
    assert not is_runtime("default")
    assert not is_runtime(lambda noisy, sigma: noisy)


def test_a_gathering_is_known_as_the_denoiser_that_it_gathers_for():
    inner = load()
    gathering = Gathering(inner)
    for name in ("name", "fingerprint", "adaptation", "device", "precision", "draws_noise"):
        assert getattr(gathering, name) == getattr(inner, name)


def test_batches_are_filled_from_several_photos():
    sizes = []

    def blur(noisy, sigma):
        sizes.append(len(noisy))
        if len(sizes) == 1:
            started.set()
            released.wait(60)
        if float(noisy.max()) > 5:
            raise RuntimeError("too bright")
        return torch.round(noisy * 2) / 2

    started, released = threading.Event(), threading.Event()
    inner = load(blur, name="blur", device="cpu")
    gathering = Gathering(inner)
    assert gathering.fingerprint == inner.fingerprint
    random = np.random.default_rng(0)
    lots = [random.random((2, 8, 8, 3)).astype(np.float32) for _ in range(5)]
    lots.append(np.full((2, 4, 8, 3), 9, np.float32))  # another size, and it fails
    found = [None] * len(lots)

    def ask(number):
        try:
            found[number] = gathering.variants(lots[number], 0.25)
        except RuntimeError as error:
            found[number] = error

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(lots))]
    threads[0].start()
    assert started.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(gathering._waiting) < len(lots) - 1:
        time.sleep(0.001)
    released.set()
    for thread in threads:
        thread.join(60)
    assert 8 in sizes  # the four that waited went together
    for lot, pictures in zip(lots[:5], found[:5], strict=True):
        assert np.array_equal(pictures, inner.variants(lot, 0.25))
    assert isinstance(found[5], RuntimeError)
