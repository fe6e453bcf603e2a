"""Checkpoints that were published with the denoised-smoothing paper, turned into safetensors."""

from __future__ import annotations

import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.denoise.storage import Header, read_header, write_weights
from smoothapi.errors import DenoiserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from smoothapi.denoise.networks import DnCNN

PUBLISHED_EPS = 1e-4
"""Of batch normalisation in the paper's code; a state dictionary does not say it."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "denoiser", "params")
"""Keys under which checkpoints keep the state, in the order in which they are tried."""

_BESIDE = (
    "argparse.Namespace",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib.WindowsPath",
    "pathlib._local.Path",
    "pathlib._local.PosixPath",
    "pathlib._local.PurePosixPath",
)
"""What training code likes to save beside the tensors. None is made: `_Passed` takes its place."""


class _Passed:
    """Stands for a thing beside the tensors: takes whatever it is given, and does nothing."""

    def __new__(cls, *_: object) -> _Passed:  # noqa: PYI034 - the only one of its kind
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        return


def _passed_dict(*_: object) -> dict[object, object]:
    """Stand for a defaultdict, whose items the unpickler puts in afterwards."""
    return {}


def convert_dncnn(checkpoint: Path, output: Path, *, eps: float | None = None) -> Header:
    """Write the DnCNN of a `.pth.tar` checkpoint as a weights file.

    Nothing that a checkpoint carries is run: torch's `weights_only` makes tensors and plain
    containers, and a fixed list of things that training code saves beside them (numpy's scalars
    and arrays, arguments, paths, times) is passed over without being made. Whatever else is in it
    is refused by its name. Prefixes of wrappers (`module.`, `1.`, `_orig_mod.`) are taken off.

    Layers, channels and whether the first convolution has a bias are read off the tensors, so the
    17 layers of 64 channels and their sibling of 128 both load; half, bfloat16 and double become
    float32. Batch normalisation keeps its running statistics: the network always runs in eval mode.

    While a checkpoint is read, torch's list of safe globals is longer in the whole process.

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
    content = _read(checkpoint)
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


def _read(checkpoint: Path) -> object:
    """Return what the checkpoint holds, with `_Passed` for what does not concern us."""
    import torch  # noqa: PLC0415

    try:
        empty = not checkpoint.stat().st_size
        archive = tarfile.is_tarfile(checkpoint) or _is_foreign_zip(checkpoint)
    except (OSError, zipfile.BadZipFile) as error:
        raise DenoiserError(
            f"{checkpoint} cannot be read: {error}. Give the path of a checkpoint, and download "
            "or copy it again if it is damaged."
        ) from error
    if empty:
        raise DenoiserError(f"{checkpoint} is empty. Download or copy it again.")
    if archive:
        raise DenoiserError(
            f"{checkpoint} is an archive of other files and no checkpoint (torch's own end in "
            ".pth.tar without being one). Unpack it, and convert the checkpoint inside."
        )
    passed: list[Any] = [(_Passed, name) for name in _BESIDE]
    passed.append((_passed_dict, "collections.defaultdict"))
    try:
        with torch.serialization.safe_globals(passed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: the error below says it
            return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DenoiserError(_why_unread(checkpoint, str(error))) from error


def _is_foreign_zip(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return not any(name.endswith("/data.pkl") for name in archive.namelist())


def _why_unread(checkpoint: Path, reason: str) -> str:
    start = f"{checkpoint} cannot be read as plain tensors"
    if found := re.search(r"GLOBAL (\S+)", reason):
        return (
            f"{start}: it holds {found[1]}, and making one runs code, which is never run here. "
            "Where you trust the file, load it with the code that wrote it, and save the network's "
            "state_dict() alone: torch.save(network.state_dict(), path)."
        )
    if "Unsupported operand" in reason:
        with checkpoint.open("rb") as stream:
            head = stream.read(2)
        if zipfile.is_zipfile(checkpoint):
            with zipfile.ZipFile(checkpoint) as archive:
                name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
                head = archive.read(name)[:2]
        if head[:1] == b"\x80" and head[1] > 2:
            return (
                f"{start}: it was saved with pickle protocol {head[1]}, of which torch reads "
                "tensors alone only up to 2. Where you trust the file, load it and save it again "
                "with torch.save as it stands, without pickle_protocol."
            )
    first = reason.partition("\n")[0].partition(". ")[0]
    return (
        f"{start} ({first}). It is damaged, or no checkpoint of torch. Download or copy it again; "
        "where you trust it, save the network's state_dict() alone."
    )


def _state(checkpoint: Path, content: object) -> dict[str, Tensor]:
    """Return the state, its names from `dncnn.` on."""
    import torch  # noqa: PLC0415

    while isinstance(content, dict) and not _has_tensors(content):
        inside = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)]
        if not inside:
            break
        content = inside[0]
    if not isinstance(content, dict) or not content or not _has_tensors(content):
        raise DenoiserError(
            f"{checkpoint} holds no state dictionary, neither by itself nor under one of "
            f"{', '.join(_WRAPPERS)}. Save the network's state_dict()."
        )
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise DenoiserError(
                f"{checkpoint}: the entry {name!r} of the state is not a tensor. Save the "
                "network's state_dict() as torch returns it."
            )
        short = _short(str(name))
        if short in state:
            raise DenoiserError(
                f"{checkpoint} holds more than one {short!r}, so more than one DnCNN. Save the "
                "state_dict() of the one that you want."
            )
        state[short] = value.detach()
    return state


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    import torch  # noqa: PLC0415

    return any(isinstance(value, torch.Tensor) for value in content.values())


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
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DenoiserError(f"{what}. {layout}, but: {error}") from error
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
