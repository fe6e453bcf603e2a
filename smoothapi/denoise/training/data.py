"""Photos for training and evaluation: decoded once, cut into crops that depend on a seed only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from smoothapi.denoise.training.packs import found
from smoothapi.denoise.training.photo_files import Encoded
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor


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
        weights: how often a photo of a source is drawn, by the source's name (`Encoded.source`),
            relative to 1 for the photos of sources that are not named; at least 0.
    """

    size: int = 96
    batch: int = 16
    scale_low: float = 0.4
    turned: bool = True
    weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.size < 8 or self.batch < 1 or not 0 < self.scale_low <= 1:
            raise UsageError(
                f"Crops of {self.size} pixels, {self.batch} a batch, shrunk by down to "
                f"{self.scale_low}: sizes start at 8, batches at 1, factors are in (0, 1]."
            )
        for name, weight in self.weights:
            if not 0 <= weight < float("inf"):
                raise UsageError(f"The weight of the source {name!r} is {weight}; 0 is the least.")

    def shares(self, sources: Sequence[str]) -> NDArray[np.float64]:
        """The running sum of how often photos are drawn, by their sources; it ends at 1.

        Raises:
            UsageError: a source that has a weight has no photo, or all weights are 0.
        """
        weights = dict(self.weights)
        if unknown := weights.keys() - set(sources):
            raise UsageError(
                f"No photo comes from {', '.join(map(repr, sorted(unknown)))}. The sources are "
                f"{', '.join(sorted(set(sources)))}; a folder's photos come from its name."
            )
        total = np.cumsum([weights.get(source, 1.0) for source in sources])
        if total[-1] <= 0:
            raise UsageError("The weights of all sources are 0: no photo would ever be drawn.")
        running: NDArray[np.float64] = total / total[-1]
        return running


class Batches(Protocol):
    """Photos that can be trained on, wherever they are held."""

    def __len__(self) -> int:
        """How many photos there are."""
        ...

    def batches(
        self, crops: Crops, seed: int, start: int
    ) -> Generator[NDArray[np.uint8] | Tensor, None, None]:
        """Crops of the steps start, start + 1, ..., each uint8 (batch, size, size, 3).

        What a step's crops are is a function of the crops, the seed and the step alone.
        """
        ...


class Photos:
    """Photos held in memory as uint8 (H, W, 3).

    Args:
        pictures: the decoded photos.
        sources: where each is from, for `Crops.weights`; needed only with those.
    """

    def __init__(
        self, pictures: Sequence[NDArray[np.uint8]], sources: Sequence[str] | None = None
    ) -> None:
        if not pictures:
            raise UsageError("There is no photo to train on.")
        self.pictures = list(pictures)
        self.sources = list(sources or [""] * len(self.pictures))

    @classmethod
    def load(cls, places: Iterable[Path], *, leave_out: frozenset[str] = frozenset()) -> Photos:
        """Decode every photo of folders and packs. A place that is named twice counts twice.

        Args:
            places: as `found` takes them.
            leave_out: file names that must not be used, for example `held_out`'s.

        Raises:
            UsageError: a place holds no photo.
        """
        photos = found(places, leave_out=leave_out)
        once = {photo.content: photo for photo in photos}
        with ThreadPoolExecutor() as pool:
            decoded = dict(zip(once, pool.map(Encoded.decode, once.values()), strict=True))
        return cls([decoded[p.content] for p in photos], [p.source for p in photos])

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, crops: Crops, seed: int, step: int) -> NDArray[np.uint8]:
        """The crops of one step, (batch, size, size, 3), a pure function of seed and step."""
        rng = np.random.default_rng((seed, step))
        shares = crops.shares(self.sources) if crops.weights else None
        return np.stack([self._crop(crops, rng, shares) for _ in range(crops.batch)])

    def batches(
        self, crops: Crops, seed: int, start: int, *, ahead: int = 4, workers: int = 1
    ) -> Generator[NDArray[np.uint8], None, None]:
        """The batches of steps start, start + 1, ... without end, cut ahead in threads."""
        with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
            waiting = [pool.submit(self.batch, crops, seed, start + i) for i in range(ahead)]
            step = start + ahead
            while True:
                batch = waiting.pop(0).result()
                waiting.append(pool.submit(self.batch, crops, seed, step))
                step += 1
                yield batch

    def _crop(
        self, crops: Crops, rng: np.random.Generator, shares: NDArray[np.float64] | None
    ) -> NDArray[np.uint8]:
        if shares is None:
            picture = self.pictures[rng.integers(len(self.pictures))]
        else:
            picture = self.pictures[np.searchsorted(shares, rng.random(), side="right")]
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
