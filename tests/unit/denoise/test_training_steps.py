"""What a step does on a card, on the CPU: batched Muon, bursts, labels part way, checkpoints aside."""

from __future__ import annotations

import errno
import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from smoothapi.denoise.networks import UNet
from smoothapi.denoise.training.data import Crops, Photos
from smoothapi.denoise.training.guard import Guard
from smoothapi.denoise.training.optim import Muon, orthogonalised
from smoothapi.denoise.training.surrogates import Classifier, feature_distance, load_classifier
from smoothapi.denoise.training.train import Recipe, StepReport, Trainer
from smoothapi.errors import UsageError

from .harness import TINY, random_unet

if TYPE_CHECKING:
    from pathlib import Path

CROPS = Crops(16, 4, 0.5)


@pytest.fixture
def photos(photo_folder: Path) -> Photos:
    return Photos.load([photo_folder])


def surrogate(asked: list[int] | None = None) -> Classifier:
    torch.manual_seed(4)

    class Counting(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if asked is not None:
                asked.append(len(x))
            return super().forward(x)

    layers = (nn.Conv2d(3, 6, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
    return Classifier("c", Counting(*layers), size=16)


def gradients(network: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)


def states(optimizer: Muon) -> dict[tuple[int, str], torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {(i, k): v.clone() for i, s in state.items() for k, v in s.items()}


def test_matrices_in_a_batch_come_out_as_alone() -> None:
    torch.manual_seed(0)
    for shape in ((5, 8, 8), (3, 6, 20), (4, 20, 6)):
        batch = torch.randn(shape)
        together = orthogonalised(batch)
        assert together.shape == shape
        for one, other in zip(batch, together, strict=True):
            # Of values up to 1 in bfloat16, after five iterations.
            torch.testing.assert_close(orthogonalised(one), other, rtol=0, atol=0.02)


def test_muon_in_batches_does_what_it_does_by_parameter() -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = []
        for threads in (pool, None):
            network = random_unet()
            optimizer = Muon(network.parameters(), 1e-3, weight_decay=0.1)
            optimizer.pool = threads
            for step in range(3):
                gradients(network, step)
                optimizer.step(keep=None if threads else torch.tensor(True))
            runs.append((network.state_dict(), states(optimizer)))
    for one, other in zip(*runs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            # The rate times what bfloat16 leaves open.
            torch.testing.assert_close(value, other[key], rtol=0, atol=2e-5)
    start = random_unet().state_dict()
    assert max((start[k] - v).abs().max().item() for k, v in runs[0][0].items()) > 1e-3


def test_muon_goes_on_from_a_state_of_either_kind() -> None:
    with ThreadPoolExecutor(1) as pool:
        for first, second in ((pool, None), (None, pool), (None, None)):
            network, straight = random_unet(), random_unet()
            optimizer, without = (Muon(n.parameters(), 1e-3) for n in (network, straight))
            optimizer.pool = without.pool = first
            for step in range(2):
                for n, o in ((network, optimizer), (straight, without)):
                    gradients(n, step)
                    o.step()
            again = Muon(network.parameters(), 1e-3)
            again.load_state_dict(optimizer.state_dict())
            again.pool = second
            for step in (2, 3):
                gradients(network, step)
                again.step()
                gradients(straight, step)
                without.step()
            for a, b in zip(network.parameters(), straight.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
            assert all(v.item() == 4 for (_, k), v in states(again).items() if k == "step")


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("value", [1.0, math.inf, math.nan])
def test_a_skipped_step_leaves_everything_as_it_was(threads: int, value: float) -> None:
    network = random_unet()
    optimizer = Muon(network.parameters(), 1e-2, weight_decay=0.1)
    if threads:
        optimizer.pool = ThreadPoolExecutor(threads)
    gradients(network, 0)
    optimizer.step()
    before = {k: v.clone() for k, v in network.state_dict().items()}, states(optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, value)
    optimizer.step(keep=torch.tensor(False))
    for old, new in zip(before, (network.state_dict(), states(optimizer)), strict=True):
        assert all(torch.equal(old[k], new[k]) for k in old)


def test_a_first_step_may_be_skipped() -> None:
    network = random_unet()
    optimizer = Muon(network.parameters(), 1e-2)
    gradients(network, 0)
    optimizer.step(keep=torch.tensor(False))
    for one, other in zip(network.parameters(), random_unet().parameters(), strict=True):
        assert torch.equal(one, other)


def kept(guard: Guard, *norms: float, loss: float = 1.0) -> list[bool]:
    return [bool(guard.keep(torch.tensor(loss), torch.tensor(norm))) for norm in norms]


def test_guard_skips_bursts_and_no_numbers() -> None:
    guard = Guard(20.0, torch.device("cpu"))
    # Gradients of an untrained network may do anything, but be no numbers.
    assert kept(guard, 100.0, math.nan, *[1.0] * 60) == [True, False] + [True] * 60
    norm = guard.norm.item()
    assert 1 < norm < 3
    assert kept(guard, 19.9 * norm, math.inf, 1.0)[1:] == [False, True]
    assert kept(guard, 21 * guard.norm.item(), 1.0) == [False, True]
    assert kept(guard, 1.0, loss=math.nan) == [False]
    again = Guard(20.0, torch.device("cpu"))
    again.restore(guard.state())
    assert kept(again, 4000.0) == [False]
    # Gradients that stay large are believed in the end.
    assert kept(again, *[1000.0] * 60)[-1]


def test_bursts_are_skipped_and_said(
    photos: Photos, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe(steps=70, crops=CROPS, warmup=1, ema=0.9)
    torch.manual_seed(0)
    run = Trainer(UNet(TINY), photos, recipe, out=tmp_path)
    gradient, weights = run._gradients, []

    def burst(*arguments: object) -> tuple[torch.Tensor, list[torch.Tensor]]:
        figures, parts = gradient(*arguments)  # type: ignore[arg-type]
        weights.append(run.network.tail.weight.detach().clone())
        factor = {60: 1e6, 63: math.nan}.get(run.step, 1.0)
        return figures * factor, [factor * part for part in parts]

    run._gradients = burst  # type: ignore[method-assign]
    reports: list[StepReport] = []
    run.run(report=reports.append, report_every=35)
    assert [r.skipped for r in reports] == [(), (60, 63)]
    assert all(math.isfinite(r.loss) and r.loss < 100 for r in reports)
    assert "Skipped 2 of the last 35 steps" in caplog.text
    assert "60, 63" in caplog.text
    same = [torch.equal(a, b) for a, b in pairwise(weights)]
    assert [step for step, equal in enumerate(same) if equal] == [60, 63]
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert line["skipped"] == [60, 63]
    assert line["speed"] > 0


def test_the_running_norm_is_resumed(photos: Photos, tmp_path: Path) -> None:
    def run(**options: object) -> Guard:
        torch.manual_seed(0)
        one = Trainer(UNet(TINY), photos, Recipe(steps=4, crops=CROPS), out=tmp_path / "r")
        one.run(**options)  # type: ignore[arg-type]
        return one.guard

    halfway = run(stop_at=2).norm.item()
    assert halfway > 0
    guard = run()
    assert guard.seen.item() == 4
    assert guard.norm.item() != halfway


def test_one_step_is_what_the_formulas_say(photos: Photos, tmp_path: Path) -> None:
    """Clipped gradient, Muon by matrix, Adam by vector, average: as the trainer before did it."""
    recipe = Recipe(
        objective="both", stability_weight=0.3, feature_weight=0.7, labels_sigma=0.5, steps=1,
        crops=CROPS, warmup=4, clip=0.5, precision="fp32", learning_rate=1e-2, ema=0.9,
    )  # fmt: skip
    network, reference, classifier = random_unet(), random_unet(), surrogate()
    run = Trainer(network, photos, recipe, out=tmp_path, surrogates=[classifier])
    clean = torch.from_numpy(photos.batch(CROPS, 0, 0)).permute(0, 3, 1, 2) / 255
    noisy, sigma = run._noisy(clean)
    figures = run._train_step(torch.from_numpy(photos.batch(CROPS, 0, 0)))

    denoised = reference(noisy, sigma)
    error = (denoised - clean).square().mean((1, 2, 3))
    pixel = (error / (sigma**2 * 0.0625 / (sigma**2 + 0.0625))).mean()
    weight = 1 / (1 + (sigma / 0.5) ** 2)
    target, answer = (F.log_softmax(classifier(x), 1) for x in (clean, denoised))
    stability = (weight * (target.exp() * (target - answer)).sum(1)).mean()
    maps = [classifier.module[1](classifier.module[0](x.clamp(0, 1))) for x in (clean, denoised)]
    away = (maps[1] - maps[0]).square().sum((1, 2, 3)) / maps[0].square().sum((1, 2, 3))
    features = (weight * away).mean()
    loss = pixel + 0.3 * stability + 0.7 * features
    loss.backward()
    expected = [x.item() for x in (loss, pixel, stability, features)]
    np.testing.assert_allclose(figures[:4].tolist(), expected, rtol=1e-5)
    norm = torch.stack([p.grad.norm() for p in reference.parameters()]).norm()
    assert figures[5].item() == pytest.approx(norm.item(), rel=1e-5)
    assert norm > 0.5
    rate = 1e-2 / 4
    with torch.no_grad():
        for (name, p), ours in zip(reference.named_parameters(), network.parameters(), strict=True):
            start = p.clone()
            gradient = p.grad * 0.5 / (norm + 1e-6)
            if p.ndim > 1:
                mixed = gradient.lerp(0.05 * gradient, 0.95).flatten(1)
                update = orthogonalised(mixed).float().reshape(p.shape)
                p.mul_(1 - rate * 0.01).sub_(rate * 0.2 * math.sqrt(max(mixed.shape)) * update)
            else:
                p.sub_(rate * gradient / (gradient.abs() + 1e-8))
            torch.testing.assert_close(ours, p, rtol=0, atol=1e-5)
            mean = start.lerp(p, 1 - 1 / 10)
            torch.testing.assert_close(run.average[name], mean, rtol=0, atol=1e-5)


def test_labels_come_in_part_way(photos: Photos, tmp_path: Path) -> None:
    asked: list[int] = []
    recipe = Recipe(objective="both", stability_weight=2.0, labels_from=0.5, steps=40, crops=CROPS)
    reports: list[StepReport] = []
    run = Trainer(UNet(TINY), photos, recipe, out=tmp_path, surrogates=[surrogate(asked)])
    run.run(report=reports.append, report_every=1)
    assert [r.stability > 0 for r in reports] == [False] * 20 + [True] * 20
    assert len(asked) == 2 * 20
    shares = [(r.loss - r.pixel) / (2 * r.stability) for r in reports[20:]]
    np.testing.assert_allclose(shares, [0.1, 0.6] + [1.0] * 18, rtol=0, atol=0.02)


def test_rate_holds_before_it_falls() -> None:
    recipe = Recipe(steps=1000, warmup=1, learning_rate=1.0, hold=0.4, final_rate=0.0)
    assert all(recipe.rate(step, 0.0) == 1 for step in range(400))
    assert recipe.rate(700, 0.0) == pytest.approx(0.5)
    assert recipe.rate(1000, 0.0) == pytest.approx(0)


@pytest.mark.parametrize(
    "fields",
    [
        {"hold": 1.0},
        {"hold": -0.1},
        {"labels_from": 1.0, "objective": "both"},
        {"labels_from": 0.5},
        {"labels_from": 0.5, "objective": "stability"},
        {"labels_sigma": -1.0},
        {"burst": 1.0},
    ],
)
def test_bad_recipes_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Recipe(steps=1, **fields)  # type: ignore[arg-type]


def test_weighted_distance_leaves_pictures_out() -> None:
    clean = [torch.rand(2, 3, 8, 8)]
    zeros = [torch.zeros_like(clean[0])]
    assert feature_distance(clean, zeros, torch.tensor([1.0, 0.0])) == pytest.approx(0.5)


def test_checkpoints_written_aside_are_those_of_their_moment(
    photos: Photos, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    run = Trainer(UNet(TINY), photos, Recipe(steps=5, crops=CROPS, warmup=1), out=tmp_path)
    run.run(stop_at=2)
    for name in ("checkpoint", "weights"):
        (tmp_path / f"{name}.safetensors").rename(tmp_path / f"{name}.early")
    run.network.train()
    run.save(wait=False)
    # What happens while it is written is not in it.
    with torch.no_grad():
        for parameter in run.parameters:
            parameter.add_(1)
    assert run._writing is not None
    run._writing.result()
    early, late = (tmp_path / f"weights.{s}" for s in ("early", "safetensors"))
    assert early.read_bytes() == late.read_bytes()


def test_a_checkpoint_that_cannot_be_written_stops_the_run(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = Trainer(UNet(TINY), photos, Recipe(steps=3, crops=CROPS), out=tmp_path / "r")
    monkeypatch.setattr("smoothapi.denoise.storage.replacing", full)
    with pytest.raises(OSError, match="No space left"):
        run.run(save_every=0.0)


def test_training_goes_on_where_compiling_fails(
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run(name: str, *, compiled: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        recipe = Recipe(steps=2, crops=CROPS)
        one = Trainer(UNet(TINY), photos, recipe, out=tmp_path / name, compile_network=compiled)
        return one.run().state_dict()

    def broken(network: nn.Module, **options: object) -> nn.Module:
        def fail(*arguments: object) -> None:
            raise RuntimeError("no triton\nand more")

        return fail  # type: ignore[return-value]

    plain = run("a", compiled=False)
    monkeypatch.setattr(torch, "compile", broken)
    eager = run("b", compiled=True)
    assert all(torch.equal(plain[k], eager[k]) for k in plain)
    assert "RuntimeError: no triton)" in caplog.text
    calls = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: calls.append(1) or network)
    run("c", compiled=True)
    assert calls == [1]


def test_cudnn_is_left_as_it_was(photos: Photos, tmp_path: Path) -> None:
    before = torch.backends.cudnn.benchmark
    Trainer(UNet(TINY), photos, Recipe(steps=1, crops=CROPS), out=tmp_path).run()
    assert torch.backends.cudnn.benchmark == before


def test_surrogates_load_from_a_python_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\ndef flat():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 224 * 224, 2))\n"
    )
    assert load_classifier(f"{path}:flat").name == "flat"
    for wrong in (f"{path}:round", f"{tmp_path / 'none.py'}:flat"):
        with pytest.raises(UsageError, match="cannot be imported"):
            load_classifier(wrong)
