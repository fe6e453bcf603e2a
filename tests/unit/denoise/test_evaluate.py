from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from smoothapi.denoise import load
from smoothapi.denoise.networks import DnCNN
from smoothapi.denoise.training.convert import convert_dncnn
from smoothapi.denoise.training.evaluate import evaluate, psnr, ssim
from smoothapi.denoise.training.surrogates import Classifier, load_classifier, load_onnx
from smoothapi.errors import DenoiserError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_ssim_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    second = np.clip(first + rng.normal(0, 20, first.shape), 0, 255).astype(np.uint8)
    _, full = structural_similarity(
        first,
        second,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim(first, second) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)
    assert ssim(first, first) == pytest.approx(1)


def test_psnr_of_a_known_error() -> None:
    a = np.zeros((4, 4, 3), np.uint8)
    assert psnr(a, a + np.uint8(51)) == pytest.approx(-20 * np.log10(0.2))
    assert psnr(a / 255, (a + np.uint8(51)) / 255) == pytest.approx(-20 * np.log10(0.2))


class Brightness(nn.Module):
    """Class 1 if the picture is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full((len(x),), 0.5), x.mean((1, 2, 3))], dim=1)


def test_report_counts_labels_and_decibels(photo_folder: Path) -> None:
    classifier = Classifier("bright", Brightness(), 32)
    truth = {f"{i}.png": 1 for i in range(6)}
    # A denoiser that answers black: agreement is the share of dark photos.
    black = load(lambda x, _s: torch.zeros_like(x), name="black", device="cpu")
    report = evaluate(
        black, photo_folder, [classifier], sigmas=[0.25], size=32, labels=truth, seed=1
    )
    (row,) = report.rows
    plain = evaluate(load(None), photo_folder, [classifier], sigmas=[1e-4], size=32, labels=truth)
    bright = plain.rows[0].accuracy["bright"]
    assert 0 < bright < 1
    assert row.agreement["bright"] == pytest.approx(1 - bright)
    assert row.accuracy["bright"] == 0
    assert row.noisy_psnr == pytest.approx(-20 * np.log10(0.25), abs=0.1)
    assert plain.rows[0].psnr > 58
    assert report.to_dict()["rows"][0]["sigma"] == 0.25
    assert report.photos == 6


def test_names_limit_and_size(photo_folder: Path) -> None:
    one = evaluate(load(None), photo_folder, sigmas=[0.1], size=32, names=["2.png"])
    assert one.photos == 1
    assert evaluate(load(None), photo_folder, sigmas=[0.1], size=32, limit=2).photos == 2
    assert evaluate(load(None), photo_folder, sigmas=[0.1], size=64, resize=True).size == 64
    with pytest.raises(UsageError, match="smaller than the crop"):
        evaluate(load(None), photo_folder, sigmas=[0.1], size=64)
    with pytest.raises(UsageError, match="None of the photos"):
        evaluate(load(None), photo_folder, names=["x"])


def test_onnx_classifier_is_differentiable_and_clips(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 192])],
    )
    path = tmp_path / "flat.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = load_onnx(path)
    assert (classifier.name, classifier.size) == ("flat", 8)
    picture = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    classifier(picture).sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0
    assert classifier(torch.full((1, 3, 8, 8), 7.0)).max() == 1


def test_classifier_by_import_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = (
        "from torch import nn\n"
        "def net():\n    return nn.Flatten()\n"
        "def text():\n    return 'text'\n"
    )
    (tmp_path / "my_classifiers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_classifier("my_classifiers:net")(torch.zeros(1, 3, 9, 9)).shape == (1, 3 * 224**2)
    for bad in ("my_classifiers:none", "no_such_module:net", "my_classifiers:text"):
        with pytest.raises(UsageError):
            load_classifier(bad)


def test_missing_and_broken_onnx_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_onnx(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="cannot be used"):
        load_onnx(tmp_path / "bad.onnx")


def published(layers: int, channels: int) -> tuple[DnCNN, dict[str, object]]:
    """A DnCNN with used batch norms, and a checkpoint as the paper's code saves it."""
    torch.manual_seed(3)
    network = DnCNN(layers, channels)
    network.train()
    for _ in range(3):
        network(torch.rand(2, 3, 12, 12))
    network.eval()
    state = {f"module.{k}": v for k, v in network.state_dict().items()}
    return network, {"epoch": 90, "arch": "imagenet_dncnn", "state_dict": state, "optimizer": {}}


@pytest.mark.parametrize(("layers", "channels"), [(17, 8), (5, 12)])
def test_published_dncnn_converts(tmp_path: Path, layers: int, channels: int) -> None:
    network, checkpoint = published(layers, channels)
    torch.save(checkpoint, tmp_path / "checkpoint.pth.tar")
    header = convert_dncnn(tmp_path / "checkpoint.pth.tar", tmp_path / "d.safetensors")
    assert header.config == {"layers": layers, "channels": channels, "in_channels": 3}
    assert header.about["arch"] == "imagenet_dncnn"
    noisy = np.random.default_rng(0).random((3, 12, 14, 3)).astype(np.float32)
    out = load(tmp_path / "d.safetensors", device="cpu", precision="fp32").variants(noisy, 0.25)
    with torch.inference_mode():
        # One at a time: batch statistics must play no part.
        expected = [network(torch.from_numpy(x).permute(2, 0, 1)[None], 0.25)[0] for x in noisy]
    stacked = torch.stack(expected).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(out, load(None).variants(stacked, 0.25), atol=1)
    assert np.abs(out.astype(int) - load(None).variants(noisy, 0.25)).max() > 1


def test_bare_state_and_numbered_prefix_convert(tmp_path: Path) -> None:
    network, _ = published(4, 5)
    state = {f"1.module.{k}": v for k, v in network.state_dict().items()}
    torch.save(state, tmp_path / "c.pth")
    convert_dncnn(tmp_path / "c.pth", tmp_path / "c.safetensors")


def test_checkpoints_that_are_no_dncnn_are_refused(tmp_path: Path) -> None:
    out, path = tmp_path / "o.safetensors", tmp_path / "c.pth"

    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (__import__("os").mkdir, (str(tmp_path / "ran"),))

    for content in ({"state_dict": Code()}, [1], {}, {"a": 1}, {"conv.weight": torch.zeros(2)}):
        torch.save(content, path)
        with pytest.raises(DenoiserError):
            convert_dncnn(path, out)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(b"nonsense")
    with pytest.raises(DenoiserError, match="plain tensors"):
        convert_dncnn(path, out)
    assert not out.exists()
    _, checkpoint = published(3, 4)
    torch.save(checkpoint, path)
    with pytest.raises(DenoiserError, match=r"\.safetensors"):
        convert_dncnn(path, tmp_path / "o.pth")


def test_accuracy_is_of_the_photos_whose_class_is_known(photo_folder: Path) -> None:
    classifier = Classifier("bright", Brightness(), 32)
    asked = {"sigmas": [1e-4], "size": 32}
    whole = evaluate(load(None), photo_folder, [classifier], **asked, labels=dict.fromkeys(
        [f"{i}.png" for i in range(6)], 1))  # fmt: skip
    assert 0 < whole.rows[0].accuracy["bright"] < 1
    none = evaluate(load(None), photo_folder, [classifier], **asked, labels={"9.png": 1})
    assert none.rows[0].accuracy == {}
    parts = [
        evaluate(load(None), photo_folder, [classifier], **asked, labels={f"{i}.png": 1})
        for i in range(6)
    ]
    shares = [part.rows[0].accuracy["bright"] for part in parts]
    assert set(shares) == {0.0, 1.0}
    assert np.mean(shares) == pytest.approx(whole.rows[0].accuracy["bright"])


def test_two_classifiers_of_one_name_are_refused(photo_folder: Path) -> None:
    twins = [Classifier("bright", Brightness(), 32), Classifier("bright", Brightness(), 32)]
    with pytest.raises(UsageError, match="Two classifiers"):
        evaluate(load(None), photo_folder, twins, sigmas=[0.1], size=32)
