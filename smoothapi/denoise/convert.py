"""Checkpoints that were published with the denoised-smoothing paper, turned into safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.denoise.storage import Header, read_header, write_weights
from smoothapi.errors import DenoiserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def convert_dncnn(checkpoint: Path, output: Path) -> Header:
    """Write the DnCNN of a `.pth.tar` checkpoint as a weights file.

    Only tensors and plain containers are read (torch's `weights_only`), so a checkpoint that
    carries code is refused and not run. Layers and channels are counted from the tensors, so the
    17-layer network and its wide sibling both load; batch normalisation keeps its running
    statistics, and the network is always run in eval mode.

    Args:
        checkpoint: what `torch.save` wrote: a state dictionary, or a dictionary that has one under
            `state_dict`.
        output: a path that ends in .safetensors.

    Returns:
        The header of what was written.

    Raises:
        DenoiserError: the checkpoint holds more than tensors, or no DnCNN.
    """
    import torch  # noqa: PLC0415

    from smoothapi.denoise.networks import DnCNN  # noqa: PLC0415

    checkpoint, output = Path(checkpoint), Path(output)
    if output.suffix != ".safetensors":
        raise DenoiserError(f"{output} must end in .safetensors, the only form that is read.")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise DenoiserError(
            f"{checkpoint} cannot be read as plain tensors ({reason}). It is damaged, or it "
            "carries code, which is never run. Save its state_dict() alone, where you trust it."
        ) from error
    state = _state(checkpoint, content)
    convolutions = [value for value in state.values() if value.ndim == 4]
    try:
        channels, in_channels = convolutions[0].shape[:2]
        network = DnCNN(len(convolutions), channels, in_channels)
        network.load_state_dict(state)
    except (IndexError, RuntimeError, DenoiserError) as error:
        raise DenoiserError(
            f"{checkpoint} holds no DnCNN as the paper trained it (a chain of 3x3 convolutions "
            f"under 'dncnn', batch normalisation between): {error}"
        ) from error
    write_weights(
        output,
        network.state_dict(),
        architecture="dncnn",
        config={"layers": len(convolutions), "channels": channels, "in_channels": in_channels},
        about={"converted_from": checkpoint.name, **_epoch(content)},
    )
    return read_header(output)


def _state(checkpoint: Path, content: object) -> dict[str, Tensor]:
    import torch  # noqa: PLC0415

    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise DenoiserError(f"{checkpoint} holds no state dictionary.")
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise DenoiserError(f"{checkpoint}: the entry {name!r} of the state is no tensor.")
        # Networks that were trained on several devices have their names prefixed; those saved
        # together with a layer that normalises the input have a number before ours.
        short = str(name).removeprefix("module.")
        if "dncnn." in short:
            short = short[short.index("dncnn.") :]
        state[short] = value
    return state


def _epoch(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: content[key]
        for key in ("arch", "epoch", "noise_sd")
        if isinstance(content.get(key), (int, float, str))
    }
