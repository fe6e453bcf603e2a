"""The denoising networks, as plain torch modules with one calling convention.

Every network here is called as ``network(noisy, sigma)``: ``noisy`` is float32 (N, 3, H, W),
unclipped, on the scale where black is 0 and white is 1; ``sigma`` is the noise level on the same
scale, a number or a tensor of N numbers. What comes back is the estimate of the clean picture,
float32 and of the same shape, not clipped.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from smoothapi.errors import DenoiserError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Shape of a `UNet`.

    Attributes:
        channels: features at 1/2, 1/4, 1/8, ... of the picture's side.
        encoder_blocks: residual blocks on the way down, one number a scale.
        decoder_blocks: residual blocks on the way up, one number a scale but the lowest.
        data_std: standard deviation of clean pixel values about 0.5, in (0, 1].
    """

    channels: tuple[int, ...] = (48, 96, 192, 192)
    encoder_blocks: tuple[int, ...] = (1, 1, 2, 2)
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    data_std: float = 0.25

    def __post_init__(self) -> None:
        scales = len(self.channels)
        if not scales or len(self.encoder_blocks) != scales:
            raise DenoiserError(
                f"A U-Net needs one number of encoder blocks for each of its {scales} scales, "
                f"not {len(self.encoder_blocks)}."
            )
        if len(self.decoder_blocks) != scales - 1:
            raise DenoiserError(
                f"A U-Net of {scales} scales has {scales - 1} on the way up, but decoder_blocks "
                f"names {len(self.decoder_blocks)}."
            )
        if min(self.channels) < 1 or min((*self.encoder_blocks, *self.decoder_blocks)) < 0:
            raise DenoiserError("Channels must be at least 1 and numbers of blocks at least 0.")
        if not 0 < self.data_std <= 1:
            raise DenoiserError(f"data_std is {self.data_std}; it must be in (0, 1].")

    @property
    def multiple(self) -> int:
        """What the sides of a picture are padded to a multiple of."""
        return 1 << len(self.channels)


class _ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))): no normalisation, which on a CPU only moves memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]
        # Starting as the identity keeps a deep unnormalised network stable.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.relu(self.first(x)))
        return x + out


class UNet(nn.Module):
    """One denoiser for all noise levels: a U-Net on the four half-size phases of the picture.

    The noise level enters twice: as a constant input channel, and through the preconditioning of
    Karras, Aittala, Aila and Laine, "Elucidating the Design Space of Diffusion-Based Generative
    Models" (NeurIPS 2022), table 1: the network sees an input of unit variance and predicts a
    target of unit variance at every sigma. The last sum is float32 whatever precision the
    convolutions run in.

    Args:
        config: the shape; the default is what the shipped weights have.
    """

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        channels = config.channels
        self.head = nn.Conv2d(13, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            _stack(width, count)
            for width, count in zip(channels, config.encoder_blocks, strict=True)
        )
        steps = list(pairwise(channels))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in steps)
        self.decoder = nn.ModuleList(
            _stack(width, count)
            for width, count in zip(channels[:-1], config.decoder_blocks, strict=True)
        )
        self.tail = nn.Conv2d(channels[0], 12, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, noisy: Tensor, sigma: float | Tensor) -> Tensor:
        """Estimate the clean picture; see the module's docstring for shapes and ranges."""
        height, width = noisy.shape[-2:]
        std2 = self.config.data_std**2
        level = noise_level(noisy, sigma)
        variance = level * level + std2
        centred = reflect_to_multiple(noisy, self.config.multiple) - 0.5
        residual = self._features(centred / variance.sqrt(), level.log() / 4)
        scale = level * math.sqrt(std2) / variance.sqrt()
        clean = (std2 / variance) * centred + scale * residual.float() + 0.5
        return clean[..., :height, :width]

    def _features(self, x: Tensor, level: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, 2)
        x = torch.cat([x, level.expand(-1, 1, *x.shape[-2:])], dim=1)
        x = self.head(x.to(self.head.weight.dtype))
        skips: list[Tensor] = []
        for index, blocks in enumerate(self.encoder):
            x = blocks(x)
            if index < len(self.down):
                skips.append(x)
                x = self.down[index](x)
        for index in reversed(range(len(self.up))):
            x = F.pixel_shuffle(self.up[index](x), 2) + skips[index]
            x = self.decoder[index](x)
        return F.pixel_shuffle(self.tail(x), 2)


class DnCNN(nn.Module):
    """The paper's denoiser: a chain of 3x3 convolutions that predicts the noise.

    Zhang, Zuo, Chen, Meng and Zhang, "Beyond a Gaussian Denoiser" (TIP 2017), as Salman et al.
    (NeurIPS 2020) trained it: 17 layers of 64 channels, or 128 channels for the wide one. It is
    blind: sigma is accepted and not used, so a checkpoint fits the one level it was trained for.

    Args:
        layers: convolutions in all, at least 3.
        channels: features between them.
        in_channels: colours of the picture.
        bias: whether the first convolution has a bias, as in the paper's code; no other has.
        eps: what batch normalisation adds to variances, above 0; the paper's code has 1e-4.

    Raises:
        DenoiserError: there are too few layers or channels, or eps is not above 0.
    """

    def __init__(
        self,
        layers: int = 17,
        channels: int = 64,
        in_channels: int = 3,
        *,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if layers < 3 or channels < 1:
            raise DenoiserError("A DnCNN needs at least 3 layers and 1 channel.")
        if not 0 < eps < 1:
            raise DenoiserError(
                f"eps is {eps}, but it is a small number that keeps batch normalisation from "
                "dividing by 0: it must be above 0 and below 1. The paper's code has 1e-4."
            )
        self.layers, self.channels, self.in_channels = layers, channels, in_channels
        self.bias, self.eps = bias, eps
        chain: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
        ]
        for _ in range(layers - 2):
            chain += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels, eps=eps),
                nn.ReLU(inplace=True),
            ]
        chain.append(nn.Conv2d(channels, in_channels, 3, padding=1, bias=False))
        # The name that published checkpoints give the chain.
        self.dncnn = nn.Sequential(*chain)

    def forward(self, noisy: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """Estimate the clean picture; see the module's docstring for shapes and ranges."""
        del sigma
        noise: Tensor = self.dncnn(noisy.to(next(self.parameters()).dtype))
        return noisy - noise.to(noisy.dtype)


def build(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """The untrained network that a weights file's header describes.

    Raises:
        DenoiserError: the architecture is unknown or the configuration does not fit it.
    """
    try:
        if architecture == "unet":
            shape: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in config.items()
            }
            return UNet(UNetConfig(**shape))
        if architecture == "dncnn":
            return DnCNN(**config)
    except TypeError as error:
        raise DenoiserError(
            f"The configuration {dict(config)!r} does not fit the architecture {architecture!r}: "
            f"{error}. The weights were written by another version of smoothapi, or by hand."
        ) from error
    raise DenoiserError(
        f"The weights are for a network {architecture!r}, which this version of smoothapi does not "
        "know. It knows 'unet' and 'dncnn'; any other torch module can be passed as an object."
    )


def describe(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """Name and configuration from which `build` makes the same network again.

    Raises:
        DenoiserError: the network is not of this module.
    """
    if isinstance(network, UNet):
        return "unet", asdict(network.config)
    if isinstance(network, DnCNN):
        names = ("layers", "channels", "in_channels")
        config = {name: getattr(network, name) for name in names}
        # Said only where they differ: files of earlier versions keep their fingerprints.
        if network.bias:
            config["bias"] = True
        if network.eps != 1e-5:
            config["eps"] = network.eps
        return "dncnn", config
    raise DenoiserError(f"A {type(network).__name__} cannot be written as smoothapi weights.")


def noise_level(noisy: Tensor, sigma: float | Tensor) -> Tensor:
    """`sigma` as a float32 tensor that broadcasts over `noisy`, (N or 1, 1, 1, 1)."""
    level = torch.as_tensor(sigma, dtype=torch.float32, device=noisy.device)
    return level.reshape(-1, 1, 1, 1).clamp_min(1e-4).expand(len(noisy), 1, 1, 1)


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom by reflection so that both sides are multiples; any size above 0."""
    height, width = x.shape[-2:]
    if rows := -height % multiple:
        x = x.index_select(-2, _reflected(height, rows, x.device))
    if columns := -width % multiple:
        x = x.index_select(-1, _reflected(width, columns, x.device))
    return x


def _reflected(size: int, extra: int, device: torch.device) -> Tensor:
    # torch's own reflection refuses a padding as long as the side; a triangle wave does not.
    period = max(2 * (size - 1), 1)
    index = torch.arange(size + extra, device=device) % period
    return torch.where(index < size, index, period - index)


def _stack(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_ResidualBlock(channels) for _ in range(count)))
