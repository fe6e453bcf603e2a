"""Checkpoints as the denoised-smoothing paper published them, and as others saved them since."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import io
import pathlib
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from smoothapi.cli.denoiser import denoiser
from smoothapi.denoise import load
from smoothapi.denoise.networks import DnCNN, build, describe
from smoothapi.denoise.storage import load_network, read_header
from smoothapi.denoise.training.convert import convert_dncnn
from smoothapi.errors import DenoiserError

if TYPE_CHECKING:
    from pathlib import Path


class Published(nn.Module):
    """The layout of the paper's code (archs/dncnn.py): a bias first, and eps 1e-4."""

    def __init__(self, layers: int = 5, width: int = 6, colours: int = 3, *, size: int = 3) -> None:
        super().__init__()
        half = size // 2
        chain = [nn.Conv2d(colours, width, size, padding=half, bias=True), nn.ReLU()]
        for _ in range(layers - 2):
            chain += [
                nn.Conv2d(width, width, size, padding=half, bias=False),
                nn.BatchNorm2d(width, eps=1e-4),
                nn.ReLU(),
            ]
        chain.append(nn.Conv2d(width, colours, size, padding=half, bias=False))
        self.dncnn = nn.Sequential(*chain)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return noisy - self.dncnn(noisy)


def published(*args: int, **kwargs: int) -> Published:
    """One in which bias and eps matter: variances are of the size of eps."""
    torch.manual_seed(3)
    network = Published(*args, **kwargs).eval()
    for part in network.dncnn:
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(1e-4, 1e-3)
            part.weight.data.uniform_(0.01, 0.05)
            part.bias.data.normal_(std=0.1)
            part.num_batches_tracked.fill_(7)
    network.dncnn[0].bias.data.normal_(std=0.2)
    return network


def same_as(network: Published, path: Path) -> bool:
    noisy = torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = load_network(read_header(path))(noisy, 0.25)
        return bool(torch.allclose(ours, network(noisy), atol=1e-5, rtol=0))


def prefixed(network: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in network.state_dict().items()}


@pytest.mark.parametrize(("layers", "width"), [(17, 64), (17, 128), (5, 6)])
def test_the_published_layout_says_the_same_as_the_original(tmp_path, layers, width):
    network = published(layers, width)
    state = prefixed(network, "module.")
    torch.save({"epoch": 90, "arch": "imagenet_dncnn", "state_dict": state}, tmp_path / "b.pth.tar")
    header = convert_dncnn(tmp_path / "b.pth.tar", tmp_path / "b.safetensors")
    assert same_as(network, tmp_path / "b.safetensors")
    assert (header.config["layers"], header.config["channels"]) == (layers, width)
    assert header.about == {
        "converted_from": "b.pth.tar",
        "arch": "imagenet_dncnn",
        "epoch": 90,
    }


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "1.",
        "1.module.",
        "module.1.",
        "module.module.",
        "_orig_mod.module.",
        "denoiser.",
        "imagenet_dncnn.",
        "dncnn.",
    ],
)
@pytest.mark.parametrize(
    "wrapper", [None, "state_dict", "model_state_dict", "model", "denoiser", "ema"]
)
def test_prefixes_and_wrappers(tmp_path, prefix, wrapper):
    network = published()
    state: dict[str, Any] = prefixed(network, prefix)
    torch.save(state if wrapper is None else {"epoch": 1, wrapper: state}, tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert same_as(network, tmp_path / "c.safetensors")


def test_the_chain_saved_alone(tmp_path):
    network = published()
    torch.save(network.dncnn.state_dict(), tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert same_as(network, tmp_path / "c.safetensors")


def test_the_order_of_the_entries_does_not_matter(tmp_path):
    network = published(5, 6)
    state = dict(sorted(network.state_dict().items(), reverse=True))
    torch.save(state, tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert same_as(network, tmp_path / "c.safetensors")


def adam(network: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train()
    network(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


BESIDE = {
    "optimizer": lambda: adam(Published()),  # loads a large part of torch
    "numpy scalars": {"best_acc": np.float64(71.5), "epoch": np.int64(3), "f": np.float32(1)},
    "numpy flag": np.bool_(True),
    "numpy arrays": {"losses": np.arange(3.0), "names": np.array(["a", "b"])},
    "numpy random state": np.random.RandomState(0).get_state(),
    "arguments": argparse.Namespace(arch="imagenet_dncnn", outdir=pathlib.PurePosixPath("runs")),
    "path": pathlib.Path("runs/a"),
    "time": dt.datetime(2020, 3, 1, tzinfo=dt.UTC),
    "took": dt.timedelta(seconds=3),
    "history": collections.defaultdict(list, {"loss": [1.0]}),
    "counts": collections.Counter("aab"),
    "set": {1, 2},
    "frozen set": frozenset({1}),
    "type": torch.float32,
    "device": torch.device("cpu"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("beside", BESIDE)
def test_what_lies_beside_the_tensors_is_passed_over(tmp_path, beside, legacy):
    network, value = published(), BESIDE[beside]
    value = value() if callable(value) else value
    content = {"arch": "cifar_dncnn", "state_dict": network.state_dict(), "beside": value}
    path = tmp_path / "c.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    header = convert_dncnn(path, tmp_path / "c.safetensors")
    assert same_as(network, tmp_path / "c.safetensors")
    assert header.about["arch"] == "cifar_dncnn"


def test_names_of_numpy_1_and_2_are_passed_over(tmp_path):
    network = published()
    content = {"state_dict": network.state_dict(), "best_acc": np.float64(71.5)}
    path = tmp_path / "c.pth"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    assert b"cnumpy._core.multiarray\nscalar\n" in raw or b"cnumpy.core.multiarray\nscalar\n" in raw
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        named = raw.replace(b"numpy._core.multiarray", module).replace(
            b"numpy.core.multiarray", module
        )
        path.write_bytes(named)
        convert_dncnn(path, tmp_path / "c.safetensors")
        assert same_as(network, tmp_path / "c.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_written_as_float32(tmp_path, dtype):
    network = published().to(dtype)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert same_as(network.float(), tmp_path / "c.safetensors")


def test_batch_norms_saved_before_they_counted_batches(tmp_path):
    network = published()
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save({"state_dict": state}, tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert same_as(network, tmp_path / "c.safetensors")


def test_parameters_in_place_of_tensors(tmp_path):
    network = published()
    torch.save(dict(network.state_dict(keep_vars=True)), tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert same_as(network, tmp_path / "c.safetensors")


def test_eps_can_be_said(tmp_path):
    network = published()
    for part in network.dncnn:
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1e-3
    torch.save(network.state_dict(), tmp_path / "c.pth")
    header = convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors", eps=1e-3)
    assert header.config["eps"] == 1e-3
    assert same_as(network, tmp_path / "c.safetensors")
    command = ["convert", str(tmp_path / "c.pth"), str(tmp_path / "d.safetensors"), "--eps", "1e-3"]
    assert CliRunner().invoke(denoiser, command).exit_code == 0
    assert same_as(network, tmp_path / "d.safetensors")
    with pytest.raises(DenoiserError, match="eps"):
        convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors", eps=0.0)


def test_smoothapis_own_layout_keeps_its_own_header(tmp_path):
    torch.save({"state_dict": DnCNN(4, 5).state_dict()}, tmp_path / "c.pth")
    header = convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert header.config == {"layers": 4, "channels": 5, "in_channels": 3}


def test_networks_with_bias_and_eps_are_built_again_from_what_describes_them():
    network = DnCNN(4, 5, bias=True, eps=1e-4)
    architecture, config = describe(network)
    again = build(architecture, config)
    assert describe(again) == (architecture, config)
    assert again.dncnn[0].bias is not None
    assert again.dncnn[3].eps == 1e-4


def test_a_converted_file_denoises(tmp_path):
    torch.save({"state_dict": published().state_dict()}, tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    noisy = np.random.default_rng(0).random((2, 12, 14, 3)).astype(np.float32)
    for precision in ("fp32", "bf16"):
        runtime = load(tmp_path / "c.safetensors", device="cpu", precision=precision)
        assert runtime.variants(noisy, 0.25).shape == noisy.shape


class Touch:
    """Would make a file if its pickle were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_is_named_and_never_run(tmp_path, legacy):
    path, ran = tmp_path / "c.pth", tmp_path / "ran"
    content = {"state_dict": published().state_dict(), "beside": Touch(ran)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DenoiserError, match=r"io\.open.*never run.*state_dict\(\)"):
        convert_dncnn(path, tmp_path / "c.safetensors")
    assert not ran.exists()
    assert not (tmp_path / "c.safetensors").exists()


def test_a_whole_network_is_refused_by_its_name(tmp_path):
    torch.save(published(), tmp_path / "c.pth")
    with pytest.raises(DenoiserError, match=r"test_convert\.Published.*state_dict\(\)"):
        convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")


def test_what_is_passed_over_is_not_made(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(argparse.Namespace, "__setstate__", made.append, raising=False)
    content = {"state_dict": published().state_dict(), "args": argparse.Namespace(a=1)}
    torch.save(content, tmp_path / "c.pth")
    before = set(torch.serialization.get_safe_globals())
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
    assert not made
    assert set(torch.serialization.get_safe_globals()) == before


def refusal(tmp_path: Path, content: object) -> str:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(DenoiserError) as caught:
        convert_dncnn(tmp_path / "c.pth", tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()
    return str(caught.value)


def test_refusals_say_what_is_there(tmp_path):
    state = published().state_dict()
    assert "1 colour" in refusal(tmp_path, published(5, 6, 1).state_dict())
    assert "5x5" in refusal(tmp_path, published(size=5).state_dict())
    memnet = {
        "arch": "imagenet_memnet",
        "state_dict": {"feature_extractor.bn.weight": torch.ones(2)},
    }
    text = refusal(tmp_path, memnet)
    assert "imagenet_memnet" in text
    assert "feature_extractor.bn.weight" in text
    attached = prefixed(published(), "0.module.") | {"1.module.fc.weight": torch.ones(2, 2)}
    assert "1.module.fc.weight" in refusal(tmp_path, attached)
    two = prefixed(published(), "0.") | prefixed(published(), "1.")
    assert "more than one" in refusal(tmp_path, two)
    broken = {**state, "dncnn.0.weight": torch.full_like(state["dncnn.0.weight"], torch.nan)}
    assert "not finite" in refusal(tmp_path, broken)
    missing = {k: v for k, v in state.items() if k != "dncnn.3.running_var"}
    assert "dncnn.3.running_var" in refusal(tmp_path, missing)
    assert "not a tensor" in refusal(tmp_path, {**state, "dncnn.0.bias": np.zeros(6)})
    assert "no state dictionary" in refusal(tmp_path, {"epoch": 3, "optimizer": {}})
    assert "no state dictionary" in refusal(tmp_path, [1])


def test_archives_and_damage_are_told_apart(tmp_path):
    path, out = tmp_path / "c.pth.tar", tmp_path / "o.safetensors"
    torch.save({"state_dict": published().state_dict()}, path)
    content = path.read_bytes()
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(path, "checkpoint.pth.tar")
    with pytest.raises(DenoiserError, match=r"archive.*Unpack"):
        convert_dncnn(tmp_path / "all.tar", out)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("pretrained/best.pth.tar", content)
    path.write_bytes(packed.getvalue())
    with pytest.raises(DenoiserError, match=r"archive.*Unpack"):
        convert_dncnn(path, out)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DenoiserError, match="damaged"):
        convert_dncnn(path, out)
    path.write_bytes(b"")
    with pytest.raises(DenoiserError, match="empty"):
        convert_dncnn(path, out)
    with pytest.raises(DenoiserError, match="cannot be read"):
        convert_dncnn(tmp_path / "none.pth", out)
    path.write_bytes(content)
    with pytest.raises(DenoiserError, match="cannot be written"):
        convert_dncnn(path, tmp_path / "no_folder" / "o.safetensors")


def test_a_newer_pickle_protocol_is_named(tmp_path):
    torch.save({"state_dict": published().state_dict()}, tmp_path / "c.pth", pickle_protocol=4)
    with pytest.raises(DenoiserError, match="protocol 4"):
        convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")
