"""Classifiers that stand in for the API: what the stability objective and `eval` look through."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from smoothapi.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    import onnx
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Classifier:
    """A frozen classifier: RGB in [0, 1], (N, 3, H, W), to logits (N, classes).

    Attributes:
        name: for logs and tables.
        module: any torch module of that contract, normalising inside.
        size: side of the square pictures that it takes; others are resized to it. 0 means that
            it takes any.
        labels: whether what it answers says what a picture shows. A network that was trained for
            something else still has features worth keeping (`Features`).
    """

    name: str
    module: nn.Module
    size: int = 224
    labels: bool = True

    def __post_init__(self) -> None:
        self.module.eval().requires_grad_(requires_grad=False)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Logits of pictures, which are clipped to [0, 1] first, as an encoder would."""
        pictures = pictures.clamp(0, 1)
        if self.size and pictures.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
        logits: Tensor = self.module(pictures)
        return logits

    @property
    def device(self) -> torch.device:
        """Where its weights are; pictures have to be there, too."""
        tensors = (*self.module.parameters(), *self.module.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    def to(self, device: torch.device) -> Classifier:
        """The same classifier on another device."""
        return replace(self, module=self.module.to(device))


class Features:
    """What a classifier sees on its way: its last feature map at every scale.

    Those are where a perceptual loss looks (Johnson, Alahi and Fei-Fei, "Perceptual Losses for
    Real-Time Style Transfer and Super-Resolution", ECCV 2016): the map before each halving of the
    picture, of any torch module, found by one dry run.

    Args:
        classifier: any; its module gets forward hooks.
        smallest: least side of a map; below it nothing is left of where things are.

    Raises:
        UsageError: the module has no feature maps.
    """

    def __init__(self, classifier: Classifier, *, smallest: int = 4) -> None:
        self.classifier = classifier
        # A hook is called in the thread of its forward pass, and shards are threads.
        self._local = threading.local()
        self.scales: list[int] = []
        # A module may be called at several scales: the calls count too.
        self._taps: list[tuple[nn.Module, int]] = []
        side = classifier.size or 64
        pictures = torch.zeros(1, 3, side, side)
        if (weight := next(classifier.module.parameters(), None)) is not None:
            pictures = pictures.to(weight.device)
        leaves = [m for m in classifier.module.modules() if not any(True for _ in m.children())]
        note = self._find(smallest)
        hooks = [module.register_forward_hook(note) for module in leaves]
        try:
            with torch.no_grad():
                classifier(pictures)
        finally:
            for hook in hooks:
                hook.remove()
        if not self._taps:
            raise UsageError(
                f"The surrogate {classifier.name} has no feature maps: features are those of "
                "convolutional networks. Train without a feature weight, or leave it out."
            )
        for module in {id(module): module for module, _ in self._taps}.values():
            module.register_forward_hook(self._keep)

    def __call__(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and the feature maps, finest first."""
        maps: list[Tensor] = []
        self._local.maps = maps
        self._local.calls = Counter()
        try:
            return self.classifier(pictures), maps
        finally:
            del self._local.maps

    def _find(self, smallest: int) -> Callable[[nn.Module, object, object], None]:
        calls: Counter[nn.Module] = Counter()

        def note(module: nn.Module, _: object, out: object) -> None:
            calls[module] += 1
            # Neither the picture itself nor what only pads a map.
            if not isinstance(out, torch.Tensor) or out.ndim != 4 or out.shape[1] <= 3:
                return
            side = min(out.shape[-2:])
            if side >= smallest and (not self.scales or side <= 0.6 * self.scales[-1]):
                self.scales.append(side)
                self._taps.append((module, calls[module]))
            elif self.scales and side == self.scales[-1]:
                self._taps[-1] = (module, calls[module])

        return note

    def _keep(self, module: nn.Module, _: object, out: Tensor) -> None:
        if hasattr(self._local, "maps"):
            self._local.calls[module] += 1
            if (module, self._local.calls[module]) in self._taps:
                self._local.maps.append(out)


def feature_distance(
    clean: Sequence[Tensor], denoised: Sequence[Tensor], weight: Tensor | None = None
) -> Tensor:
    """Squared distance of feature maps relative to those of the clean pictures.

    Args:
        clean: maps (N, channels, height, width) by scale.
        denoised: the same.
        weight: what each picture's distance is multiplied by, (N,); 1 if not given.

    Returns:
        The mean over pictures and scales: 0 for equal maps, 1 for maps of zeros.
    """
    shares = []
    for kept, given in zip(clean, denoised, strict=True):
        error = (given.float() - kept.float()).square().sum(dim=(1, 2, 3))
        share = error / kept.float().square().sum(dim=(1, 2, 3)).clamp_min(1e-6)
        shares.append((share if weight is None else weight * share).mean())
    return torch.stack(shares).mean()


def load_classifier(spec: str | Path) -> Classifier:
    """A classifier by the path of an ONNX file, by `module:function` or by `FILE.py:function`.

    The function takes nothing and returns a `Classifier`, or a torch module that takes 224x224
    pictures. The module or file is imported, so it runs: name only code of your own.

    Raises:
        UsageError: there is no such file, module or function, or it returns something else.
        MissingExtraError: onnx2torch is not installed.
    """
    module, colon, function = str(spec).rpartition(":")
    if not colon or Path(spec).exists() or not function.isidentifier():
        return load_onnx(Path(spec))
    try:
        made = getattr(_import(module), function)()
    except (ImportError, AttributeError, OSError) as error:
        raise UsageError(f"The classifier {spec} cannot be imported: {error}") from error
    if isinstance(made, Classifier):
        return made
    if callable(getattr(made, "state_dict", None)):
        return Classifier(function, made)
    raise UsageError(f"{spec} returned a {type(made).__name__}; a torch module is needed.")


def _import(module: str) -> ModuleType:
    if not module.endswith(".py"):
        return importlib.import_module(module)
    path = Path(module).resolve()
    if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", None) == str(path):
        return sys.modules[path.stem]
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is not a Python file")
    loaded = importlib.util.module_from_spec(found)
    found.loader.exec_module(loaded)
    return loaded


def load_onnx(path: Path) -> Classifier:
    """A classifier from an ONNX file, differentiable.

    Raises:
        UsageError: the file is missing, cannot be turned into a torch module, or gives no logits.
        MissingExtraError: onnx2torch is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"The classifier {path} does not exist. Give the path of an ONNX file.")
    try:
        import onnx  # noqa: PLC0415 - only training and evaluation need it

        convert = _converter()
    except ImportError as error:
        raise MissingExtraError(
            "Reading ONNX classifiers needs onnx2torch: pip install 'smoothapi-vision[onnx]'."
        ) from error
    try:
        model = onnx.load(str(path))
        _fold_constants(model.graph)
        sides = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[2:]]
        side = sides[0] if sides and sides[0] > 0 else 224
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = convert(model)
            # Finds out here and not in the middle of a run whether it is a classifier.
            classifier = Classifier(path.stem, module, side)
            shape = tuple(classifier(torch.zeros(1, 3, side, side)).shape)
    except Exception as error:
        raise UsageError(f"{path} cannot be used as a classifier: {error}") from error
    if len(shape) != 2 or shape[0] != 1:
        raise UsageError(f"{path} answers in the shape {shape}; a classifier gives (N, classes).")
    return classifier


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Replace copies and casts of weights by weights: onnx2torch looks for them by name."""
    from onnx import helper, numpy_helper  # noqa: PLC0415

    constants = {constant.name: constant for constant in graph.initializer}
    for node in list(graph.node):
        if node.op_type not in ("Identity", "Cast") or node.input[0] not in constants:
            continue
        value = numpy_helper.to_array(constants[node.input[0]])
        if node.op_type == "Cast":
            value = value.astype(helper.tensor_dtype_to_np_dtype(node.attribute[0].i))
        folded = numpy_helper.from_array(value, node.output[0])
        graph.initializer.append(folded)
        constants[folded.name] = folded
        graph.node.remove(node)


def _converter() -> Callable[[object], nn.Module]:
    try:
        from onnx2torch import convert  # noqa: PLC0415
    except RuntimeError:
        # onnx2torch imports torchvision for two detection operators that no classifier has. Beside
        # a CPU build of torch, a torchvision built for CUDA cannot load its compiled part, and
        # then stops at the first operator that nobody declared.
        _declare_operators()
        for name in [n for n in sys.modules if n.split(".")[0] in ("torchvision", "onnx2torch")]:
            del sys.modules[name]
        from onnx2torch import convert  # noqa: PLC0415
    converter: Callable[[object], nn.Module] = convert
    return converter


@cache
def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    return library
