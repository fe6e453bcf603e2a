"""Models of torch: loaded from what was given, and told apart by their weights."""

from __future__ import annotations

import hashlib
import importlib
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.errors import DenoiserError, MissingExtraError, UsageError
from smoothapi.text import printable

if TYPE_CHECKING:
    from torch import nn

SCRIPTS = frozenset({".pt", ".pth", ".ts", ".torchscript"})


class TorchModel:
    """A model that is loaded."""

    def __init__(self, module: Any, identity: str, size: int, device: str) -> None:
        self.module = module
        self.id = identity
        self.size = size
        self.device = device
        self.dtype = _dtype_of(module)
        self.lock = threading.Lock()
        self.batches = getattr(module, "smoothapi_batches", True)


def _dtype_of(module: Any) -> Any:
    """Return the type of the numbers that a module takes: that of its first weights."""
    import torch  # noqa: PLC0415

    parameters = module.parameters() if isinstance(module, torch.nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)


def module_of(given: Any) -> tuple[Any, int | None]:
    """Return the module that was given, or is named, and the side that its file states, if any.

    Raises:
        UsageError: it cannot be loaded, or cannot be called.
    """
    import torch  # noqa: PLC0415

    suffix = Path(given).suffix.lower() if isinstance(given, (str, Path)) else ""
    if suffix == ".onnx":
        return _from_onnx(Path(given))
    if suffix in SCRIPTS:
        return _from_script(Path(given)), None
    module = imported(given) if isinstance(given, str) else given
    if isinstance(given, str) and not isinstance(module, torch.nn.Module):
        module = module()  # the function that builds it
    if not callable(module):
        raise UsageError(f"{given} made a {type(module).__name__}, not a torch module.")
    return module, None


def _from_onnx(path: Path) -> tuple[nn.Module, int]:
    """Return the module of an ONNX file and the side that it states."""
    import torch  # noqa: PLC0415

    if not find_spec("onnx2torch"):
        raise MissingExtraError(
            "Reading ONNX files needs onnx2torch: pip install 'smoothapi-vision[onnx]'."
        )
    from smoothapi.denoise.training.surrogates import load_onnx  # noqa: PLC0415

    classifier = load_onnx(path)
    module = classifier.module
    try:  # a graph that was exported for one picture says so only when it is given two
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = module(torch.zeros(2, 3, classifier.size, classifier.size))
        module.smoothapi_batches = said.ndim == 2 and len(said) == 2  # type: ignore[assignment]
    except Exception:  # noqa: BLE001  whatever it is: one at a time works, load_onnx has tried
        module.smoothapi_batches = False  # type: ignore[assignment]
    return module, classifier.size


def _from_script(path: Path) -> Any:
    import torch  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated, its user can't help here
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UsageError(
            f"{path} is not a TorchScript file. Pickled modules and state dicts are not read as "
            "models: a pickle could run any code. Name the function that builds the module "
            "(model='package.module:function') and give this file as weights=."
        ) from error


def imported(spec: str) -> Any:
    """Return what "package.module:attribute" names."""
    module, _, attribute = spec.rpartition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{spec!r} cannot be imported: {error}. Name 'package.module:attribute' of something "
            "that is installed, or in PYTHONPATH."
        ) from error


def load_weights(module: Any, path: Path) -> None:
    """Load a state dict into a module, in the module's own types.

    Raises:
        UsageError: it is not one, or does not fit.
    """
    from smoothapi.denoise.checkpoints import (  # noqa: PLC0415
        load_state,
        read_checkpoint,
        state_in,
    )

    if not hasattr(module, "load_state_dict"):
        raise UsageError(
            f"weights= is for a torch module, and the model is a {type(module).__name__}."
        )
    try:
        load_state(module, state_in(path, read_checkpoint(path)), path)
    except (DenoiserError, RuntimeError) as error:
        raise UsageError(
            f"The weights {path} cannot be loaded into the model. {printable(str(error))[:600]}"
        ) from error


def fingerprint(module: Any) -> str:
    """Return a hash of a module's structure, weights and buffers; "" for a plain callable."""
    import torch  # noqa: PLC0415

    if not isinstance(module, torch.nn.Module):
        return ""
    digest = hashlib.sha256(f"{type(module).__module__}.{module!r}".encode())
    if isinstance(module, torch.jit.ScriptModule):
        digest.update(_script_code(module).encode())
    # Buffers that are not saved (means, positions) decide answers as well.
    for name, value in sorted({**dict(module.named_buffers()), **module.state_dict()}.items()):
        digest.update(f"\n{name}".encode())
        if not isinstance(value, torch.Tensor):
            digest.update(repr(value).encode())
            continue
        try:
            flat = value.detach().cpu().contiguous().reshape(-1)
            content = flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
        except (RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"The model cannot be told by its weights: {name} is a tensor without plain "
                f"content ({type(error).__name__}). Give model_id=, and change it with the model."
            ) from error
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(content)
    return f"{type(module).__name__}-{digest.hexdigest()[:16]}"


def _script_code(module: Any) -> str:
    """Return the code of a TorchScript module, whose repr tells nothing of it."""
    return "\n".join(f"{name}: {part.code}" for name, part in module.named_modules() if part.code)
