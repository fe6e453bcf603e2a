"""Photos on disk, undecoded or decoded, and which of them are held out."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Encoded:
    """One photo as it is stored.

    Attributes:
        source: where it is from: the name of its folder, or what a pack says.
        content: the file, or its bytes.
    """

    source: str
    content: Path | bytes

    def decode(self) -> NDArray[np.uint8]:
        """The photo as uint8 (H, W, 3).

        Raises:
            UsageError: it cannot be decoded.
        """
        if isinstance(self.content, Path):
            return read(self.content)
        try:
            with Image.open(io.BytesIO(self.content)) as photo:
                return np.asarray(photo.convert("RGB"))
        except OSError as error:
            raise UsageError(f"A photo of {self.source} cannot be decoded: {error}") from error


def files(folder: Path) -> list[Path]:
    """The photos below a folder, sorted.

    Raises:
        UsageError: the folder holds no photo.
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


def names_held_out(folder: Path | None, count: int) -> frozenset[str]:
    """The names of `count` photos below a folder that must not be trained on; none of no folder.

    Raises:
        UsageError: the folder holds no photo.
    """
    if folder is None:
        return frozenset()
    return held_out((path.name for path in files(folder)), count)
