"""State dictionaries in files that others wrote: found, read as tensors alone, and made to fit."""

from __future__ import annotations

import re
import tarfile
import warnings
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any

from smoothapi.errors import DenoiserError
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

_HOLDERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "denoiser",
    "params",
    "weights",
    "module",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "shadow",
)
"""Keys under which checkpoints keep the state, in the order in which they are tried."""

_WRAPPERS = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module"})
"""What wrappers (DataParallel, torch.compile and the like) put into the names of tensors."""

_OWNERS = frozenset({"model", "network", "net", "state_dict", "ema", "ema_model"})
"""What training code calls the attribute that is the network; only at the beginning of names."""

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


def read_checkpoint(checkpoint: Path) -> object:
    """Return what a file holds: safetensors, or what `torch.save` wrote.

    Nothing that a file carries is run: torch's `weights_only` makes tensors and plain containers,
    and a fixed list of things that training code saves beside them (numpy's scalars and arrays,
    arguments, paths, times) is passed over without being made. While a file is read, torch's list
    of safe globals is longer in the whole process.

    Raises:
        DenoiserError: it cannot be read, or holds what is not on the list.
    """
    import torch  # noqa: PLC0415

    if checkpoint.suffix.lower() == ".safetensors":
        return _read_safetensors(checkpoint)
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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DenoiserError(f"{path} cannot be read as safetensors: {error}.") from error


def state_in(checkpoint: Path, content: object) -> dict[str, Tensor]:
    """Return the state dictionary that a file holds, by itself or under a name like `state_dict`.

    Raises:
        DenoiserError: there is none, or it has more than tensors.
    """
    import torch  # noqa: PLC0415

    state = _found(content)
    if state is None:
        raise DenoiserError(
            f"{checkpoint} holds no state dictionary, neither by itself nor under one of "
            f"{', '.join(_HOLDERS)}. Save the network's state_dict()."
        )
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise DenoiserError(
                f"{checkpoint}: the entry {name!r} of the state is not a tensor. Save the "
                "network's state_dict() as torch returns it."
            )
    return {str(name): value.detach() for name, value in state.items()}


def _found(content: object) -> dict[Any, Any] | None:
    """Return the first dictionary with tensors in it; those that hold others come before them."""
    import torch  # noqa: PLC0415

    if not isinstance(content, dict):
        return None
    for key in _HOLDERS:
        if (inside := _found(content.get(key))) is not None:
            return inside
    return content if any(isinstance(v, torch.Tensor) for v in content.values()) else None


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load a state into a network, whatever wrappers and precisions were around when it was saved.

    Tensors take the type and the device of the network's own. Names are compared without what
    wrappers put into them.

    Args:
        network: changed in place.
        state: name -> tensor.
        source: for errors.

    Raises:
        DenoiserError: they do not fit; says in which names.
    """
    network.load_state_dict(fitting(network.state_dict(), state, source))


def fitting(own: Mapping[str, Any], state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return a state under a network's own names; raises DenoiserError where it does not fit.

    Args:
        own: of the network, in names and shapes; its tensors may be without content.
        state: as for `load_state`.
        source: for errors.
    """
    fitted = _named_as(own, state, source)
    if problem := _misfit(own, fitted):
        raise DenoiserError(f"The tensors in {source} do not fit the network: {problem}.")
    return fitted


def _named_as(
    own: Mapping[str, Any], state: Mapping[str, Tensor], source: Path
) -> dict[str, Tensor]:
    """Return the state under the network's own names, and without a count of averaged models."""
    if state.keys() != own.keys():
        counts = Counter(map(_bare, state))
        if twice := next((name for name, count in counts.items() if count > 1), ""):
            raise DenoiserError(
                f"{source} holds more than one {printable(twice)!r}, so more than one network. "
                "Save the state_dict() of the one that you want."
            )
        names = {_bare(name): name for name in own}
        if len(names) == len(own):
            state = {names.get(_bare(name), name): value for name, value in state.items()}
    return {n: v for n, v in state.items() if n in own or _bare(n) != "n_averaged"}


def _bare(name: str) -> str:
    """Return a tensor's name without what wrappers put into it."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] in _OWNERS:
        del parts[0]
    return ".".join(parts)


def _misfit(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Return in few words why a state does not fit; "" if it does."""
    # Batch normalisation of before it counted batches has no count.
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in state]
    extra = [name for name in state if name not in own]
    shapes = [
        f"{name} is {tuple(state[name].shape)} and not {tuple(own[name].shape)}"
        for name in own
        if name in state and getattr(own[name], "shape", None) != state[name].shape
    ]
    said = []
    if missing:
        said.append(f"{len(missing)} of {len(needed)} are missing ({_some(missing)})")
    if extra:
        said.append(f"{len(extra)} are not the network's ({_some(extra)})")
    if shapes:
        said.append(f"{len(shapes)} have another shape ({_some(shapes)})")
    return "; ".join(said)


def _some(names: Iterable[str]) -> str:
    few = sorted(names)
    more = ", ..." if len(few) > 3 else ""
    return printable(", ".join(few[:3]))[:300] + more
