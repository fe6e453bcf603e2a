"""What only a card shows: run with `pytest -m gpu tests/unit/denoise`."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from smoothapi import Smoother
from smoothapi.denoise import Gathering, device_noise, load
from smoothapi.denoise.cuda import CudaCard
from smoothapi.denoise.device_noise import check_generator, choose_generator, plain_generator
from smoothapi.denoise.networks import UNetConfig
from smoothapi.errors import DenoiserError
from smoothapi.image import load_image
from smoothapi.noise import NoiseKey, noisy_variants, variant_seeds

from .harness import random_unet, save

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda:0")
KEY = NoiseKey(bytes(range(32)))
PHOTO = np.random.default_rng(0).integers(0, 256, (96, 112, 3), dtype=np.uint8)
IMAGE = load_image(PHOTO)
MIDDLING = UNetConfig(channels=(32, 64, 96), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1))


@pytest.fixture
def file(tmp_path):
    """A network that is large enough for cuDNN to have a choice."""
    network = random_unet(MIDDLING)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 / 2)
    return save(network, tmp_path / "middling.safetensors")


@pytest.fixture
def runtime(file):
    return load(file, device="cuda")


@pytest.fixture
def seeds():
    return variant_seeds(IMAGE, 0.25, range(100), KEY)


def test_the_fused_kernel_is_what_draws(caplog):
    pytest.importorskip("triton")
    generator = choose_generator("cuda:0")
    assert generator.name == "triton-philox/1", caplog.text


def test_both_generators_pass_the_check():
    check_generator(CUDA, plain_generator())
    check_generator(CUDA, choose_generator("cuda:0"))


@pytest.mark.parametrize("which", ["chosen", "plain"])
def test_the_error_of_normal_values_is_below_2_to_the_minus_49(which):
    generator = choose_generator("cuda:0") if which == "chosen" else plain_generator()
    rng = np.random.default_rng(3)
    seam = np.exp(-2.0)
    shares = np.concatenate(
        [device_noise._special_points(), rng.random(4_000_000), 2.0 ** -rng.uniform(1, 53, 500_000),
         seam * (1 + rng.uniform(-1e-2, 0, 1_000_000))]
    )  # fmt: skip
    shares = shares[shares != 0.5]
    found = generator.normal(torch.from_numpy(shares).to(CUDA)).cpu().numpy()
    error = np.abs(found / ndtri(shares) - 1.0)
    worst = error.argmax()
    print(f"{generator.name}: 2^{np.log2(error[worst]):.2f} at {shares[worst]!r}")
    assert error[worst] <= 2.0**-49


def test_a_kernel_that_draws_something_else_is_replaced_and_that_is_said(monkeypatch, caplog):
    pytest.importorskip("triton")
    right = device_noise.fused_generator()
    wrong = replace(right, normal=lambda u: right.normal(u) * (1 + 2.0**-47))
    monkeypatch.setattr(device_noise, "fused_generator", lambda: wrong)
    device_noise._fused_where_right.cache_clear()
    try:
        assert choose_generator("cuda:0").name == "torch-philox/1"
        assert "the fused kernel cannot be used" in caplog.text
    finally:
        device_noise._fused_where_right.cache_clear()


@pytest.mark.parametrize("sigma", [0.05, 0.25, 1.5])
def test_pictures_are_on_the_grid_and_numpys(sigma):
    some = variant_seeds(IMAGE, sigma, range(40), KEY)
    pixels = torch.from_numpy(np.array(IMAGE.pixels)).to(CUDA)
    units = choose_generator("cuda:0").pictures(pixels, sigma, some).double().cpu() * 2.0**20
    expected = noisy_variants(IMAGE, sigma, range(40), KEY).astype(np.float64) * 2.0**20
    moved = np.abs(units.numpy() - expected)
    assert moved.max() <= 1
    assert np.count_nonzero(moved) <= 2


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_no_split_into_calls_changes_a_bit(file, seeds, precision):
    runtime = load(file, device="cuda", precision=precision)
    whole = runtime.variants_of(IMAGE.pixels, 0.25, seeds)
    for size in (1, 7, 16, 64):
        parts = [
            runtime.variants_of(IMAGE.pixels, 0.25, seeds[i : i + size])
            for i in range(0, len(seeds) if size > 1 else 9, size)
        ]
        found = np.concatenate(parts)
        assert np.array_equal(found, whole[: len(found)]), size
    noisy = noisy_variants(IMAGE, 0.25, range(9), KEY)
    assert np.array_equal(runtime.variants(noisy, 0.25), runtime.variants(noisy.copy(), 0.25))
    assert np.count_nonzero(runtime.variants(noisy, 0.25) != whole[:9]) <= 9


def test_the_place_in_a_batch_changes_no_bit(runtime, seeds):
    batch = 37 + 1
    alone = runtime.variants_of(IMAGE.pixels, 0.25, seeds[:1])[0]
    turned = [*seeds[1:batch], seeds[0], *seeds[batch:]]
    assert np.array_equal(runtime.variants_of(IMAGE.pixels, 0.25, turned)[37], alone)
    for place in range(0, runtime._engine.batch_of(*PHOTO.shape[:2]), 5):
        turned = [*seeds[1 : place + 1], seeds[0]]
        assert np.array_equal(runtime.variants_of(IMAGE.pixels, 0.25, turned)[-1], alone)


def test_a_new_process_or_other_sizes_before_change_no_bit(file, runtime, seeds):
    before = runtime.variants_of(IMAGE.pixels, 0.25, seeds[:5])
    fresh = load(file, device="cuda")
    for side in range(16, 16 + 2 * 10, 2):  # more than are kept
        fresh.variants(np.full((1, side, 40, 3), 0.5), 0.25)
    torch.backends.cudnn.benchmark = True
    try:
        assert np.array_equal(fresh.variants_of(IMAGE.pixels, 0.25, seeds[:5]), before)
    finally:
        torch.backends.cudnn.benchmark = False
    assert fresh.fingerprint == runtime.fingerprint


def test_what_the_card_makes_is_what_a_cpu_makes_but_for_rounding(file, runtime, seeds):
    here = load(file, device="cpu", precision="fp32")
    noisy = noisy_variants(IMAGE, 0.25, range(8), KEY)
    expected = here.variants(noisy, 0.25).astype(int)
    found = runtime.variants_of(IMAGE.pixels, 0.25, seeds[:8]).astype(int)
    assert np.abs(found - expected).mean() < 2.0
    exact = load(file, device="cuda", precision="fp32").variants(noisy, 0.25).astype(int)
    assert np.abs(exact - expected).max() <= 2


def test_odd_sizes_are_padded_as_elsewhere(file):
    noisy = np.random.default_rng(1).normal(0.5, 0.25, (3, 37, 51, 3))
    here = load(file, device="cpu", precision="fp32").variants(noisy, 0.25).astype(int)
    there = load(file, device="cuda", precision="fp32").variants(noisy, 0.25).astype(int)
    assert there.shape == (3, 37, 51, 3)
    assert np.abs(here - there).max() <= 2


def test_threads_get_what_they_would_get_alone(runtime):
    lots = [variant_seeds(IMAGE, 0.25, range(n, n + 45), KEY) for n in range(0, 90, 15)]
    images = [IMAGE.pixels, np.ascontiguousarray(IMAGE.pixels[:64, :64])]
    alone = [runtime.variants_of(images[n % 2], 0.25, lot) for n, lot in enumerate(lots)]
    start = threading.Barrier(len(lots))

    def ask(number):
        start.wait(20)
        return runtime.variants_of(images[number % 2], 0.25, lots[number])

    with ThreadPoolExecutor(len(lots)) as pool:
        found = list(pool.map(ask, range(len(lots))))
    for expected, pictures in zip(alone, found, strict=True):
        assert np.array_equal(expected, pictures)


def test_two_runtimes_at_once_do_not_disturb_each_other(file, seeds):
    """The second records its graph while the first is at work, with other kernels in between."""
    first, second = load(file, device="cuda"), load(file, device="cuda")
    expected = first.variants_of(IMAGE.pixels, 0.25, seeds)
    stop = threading.Event()
    failed = []

    def work():
        while not stop.is_set():
            pictures = first.variants_of(IMAGE.pixels, 0.25, seeds)
            torch.ones(1000, device="cuda").sum().item()
            if not np.array_equal(pictures, expected):
                failed.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert np.array_equal(second.variants_of(IMAGE.pixels, 0.25, seeds), expected)
    finally:
        stop.set()
        thread.join(60)
    assert not failed


def _fails_once(monkeypatch):
    record, failures = CudaCard.record, [torch.OutOfMemoryError("CUDA out of memory.")]

    def scarce(card, step):
        if failures:
            raise failures.pop()
        return record(card, step)

    monkeypatch.setattr(CudaCard, "record", scarce)


def test_out_of_memory_halves_the_batch(runtime, seeds, monkeypatch, caplog):
    _fails_once(monkeypatch)
    pictures = runtime.variants_of(IMAGE.pixels, 0.25, seeds[:20])
    assert pictures.shape == (20, *PHOTO.shape)
    assert "ran out of memory" in caplog.text
    again = runtime.variants_of(IMAGE.pixels, 0.25, seeds[3:8])
    assert np.array_equal(again, pictures[3:8])


def test_out_of_memory_stops_a_certificate_that_has_begun(file, runtime, seeds, monkeypatch):
    before = runtime.fingerprint
    _fails_once(monkeypatch)
    with pytest.raises(DenoiserError, match="Nothing was sent of this lot"):
        runtime.variants_of(IMAGE.pixels, 0.25, seeds[:20])
    assert runtime.fingerprint != before
    assert len(runtime.variants_of(IMAGE.pixels, 0.25, seeds[:20])) == 20


def test_real_scarcity_is_out_of_memory(file, seeds):
    """Most of the card is taken by somebody else, as far as this process may have any."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    wanted = torch.cuda.memory_reserved(0) + 40 * 2**20
    torch.cuda.set_per_process_memory_fraction(wanted / total)
    try:
        with contextlib.suppress(DenoiserError):  # not even one picture fits
            found = load(file, device="cuda").variants_of(IMAGE.pixels, 0.25, seeds[:6])
            assert len(found) == 6
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(load(file, device="cuda").variants_of(IMAGE.pixels, 0.25, seeds[:6])) == 6


class Labeller:
    """Says whether a picture is bright, and keeps what it saw."""

    labeller_id = "bright-1"

    def __init__(self):
        self.seen = set()

    def __call__(self, picture):
        self.seen.add(picture.tobytes())
        return [("bright" if picture.mean() > 20 else "dark", 0.9)]


def test_a_certificate_from_end_to_end(runtime):
    from smoothapi_adapters.mock import MockAdapter

    labeller = Labeller()
    with Smoother(
        MockAdapter(labeller=labeller),
        sigma=0.25,
        denoiser=runtime,
        plain=False,
        codec="png",
    ) as smoother:
        certificate = smoother.certify(PHOTO, radius=0.25)
    assert certificate.label in {"bright", "dark"}
    some = variant_seeds(IMAGE, 0.25, range(certificate.total_votes), KEY)
    made = runtime.variants_of(IMAGE.pixels, 0.25, some)
    assert {picture.tobytes() for picture in made} <= labeller.seen
    assert certificate.denoiser_fingerprint == runtime.fingerprint


def test_a_study_gathers_and_changes_no_bit(runtime):
    gathering = Gathering(runtime)
    assert gathering.takes_turns
    assert gathering.draws_noise
    lots = [variant_seeds(IMAGE, 0.25, range(n, n + 5), KEY) for n in range(0, 60, 5)]
    alone = [runtime.variants_of(IMAGE.pixels, 0.25, lot) for lot in lots]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda lot: gathering.variants_of(IMAGE.pixels, 0.25, lot), lots))
    noisy = [noisy_variants(IMAGE, 0.25, range(n, n + 5), KEY) for n in range(0, 30, 5)]
    with ThreadPoolExecutor(6) as pool:
        drawn = list(pool.map(lambda lot: gathering.variants(lot, 0.25), noisy))
    for expected, pictures in zip(alone, found, strict=True):
        assert np.array_equal(pictures, expected)
    for lot, pictures in zip(noisy, drawn, strict=True):
        assert np.array_equal(pictures, runtime.variants(lot, 0.25))


def test_a_module_of_the_users_runs_as_it_is(seeds):
    module = torch.nn.Conv2d(3, 3, 3, padding=1)
    torch.nn.init.dirac_(module.weight)
    denoiser = load(module, device="cuda", name="conv-1")
    assert denoiser.variants_of(IMAGE.pixels, 0.25, seeds[:20]).shape == (20, *PHOTO.shape)
    identity = load(torch.nn.Identity(), device="cuda", name="identity-1")
    found = identity.variants_of(IMAGE.pixels, 0.25, seeds[:20])
    expected = load(None).variants(noisy_variants(IMAGE, 0.25, range(20), KEY), 0.25)
    assert np.count_nonzero(found != expected) <= 1
    assert (
        identity.fingerprint
        != load(torch.nn.Identity(), device="cpu", name="identity-1").fingerprint
    )
