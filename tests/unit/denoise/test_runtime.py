from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from smoothapi.denoise import Denoiser, device, load, runtime
from smoothapi.denoise.storage import SHIPPED
from smoothapi.errors import DenoiserError, UsageError

from .harness import random_unet, save


class Halve(nn.Module):
    """A module whose forward takes the picture only."""

    def __init__(self, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_none_clips_and_rounds() -> None:
    values = np.array([-0.4, 0.0, 0.5 / 255 + 1e-4, 0.5, 1.0, 1.7])
    noisy = np.broadcast_to(values[None, None, :, None], (1, 2, 6, 3))
    out = load(None).variants(noisy, 0.25)
    assert out.dtype == np.uint8
    assert out[0, 1, :, 2].tolist() == [0, 0, 1, 128, 255, 255]
    assert load("none").fingerprint == load(None).fingerprint


def test_identity_module_rounds_as_none_does(noisy: np.ndarray) -> None:
    out = load(nn.Identity(), device="cpu").variants(noisy, 0.25)
    np.testing.assert_array_equal(out, load(None).variants(noisy, 0.25))


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_splitting_into_batches_changes_no_bit(
    tiny_file: Path, noisy: np.ndarray, monkeypatch: pytest.MonkeyPatch, precision: str, cores: int
) -> None:
    if cores > 1:
        torch.set_num_threads(cores)
    denoiser = load(tiny_file, device="cpu", precision=precision)
    together = denoiser.variants(noisy, 0.25)
    apart = np.concatenate([denoiser.variants(noisy[i : i + 1], 0.25) for i in range(5)])
    np.testing.assert_array_equal(together, apart)
    monkeypatch.setitem(runtime._PIXELS_A_BATCH, "cpu", 2 * 20 * 26)
    np.testing.assert_array_equal(together, denoiser.variants(noisy, 0.25))
    torch.set_num_threads(1)
    alone = load(tiny_file, device="cpu", precision=precision)
    np.testing.assert_array_equal(together, alone.variants(noisy, 0.25))


def test_callers_at_once_get_what_they_would_get_alone(tiny_file: Path, noisy: np.ndarray) -> None:
    torch.set_num_threads(2)
    denoiser = load(tiny_file, device="cpu")
    assert not denoiser.takes_turns
    lots = [np.roll(noisy, n, axis=1) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda lot: denoiser.variants(lot, 0.25), lots))
    torch.set_num_threads(1)
    alone = load(tiny_file, device="cpu")
    for lot, pictures in zip(lots, found, strict=True):
        np.testing.assert_array_equal(pictures, alone.variants(lot, 0.25))


def test_on_cpus_the_next_lot_begins_while_the_last_one_ends(
    tiny_file: Path, noisy: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    denoiser = load(tiny_file, device="cpu")
    denoiser.variants(noisy, 0.25)
    begun, both = threading.Event(), threading.Event()
    pictures, second = denoiser._pictures, np.full_like(noisy, 2.0)

    def slowly(part: np.ndarray, sigma: float) -> np.ndarray:
        begun.set()
        if part[0, 0, 0, 0] == 2.0:
            both.set()
        elif part.base is not None and np.shares_memory(part, noisy[:1]):
            assert both.wait(60.0), "the second lot waited for the whole of the first"
        return pictures(part, sigma)

    monkeypatch.setattr(denoiser, "_pictures", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(denoiser.variants, noisy, 0.25)
        assert begun.wait(60.0)
        pool.submit(denoiser.variants, second, 0.25).result(90.0)
        first.result(90.0)
    assert load(nn.Identity(), device="cpu").takes_turns


def test_network_is_read_at_the_first_variant_only(tiny_file: Path, noisy: np.ndarray) -> None:
    denoiser = load(tiny_file, device="cpu")
    assert denoiser.name.startswith("tiny@")
    assert not denoiser.loaded
    assert denoiser.variants(noisy[:0], 0.25).shape == (0, 20, 26, 3)
    assert not denoiser.loaded
    denoiser.variants(noisy, 0.25)
    assert denoiser.loaded


def test_denoiser_is_in_eval_mode_whatever_it_was(noisy: np.ndarray) -> None:
    # In training mode batch normalisation would mix the variants of a batch.
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    module.train()
    denoiser = load(module, device="cpu")
    out = denoiser.variants(noisy, 0.25)
    # Fresh running statistics are mean 0 and variance 1: all but the identity.
    np.testing.assert_allclose(out.astype(int), load(None).variants(noisy, 0.25), atol=1)
    assert module.training, "the caller's module must be left as it was"
    assert module[0].num_batches_tracked == 0


def test_no_gradient_is_recorded(noisy: np.ndarray) -> None:
    seen = []

    def function(x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append((torch.is_inference_mode_enabled(), x.dtype, tuple(x.shape), sigma))
        return x

    load(function, name="f").variants(noisy, 0.5)
    assert seen == [(True, torch.float32, (5, 3, 20, 26), 0.5)]


def test_module_that_takes_the_picture_only(noisy: np.ndarray) -> None:
    out = load(Halve(), device="cpu").variants(noisy, 0.25)
    np.testing.assert_array_equal(out, load(None).variants(noisy / 2, 0.25))


def test_module_in_bf16_is_autocast(noisy: np.ndarray) -> None:
    module = nn.Conv2d(3, 3, 1)
    nn.init.dirac_(module.weight)
    nn.init.zeros_(module.bias)
    rough = load(module, device="cpu", precision="bf16").variants(noisy, 0.25).astype(int)
    exact = load(module, device="cpu").variants(noisy, 0.25).astype(int)
    assert 0 < np.abs(rough - exact).max() <= 2


def test_fingerprint_follows_what_decides_the_bits(tiny_file: Path, tmp_path: Path) -> None:
    other = save(random_unet(seed=1), tmp_path / "other.safetensors")
    copy = Path(tmp_path / "copy.safetensors")
    copy.write_bytes(tiny_file.read_bytes())
    base = load(tiny_file, device="cpu", precision="fp32").fingerprint
    assert load(copy, device="cpu", precision="fp32").fingerprint == base
    prints = {
        base,
        load(other, device="cpu", precision="fp32").fingerprint,
        load(tiny_file, device="cpu", precision="bf16").fingerprint,
        load(None).fingerprint,
        load(Halve(), device="cpu").fingerprint,
        load(Halve(0.6), device="cpu").fingerprint,
        load(Halve().bfloat16(), device="cpu").fingerprint,
        load(lambda x, _s: x, name="a").fingerprint,
        load(lambda x, _s: x, name="b").fingerprint,
    }
    assert len(prints) == 9
    named = [load(Halve(), device="cpu", name="halve-1").fingerprint for _ in range(2)]
    assert named[0] == named[1]
    # Nothing sees a module's code and plain attributes, so without a name nothing is shared.
    assert load(Halve(), device="cpu").fingerprint != load(Halve(), device="cpu").fingerprint


def test_nameless_function_is_refused() -> None:
    def function(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x

    assert isinstance(function, Denoiser)
    with pytest.raises(UsageError, match="another function"):
        load(function)
    function.fingerprint = "mine-1"  # type: ignore[attr-defined]
    assert load(function).name == "function"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, s: x.numpy(), "ndarray"),
        (lambda x, s: x[:, :1], "shape"),
        (lambda x, s: x[..., ::2], "shape"),
        (lambda x, s: (x * 255).to(torch.uint8), "floating point"),
        (lambda x, s: x / 0, "not finite"),
        (lambda x, s: x.clamp(0, 1) * 255, r"\[0, 255\]"),
        (lambda x, s: x.clamp(0, 1) * 2 - 1, r"\[-1, 1\]"),
        (lambda x, s: x - 0.5, "return the noise"),
    ],
)
def test_what_is_no_picture_is_refused(function: object, message: str, noisy: np.ndarray) -> None:
    with pytest.raises(DenoiserError, match=message):
        load(function, name="bad").variants(noisy, 0.25)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.05, 0.25, 1.0])
def test_plain_noise_passes_the_check(sigma: float) -> None:
    rng = np.random.default_rng(0)
    dark = sigma * rng.standard_normal((2, 32, 32, 3))
    load(lambda x, _s: x, name="identity").variants(dark, sigma)


def test_bad_input_is_refused(noisy: np.ndarray) -> None:
    denoiser = load(None)
    for bad in (noisy[0], noisy.transpose(0, 3, 1, 2), (noisy * 255).astype(np.uint8)):
        with pytest.raises(UsageError, match=r"\(N, H, W, 3\)"):
            denoiser.variants(bad, 0.25)
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="sigma"):
            denoiser.variants(noisy, sigma)
    with pytest.raises(UsageError, match="cannot be used as a denoiser"):
        load(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gpu0", "CUDA", "cuda:", "cuda:x", "", "cpu:0"])
def test_unknown_device_is_refused_at_once(name: str) -> None:
    with pytest.raises(DenoiserError, match="auto, cpu, cuda"):
        load(None, device=name)


def test_unknown_precision_is_refused_at_once(tiny_file: Path) -> None:
    with pytest.raises(DenoiserError, match="bf16"):
        load(None, precision="int8")
    with pytest.raises(DenoiserError, match="fp16"):
        _ = load(tiny_file, device="cpu", precision="fp16").precision


def test_missing_cuda_is_announced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "_cuda_count", lambda: 0)
    monkeypatch.setattr(device, "_has_mps", lambda: False)
    with caplog.at_level(logging.WARNING, "smoothapi"):
        assert load(None, device="cuda").device == "cpu"
        assert load(None, device="mps").device == "cpu"
    assert ["runs on the CPU" in r.getMessage() for r in caplog.records] == [True, True]
    caplog.clear()
    assert load(None).device == "cpu"
    assert not caplog.records


def test_devices_are_chosen_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cuda_count", lambda: 2)
    assert device.choose_device("auto") == "cuda:0"
    assert device.choose_device("cuda:1") == "cuda:1"
    with pytest.raises(DenoiserError, match=r"2 CUDA device"):
        device.choose_device("cuda:2")
    monkeypatch.setattr(device, "_cuda_count", lambda: 0)
    monkeypatch.setattr(device, "_has_mps", lambda: True)
    assert device.choose_device("auto") == "mps"


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(device, "cpu_has_bf16", lambda has=has: has)
        assert load(tiny_file, device="cpu").precision == expected
    assert load(Halve(), device="cpu").precision == "fp32"


def test_out_of_memory_halves_the_batch(
    noisy: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = []

    def small(x: torch.Tensor, sigma: float) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return x

    denoiser = load(small, name="small", device="cpu")
    with caplog.at_level(logging.WARNING, "smoothapi"):
        out = denoiser.variants(noisy, 0.25)
    np.testing.assert_array_equal(out, load(None).variants(noisy, 0.25))
    assert sizes[-5:] == [1] * 5
    assert "ran out of memory" in caplog.text
    sizes.clear()
    denoiser.variants(noisy, 0.25)
    assert sizes == [1] * 5, "the smaller batch must be remembered"


def test_out_of_memory_with_one_picture_and_other_failures(noisy: np.ndarray) -> None:
    def never(x: torch.Tensor, sigma: float) -> torch.Tensor:
        raise MemoryError

    def broken(x: torch.Tensor, sigma: float) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(DenoiserError, match="single picture of 26x20"):
        load(never, name="never", device="cpu").variants(noisy, 0.25)
    with pytest.raises(RuntimeError, match="mat1"):
        load(broken, name="broken", device="cpu").variants(noisy, 0.25)


def test_large_pictures_go_one_by_one() -> None:
    sizes = []

    def note(x: torch.Tensor, sigma: float) -> torch.Tensor:
        sizes.append(len(x))
        return x

    load(note, name="note", device="cpu").variants(np.zeros((2, 700, 700, 3), np.float32), 0.25)
    assert sizes == [1, 1]


def test_read_only_input_is_fine(tiny_file: Path, noisy: np.ndarray) -> None:
    noisy.setflags(write=False)
    before = noisy.copy()
    load(tiny_file, device="cpu").variants(noisy, 0.25)
    np.testing.assert_array_equal(noisy, before)


@pytest.mark.parametrize("which", SHIPPED)
def test_shipped_denoisers_denoise(which: str) -> None:
    y, x = np.mgrid[0:64, 0:64] / 64
    clean = np.stack([y, x, (x + y) / 2], axis=-1)
    rng = np.random.default_rng(2)
    noisy = (clean + 0.25 * rng.standard_normal((2, 64, 64, 3))).astype(np.float32)
    out = load(which, device="cpu").variants(noisy, 0.25) / 255
    before, after = (float(np.mean((v - clean) ** 2)) for v in (noisy, out))
    assert after < before / 20
