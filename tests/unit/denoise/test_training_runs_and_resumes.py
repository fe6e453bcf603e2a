from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from smoothapi.denoise import load
from smoothapi.denoise.networks import UNet
from smoothapi.denoise.training.data import Crops, Photos
from smoothapi.denoise.training.optim import Muon, orthogonalised
from smoothapi.denoise.training.surrogates import Classifier
from smoothapi.denoise.training.train import Recipe, StepReport, Trainer
from smoothapi.errors import DenoiserError, UsageError

from .harness import TINY

if TYPE_CHECKING:
    from pathlib import Path

CROPS = Crops(16, 4, 0.5)


@pytest.fixture
def photos(photo_folder: Path) -> Photos:
    return Photos.load([photo_folder])


def trainer(
    photos: Photos, out: Path, recipe: Recipe, surrogates: tuple[Classifier, ...] = ()
) -> Trainer:
    torch.manual_seed(recipe.seed)
    return Trainer(UNet(TINY), photos, recipe, out=out, surrogates=surrogates)


def classifier(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    module(torch.zeros(1, 3, 16, 16))
    return Classifier(f"c{seed}", module, size=16)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_loss_falls(photos: Photos, tmp_path: Path, optimizer: str) -> None:
    reports: list[StepReport] = []
    recipe = Recipe(steps=120, crops=CROPS, warmup=5, learning_rate=1e-2, optimizer=optimizer)
    trainer(photos, tmp_path, recipe).run(report=reports.append, report_every=5)
    losses = [r.loss for r in reports]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:2])
    assert reports[-1].step == 120
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in logged] == losses


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resuming_gives_the_same_bits(photos: Photos, tmp_path: Path, optimizer: str) -> None:
    recipe = Recipe(steps=9, crops=CROPS, warmup=2, optimizer=optimizer, ema=0.9)
    straight = trainer(photos, tmp_path / "a", recipe).run().state_dict()
    trainer(photos, tmp_path / "b", recipe).run(stop_at=4)
    resumed = trainer(photos, tmp_path / "b", recipe)
    resumed.resume()
    assert resumed.step == 4
    again = resumed.run().state_dict()
    assert straight.keys() == again.keys()
    assert all(torch.equal(straight[k], again[k]) for k in straight)
    other = Recipe(steps=9, crops=CROPS, warmup=2, optimizer=optimizer, ema=0.9, seed=1)
    different = trainer(photos, tmp_path / "c", other).run().state_dict()
    assert not all(torch.equal(straight[k], different[k]) for k in straight)


def test_shards_give_the_gradient_of_the_whole_batch(photos: Photos, tmp_path: Path) -> None:
    recipe = Recipe(steps=1, crops=Crops(16, 5, 0.5), precision="fp32", clip=1e9)
    gradients = []
    for shards in (1, 2, 3):
        torch.manual_seed(0)
        run = Trainer(UNet(TINY), photos, recipe, out=tmp_path / str(shards), shards=shards)
        run.run()
        gradients.append([p.grad for p in run.parameters])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_checkpoint_of_another_recipe_is_refused(photos: Photos, tmp_path: Path) -> None:
    trainer(photos, tmp_path, Recipe(steps=2, crops=CROPS)).run()
    changed = Recipe(steps=3, crops=CROPS, learning_rate=1e-4)
    with pytest.raises(DenoiserError, match="learning_rate"):
        trainer(photos, tmp_path, changed).run()
    # Only the end may be moved.
    trainer(photos, tmp_path, Recipe(steps=3, crops=CROPS)).run()


def test_what_training_writes_is_what_the_runtime_reads(photos: Photos, tmp_path: Path) -> None:
    network = trainer(photos, tmp_path, Recipe(steps=5, crops=CROPS, warmup=1)).run()
    noisy = np.random.default_rng(0).random((2, 20, 20, 3)).astype(np.float32)
    path = tmp_path / "weights.safetensors"
    from_file = load(path, device="cpu", precision="fp32").variants(noisy, 0.3)
    np.testing.assert_array_equal(from_file, load(network, device="cpu").variants(noisy, 0.3))


def test_average_follows_the_weights_slowly(photos: Photos, tmp_path: Path) -> None:
    recipe = Recipe(steps=30, crops=CROPS, warmup=1, ema=0.5)
    run = trainer(photos, tmp_path, recipe)
    start = {k: v.clone() for k, v in run.network.state_dict().items()}
    expected = {k: v.clone() for k, v in start.items()}
    for step in range(3):
        run._train_step(torch.from_numpy(photos.batch(CROPS, 0, step)))
        decay = min(0.5, (1 + run.step) / (10 + run.step))
        for name, value in run.network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
        run.step += 1
    for name, value in run.average.items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("objective", ["stability", "both"])
def test_stability_looks_through_the_surrogates(
    photos: Photos, tmp_path: Path, objective: str
) -> None:
    surrogates = (classifier(0), classifier(1))
    before = [s.module.state_dict()["0.weight"].clone() for s in surrogates]
    recipe = Recipe(
        objective=objective,  # type: ignore[arg-type]
        steps=80,
        crops=CROPS,
        warmup=5,
        learning_rate=1e-2,
        stability_weight=1.0,
        sigma=(0.5, 1.0),
        focus=(0.5, 1.0),
        surrogates_per_step=2,
        precision="fp32",
    )
    reports: list[StepReport] = []
    trainer(photos, tmp_path, recipe, surrogates).run(report=reports.append, report_every=1)
    divergence = [r.stability for r in reports]
    assert np.mean(divergence[-20:]) < 0.8 * np.mean(divergence[:10])
    for old, surrogate in zip(before, surrogates, strict=True):
        assert torch.equal(old, surrogate.module.state_dict()["0.weight"])
        assert not surrogate.module.training
    for r in reports:
        expected = r.stability + (r.pixel if objective == "both" else 0)
        assert r.loss == pytest.approx(expected, rel=1e-5)


def test_surrogates_take_turns(photos: Photos, tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(self.name)
            return x.mean((2, 3))

    surrogates = tuple(Classifier(n, Counting(n), 16) for n in "abc")
    recipe = Recipe(objective="stability", steps=4, crops=CROPS)
    trainer(photos, tmp_path, recipe, surrogates).run()
    assert "".join(asked) == "aabbccaa"


def test_stability_without_surrogates_is_refused(photos: Photos, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one surrogate"):
        trainer(photos, tmp_path, Recipe(objective="both", steps=1))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"steps": 1, "objective": "beauty"},
        {"steps": 1, "sigma": (0.0, 1.0)},
        {"steps": 1, "focus": (0.5, 0.2)},
        {"steps": 1, "ema": 1.0},
        {"steps": 1, "focus_share": 1.5},
    ],
)
def test_bad_recipes_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Recipe(**fields)


def test_divergence_stops_training(photos: Photos, tmp_path: Path) -> None:
    run = trainer(photos, tmp_path, Recipe(steps=3, crops=CROPS))
    nn.init.constant_(run.network.tail.bias, float("nan"))
    with pytest.raises(DenoiserError, match="diverged"):
        run.run()


def test_rate_warms_up_and_decays() -> None:
    recipe = Recipe(steps=1000, warmup=10, learning_rate=1.0, final_rate=0.1)
    rates = [recipe.rate(step, 0.0) for step in range(1001)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == rates[9]
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert rates[-1] == pytest.approx(0.1)
    timed = Recipe(minutes=2.0, warmup=1, learning_rate=1.0, final_rate=0.0)
    assert timed.rate(5, 60.0) == pytest.approx(0.5)


def test_noise_has_the_level_it_is_said_to_have(photos: Photos, tmp_path: Path) -> None:
    recipe = Recipe(steps=1, sigma=(0.05, 1.0), focus=(0.2, 0.3), focus_share=0.5)
    run = trainer(photos, tmp_path, recipe)
    clean = torch.full((400, 3, 16, 16), 0.5)
    noisy, sigma = run._noisy(clean)
    measured = (noisy - clean).std(dim=(1, 2, 3))
    assert ((measured / sigma - 1).abs() < 0.15).all()
    assert 0.05 <= sigma.min() < 0.1
    assert 0.6 < sigma.max() <= 1
    share = ((sigma >= 0.2) & (sigma <= 0.3)).float().mean()
    assert share == pytest.approx(0.5 + 0.5 * np.log(1.5) / np.log(20), abs=0.08)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalised_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)).float())
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_muon_solves_least_squares() -> None:
    torch.manual_seed(0)
    layer, target = nn.Linear(6, 4), nn.Linear(6, 4)
    optimizer = Muon(layer.parameters(), 0.05)
    x = torch.randn(64, 6)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        loss = (layer(x) - target(x)).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3
