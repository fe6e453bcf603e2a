"""Training a denoiser: pixel, stability, or both.

The objectives are those of Salman, Sun, Yang, Kapoor and Kolter, "Denoised Smoothing" (NeurIPS
2020), section 3: mean squared error on pixels, and agreement of classifiers on the denoised
picture with themselves on the clean one. Everything random is a pure function of the seed and the
step, so a killed run that is resumed continues with the same bits on the same machine.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from smoothapi.denoise.data import Crops, Photos
from smoothapi.denoise.networks import SIGMA_MAX, SIGMA_MIN, describe
from smoothapi.denoise.optim import Muon
from smoothapi.denoise.storage import read_tensors, write_tensors, write_weights
from smoothapi.denoise.surrogates import Features, feature_distance
from smoothapi.errors import DenoiserError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smoothapi.denoise.surrogates import Classifier

Objective = Literal["pixel", "stability", "both"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training run, beside the photos and the network.

    Attributes:
        objective: `pixel` is squared error over the variance that the network is to remove;
            `stability` the Kullback-Leibler divergence of the surrogates' answers on the denoised
            picture from those on the clean one; `both` pixel + stability_weight * stability.
        stability_weight: of the divergence, in `both`.
        feature_weight: of `feature_distance` between what the surrogates see in the denoised and
            in the clean picture, added in `stability` and `both`. Answers alone teach the denoiser
            one classifier's taste; features before them are shared by classifiers of any kind.
        surrogates_per_step: how many of the surrogates each step asks, in turn.
        view: side of the random window that surrogates which take any size see, to save time; 0
            means the whole crop.
        crops: how the photos are cut.
        sigma: lowest and highest noise level; drawn log-uniformly.
        focus: narrower range that a `focus_share` of the pictures is drawn from instead.
        focus_share: in [0, 1].
        steps: optimiser steps, or 0 for no such limit.
        minutes: wall clock, or 0 for no such limit. Only a run that `steps` ends is reproducible.
        optimizer: `muon` or `adamw`.
        learning_rate: at the top of the schedule (linear warm-up, then half a cosine).
        final_rate: where the cosine ends, as a fraction of learning_rate.
        warmup: steps.
        weight_decay: decoupled.
        clip: largest norm of the gradient.
        ema: decay of the weights' moving average, the weights that are written in the end.
        precision: `bf16` (autocast) or `fp32`.
        seed: of crops, noise and sigma.
    """

    objective: Objective = "pixel"
    stability_weight: float = 0.1
    feature_weight: float = 0.0
    surrogates_per_step: int = 1
    view: int = 0
    crops: Crops = field(default_factory=Crops)
    sigma: tuple[float, float] = (SIGMA_MIN, SIGMA_MAX)
    focus: tuple[float, float] = (0.12, 0.6)
    focus_share: float = 0.6
    steps: int = 0
    minutes: float = 0.0
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 2e-3
    final_rate: float = 0.01
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise UsageError(
                f"The objective is {self.objective!r}; it is one of pixel, stability, both."
            )
        if self.steps <= 0 and self.minutes <= 0:
            raise UsageError("Say when training ends: steps, minutes, or both.")
        for low, high in (self.sigma, self.focus):
            if not 0 < low <= high:
                raise UsageError(f"Noise levels from {low} to {high}: 0 < low <= high is needed.")
        if not 0 <= self.ema < 1 or not 0 <= self.focus_share <= 1:
            raise UsageError("ema is in [0, 1) and focus_share in [0, 1].")
        if min(self.stability_weight, self.feature_weight, self.view) < 0:
            raise UsageError("stability_weight, feature_weight and view are at least 0.")

    def rate(self, step: int, seconds: float) -> float:
        """The learning rate at a step that begins `seconds` after the start."""
        return self.learning_rate * (
            min(1.0, (step + 1) / max(self.warmup, 1))
            * (
                self.final_rate
                + (1 - self.final_rate)
                * (1 + math.cos(math.pi * min(1.0, self.progress(step, seconds))))
                / 2
            )
        )

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is over; 1 and above is the end."""
        return max(
            step / self.steps if self.steps > 0 else 0.0,
            seconds / (60 * self.minutes) if self.minutes > 0 else 0.0,
        )


@dataclass(frozen=True, slots=True)
class StepReport:
    """What is known after a step: means over the steps since the last report."""

    step: int
    seconds: float
    progress: float
    rate: float
    loss: float
    pixel: float
    stability: float
    features: float
    psnr: float
    gradient: float


class Trainer:
    """One run: `Trainer(...).run()` trains to the end of the recipe, from a checkpoint if any.

    Args:
        network: what is trained, in place; one of smoothapi's, so that it can be written.
        photos: what it is trained on.
        recipe: how.
        out: folder of `checkpoint.safetensors` (to resume), `weights.safetensors` (the moving
            average) and `log.jsonl` (one line a report).
        surrogates: classifiers for the stability objective.
        device: where to train.
        compile_network: use torch.compile, which pays on CUDA.
        shards: parts that a batch is cut into, each worked on by one thread of one core. On a CPU
            that others used too, steps of 0.5 to 0.7 s became steps of 0.3 s: in one part on all
            cores, every operation waits for the slowest core. Batch normalisation needs 1.

    Raises:
        UsageError: the objective needs surrogates and there is none.
    """

    def __init__(
        self,
        network: nn.Module,
        photos: Photos,
        recipe: Recipe,
        *,
        out: Path,
        surrogates: Sequence[Classifier] = (),
        device: torch.device | None = None,
        compile_network: bool = False,
        shards: int = 1,
    ) -> None:
        if recipe.objective != "pixel" and not surrogates:
            raise UsageError(
                f"The objective {recipe.objective!r} looks at labels: give at least one surrogate."
            )
        self.recipe, self.photos, self.out = recipe, photos, Path(out)
        self.device = device or torch.device("cpu")
        self.network: nn.Module = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.surrogates = [s.to(self.device) for s in surrogates]
        # One a surrogate that is named twice: its hooks would fill both.
        looks = {id(s.module): Features(s) for s in self.surrogates if recipe.feature_weight}
        self._looks = [looks.get(id(s.module)) for s in self.surrogates]
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = _optimizer(recipe, self.parameters)
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        self.shards = shards
        if shards > 1:
            # torch counts threads by thread: those of the pool must be told.
            self._pool = ThreadPoolExecutor(
                shards, "shard", initializer=torch.set_num_threads, initargs=(1,)
            )
        else:
            self._pool = ThreadPoolExecutor(1, "shard")
        if isinstance(self.optimizer, Muon):
            self.optimizer.pool = self._pool
        self._forward: Callable[..., Tensor] = (
            torch.compile(self.network) if compile_network else self.network
        )

    def run(
        self,
        *,
        report: Callable[[StepReport], None] | None = None,
        report_every: int = 50,
        save_every: float = 120.0,
        stop_at: int | None = None,
    ) -> nn.Module:
        """Train, and leave the moving average in the network.

        Args:
            report: called with every report that is logged.
            report_every: steps between reports.
            save_every: seconds between checkpoints.
            stop_at: end before this step with a checkpoint, as a kill would; for tests.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self.resume()
        begun = saved = time.monotonic()
        earlier = self.seconds
        batches = self.photos.batches(self.recipe.crops, self.recipe.seed, self.step)
        recent: list[dict[str, float]] = []
        self.network.train()
        while self.recipe.progress(self.step, self.seconds) < 1 and self.step != stop_at:
            recent.append(self._train_step(torch.from_numpy(next(batches))))
            self.step += 1
            self.seconds = earlier + time.monotonic() - begun
            ended = self.recipe.progress(self.step, self.seconds) >= 1
            if self.step % report_every == 0 or ended:
                self._log({k: fmean(r[k] for r in recent) for k in recent[0]}, report)
                recent.clear()
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        batches.close()  # type: ignore[attr-defined]
        self.save()
        self.network.load_state_dict(self.average)
        self.network.eval()
        return self.network

    def save(self) -> None:
        """Write the checkpoint and, beside it, the weights as they would ship today."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        about = {"step": self.step, "seconds": self.seconds, "recipe": asdict(self.recipe)}
        write_tensors(self.out / "checkpoint.safetensors", tensors, {"training": json.dumps(about)})
        architecture, config = describe(self.network)
        write_weights(
            self.out / "weights.safetensors",
            self.average,
            architecture=architecture,
            config=config,
            about={"steps": self.step, "recipe": asdict(self.recipe)},
        )

    def resume(self) -> None:
        """Continue where the checkpoint in `out` stands, if there is one.

        Raises:
            DenoiserError: it was written by another recipe.
        """
        path = self.out / "checkpoint.safetensors"
        if not path.exists():
            return
        tensors, header = read_tensors(path)
        about = json.loads(header.get("training", "{}"))
        ours = json.loads(json.dumps(asdict(self.recipe)))
        # The end may be moved; what decided the steps so far may not.
        ends = ("steps", "minutes")
        # An option that is younger than the checkpoint had the value that it has by default.
        theirs = asdict(Recipe(steps=1)) | about.get("recipe", {})
        changed = [
            key for key, value in ours.items() if key not in ends and theirs.get(key) != value
        ]
        if changed:
            raise DenoiserError(
                f"The checkpoint in {self.out} was written by a recipe that differs in "
                f"{', '.join(changed)}. Give the same recipe to resume it, or another folder."
            )
        self.network.load_state_dict(_under("network.", tensors))
        self.average = {k: v.to(self.device) for k, v in _under("average.", tensors).items()}
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.step, self.seconds = int(about["step"]), float(about["seconds"])

    def _train_step(self, crops: Tensor) -> dict[str, float]:
        rate = self.recipe.rate(self.step, self.seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clean = crops.to(self.device).permute(0, 3, 1, 2).float() / 255
        noisy, sigma = self._noisy(clean)
        size = -(-len(clean) // self.shards)
        shards = [torch.split(part, size) for part in (clean, noisy, sigma)]
        results = list(self._pool.map(self._gradients, *shards))
        shares = [len(part) / len(clean) for part in shards[0]]
        for index, parameter in enumerate(self.parameters):
            parts = [
                share * result[1][index] for share, result in zip(shares, results, strict=True)
            ]
            parameter.grad = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        gradient = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        figures = {
            key: sum(share * result[0][key] for share, result in zip(shares, results, strict=True))
            for key in results[0][0]
        }
        if not math.isfinite(figures["loss"]):
            raise DenoiserError(
                f"The loss of step {self.step} is {figures['loss']}: training has diverged. Lower "
                "the learning rate; the last checkpoint is unharmed."
            )
        self.optimizer.step()
        self._update_average()
        return {"rate": rate, **figures, "gradient": gradient.item()}

    def _gradients(
        self, clean: Tensor, noisy: Tensor, sigma: Tensor
    ) -> tuple[dict[str, float], tuple[Tensor, ...]]:
        recipe = self.recipe
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            denoised = self._forward(noisy, sigma)
        denoised = denoised.float()
        error = (denoised - clean).square().mean(dim=(1, 2, 3))
        # Over the variance of what has to be removed: every sigma then weighs about the same.
        removable = sigma**2 * 0.0625 / (sigma**2 + 0.0625)
        loss = pixel = (error / removable).mean()
        stability = features = torch.zeros(())
        if recipe.objective != "pixel":
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"
            ):
                stability, features = self._stability(clean, denoised)
            loss = stability
            if recipe.objective == "both":
                loss = pixel + recipe.stability_weight * stability
            loss = loss + recipe.feature_weight * features
        gradients = torch.autograd.grad(loss, self.parameters)
        figures = {
            "loss": loss.item(),
            "pixel": pixel.item(),
            "stability": stability.item(),
            "features": features.item(),
            "psnr": (-10 * error.clamp_min(1e-10).log10()).mean().item(),
        }
        return figures, gradients

    def _noisy(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        generator = torch.Generator(self.device).manual_seed((recipe.seed << 32) + self.step)
        count = len(clean)
        where, which = torch.rand(2, count, generator=generator, device=self.device)
        wide, narrow = (low * (high / low) ** where for low, high in (recipe.sigma, recipe.focus))
        sigma = torch.where(which < recipe.focus_share, narrow, wide)
        noise = torch.randn(clean.shape, generator=generator, device=self.device)
        noisy = clean + sigma.reshape(-1, 1, 1, 1) * noise
        return noisy.contiguous(memory_format=torch.channels_last), sigma

    def _stability(self, clean: Tensor, denoised: Tensor) -> tuple[Tensor, Tensor]:
        """How far the surrogates' answers and features move, each a mean over this step's."""
        count = min(self.recipe.surrogates_per_step, len(self.surrogates))
        first = self.step * count
        moved = denoised.new_zeros(2)
        for index in range(first, first + count):
            place = index % len(self.surrogates)
            surrogate, look = self.surrogates[place], self._looks[place]
            seen: tuple[Tensor, ...] = (clean, denoised)
            if self.recipe.view and not surrogate.size:
                seen = self._window(clean, denoised)
            with torch.no_grad():
                target, kept = look(seen[0]) if look else (surrogate(seen[0]), [])
            answer, given = look(seen[1]) if look else (surrogate(seen[1]), [])
            if surrogate.labels:
                target, answer = (F.log_softmax(x.float(), dim=1) for x in (target, answer))
                divergence = F.kl_div(answer, target, reduction="batchmean", log_target=True)
                moved = moved + torch.stack((divergence, torch.zeros_like(divergence)))
            if look:
                distance = feature_distance(kept, given)
                moved = moved + torch.stack((torch.zeros_like(distance), distance))
        return moved[0] / count, moved[1] / count

    def _window(self, *pictures: Tensor) -> tuple[Tensor, ...]:
        """The same random window of each, a function of seed and step."""
        height, width = pictures[0].shape[-2:]
        side = min(self.recipe.view, height, width)
        generator = torch.Generator().manual_seed((self.recipe.seed << 32) + self.step)
        share = torch.rand(2, generator=generator).tolist()
        top, left = int(share[0] * (height - side + 1)), int(share[1] * (width - side + 1))
        return tuple(p[..., top : top + side, left : left + side] for p in pictures)

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short memory at first, or the average would be of untrained weights for long.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _log(self, figures: dict[str, float], report: Callable[[StepReport], None] | None) -> None:
        line = StepReport(
            step=self.step,
            seconds=round(self.seconds, 1),
            progress=min(1.0, self.recipe.progress(self.step, self.seconds)),
            **figures,
        )
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(line)) + "\n")
        if report is not None:
            report(line)


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimizer == "muon":
        return Muon(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(
        parameters, recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
