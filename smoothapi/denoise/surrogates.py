"""Classifiers that stand in for the API: what the stability objective and `eval` look through."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from smoothapi.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Classifier:
    """A frozen classifier: RGB in [0, 1], (N, 3, H, W), to logits (N, classes).

    Attributes:
        name: for logs and tables.
        module: any torch module of that contract, normalising inside.
        size: side of the square pictures that it takes; others are resized to it.
    """

    name: str
    module: nn.Module
    size: int = 224

    def __post_init__(self) -> None:
        self.module.eval().requires_grad_(requires_grad=False)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Logits of pictures, which are clipped to [0, 1] first, as an encoder would."""
        pictures = pictures.clamp(0, 1)
        if pictures.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
        logits: Tensor = self.module(pictures)
        return logits

    def to(self, device: torch.device) -> Classifier:
        """The same classifier on another device."""
        return Classifier(self.name, self.module.to(device), self.size)


def load_onnx(path: Path) -> Classifier:
    """A classifier from an ONNX file, differentiable.

    Raises:
        UsageError: the file is missing or cannot be turned into a torch module.
        MissingExtraError: onnx2torch is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"There is no classifier {path}. Give the path of an ONNX file.")
    try:
        import onnx  # noqa: PLC0415 - only training and evaluation need it
        from onnx2torch import convert  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "Reading ONNX classifiers needs onnx2torch: pip install 'smoothapi-vision[dev]'."
        ) from error
    try:
        model = onnx.load(str(path))
        sides = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[2:]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = convert(model)
    except Exception as error:
        raise UsageError(f"{path} cannot be used as a classifier: {error}") from error
    return Classifier(path.stem, module, sides[0] if sides and sides[0] > 0 else 224)
