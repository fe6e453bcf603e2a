"""All that decides a training run, beside the photos and the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from smoothapi.denoise.training.data import Crops
from smoothapi.errors import UsageError

Objective = Literal["pixel", "stability", "both"]
Optimizer = Literal["muon", "adamw"]
TrainingPrecision = Literal["bf16", "fp32"]
PhotosOn = Literal["auto", "device", "ram"]
_LABELS_RAMP = 0.05  # of the run, over which divergence and features come in


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training run, beside the photos and the network.

    A field that is new has the default under which older checkpoints were written: they resume.

    Attributes:
        objective: `pixel` is squared error over the variance that the network is to remove;
            `stability` the Kullback-Leibler divergence of the surrogates' answers on the denoised
            picture from those on the clean one; `both` pixel + stability_weight * stability.
        stability_weight: of the divergence, in `both`.
        feature_weight: of `feature_distance` between what the surrogates see in the denoised and
            in the clean picture, added in `stability` and `both`. Answers alone teach the denoiser
            one classifier's taste; features before them are shared by classifiers of any kind.
        labels_from: share of the run, in [0, 1), that looks at pixels alone, in `both`. Divergence
            and features then come in over a twentieth of the run.
        labels_sigma: noise level at which a picture's divergence and features count half, by
            1 / (1 + (sigma / labels_sigma)^2); 0 means that every level counts the same. What no
            denoiser can recover would otherwise have the largest say.
        surrogates_per_step: how many of the surrogates each step asks, in turn.
        view: side of the random window that surrogates which take any size see, to save time; 0
            means the whole crop.
        crops: how the photos are cut.
        sigma: lowest and highest noise level; drawn log-uniformly.
        focus: narrower range that a `focus_share` of the pictures is drawn from instead.
        focus_share: in [0, 1].
        steps: optimiser steps, or 0 for no such limit.
        minutes: wall clock, compiling not included, or 0 for no such limit. Only a run that
            `steps` ends is reproducible.
        optimizer: `muon` or `adamw`.
        learning_rate: at the top of the schedule (linear warm-up, constant, then half a cosine).
        hold: share of the run, in [0, 1), before the cosine begins.
        final_rate: where the cosine ends, as a fraction of learning_rate.
        warmup: steps.
        weight_decay: decoupled.
        clip: largest norm of the gradient.
        burst: a step whose gradient has a norm of more than so many times the running one is
            skipped; above 1.
        ema: decay of the weights' moving average, the weights that are written in the end.
        precision: `bf16` (autocast) or `fp32`.
        seed: of crops, noise and sigma.
    """

    objective: Objective = "pixel"
    stability_weight: float = 0.1
    feature_weight: float = 0.0
    labels_from: float = 0.0
    labels_sigma: float = 0.0
    surrogates_per_step: int = 1
    view: int = 0
    crops: Crops = field(default_factory=Crops)
    sigma: tuple[float, float] = (0.05, 1.0)
    focus: tuple[float, float] = (0.12, 0.6)
    focus_share: float = 0.6
    steps: int = 0
    minutes: float = 0.0
    optimizer: Optimizer = "muon"
    learning_rate: float = 2e-3
    hold: float = 0.0
    final_rate: float = 0.01
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    burst: float = 20.0
    ema: float = 0.999
    precision: TrainingPrecision = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise UsageError(
                f"Unknown objective {self.objective!r}. Use {', '.join(get_args(Objective))}."
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
        if not 0 <= self.hold < 1 or not 0 <= self.labels_from < 1:
            raise UsageError("hold and labels_from are shares of the run, in [0, 1).")
        if self.labels_from and self.objective != "both":
            raise UsageError(
                f"labels_from is {self.labels_from}: pixels first and labels later is the "
                f"objective 'both', not {self.objective!r}."
            )
        if self.labels_sigma < 0 or self.burst <= 1:
            raise UsageError("labels_sigma is at least 0, and burst is above 1.")

    def rate(self, step: int, seconds: float) -> float:
        """The learning rate at a step that begins `seconds` after the start."""
        falling = max(0.0, self.progress(step, seconds) - self.hold) / (1 - self.hold)
        return self.learning_rate * (
            min(1.0, (step + 1) / max(self.warmup, 1))
            * (
                self.final_rate
                + (1 - self.final_rate) * (1 + math.cos(math.pi * min(1.0, falling))) / 2
            )
        )

    def labels(self, step: int, seconds: float) -> float:
        """How much of their weights divergence and features have at a step, in [0, 1].

        0 means that the surrogates need not be asked.
        """
        if self.objective == "pixel":
            return 0.0
        if not self.labels_from:
            return 1.0
        since = self.progress(step, seconds) - self.labels_from
        # Begins at a tenth: a run that is almost over must not wait in vain.
        return min(1.0, 0.1 + since / _LABELS_RAMP) if since >= 0 else 0.0

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is over; 1 and above is the end."""
        return max(
            step / self.steps if self.steps > 0 else 0.0,
            seconds / (60 * self.minutes) if self.minutes > 0 else 0.0,
        )
