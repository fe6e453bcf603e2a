"""What is left of pictures and labels after one noisy copy: ours beside FFDNet, BF-CNN and none.

    python benchmarks/denoiser_labels.py DATA [--denoisers default small ...] [--photos 200]
        [--device cuda] [--json]

DATA holds kodak24/, labelled_photos/, classifiers/ and denoisers_peer/ (see ../shared/data). PSNR
is of 256x256 centre crops of Kodak24, labels are of the labelled photos that were held out of
training, resized to 224x224. The same noise for every denoiser. efficientnet_lite0 was a surrogate
in training, tiny_darknet never.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table

from smoothapi.denoise import load
from smoothapi.denoise.training.evaluate import evaluate
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.denoise.training.surrogates import load_classifier

if TYPE_CHECKING:
    from smoothapi.denoise import DenoiserRuntime

DENOISERS = ("default", "small", "FFDNet", "BF-CNN", "none")
CLASSIFIERS = ("efficientnet_lite0", "tiny_darknet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=200, help="of the 200 held out")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.12, 0.25, 0.5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--denoisers", nargs="+", default=[*DENOISERS], help=f"of {', '.join(DENOISERS)}, or files"
    )
    parser.add_argument("--device", default="cpu", help="of denoisers and classifiers")
    parser.add_argument("--no-psnr", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    denoisers = {
        name: load(name, device=args.device)
        for name in args.denoisers
        if name not in {"FFDNet", "BF-CNN"}
    }
    if {"FFDNet", "BF-CNN"} & set(args.denoisers):
        denoisers |= peers(args.data / "denoisers_peer", device=args.device)
    labelled = args.data / "labelled_photos"
    kept = sorted(held_out([p.name for p in files(labelled)], 200))[: args.photos]
    with (labelled / "labels.csv").open(encoding="utf-8") as stream:
        truth = {row["file"]: int(row["class_index"]) for row in csv.DictReader(stream)}
    device = torch.device(args.device)
    classifiers = [
        load_classifier(args.data / "classifiers" / f"{n}.onnx").to(device) for n in CLASSIFIERS
    ]
    results = {}
    for name in args.denoisers:
        denoiser = denoisers[name]
        common = {"sigmas": args.sigmas, "seed": args.seed}
        labels = evaluate(
            denoiser, labelled, classifiers, size=224, resize=True, names=kept, labels=truth,
            **common,
        )  # fmt: skip
        rows = [asdict(row) for row in labels.rows]
        if not args.no_psnr:
            kodak = evaluate(denoiser, args.data / "kodak24", size=256, **common)
            for row, other in zip(rows, kodak.rows, strict=True):
                row["kodak_psnr"], row["kodak_ssim"] = other.psnr, other.ssim
        results[name] = rows
    print(json.dumps(results, indent=2)) if args.json else show(results, len(kept))


def peers(
    folder: Path, *, precision: str = "auto", device: str = "auto"
) -> dict[str, DenoiserRuntime]:
    """The denoisers that others trained, for comparison only."""
    spec = importlib.util.spec_from_file_location("peers", folder / "peers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {"FFDNet": "ffdnet_color", "BF-CNN": "bfcnn_color_blind"}
    return {
        name: load(
            module.load(str(folder / f"{file}.safetensors")),
            name=name,
            precision=precision,
            device=device,
        )
        for name, file in found.items()
    }


def show(results: dict[str, list[dict]], photos: int) -> None:
    table = Table(title=f"One noisy copy each of {photos} photos that were held out; Kodak24")
    for column in ("sigma", "denoiser", "Kodak dB", "SSIM"):
        table.add_column(column)
    for name in CLASSIFIERS:
        table.add_column(f"{name} right", justify="right")
        table.add_column("as clean", justify="right")
    count = len(next(iter(results.values())))
    for index in range(count):
        for name, rows in results.items():
            row = rows[index]
            psnr, ssim = row.get("kodak_psnr", float("nan")), row.get("kodak_ssim", float("nan"))
            shares = [
                f"{row[kind][c]:.1%}" for c in CLASSIFIERS for kind in ("accuracy", "agreement")
            ]
            table.add_row(f"{row['sigma']:g}", name, f"{psnr:.2f}", f"{ssim:.4f}", *shares)
        table.add_section()
    # Wide enough for every column, whatever the terminal.
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
