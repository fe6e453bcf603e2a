from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from smoothapi.denoise.networks import UNet
from smoothapi.denoise.training.data import Crops, Photos
from smoothapi.denoise.training.device_photos import PhotosOnDevice
from smoothapi.denoise.training.packs import read_pack, write_pack
from smoothapi.denoise.training.photo_files import held_out
from smoothapi.denoise.training.train import Recipe, Trainer
from smoothapi.errors import UsageError

from .harness import TINY

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
CROPS = Crops(16, 8)


def load(*places: Path, size: int = 16) -> PhotosOnDevice:
    return PhotosOnDevice.load(places, size=size, device=CPU)


def crops_of(photos: PhotosOnDevice, crops: Crops, seed: int = 0, steps: int = 1) -> np.ndarray:
    return torch.cat(list(islice(photos.batches(crops, seed, 0), steps))).numpy()


def plain(folder: Path, value: int, size: tuple[int, int] = (40, 30)) -> Path:
    folder.mkdir()
    Image.new("RGB", size, (value,) * 3).save(folder / "a.png")
    return folder


def test_crops_are_a_pure_function_of_seed_and_step(photo_folder: Path) -> None:
    photos = load(photo_folder)
    batches = list(islice(photos.batches(CROPS, 3, 5), 3))
    assert batches[0].shape == (8, 16, 16, 3)
    assert batches[0].dtype == torch.uint8
    assert torch.equal(batches[2], next(photos.batches(CROPS, 3, 7)))
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], next(photos.batches(CROPS, 4, 5)))


@pytest.mark.parametrize("turned", [False, True])
def test_crops_are_pieces_of_the_photo_at_both_sizes(turned: bool) -> None:
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((14, 20), (16, 22))]
    photos = PhotosOnDevice([views], ["a"], 14, CPU)
    ways = {}
    for scale, view in enumerate(views):
        for top in range(view.shape[0] - 13):
            for left in range(view.shape[1] - 13):
                piece = view[top : top + 14, left : left + 14]
                for turns in range(4 if turned else 1):
                    for step in (1, -1):
                        way = np.rot90(piece, turns)[:, ::step]
                        ways[way.tobytes()] = (scale, top, left, turns, step)
    seen = [ways[c.tobytes()] for c in crops_of(photos, Crops(14, 64, 1.0, turned), steps=8)]
    # Every corner of both sizes comes up, and every way to lie; each size about half of the time.
    for place, count in enumerate((2, 3, 9, 4 if turned else 1, 2)):
        assert len({way[place] for way in seen}) == count
    assert np.mean([way[0] for way in seen]) == pytest.approx(0.5, abs=0.1)


def test_photos_are_resized_to_both_sizes_and_cut(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    wide = np.zeros((64, 300, 3), np.uint8) + np.arange(300, dtype=np.uint8)[:, None] // 2
    Image.fromarray(wide).save(folder / "wide.png")
    photos = load(folder, size=32)
    where = [np.concatenate(w).tolist() for w in photos._where]
    assert where == [[0, 32, 48], [32 * 48, 37, 56]]
    # What is left is the middle of it.
    middle = photos._pixels[: 32 * 48].reshape(32, 48, 3).float().mean().item()
    assert middle == pytest.approx(wide[:, 102:198].mean(), abs=1)


def test_a_small_photo_is_enlarged_for_the_smaller_size_only(tmp_path: Path) -> None:
    photos = load(plain(tmp_path / "a", 7, (20, 17)), plain(tmp_path / "b", 9, (9, 12)))
    assert [len(w) for w in photos._where] == [2, 0] or len(photos._where) == 1
    assert set(np.unique(crops_of(photos, CROPS, steps=4))) == {7, 9}
    with pytest.raises(UsageError, match="of 16 pixels, not of 24"):
        next(photos.batches(Crops(24), 0, 0))


@pytest.mark.parametrize("on_device", [True, False])
def test_sources_are_drawn_by_their_weights(tmp_path: Path, on_device: bool) -> None:
    places = [plain(tmp_path / name, value) for name, value in (("x", 10), ("y", 20), ("z", 30))]
    photos = load(*places) if on_device else Photos.load(places)
    crops = Crops(16, 200, weights=(("x", 0.5), ("z", 0.0)))
    values = np.concatenate(
        [np.asarray(b)[:, 0, 0, 0] for b in islice(photos.batches(crops, 0, 0), 5)]
    )
    assert set(values) == {10, 20}
    assert np.mean(values == 10) == pytest.approx(1 / 3, abs=0.05)
    for wrong, text in (((("q", 1.0),), "'q'"), (tuple((n, 0.0) for n in "xyz"), "are 0")):
        with pytest.raises(UsageError, match=text):
            next(photos.batches(Crops(16, 1, weights=wrong), 0, 0))
    with pytest.raises(UsageError, match="weight of the source"):
        Crops(weights=(("x", -1.0),))


def test_training_on_the_device_is_the_same_training(photo_folder: Path, tmp_path: Path) -> None:
    """The step does not depend on who holds the photos, and a resumed run has the same bits."""

    def run(photos: object, name: str, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        recipe = Recipe(steps=6, crops=CROPS, warmup=2, ema=0.9)
        return (
            Trainer(UNet(TINY), photos, recipe, out=tmp_path / name)
            .run(stop_at=stop_at)
            .state_dict()
        )  # type: ignore[arg-type]

    class Cut:
        """Photos in RAM that happen to give the same crops."""

        def batches(self, crops: Crops, seed: int, start: int):
            for batch in photos.batches(crops, seed, start):
                yield batch.numpy().copy()

    photos = load(photo_folder)
    straight = run(photos, "a")
    run(photos, "b", stop_at=3)
    for other in (run(photos, "b"), run(Cut(), "c")):
        assert all(torch.equal(straight[k], other[k]) for k in straight)


def test_packs_hold_what_was_packed_but_what_is_held_out(
    photo_folder: Path, tmp_path: Path
) -> None:
    kept = held_out((p.name for p in photo_folder.iterdir()), 2)
    other = plain(tmp_path / "other", 99, (90, 60))
    path = tmp_path / "packs" / "p.bin"
    assert write_pack([photo_folder, other], path, short_side=40, quality=95, leave_out=kept) == 5
    index = json.loads(path.with_suffix(".json").read_text())
    assert [source for *_, source in index] == ["photos"] * 4 + ["other"]
    assert sum(length for _, length, _ in index) == path.stat().st_size
    photos = Photos.load([path])
    names = sorted({p.name for p in photo_folder.iterdir()} - kept)
    for picture, name in zip(photos.pictures, names, strict=False):
        with Image.open(photo_folder / name) as whole:
            assert min(picture.shape[:2]) == 40
            small = np.asarray(whole.convert("RGB").resize(picture.shape[1::-1], 3))
        assert np.abs(picture.astype(float) - small).mean() < 4
    assert photos.pictures[-1].shape == (40, 60, 3)
    assert photos.sources == [p.source for p in read_pack(path)]
    # A pack may be packed again, and smaller photos are not enlarged.
    assert write_pack([path], tmp_path / "again.bin", short_side=60) == 5
    assert [p.shape for p in Photos.load([tmp_path / "again.bin"]).pictures] == [
        p.shape for p in photos.pictures
    ]


def test_bad_packs_are_refused(photo_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.bin"
    path.write_bytes(b"1234")
    for index, text in (
        (None, "needs the list p.json"),
        ("[[0, 5, 'a']]", "no list of"),
        ("[[0, 5]]", "no list of"),
        ('[[0, 5, "a"]]', "cut short"),
        ("[]", "no photo"),
    ):
        if index is not None:
            path.with_suffix(".json").write_text(index)
        with pytest.raises(UsageError, match=text):
            read_pack(path)
    path.with_suffix(".json").write_text('[[0, 4, "pets"]]')
    with pytest.raises(UsageError, match="of pets cannot be decoded"):
        Photos.load([path])
    everything = frozenset(p.name for p in photo_folder.iterdir())
    for options, text in (
        ({"leave_out": everything}, "held out"),
        ({"quality": 0}, "quality"),
        ({"short_side": 4}, "short side"),
    ):
        with pytest.raises(UsageError, match=text):
            write_pack([photo_folder], tmp_path / "q.bin", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"FILE\.bin"):
        write_pack([photo_folder], tmp_path / "q.zip")
    assert not list(tmp_path.glob("q*"))
