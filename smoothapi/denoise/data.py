"""Photos for training and evaluation: decoded once, cut into crops that depend on a seed only."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Crops:
    """How a training picture is cut from a photo.

    Attributes:
        size: side of the crop in pixels.
        batch: crops a batch.
        scale_low: the photo is shrunk by a factor drawn from [scale_low, 1] first, so that the
            crops have the statistics of photos at a small working size.
        turned: whether crops are turned by quarters as well as mirrored; classifiers expect
            photos upright.
    """

    size: int = 96
    batch: int = 16
    scale_low: float = 0.4
    turned: bool = True

    def __post_init__(self) -> None:
        if self.size < 8 or self.batch < 1 or not 0 < self.scale_low <= 1:
            raise UsageError(
                f"Crops of {self.size} pixels, {self.batch} a batch, shrunk by down to "
                f"{self.scale_low}: sizes start at 8, batches at 1, factors are in (0, 1]."
            )


class Photos:
    """Photos held in memory as uint8 (H, W, 3).

    Args:
        pictures: the decoded photos.
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        if not pictures:
            raise UsageError("There is no photo to train on.")
        self.pictures = list(pictures)

    @classmethod
    def load(cls, folders: Iterable[Path], *, leave_out: frozenset[str] = frozenset()) -> Photos:
        """Decode every photo below the folders. A folder that is named twice counts twice.

        Args:
            folders: searched recursively.
            leave_out: file names that must not be used, for example `held_out`'s.

        Raises:
            UsageError: a folder holds no photo.
        """
        pictures: list[NDArray[np.uint8]] = []
        decoded: dict[Path, NDArray[np.uint8]] = {}
        for folder in folders:
            for path in files(folder):
                if path.name in leave_out:
                    continue
                if path not in decoded:
                    decoded[path] = read(path)
                pictures.append(decoded[path])
        return cls(pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, crops: Crops, seed: int, step: int) -> NDArray[np.uint8]:
        """The crops of one step, (batch, size, size, 3), a pure function of seed and step."""
        rng = np.random.default_rng((seed, step))
        return np.stack([self._crop(crops, rng) for _ in range(crops.batch)])

    def batches(
        self, crops: Crops, seed: int, start: int, *, ahead: int = 4, workers: int = 1
    ) -> Iterator[NDArray[np.uint8]]:
        """The batches of steps start, start + 1, ... without end, cut ahead in threads."""
        with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
            waiting = [pool.submit(self.batch, crops, seed, start + i) for i in range(ahead)]
            step = start + ahead
            while True:
                batch = waiting.pop(0).result()
                waiting.append(pool.submit(self.batch, crops, seed, step))
                step += 1
                yield batch

    def _crop(self, crops: Crops, rng: np.random.Generator) -> NDArray[np.uint8]:
        picture = self.pictures[rng.integers(len(self.pictures))]
        height, width = picture.shape[:2]
        scale = max(rng.uniform(crops.scale_low, 1.0), crops.size / min(height, width))
        side = min(round(crops.size / scale), height, width)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        cut = picture[top : top + side, left : left + side]
        if side != crops.size:
            size = (crops.size, crops.size)
            cut = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC))
        turned: NDArray[np.uint8] = np.rot90(cut, turns if crops.turned else 0)
        return turned[:, ::-1] if mirrored else turned


def files(folder: Path) -> list[Path]:
    """The photos below a folder, sorted.

    Raises:
        UsageError: there is none.
    """
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"No photo ({', '.join(sorted(SUFFIXES))}) was found below {folder}.")
    return found


def read(path: Path) -> NDArray[np.uint8]:
    """One photo as uint8 (H, W, 3)."""
    try:
        with Image.open(path) as photo:
            return np.asarray(photo.convert("RGB"))
    except OSError as error:
        raise UsageError(f"{path} cannot be decoded as a photo: {error}") from error


def held_out(names: Iterable[str], count: int) -> frozenset[str]:
    """The `count` names with the smallest SHA-256: a fixed set, whatever the order or place."""
    return frozenset(sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest())[:count])
