"""A classifier on this machine: a torch module, a TorchScript or an ONNX file, with class names."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from smoothapi.answer import Answer, Label
from smoothapi.denoise.device import choose_device, require_torch
from smoothapi.errors import (
    DenoiserError,
    FatalError,
    PermanentError,
    ProviderError,
    UsageError,
)
from smoothapi.files import is_file
from smoothapi.provider import Limits, SafeOptions, Vocabulary
from smoothapi.text import printable
from smoothapi_adapters._common import options
from smoothapi_adapters.torch.model import (
    SCRIPTS,
    TorchModel,
    fingerprint,
    imported,
    load_weights,
    module_of,
)

if TYPE_CHECKING:
    from decimal import Decimal

    import torch
    from torch import Tensor, nn

Preprocess: TypeAlias = "Callable[[Image.Image], Tensor]"
"""An RGB picture -> a (3, H, W) tensor: what torchvision's weights call `transforms()`."""

SCORES = ("softmax", "sigmoid", "probabilities")
RESIZES = ("crop", "stretch", "none")
_FORMATS = {"png": "PNG", "jpeg": "JPEG"}


class TorchAdapter:
    """A model of one's own, asked as if it were a service. It costs nothing.

    Pictures are decoded, resized to `size`, scaled to [0, 1], normalised by `mean` and `std`, and
    given to the model as (N, 3, H, W) float32; or `preprocess` does all that.

    Args:
        model: a torch module (put into evaluation mode, and moved if `device` is given);
            "package.module:attribute", a module or a function that returns one; or the path of a
            TorchScript (.pt, .pth, .ts) or ONNX file. Pickles are not read.
        labels: the classes' names in order: a list, or the path of a file (.txt a line each, .json
            a list, .csv a column "name"); by default their numbers, of which it is not known
            beforehand how many there are.
        weights: file of a state dict to load into the model, in the model's own types:
            .safetensors, or what torch.save wrote, if making it runs no code. The state may be
            under `state_dict`, `model` or `ema`, and names may have prefixes of wrappers
            (`module.`, `_orig_mod.`, `model.`).
        size: side of the pictures that the model takes; by default what an ONNX file states, else
            224.
        resize: "crop" (shorter side to `size`, then the middle), "stretch", or "none".
        mean: of the channels, subtracted.
        std: of the channels, divided by.
        preprocess: a callable (RGB PIL image) -> (3, H, W) tensor, or "package.module:attribute";
            `size`, `resize`, `mean` and `std` are then not used.
        preprocess_id: what tells one callable from another. One without gets a fresh id each time,
            since nothing shows that it does as before: its answers are then not used again.
        model_id: the same for a model that has no weights to tell it by.
        scores: "softmax" or "sigmoid" of what the model returns, or "probabilities" as it is.
        top: most labels of an answer, best first.
        min_score: lowest score of a label.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; a module that is given stays where it is,
            unless it is named.
        batch: most pictures at once.
        name: what the model is called, in certificates and budgets.
        price: dollars for 1,000 pictures, if the machine's time is to be counted.

    Raises:
        UsageError: an option cannot work, a file is missing.
        MissingExtraError: torch is not installed.
    """

    safe_options = SafeOptions(
        names=frozenset(
            {"size", "resize", "mean", "std", "preprocess_id", "model_id", "scores"}
            | {"top", "min_score", "device", "batch", "name", "price"}
        )
    )

    def __init__(
        self,
        model: nn.Module | Callable[..., Any] | str | Path | None = None,
        *,
        labels: Sequence[str] | str | Path | None = None,
        weights: str | Path | None = None,
        size: int | str | None = None,
        resize: str = "crop",
        mean: Sequence[float] | str = (0.0, 0.0, 0.0),
        std: Sequence[float] | str = (1.0, 1.0, 1.0),
        preprocess: Preprocess | str | None = None,
        preprocess_id: str | None = None,
        model_id: str | None = None,
        scores: str = "softmax",
        top: int | str = 10,
        min_score: float | str = 0.0,
        device: str = "auto",
        batch: int | str = 32,
        name: str = "torch",
        price: float | str | Decimal = "0",
    ) -> None:
        if model is None:
            raise UsageError(
                "The provider 'torch' needs a model: an ONNX or TorchScript file, or "
                "'package.module:attribute'. Write model = \"...\" in [providers.torch] of "
                "smoothapi.toml, or TorchAdapter(module)."
            )
        require_torch("The provider 'torch'")
        self.name = options.short_name(name)
        self._given, self._weights = model, None if weights is None else Path(weights)
        self._check_sources()
        self._names = [] if labels is None else options.names("labels", labels)
        self._size = None if size is None else options.count("size", size)
        self._resize = options.one_of("resize", resize, RESIZES)
        self._mean, self._std = _channels("mean", mean), _channels("std", std)
        if not all(self._std):
            raise UsageError(f"std={std!r}: channels cannot be divided by 0.")
        self._preprocess = imported(preprocess) if isinstance(preprocess, str) else preprocess
        if self._preprocess is not None and not callable(self._preprocess):
            raise UsageError("preprocess is a callable (RGB picture) -> (3, H, W) tensor.")
        self._preprocess_id = preprocess_id or (
            preprocess if isinstance(preprocess, str) else options.fresh_id(self._preprocess)
        )
        self._model_id = model_id
        self._fresh_id = options.fresh_id(model)
        self._scores = options.one_of("scores", scores, SCORES)
        self._top = options.count("top", top)
        self._min_score = options.share("min_score", min_score)
        try:
            self._device = choose_device(device)
        except DenoiserError as error:
            raise UsageError(str(error)) from error
        self._stays = device == "auto" and not isinstance(model, (str, Path))
        self.limits = Limits(
            batch=options.count("batch", batch),
            max_bytes=64 * 2**20,
            least_score=self._min_score,
        )
        self.price = options.price(price)
        self._lock = threading.Lock()
        self._loaded: TorchModel | None = None

    def __repr__(self) -> str:
        given = self._given
        shown = str(given) if isinstance(given, (str, Path)) else type(given).__qualname__
        return f"TorchAdapter({shown!r}, name={self.name!r})"

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """The weights' fingerprint, and all that is done to pictures and scores."""
        model = self._model()
        names = hashlib.sha256(json.dumps(self._names).encode()).hexdigest()[:16]
        return {
            "operation": "label",
            "model": model.id,
            "preprocess": self._preprocess_id
            if self._preprocess is not None
            else f"{self._resize} {model.size} mean {self._mean} std {self._std}",
            "labels": names,
            "scores": self._scores,
            "top": self._top,
            "min_score": self._min_score,
            "device": model.device.partition(":")[0],  # other devices round otherwise
        }

    def vocabulary(self) -> Vocabulary:
        """Return the classes' names; where there are none, how many numbers is not known."""
        if not self._names:
            return Vocabulary()
        listed = dict.fromkeys(self._names)
        return Vocabulary(tuple(listed), closed=True, source="the option labels")

    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Label the pictures in one pass of the model."""
        model = self._model()
        outcomes: list[Answer | ProviderError | None] = []
        inputs: list[Tensor] = []
        for payload in payloads:
            try:
                inputs.append(self._prepared(payload, model.size))
                outcomes.append(None)
            except PermanentError as error:
                outcomes.append(error)
        rows = iter(self._run(model, inputs) if inputs else ())
        return [
            self._answer(next(rows), model.id) if outcome is None else outcome
            for outcome in outcomes
        ]

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            self._loaded = None

    def _check_sources(self) -> None:
        """Refuse at once what cannot be loaded; nothing is loaded yet."""
        given = self._given
        if isinstance(given, (str, Path)):
            suffix = Path(given).suffix.lower()
            if suffix in SCRIPTS or suffix == ".onnx":
                if not is_file(given):
                    raise UsageError(f"There is no file {given}.")
            elif not re.fullmatch(r"[\w.]+:[A-Za-z_]\w*", str(given)):
                raise UsageError(
                    f"model={str(given)!r} is neither the path of an ONNX (.onnx) or TorchScript "
                    "(.pt) file nor 'package.module:attribute'. A pickled module is not read: it "
                    "could run any code. Name the function that builds it, and weights=FILE."
                )
        elif not callable(given):
            raise UsageError(f"model is a torch module, not {type(given).__name__}.")
        if self._weights is not None and not is_file(self._weights):
            raise UsageError(f"There is no file of weights {self._weights}.")

    def _model(self) -> TorchModel:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> TorchModel:
        module, stated = module_of(self._given)
        if self._weights is not None:
            load_weights(module, self._weights)
        device = self._placed(module)
        identity = self._model_id or fingerprint(module) or self._fresh_id
        return TorchModel(module, identity, self._size or stated or 224, device)

    def _placed(self, module: Any) -> str:
        """Put a module into evaluation mode and where it is to run; return where that is."""
        import torch  # noqa: PLC0415  heavy: loaded with the model

        if not isinstance(module, torch.nn.Module):
            return self._device
        module.eval()
        if self._stays:
            return next((str(p.device) for p in module.parameters()), self._device)
        module.to(self._device)
        return self._device

    def _prepared(self, payload: bytes, size: int) -> Tensor:
        """Return what the model is given of a picture.

        Raises:
            PermanentError: the payload cannot be decoded.
            FatalError: the preprocessing fails.
        """
        import torch  # noqa: PLC0415

        try:
            formats = [_FORMATS[name] for name in self.limits.formats]
            with Image.open(io.BytesIO(payload), formats=formats) as image:
                picture = image.convert("RGB")
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise PermanentError("The payload is not a PNG or JPEG image.") from error
        if self._preprocess is not None:
            try:
                made = self._preprocess(picture)
            except Exception as error:
                raise FatalError(
                    f"preprocess failed with {type(error).__name__}: {printable(str(error))[:200]}."
                ) from error
            if not isinstance(made, torch.Tensor) or made.ndim != 3:
                raise FatalError("preprocess must return a (3, H, W) tensor for a picture.")
            return made.to(torch.float32)
        values: Any = np.asarray(_resized(picture, self._resize, size), dtype=np.float32) / 255.0
        values = (values - np.array(self._mean, np.float32)) / np.array(self._std, np.float32)
        return torch.from_numpy(values).permute(2, 0, 1)

    def _run(self, model: TorchModel, inputs: Sequence[Tensor]) -> list[Any]:
        """Return what the model says of each input, as float64 arrays.

        Raises:
            FatalError: it fails, or does not return a score for each class.
        """
        import torch  # noqa: PLC0415

        alike = len({tuple(each.shape) for each in inputs}) == 1
        groups = [inputs] if alike and model.batches else [[each] for each in inputs]
        rows: list[Any] = []
        try:
            # One at a time: a second thread on the same device would only compete.
            with model.lock, torch.inference_mode():
                if getattr(model.module, "training", False):
                    model.module.eval()  # a caller went on training it
                for group in groups:
                    said = _tensor(
                        model.module(torch.stack(list(group)).to(model.device, model.dtype))
                    )
                    rows += self._rows(said, len(group))
        except ProviderError:
            raise
        except torch.cuda.OutOfMemoryError as error:
            raise FatalError(
                "The model ran out of memory on its device. Give a smaller batch=."
            ) from error
        except Exception as error:
            raise FatalError(
                f"The model failed with {type(error).__name__}: {printable(str(error))[:300]}"
            ) from error
        return rows

    def _rows(self, said: torch.Tensor, count: int) -> list[Any]:
        """Return the scores of each picture as float64."""
        if said.ndim != 2 or len(said) != count:
            raise FatalError(
                f"The model answered {count} pictures in the shape {tuple(said.shape)}; a "
                "classifier gives (N, classes). Give batch=1 if it takes one picture at a time."
            )
        if self._names and said.shape[1] != len(self._names):
            raise FatalError(
                f"The model tells {said.shape[1]} classes apart, and labels= names "
                f"{len(self._names)}: they would be the wrong names."
            )
        return list(self._as_scores(said.cpu().double()).numpy())

    def _as_scores(self, said: torch.Tensor) -> torch.Tensor:
        if self._scores == "softmax":
            return said.softmax(dim=1)
        return said.sigmoid() if self._scores == "sigmoid" else said

    def _answer(self, row: Any, version: str) -> Answer | ProviderError:
        if not np.isfinite(row).all():
            return PermanentError("The model's answer has scores that are not finite numbers.")
        if row.min() < -1e-6 or row.max() > 1 + 1e-6:
            return FatalError(
                f"The model's answer has scores from {row.min():.3g} to {row.max():.3g}, which are "
                "no probabilities. Give scores='softmax' or 'sigmoid'."
            )
        best = np.argsort(-row, kind="stable")[: self._top]
        labels = tuple(
            Label(self._names[i] if self._names else str(i), min(1.0, max(0.0, float(row[i]))))
            for i in best
            if row[i] >= self._min_score
        )
        return Answer(labels, version)


def _tensor(said: Any) -> torch.Tensor:
    """Return the scores in what a model returned: models of several libraries wrap them."""
    import torch  # noqa: PLC0415

    if isinstance(said, Mapping):
        said = said.get("logits")
    elif isinstance(said, (tuple, list)) and said:
        said = said[0]
    said = getattr(said, "logits", said)
    if not isinstance(said, torch.Tensor):
        raise FatalError(f"The model returned a {type(said).__name__}, and no tensor of scores.")
    return said


def _resized(picture: Image.Image, how: str, size: int) -> Image.Image:
    if how == "none" or picture.size == (size, size):
        return picture
    box = None
    if how == "crop":
        width, height = picture.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _channels(option: str, value: Sequence[float] | str) -> tuple[float, ...]:
    """Return three finite numbers, from a list or from text such as "0.5, 0.5, 0.5"."""
    texts = value.strip("[]() ").split(",") if isinstance(value, str) else value
    try:
        numbers = tuple(float(text) for text in texts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise UsageError(f"{option}={value!r}: give a number for each of the three channels.")
    return numbers
