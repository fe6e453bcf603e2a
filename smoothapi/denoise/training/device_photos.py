"""Photos held on the device that trains on them, and cropped there by indexing.

A card takes thousands of crops a second; decoding, resizing and copying them would take many
cores. So each photo is resized twice, once, and its pixels stay on the card.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from smoothapi.denoise.training.packs import found
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from smoothapi.denoise.training.data import Crops
    from smoothapi.denoise.training.photo_files import Encoded

_SCALES = (1.0, 8 / 7)  # short sides by that of a crop: 224 and 256 for crops of 224
_LONGEST = 1.5  # long sides by short ones


class PhotosOnDevice:
    """Photos at two sizes on a device, as uint8: crops are pieces of them, mirrored or turned.

    A photo is there with a short side of 1 and of 8/7 times a crop's, cut about its middle to at
    most 1.5 times as long; it is enlarged for the smaller of the two sizes, never for the other.
    Each size has half of the crops. `Crops.scale_low` has no effect.

    Args:
        views: the photos at both sizes, uint8 (H, W, 3) each; None where there is no such size.
        sources: where each photo is from, for `Crops.weights`.
        size: side of the crops that will be asked for.
        device: where pixels are held.

    Raises:
        UsageError: there is no photo.
    """

    def __init__(
        self,
        views: Sequence[Sequence[NDArray[np.uint8] | None]],
        sources: Sequence[str],
        size: int,
        device: torch.device,
    ) -> None:
        if not views:
            raise UsageError("There is no photo to train on.")
        self.size, self.device = size, device
        self._count = len(views)
        self._sources: list[list[str]] = []
        self._where: list[NDArray[np.int64]] = []
        pixels, begin = [], 0
        for scale in range(len(_SCALES)):
            where, named = [], []
            for photo, source in zip(views, sources, strict=True):
                view = photo[scale]
                if view is not None:
                    height, width = view.shape[:2]
                    where.append((begin, height, width))
                    named.append(source)
                    pixels.append(view.reshape(-1, 3))
                    begin += height * width
            if where:
                self._where.append(np.array(where, np.int64))
                self._sources.append(named)
        self._pixels = torch.from_numpy(np.concatenate(pixels)).to(device)

    @classmethod
    def load(
        cls,
        places: Iterable[Path],
        *,
        size: int,
        device: torch.device,
        leave_out: frozenset[str] = frozenset(),
    ) -> PhotosOnDevice:
        """Decode and resize every photo of folders and packs, by threads.

        Args:
            places: as `packs.found` takes them; one that is named twice counts twice.
            size: side of the crops that will be asked for.
            device: where pixels are held.
            leave_out: file names that must not be used, for example `held_out`'s.

        Raises:
            UsageError: a place holds no photo.
        """
        photos = found(places, leave_out=leave_out)
        with ThreadPoolExecutor() as pool:
            views = list(pool.map(partial(_views, size=size), photos))
        return cls(views, [p.source for p in photos], size, device)

    def __len__(self) -> int:
        return self._count

    def batches(self, crops: Crops, seed: int, start: int) -> Generator[Tensor, None, None]:
        """The batches of steps start, start + 1, ... without end: uint8 (batch, size, size, 3).

        Raises:
            UsageError: the crops are not of the size that the photos were made for.
        """
        if crops.size != self.size:
            raise UsageError(
                f"The photos were resized for crops of {self.size} pixels, not of {crops.size}."
            )
        names = {name for sources in self._sources for name in sources}
        shares = []
        for sources in self._sources:
            # Of the larger size, a source may have no photo: its weight is then no mistake.
            here = names & set(sources)
            kept = tuple((n, w) for n, w in crops.weights if n in here or n not in names)
            shares.append(type(crops)(weights=kept).shares(sources))
        while True:
            yield self._cut(crops, shares, seed, start)
            start += 1

    def _cut(
        self, crops: Crops, shares: Sequence[NDArray[np.float64]], seed: int, step: int
    ) -> Tensor:
        # Few numbers decide, drawn on the CPU: the same crops then come from any device.
        rng = np.random.default_rng((seed, step))
        chance = rng.random((crops.batch, 7))
        scale = (chance[:, 0] * len(shares)).astype(np.int64)
        where = np.empty((crops.batch, 3), np.int64)
        for number, running in enumerate(shares):
            chosen = scale == number
            photo = np.searchsorted(running, chance[chosen, 1], side="right")
            where[chosen] = self._where[number][photo]
        room = where[:, 1:] - crops.size + 1
        corner = (chance[:, 2:4] * room).astype(np.int64)
        first = where[:, 0] + corner[:, 0] * where[:, 2] + corner[:, 1]
        flips = chance[:, 4:] < 0.5
        if not crops.turned:
            flips[:, 1:] = False
        plan = torch.from_numpy(np.column_stack([first, where[:, 2], flips]))
        if self.device.type == "cuda":
            plan = plan.pin_memory()
        origin, width, mirrored, upside, across = (
            column.reshape(-1, 1, 1) for column in plan.to(self.device, non_blocking=True).T
        )
        span = torch.arange(crops.size, device=self.device)
        last = crops.size - 1
        columns = torch.where(mirrored > 0, last - span, span)
        rows = torch.where(upside > 0, last - span, span).mT
        index = origin + rows * width + columns
        if crops.turned:
            # Mirrored about both axes or not, and transposed or not: all eight ways to lie.
            index = torch.where(across > 0, index.mT, index)
        return self._pixels[index]


def _views(photo: Encoded, size: int) -> list[NDArray[np.uint8] | None]:
    picture = Image.fromarray(photo.decode())
    views: list[NDArray[np.uint8] | None] = []
    for factor in _SCALES:
        short = round(factor * size)
        if min(picture.size) < short != size:
            views.append(None)
            continue
        scale = short / min(picture.size)
        sides = (max(short, round(side * scale)) for side in picture.size)
        view = np.asarray(picture.resize((next(sides), next(sides)), Image.Resampling.BICUBIC))
        long = round(_LONGEST * short)
        height, width = view.shape[:2]
        top, left = max(0, height - long) // 2, max(0, width - long) // 2
        views.append(np.ascontiguousarray(view[top : top + long, left : left + long]))
    return views
