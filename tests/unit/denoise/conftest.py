"""What the denoiser's tests share: a tiny network on disk, and a few photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from .harness import random_unet, save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    return save(random_unet(), tmp_path / "tiny.safetensors")


@pytest.fixture
def noisy() -> np.ndarray:
    rng = np.random.default_rng(5)
    return 0.5 + 0.25 * rng.standard_normal((5, 20, 26, 3))


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Six smooth pictures of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((50 + 4 * index, 44), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder
