"""Checkpoints that were published with the denoised-smoothing paper, turned into safetensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.denoise.checkpoints import load_state, read_checkpoint, state_in
from smoothapi.denoise.storage import Header, read_header, write_weights
from smoothapi.errors import DenoiserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from smoothapi.denoise.networks import DnCNN

PUBLISHED_EPS = 1e-4
"""Of batch normalisation in the paper's code; a state dictionary does not say it."""


def convert_dncnn(checkpoint: Path, output: Path, *, eps: float | None = None) -> Header:
    """Write the DnCNN of a `.pth.tar` checkpoint as a weights file.

    Nothing that a checkpoint carries is run (`checkpoints.read_checkpoint`). Prefixes of wrappers
    (`module.`, `1.`, `_orig_mod.`) are taken off.

    Layers, channels and whether the first convolution has a bias are read off the tensors, so the
    17 layers of 64 channels and their sibling of 128 both load; half, bfloat16 and double become
    float32. Batch normalisation keeps its running statistics: the network always runs in eval mode.

    Args:
        checkpoint: what `torch.save` wrote, in its present or its older format: a state
            dictionary, or a dictionary that has one under `state_dict` or a name like it.
        output: a path that ends in .safetensors.
        eps: of batch normalisation, in (0, 1). None takes the paper's 1e-4 where the first
            convolution has a bias, as in the paper's code, and else smoothapi's 1e-5.

    Returns:
        The header of what was written. A bias and an eps other than 1e-5 are in its `config`.

    Raises:
        DenoiserError: the checkpoint cannot be read, holds what is not on the list, or no DnCNN
            for pictures of three colours; or the output cannot be written.
    """
    from smoothapi.denoise.networks import describe  # noqa: PLC0415

    checkpoint, output = Path(checkpoint), Path(output)
    if output.suffix != ".safetensors":
        raise DenoiserError(f"{output} must end in .safetensors, the only form that is read.")
    content = read_checkpoint(checkpoint)
    network = _network(checkpoint, _state(checkpoint, content), content, eps)
    architecture, config = describe(network)
    try:
        write_weights(
            output,
            network.state_dict(),
            architecture=architecture,
            config=config,
            about={"converted_from": checkpoint.name, **_facts(content)},
        )
    except OSError as error:
        raise DenoiserError(
            f"{output} cannot be written: {error.strerror or error}. Name a file in a folder that "
            "is there and that you can write to."
        ) from error
    return read_header(output)


def _state(checkpoint: Path, content: object) -> dict[str, Tensor]:
    """Return the state, its names from `dncnn.` on."""
    state: dict[str, Tensor] = {}
    for name, value in state_in(checkpoint, content).items():
        short = _short(name)
        if short in state:
            raise DenoiserError(
                f"{checkpoint} holds more than one {short!r}, so more than one DnCNN. Save the "
                "state_dict() of the one that you want."
            )
        state[short] = value
    return state


def _short(name: str) -> str:
    """Return the name without what wrappers put before the chain."""
    parts = name.split(".")
    if "dncnn" in parts:
        return ".".join(parts[len(parts) - 1 - parts[::-1].index("dncnn") :])
    # The chain saved by itself: only its numbers.
    bare = re.fullmatch(r"(?:module\.)*(\d+\.[a-z_]+)", name)
    return f"dncnn.{bare[1]}" if bare else name


def _network(
    checkpoint: Path, state: Mapping[str, Tensor], content: object, eps: float | None
) -> DnCNN:
    from smoothapi.denoise.networks import DnCNN  # noqa: PLC0415

    what = f"{checkpoint} holds no DnCNN as the paper trained it"
    arch = _facts(content).get("arch")
    layout = (
        "That is a chain of 3x3 convolutions under 'dncnn', the first with a bias, batch "
        "normalisation between"
    )
    first = state.get("dncnn.0.weight")
    if first is None or first.ndim != 4:
        named = f" (it says that it is {arch!r})" if arch else ""
        raise DenoiserError(
            f"{what}{named}: its entries are {', '.join(sorted(state)[:3])}, ... {layout}. Any "
            "other network can be loaded into a torch module of yours and passed as `denoiser`."
        )
    width, colours, height, breadth = first.shape
    if (height, breadth) != (3, 3):
        raise DenoiserError(f"{what}: its convolutions are {height}x{breadth}. {layout}.")
    if colours != 3:
        raise DenoiserError(
            f"{what}: it takes pictures of {colours} colour{'s' * (colours != 1)}, and those of "
            "smoothapi have 3. Convert one that was trained on colour pictures."
        )
    bias = "dncnn.0.bias" in state
    if eps is None:
        eps = PUBLISHED_EPS if bias else 1e-5
    layers = sum(value.ndim == 4 for value in state.values())
    network = DnCNN(max(layers, 3), width, colours, bias=bias, eps=eps)
    try:
        load_state(network, state, checkpoint)
    except DenoiserError as error:
        raise DenoiserError(f"{what}. {layout}. {error}") from error
    for name, value in network.state_dict().items():
        if not value.isfinite().all():
            raise DenoiserError(
                f"{checkpoint}: {name} has values that are not finite. The training failed, or "
                "the file is damaged: take an earlier checkpoint, or copy it again."
            )
    return network


def _facts(content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        return {}
    return {
        key: content[key]
        for key in ("arch", "epoch", "noise_sd")
        if isinstance(content.get(key), (int, float, str))
    }
