"""What a denoiser does to pictures and to the labels that classifiers give them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from smoothapi.denoise.training.photo_files import files, read
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from smoothapi.denoise.protocol import DenoiserRuntime
    from smoothapi.denoise.training.surrogates import Classifier

_BATCH = 8
_BATCH_ON_A_CARD = 64


@dataclass(frozen=True, slots=True)
class Row:
    """Figures at one noise level, means over the photos.

    Attributes:
        sigma: the noise level.
        noisy_psnr: of the noisy picture before clipping, in dB.
        psnr: of the 8-bit variant, in dB.
        ssim: of the 8-bit variant.
        milliseconds: for one variant in a batch of 8, noise and decoding not counted.
        agreement: by classifier, the share of photos whose label is what the clean photo gets.
        accuracy: by classifier, the share whose label is the photo's true one, of the photos of
            which that is known; empty if there are none.
    """

    sigma: float
    noisy_psnr: float
    psnr: float
    ssim: float
    milliseconds: float
    agreement: dict[str, float]
    accuracy: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """What `evaluate` measured."""

    denoiser: str
    fingerprint: str
    device: str
    precision: str
    photos: int
    size: int
    seed: int
    classifiers: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def evaluate(
    runtime: DenoiserRuntime,
    folder: Path,
    classifiers: Sequence[Classifier] = (),
    *,
    sigmas: Sequence[float] = (0.12, 0.25, 0.5, 1.0),
    size: int = 224,
    resize: bool = False,
    limit: int = 0,
    seed: int = 0,
    names: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> Report:
    """Denoise one noisy copy of every photo of a folder at every sigma.

    Args:
        runtime: the denoiser.
        folder: searched for photos recursively.
        classifiers: whose labels are compared.
        sigmas: noise levels, above 0.
        size: side of the pictures in pixels.
        resize: shrink each photo to the size (bicubic) instead of taking its centre.
        limit: only the first so many photos; 0 means all.
        seed: of the noise, which is a pure function of seed, sigma and the photo's place.
        names: only files of these names.
        labels: true class by file name or path below the folder, for accuracy.

    Raises:
        UsageError: there is no photo, one is smaller than the crop, or two classifiers have one
            name.
    """
    named = by_name(classifiers, runtime.device)
    photos = pictures(folder, size=size, resize=resize, limit=limit, names=names)
    clean = np.stack(list(photos.values()))
    truth = [true_class(name, labels) for name in photos]
    known = [place for place, label in enumerate(truth) if label is not None]
    reference = {name: labels_of(c, clean) for name, c in named.items()}
    rows = []
    for sigma in sigmas:
        variants = np.empty_like(clean)
        noisy_db: list[float] = []
        seconds = 0.0
        for start in range(0, len(clean), _BATCH):
            part = slice(start, start + _BATCH)
            noisy = _noisy(clean[part], sigma, seed, start)
            if not runtime.loaded:
                runtime.variants(noisy, sigma)
            begun = time.perf_counter()
            variants[part] = runtime.variants(noisy, sigma)
            seconds += time.perf_counter() - begun
            noisy_db += [psnr(c, n) for c, n in zip(clean[part], noisy, strict=True)]
        given = {name: labels_of(c, variants) for name, c in named.items()}
        pairs = list(zip(clean, variants, strict=True))
        rows.append(
            Row(
                sigma=sigma,
                noisy_psnr=float(np.mean(noisy_db)),
                psnr=float(np.mean([psnr(*pair) for pair in pairs])),
                ssim=float(np.mean([ssim(*pair) for pair in pairs])),
                milliseconds=1000 * seconds / len(clean),
                agreement={k: _share(v, reference[k], range(len(v))) for k, v in given.items()},
                accuracy={k: _share(v, truth, known) for k, v in given.items()} if known else {},
            )
        )
    return Report(
        denoiser=runtime.name,
        fingerprint=runtime.fingerprint,
        device=runtime.device,
        precision=runtime.precision,
        photos=len(clean),
        size=size,
        seed=seed,
        classifiers=tuple(named),
        rows=tuple(rows),
    )


def pictures(
    folder: Path,
    *,
    size: int = 224,
    resize: bool = False,
    limit: int = 0,
    names: Sequence[str] | None = None,
) -> dict[str, NDArray[np.uint8]]:
    """The pictures that `evaluate` looks at, by path below the folder; see there.

    Returns:
        (size, size, 3) each.

    Raises:
        UsageError: there is no photo, or one is smaller than the crop.
    """
    paths = [p for p in files(folder) if names is None or p.name in set(names)]
    paths = paths[:limit] if limit else paths
    if not paths:
        raise UsageError(f"None of the photos that were asked for is in {folder}.")
    return {
        path.relative_to(folder).as_posix(): _picture(path, size, resize=resize) for path in paths
    }


def true_class(name: str, labels: Mapping[str, int] | None) -> int | None:
    """The class that labels give a photo by its path or else by its file name; None if none."""
    if labels is None:
        return None
    return labels.get(name, labels.get(name.rpartition("/")[2]))


def by_name(classifiers: Sequence[Classifier], device: str = "cpu") -> dict[str, Classifier]:
    """Classifiers by name, on a device.

    Raises:
        UsageError: two have one name, so that their figures could not be told apart.
    """
    named: dict[str, Classifier] = {}
    for classifier in classifiers:
        if classifier.name in named:
            raise UsageError(
                f"Two classifiers are called {classifier.name!r}. Name each one once, and files "
                "of one name in two folders differently."
            )
        named[classifier.name] = classifier.to(torch.device(device))
    return named


def labels_of(classifier: Classifier, pictures: NDArray[np.uint8]) -> list[int]:
    """The class that a classifier puts first for each picture, where the classifier is.

    Args:
        classifier: on any device.
        pictures: (N, H, W, 3), 8-bit RGB.

    Returns:
        N class numbers, counted from 0.
    """
    device = classifier.device
    together = _BATCH if device.type == "cpu" else _BATCH_ON_A_CARD
    labels: list[int] = []
    with torch.inference_mode():
        for start in range(0, len(pictures), together):
            batch = torch.from_numpy(pictures[start : start + together]).to(device)
            logits = classifier(batch.permute(0, 3, 1, 2).float() / 255)
            labels += logits.argmax(dim=1).tolist()
    return labels


def psnr(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB; uint8 counts from 0 to 255, floats from 0 to 1."""
    error = float(np.mean((_unit(first) - _unit(second)) ** 2))
    return -10 * float(np.log10(max(error, 1e-12)))


def ssim(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Structural similarity, mean over pixels and colours.

    Wang, Bovik, Sheikh and Simoncelli (TIP 2004): Gaussian window of 11 pixels and standard
    deviation 1.5, K1 = 0.01, K2 = 0.03; only places where the window lies inside the picture.

    Args:
        first: (H, W, 3), at least 11 pixels a side, as in `psnr`.
        second: the same.
    """
    offsets = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    line = (line / line.sum())[None, None, None]
    a, b = (
        torch.from_numpy(_unit(picture)).permute(2, 0, 1)[:, None] for picture in (first, second)
    )

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, line), line.mT)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float((top / bottom).mean())


def _unit(picture: NDArray[Any]) -> NDArray[np.float64]:
    scale = 255.0 if picture.dtype == np.uint8 else 1.0
    return picture.astype(np.float64) / scale


def _picture(path: Path, size: int, *, resize: bool) -> NDArray[np.uint8]:
    picture = read(path)
    height, width = picture.shape[:2]
    if resize:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = Image.fromarray(picture[top : top + side, left : left + side])
        return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    if min(height, width) < size:
        raise UsageError(
            f"{path} is {width}x{height}, smaller than the crop of {size}: lower the size, or "
            "resize."
        )
    top, left = (height - size) // 2, (width - size) // 2
    return picture[top : top + size, left : left + size]


def _noisy(clean: NDArray[np.uint8], sigma: float, seed: int, start: int) -> NDArray[np.float32]:
    noise = np.empty(clean.shape, np.float32)
    for place in range(len(clean)):
        rng = np.random.default_rng((seed, round(sigma * 1e6), start + place))
        rng.standard_normal(out=noise[place], dtype=np.float32)
    return clean.astype(np.float32) / np.float32(255) + np.float32(sigma) * noise


def _share(given: Sequence[int], wanted: Sequence[int | None], places: Iterable[int]) -> float:
    return float(np.mean([given[place] == wanted[place] for place in places]))
