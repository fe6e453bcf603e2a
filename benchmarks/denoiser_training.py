"""Pictures a second that `smoothapi denoiser train` trains on, pixels alone and with a surrogate.

    python benchmarks/denoiser_training.py [--device cuda] [--batch 128] [--crop 224] [--seconds 15]
        [--surrogate FILE.py:function] [--network large --network small] [--json FILE]

Batches, schedule, optimiser, moving average and reports are those of the command; photos are
synthetic and held on the device, so that no disk is measured. Each of the four is first run for
--warm-up seconds (compiling, choice of kernels, the card's clock), which do not count. Without
--surrogate one with random weights stands in: a chain of convolutions to 1/32, some 0.6 GMAC, as
MobileNetV1; features of it are compared too.

Bars, on one H100 or H200 and batches of 128 crops of 224: the large network 4,000 pictures/s with
pixels alone, and 1,800 with a surrogate a step. Other devices have none.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from smoothapi.denoise.device import choose_device
from smoothapi.denoise.networks import UNet, UNetConfig
from smoothapi.denoise.training.data import Crops
from smoothapi.denoise.training.device_photos import PhotosOnDevice
from smoothapi.denoise.training.recipe import Recipe
from smoothapi.denoise.training.surrogates import Classifier, load_classifier
from smoothapi.denoise.training.train import StepReport, Trainer

NETWORKS = {
    "large": UNetConfig((64, 128, 256, 384), (2, 2, 2, 3), (2, 2, 2)),
    "small": UNetConfig(),
    "tiny": UNetConfig((4, 6), (1, 1), (1,)),  # to try this script on a CPU
}
BARS = {("large", "pixel"): 4000, ("large", "both"): 1800}


def stand_in() -> Classifier:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    widths = (3, 32, 64, 128, 256, 512)
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 1000)]
    return Classifier("random", nn.Sequential(*layers), size=224)


def photos(crop: int, device: torch.device, count: int) -> PhotosOnDevice:
    rng = np.random.default_rng(0)
    sides = [(round(crop * factor), round(1.33 * crop * factor)) for factor in (1, 8 / 7)]
    views = [
        [rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides] for _ in range(count)
    ]
    return PhotosOnDevice(views, ["synthetic"] * count, crop, device)


def speed(name: str, objective: str, surrogate: Classifier, o: argparse.Namespace) -> dict:
    device = torch.device(choose_device(o.device))
    recipe = Recipe(
        objective=objective,
        stability_weight=0.01,
        feature_weight=0.5 if objective == "both" else 0.0,
        labels_sigma=0.5,
        crops=Crops(o.crop, o.batch, turned=False),
        focus_share=0.75,
        minutes=(o.warm_up + o.seconds) / 60,
        learning_rate=1e-3,
        warmup=1000,
        clip=2.0,
        ema=0.998,
    )
    torch.manual_seed(0)
    reports: list[StepReport] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            UNet(NETWORKS[name]),
            photos(o.crop, device, o.photos),
            recipe,
            out=Path(folder),
            surrogates=[surrogate] if objective == "both" else [],
            device=device,
            compile_network=device.type == "cuda" and not o.eager,
        )
        trainer.run(report=reports.append, report_every=o.report_every)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    # The report that the warm-up ends in is the last that does not count.
    first = next((r for r in reports[:-1] if r.seconds >= o.warm_up), reports[0])
    last = reports[-1]
    steps = max(1, last.step - first.step)
    each = steps * o.batch / max(1e-9, last.seconds - first.seconds) if steps > 1 else last.speed
    bar = BARS.get((name, objective)) if (o.batch, o.crop) == (128, 224) else None
    bar = bar if device.type == "cuda" else None
    return {
        "network": name,
        "objective": objective,
        "surrogate": surrogate.name if objective == "both" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "batch": o.batch,
        "crop": o.crop,
        "pictures_per_second": round(each, 1),
        "steps": steps,
        "bar": bar,
        "reached": each >= bar if bar else None,
        "final_loss": last.loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--warm-up", type=float, default=15.0)
    parser.add_argument("--report-every", type=int, default=10)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--surrogate")
    parser.add_argument("--network", action="append", choices=sorted(NETWORKS))
    parser.add_argument("--objective", action="append", choices=["pixel", "both"])
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    console = Console(stderr=True)
    if not o.surrogate:
        console.print("No --surrogate: one with random weights stands in.")
    surrogate = load_classifier(o.surrogate) if o.surrogate else stand_in()
    rows = []
    for name in o.network or ("large", "small"):
        for objective in o.objective or ("pixel", "both"):
            rows.append(speed(name, objective, surrogate, o))
            console.print(rows[-1])
            if o.json:
                o.json.write_text(json.dumps(rows, indent=2))
    table = Table("network", "objective", "pictures/s", "bar", title=f"on {rows[0]['device']}")
    for row in rows:
        bar = "" if row["bar"] is None else f"{row['bar']} {'ok' if row['reached'] else 'MISSED'}"
        table.add_row(row["network"], row["objective"], f"{row['pictures_per_second']:.0f}", bar)
    Console().print(table)
    if any(row["reached"] is False for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
