"""A tiny network, and how it gets on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from smoothapi.denoise.networks import UNet, UNetConfig, describe
from smoothapi.denoise.storage import write_weights

if TYPE_CHECKING:
    from pathlib import Path

TINY = UNetConfig(channels=(4, 6), encoder_blocks=(1, 1), decoder_blocks=(1,))


def random_unet(config: UNetConfig = TINY, seed: int = 0) -> UNet:
    """A network that does something: none of its layers is zero."""
    torch.manual_seed(seed)
    network = UNet(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def save(network: UNet, path: Path) -> Path:
    architecture, config = describe(network)
    write_weights(path, network.state_dict(), architecture=architecture, config=config)
    return path
