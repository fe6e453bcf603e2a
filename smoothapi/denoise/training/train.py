"""Training a denoiser: pixel, stability, or both.

The objectives are those of Salman, Sun, Yang, Kapoor and Kolter, "Denoised Smoothing" (NeurIPS
2020), section 3: mean squared error on pixels, and agreement of classifiers on the denoised
picture with themselves on the clean one. Everything random is a pure function of the seed and the
step, so a killed run that is resumed continues with the same bits on the same machine.
"""

from __future__ import annotations

import json
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by
from torch.optim.swa_utils import get_ema_multi_avg_fn

from smoothapi.denoise.networks import describe
from smoothapi.denoise.storage import read_tensors, write_tensors, write_weights
from smoothapi.denoise.training.data import Crops
from smoothapi.denoise.training.guard import Guard
from smoothapi.denoise.training.optim import Muon
from smoothapi.denoise.training.recipe import Objective, Recipe
from smoothapi.denoise.training.surrogates import Features, feature_distance
from smoothapi.errors import DenoiserError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from smoothapi.denoise.training.data import Batches
    from smoothapi.denoise.training.surrogates import Classifier

__all__ = ["Objective", "Recipe", "StepReport", "Trainer"]
_FIGURES = ("loss", "pixel", "stability", "features", "psnr", "gradient", "kept")
_logger = logging.getLogger("smoothapi")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What is known after a step: means over the steps since the last report.

    Attributes:
        step: steps taken so far, skipped ones included.
        seconds: wall clock of the run, with what it took before it was resumed.
        progress: how much of the run is over, in [0, 1].
        rate: learning rate.
        loss: what is minimised; this and what follows leave skipped steps out.
        pixel: squared error over the variance that is to be removed.
        stability: Kullback-Leibler divergence of the surrogates' answers, unweighted by Recipe.
        features: distance of the surrogates' features, the same.
        psnr: of the denoised crops, in dB.
        gradient: norm before it is clipped.
        speed: pictures a second, reports and checkpoints included.
        skipped: the steps, counted from 0, that bursts had skipped.
    """

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
    speed: float = 0.0
    skipped: tuple[int, ...] = ()


class Trainer:
    """One run: `Trainer(...).run()` trains to the end of the recipe, from a checkpoint if any.

    Nothing is read back from the device but when a report is due, and checkpoints are written
    beside training, so a card is never waited for.

    Args:
        network: what is trained, in place; one of smoothapi's, so that it can be written.
        photos: what it is trained on: `data.Photos`, or `device_photos.PhotosOnDevice`.
        recipe: how.
        out: folder of `checkpoint.safetensors` (to resume), `weights.safetensors` (the moving
            average) and `log.jsonl` (one line a report).
        surrogates: classifiers for the stability objective.
        device: where to train.
        compile_network: use torch.compile, which pays on CUDA; where it fails, training goes on
            without it and says so.
        shards: parts that a batch is cut into, each worked on by one thread of one core. On a CPU
            that others used too, steps of 0.5 to 0.7 s became steps of 0.3 s: in one part on all
            cores, every operation waits for the slowest core. Batch normalisation needs 1, and so
            does a card.

    Raises:
        UsageError: the objective needs surrogates and none is given.
    """

    def __init__(
        self,
        network: nn.Module,
        photos: Batches,
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
        if self.device.type == "cuda":
            for surrogate in self.surrogates:
                surrogate.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # One a surrogate that is named twice: its hooks would fill both.
        looks = {id(s.module): Features(s) for s in self.surrogates if recipe.feature_weight}
        self._looks = [looks.get(id(s.module)) for s in self.surrogates]
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = _optimizer(recipe, self.parameters)
        self.guard = Guard(recipe.burst, self.device)
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        pairs = [(self.average[k], v) for k, v in network.state_dict().items()]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counted = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.step, self.seconds = 0, 0.0
        self.shards = shards
        self._pool: ThreadPoolExecutor | None = None
        if shards > 1:
            # torch counts threads by thread: those of the pool must be told.
            self._pool = ThreadPoolExecutor(
                shards, "shard", initializer=torch.set_num_threads, initargs=(1,)
            )
            if isinstance(self.optimizer, Muon):
                self.optimizer.pool = self._pool
        self._compile = compile_network
        self._forward: Callable[..., Tensor] = self.network
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

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

        Raises:
            DenoiserError: no step since the last report could be taken: training has diverged.
            OSError: a checkpoint cannot be written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self.resume()
        earlier, reported = self.seconds, self.step
        batches = self.photos.batches(self.recipe.crops, self.recipe.seed, self.step)
        recent: list[Tensor] = []
        rates: list[float] = []
        self.network.train()
        with _fast_kernels(self.device):
            if self._compile:
                self._forward = self._compiled()
            begun = saved = since = time.monotonic()
            while self.recipe.progress(self.step, self.seconds) < 1 and self.step != stop_at:
                rates.append(self.recipe.rate(self.step, self.seconds))
                recent.append(self._train_step(torch.as_tensor(next(batches))))
                self.step += 1
                self.seconds = earlier + time.monotonic() - begun
                ended = self.recipe.progress(self.step, self.seconds) >= 1
                if self.step % report_every == 0 or ended:
                    # Waits for the device, so that the time is that of work that is done.
                    rows = torch.stack(recent).tolist()
                    self.seconds = earlier + time.monotonic() - begun
                    pictures = (self.step - reported) * self.recipe.crops.batch
                    speed = pictures / (time.monotonic() - since)
                    self._log(rows, fmean(rates), speed, report)
                    recent.clear()
                    rates.clear()
                    since, reported = time.monotonic(), self.step
                if time.monotonic() - saved > save_every:
                    self.save(wait=False)
                    saved = time.monotonic()
        batches.close()
        self.save()
        self.network.load_state_dict(self.average)
        self.network.eval()
        return self.network

    def save(self, *, wait: bool = True) -> None:
        """Write the checkpoint and, beside it, the weights as they would ship today.

        Args:
            wait: return when both are on the disk. Otherwise a copy of the state is made where
                the network is, and written by a thread while training goes on; an error of it
                is raised by the next call.

        Raises:
            OSError: this or the last checkpoint cannot be written.
        """
        if self._writing is not None:
            self._writing.result()
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors |= {f"guard.{k}": v for k, v in self.guard.state().items()}
        about = {"step": self.step, "seconds": self.seconds, "recipe": asdict(self.recipe)}
        copies = {name: value.detach().clone() for name, value in tensors.items()}
        ready = None
        if self.device.type == "cuda":
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(torch.cuda.current_stream(self.device))
        self._writing = self._writer.submit(self._write, copies, about, ready)
        if wait:
            self._writing.result()

    def _write(
        self, tensors: dict[str, Tensor], about: dict[str, Any], ready: torch.cuda.Event | None
    ) -> None:
        if ready is not None:
            # A stream of its own: on the one of the network, copying would wait for the step.
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                stream.wait_event(ready)
                tensors = {k: v.to("cpu") for k, v in tensors.items()}
            stream.synchronize()
        write_tensors(self.out / "checkpoint.safetensors", tensors, {"training": json.dumps(about)})
        architecture, config = describe(self.network)
        write_weights(
            self.out / "weights.safetensors",
            _under("average.", tensors),
            architecture=architecture,
            config=config,
            about={"steps": about["step"], "recipe": about["recipe"]},
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
        theirs["crops"] = json.loads(json.dumps(asdict(Crops()) | theirs["crops"]))
        changed = [
            key for key, value in ours.items() if key not in ends and theirs.get(key) != value
        ]
        if changed:
            raise DenoiserError(
                f"The checkpoint in {self.out} was written by a recipe that differs in "
                f"{', '.join(changed)}. Give the same recipe to resume it, or another folder."
            )
        self.network.load_state_dict(_under("network.", tensors))
        for name, value in _under("average.", tensors).items():
            self.average[name].copy_(value)
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.guard.restore(_under("guard.", tensors))
        self.step, self.seconds = int(about["step"]), float(about["seconds"])

    def _train_step(self, crops: Tensor) -> Tensor:
        """Take one step; returns `_FIGURES`, still on the device."""
        rate = self.recipe.rate(self.step, self.seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clean = crops.to(self.device).permute(0, 3, 1, 2).float() / 255
        noisy, sigma = self._noisy(clean)
        labels = self.recipe.labels(self.step, self.seconds)
        if self._pool is None:
            figures, gradients = self._gradients(clean, noisy, sigma, labels)
        else:
            figures, gradients = self._by_shards(self._pool, clean, noisy, sigma, labels)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        keep = self.guard.keep(figures[0], norm)
        if isinstance(self.optimizer, Muon):
            self.optimizer.step(keep=keep)
        elif keep:  # waits for the device, which Muon need not
            self.optimizer.step()
        self._update_average()
        return torch.cat([figures, torch.stack([norm, keep.float()])])

    def _by_shards(
        self, pool: ThreadPoolExecutor, clean: Tensor, noisy: Tensor, sigma: Tensor, labels: float
    ) -> tuple[Tensor, list[Tensor]]:
        size = -(-len(clean) // self.shards)
        parts = [torch.split(part, size) for part in (clean, noisy, sigma)]
        results = list(pool.map(self._gradients, *parts, [labels] * len(parts[0])))
        shares = [len(part) / len(clean) for part in parts[0]]
        figures = [share * result[0] for share, result in zip(shares, results, strict=True)]
        gradients = [
            torch.stack([share * part for share, part in zip(shares, given, strict=True)]).sum(0)
            for given in zip(*(result[1] for result in results), strict=True)
        ]
        return torch.stack(figures).sum(0), gradients

    def _gradients(
        self, clean: Tensor, noisy: Tensor, sigma: Tensor, labels: float
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The first five of `_FIGURES`, and the gradient of the first."""
        recipe = self.recipe
        with self._autocast():
            denoised = self._forward(noisy, sigma)
        denoised = denoised.float()
        error = (denoised - clean).square().mean(dim=(1, 2, 3))
        # Over the variance of what has to be removed: every sigma then weighs about the same.
        removable = sigma**2 * 0.0625 / (sigma**2 + 0.0625)
        loss = pixel = (error / removable).mean()
        stability = features = torch.zeros_like(pixel)
        if labels:
            weight = 1 / (1 + (sigma / recipe.labels_sigma) ** 2) if recipe.labels_sigma else None
            with self._autocast():
                stability, features = self._stability(clean, denoised, weight)
            if recipe.objective == "both":
                weighted = recipe.stability_weight * stability + recipe.feature_weight * features
                loss = pixel + labels * weighted
            else:
                loss = stability + recipe.feature_weight * features
        gradients = torch.autograd.grad(loss, self.parameters)
        psnr = (-10 * error.clamp_min(1e-10).log10()).mean()
        return torch.stack([loss, pixel, stability, features, psnr]).detach(), gradients

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"
        )

    def _compiled(self) -> Callable[..., Tensor]:
        """The network compiled, tried on one batch; or as it is, where that fails."""
        crops = self.recipe.crops
        pictures = torch.zeros(crops.batch, 3, crops.size, crops.size, device=self.device)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        sigma = torch.full((crops.batch,), 0.25, device=self.device)
        # Batch normalisation would remember the pictures.
        before = {k: v.clone() for k, v in self.network.named_buffers()}
        begun = time.monotonic()
        try:
            forward: Callable[..., Tensor] = torch.compile(self.network, dynamic=False)
            with self._autocast():
                denoised = forward(pictures, sigma)
            torch.autograd.grad(denoised.float().sum(), self.parameters)
        except Exception as error:  # noqa: BLE001 - compilers fail in ways that are theirs alone
            _logger.warning(
                "The network cannot be compiled on %s (%s: %s); training goes on without, and is "
                "slower.",
                self.device,
                type(error).__name__,
                (str(error).strip().splitlines() or [""])[0],
            )
            forward = self.network
        else:
            _logger.info("The network was compiled in %.0f s.", time.monotonic() - begun)
        for name, value in self.network.named_buffers():
            value.copy_(before[name])
        return forward

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

    def _stability(
        self, clean: Tensor, denoised: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
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
                each = F.kl_div(answer, target, reduction="none", log_target=True).sum(dim=1)
                divergence = (each if weight is None else weight * each).mean()
                moved = moved + torch.stack((divergence, torch.zeros_like(divergence)))
            if look:
                distance = feature_distance(kept, given, weight)
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
        averages, values = map(list, zip(*self._averaged, strict=True))
        get_ema_multi_avg_fn(decay)(averages, values, 0)  # type: ignore[no-untyped-call]
        for average, value in self._counted:
            average.copy_(value)

    def _log(
        self,
        rows: list[list[float]],
        rate: float,
        speed: float,
        report: Callable[[StepReport], None] | None,
    ) -> None:
        kept = [row for row in rows if row[-1]]
        first = self.step - len(rows)
        skipped = tuple(first + index for index, row in enumerate(rows) if not row[-1])
        if not kept and not all(math.isfinite(row[0] + row[-2]) for row in rows):
            raise DenoiserError(
                f"None of the steps {first} to {self.step - 1} could be taken, with losses like "
                f"{rows[-1][0]:g} and gradients like {rows[-1][-2]:g}: training has diverged. "
                "Lower the learning rate; the last checkpoint is unharmed."
            )
        if skipped:
            _logger.warning(
                "Skipped %s of the last %s steps, whose gradients were more than %g times their "
                "running norm (%.3g) or no numbers: %s.",
                len(skipped),
                len(rows),
                self.recipe.burst,
                self.guard.norm.item(),
                ", ".join(map(str, skipped)),
            )
        figures = dict(zip(_FIGURES, map(fmean, zip(*(kept or rows), strict=True)), strict=True))
        del figures["kept"]
        line = StepReport(
            step=self.step,
            seconds=round(self.seconds, 1),
            progress=min(1.0, self.recipe.progress(self.step, self.seconds)),
            rate=rate,
            speed=round(speed, 1),
            skipped=skipped,
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


@contextmanager
def _fast_kernels(device: torch.device) -> Iterator[None]:
    """Let cuDNN measure which of its kernels is fastest: all batches have one shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
