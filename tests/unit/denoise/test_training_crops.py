from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from smoothapi.denoise.training.data import Crops, Photos
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_crops_are_a_pure_function_of_seed_and_step(photo_folder: Path) -> None:
    photos, crops = Photos.load([photo_folder]), Crops(16, 4, 0.5)
    first = photos.batch(crops, 3, 7)
    assert first.shape == (4, 16, 16, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, photos.batch(crops, 3, 7))
    assert not np.array_equal(first, photos.batch(crops, 3, 8))
    assert not np.array_equal(first, photos.batch(crops, 4, 7))


def test_cutting_ahead_changes_nothing(photo_folder: Path) -> None:
    photos, crops = Photos.load([photo_folder]), Crops(16, 2, 0.5)
    ahead = list(islice(photos.batches(crops, 0, 5, ahead=3, workers=2), 6))
    for step, batch in enumerate(ahead, start=5):
        np.testing.assert_array_equal(batch, photos.batch(crops, 0, step))


def test_unscaled_crops_are_pieces_of_the_photo() -> None:
    picture = np.arange(40 * 40 * 3, dtype=np.int64).reshape(40, 40, 3) % 251
    photos = Photos([picture.astype(np.uint8)])
    rows = {row.tobytes() for row in _windows(photos.pictures[0])}
    for crop in photos.batch(Crops(12, 16, 1.0), 0, 0):
        assert crop.tobytes() in rows


def _windows(picture: np.ndarray) -> list[np.ndarray]:
    return [
        np.rot90(picture[y : y + 12, x : x + 12], turns)[:, ::step]
        for y in range(29)
        for x in range(29)
        for turns in range(4)
        for step in (1, -1)
    ]


def test_upright_crops_are_mirrored_at_most() -> None:
    ramp = np.zeros((40, 40, 3), np.uint8)
    ramp += np.arange(40, dtype=np.uint8)[:, None, None]
    down = [crop[:, 0, 0] for crop in Photos([ramp]).batch(Crops(12, 16, 1.0, False), 0, 0)]
    assert all((np.diff(column.astype(int)) == 1).all() for column in down)
    turned = [crop[:, 0, 0] for crop in Photos([ramp]).batch(Crops(12, 16, 1.0), 0, 0)]
    assert not all((np.diff(column.astype(int)) == 1).all() for column in turned)


def test_photos_smaller_than_the_crop_are_enlarged() -> None:
    small = Photos([np.full((9, 7, 3), 77, np.uint8)])
    assert (small.batch(Crops(32, 2), 0, 0) == 77).all()


def test_what_is_left_out_is_not_loaded(photo_folder: Path) -> None:
    assert len(Photos.load([photo_folder], leave_out=frozenset({"0.png", "3.png"}))) == 4
    assert len(Photos.load([photo_folder, photo_folder])) == 12


def test_held_out_set_is_fixed() -> None:
    names = [f"{i}.jpg" for i in range(50)]
    chosen = held_out(names, 5)
    assert chosen == held_out(reversed(names), 5)
    # A photo that is added displaces at most one.
    assert len(chosen - held_out([*names, "new.jpg"], 5)) <= 1
    assert chosen < held_out(names, 6)


def test_bad_folders_and_crops_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No photo"):
        files(tmp_path)
    (tmp_path / "a.jpg").write_text("no photo")
    with pytest.raises(UsageError, match="cannot be decoded"):
        Photos.load([tmp_path])
    for bad in ({"size": 4}, {"batch": 0}, {"scale_low": 0.0}, {"scale_low": 1.1}):
        with pytest.raises(UsageError):
            Crops(**bad)
    with pytest.raises(UsageError, match="no photo"):
        Photos([])


def test_suffixes_are_taken_in_any_case(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    Image.new("L", (20, 20)).save(folder / "A.PNG")
    assert [p.name for p in files(tmp_path)] == ["A.PNG"]
    assert Photos.load([tmp_path]).pictures[0].shape == (20, 20, 3)
