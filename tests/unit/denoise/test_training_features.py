from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from smoothapi.denoise.networks import UNet
from smoothapi.denoise.training.data import Crops, Photos
from smoothapi.denoise.training.surrogates import Classifier, Features, feature_distance
from smoothapi.denoise.training.train import Recipe, StepReport, Trainer
from smoothapi.errors import DenoiserError, UsageError

from .harness import TINY

if TYPE_CHECKING:
    from pathlib import Path


class Network(nn.Module):
    """Three scales; one activation is called at all of them, and one layer only pads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fine = nn.Conv2d(3, 5, 3, padding=1)
        self.middle = nn.Conv2d(5, 6, 2, stride=2)
        self.pad = nn.ZeroPad2d(1)
        self.coarse = nn.Conv2d(6, 7, 4, stride=2)
        self.relu = nn.ReLU()
        self.answer = nn.Linear(7, 4)

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        fine = self.relu(self.fine(x))
        middle = self.relu(self.middle(fine))
        return [fine, middle, self.relu(self.coarse(self.pad(middle)))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.maps(x)[-1].mean(dim=(2, 3)))


@pytest.fixture
def photos(photo_folder: Path) -> Photos:
    return Photos.load([photo_folder])


def test_features_are_the_last_map_of_each_scale() -> None:
    network = Network()
    look = Features(Classifier("c", network, size=16))
    assert look.scales == [16, 8, 4]
    pictures = torch.rand(2, 3, 16, 16)
    for _ in range(2):
        logits, maps = look(pictures)
        for got, wanted in zip(maps, network.maps(pictures), strict=True):
            assert torch.equal(got, wanted)
        assert torch.equal(logits, network(pictures))


def test_features_of_threads_do_not_mix() -> None:
    look = Features(Classifier("c", Network(), size=16))
    barrier = threading.Barrier(4)
    pictures = [torch.full((1, 3, 16, 16), value / 4) for value in range(4)]
    alone = [look(picture)[1] for picture in pictures]

    def work(picture: torch.Tensor) -> list[torch.Tensor]:
        barrier.wait()
        return [look(picture)[1] for _ in range(20)][-1]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, pictures))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(together[0][0], together[1][0])


def test_what_has_no_feature_maps_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    with pytest.raises(UsageError, match="no feature maps"):
        Features(Classifier("flat", flat, size=16))


def test_distance_is_relative_and_by_picture() -> None:
    torch.manual_seed(0)
    clean = [torch.rand(2, 3, 8, 8), 100 * torch.rand(2, 5, 4, 4)]
    assert feature_distance(clean, clean) == 0
    assert feature_distance(clean, [torch.zeros_like(x) for x in clean]) == pytest.approx(1)
    half = [clean[0], torch.cat([clean[1][:1], torch.zeros_like(clean[1][1:])])]
    assert feature_distance(clean, half) == pytest.approx(0.25)


def recipe(**fields: object) -> Recipe:
    given = {
        "objective": "both",
        "steps": 60,
        "crops": Crops(24, 4, 0.5),
        "warmup": 5,
        "learning_rate": 1e-2,
        "stability_weight": 0.0,
        "feature_weight": 1.0,
        "sigma": (0.5, 1.0),
        "focus": (0.5, 1.0),
        "precision": "fp32",
    }
    return Recipe(**given | fields)  # type: ignore[arg-type]


def train(
    photos: Photos, out: Path, surrogate: Classifier, **fields: object
) -> tuple[Trainer, list[StepReport]]:
    reports: list[StepReport] = []
    torch.manual_seed(0)
    run = Trainer(UNet(TINY), photos, recipe(**fields), out=out, surrogates=[surrogate])
    run.run(report=reports.append, report_every=1)
    return run, reports


def test_training_brings_features_nearer(photos: Photos, tmp_path: Path) -> None:
    surrogate = Classifier("c", Network(), size=0, labels=False)
    _, reports = train(photos, tmp_path, surrogate, objective="stability")
    distance = [r.features for r in reports]
    assert sum(distance[-15:]) < 0.8 * sum(distance[:15])
    # Nothing that it answers counts: it has no labels.
    assert all(r.stability == 0 and r.loss == pytest.approx(r.features) for r in reports)


def test_weights_add_up(photos: Photos, tmp_path: Path) -> None:
    weights = {"stability_weight": 0.3, "feature_weight": 0.7, "steps": 3}
    _, reports = train(photos, tmp_path, Classifier("c", Network(), size=16), **weights)
    for r in reports:
        assert r.loss == pytest.approx(r.pixel + 0.3 * r.stability + 0.7 * r.features, rel=1e-5)
        assert r.stability > 0
        assert r.features > 0


def test_a_view_is_one_window_of_both_pictures(photos: Photos, tmp_path: Path) -> None:
    sides: list[int] = []

    class Seeing(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sides.append(x.shape[-1])
            return super().forward(x)

    any_size = Classifier("any", Seeing(), size=0, labels=False)
    run, _ = train(photos, tmp_path / "a", any_size, view=20, steps=3)
    assert set(sides[1:]) == {20}  # after the dry run that finds the maps
    first, second = run._window(torch.arange(576.0).reshape(24, 24), torch.zeros(24, 24))
    assert first.shape == second.shape == (20, 20)
    assert first[0, 1] - first[0, 0] == 1
    assert run._window(torch.arange(576.0).reshape(24, 24))[0].equal(first)
    sides.clear()
    train(photos, tmp_path / "b", Classifier("fixed", Seeing(), size=16), view=20, steps=1)
    assert set(sides) == {16}


def test_a_checkpoint_older_than_an_option_resumes(photos: Photos, tmp_path: Path) -> None:
    older = recipe(objective="pixel", steps=2, feature_weight=0.0)
    run = Trainer(UNet(TINY), photos, older, out=tmp_path)
    run.run()
    about = (tmp_path / "checkpoint.safetensors").read_bytes()
    # As a version that did not know the option would have written it, of the same length.
    (tmp_path / "checkpoint.safetensors").write_bytes(
        about.replace(b'\\"feature_weight\\": 0.0, ', b" " * len(rb"\"feature_weight\": 0.0, "))
    )
    assert b"feature_weight" in about
    assert b"feature_weight" not in (tmp_path / "checkpoint.safetensors").read_bytes()
    Trainer(UNet(TINY), photos, older, out=tmp_path).resume()
    changed = recipe(objective="pixel", steps=2, feature_weight=0.5)
    with pytest.raises(DenoiserError, match="feature_weight"):
        Trainer(UNet(TINY), photos, changed, out=tmp_path).resume()


@pytest.mark.parametrize("field", ["stability_weight", "feature_weight", "view"])
def test_negative_weights_are_refused(field: str) -> None:
    with pytest.raises(UsageError, match="at least 0"):
        recipe(**{field: -1})
