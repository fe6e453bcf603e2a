"""Tables of the paper's kind, made by studies with the mock: certified accuracy by radius.

    python benchmarks/study_tables.py DATA [--set photos|cifar10] [--photos 100] [--n 100]
        [--sigmas 0.12 0.25 0.5 1.0] [--denoisers none FFDNet BF-CNN ours] [--out FOLDER]
        [--pilot 6] [--selection 100]

DATA holds labelled_photos/, cifar10/, classifiers/ and denoisers_peer/ (see ../shared/data).
Fixed samples as in the paper (Cohen's CERTIFY: a candidate from n0 votes, n others), and the
sequential test on the same votes; n = 10000 takes 100 times as long. Run again, it continues:
answers are kept in --home. --pilot takes so many of the photos at random, and fewer --selection
votes than the paper's 100 save time: they only name the candidate.

The paper's rows are those of Salman, Sun, Yang, Kapoor and Kolter (NeurIPS 2020) with query access
to the classifier: other photos, other classifiers, other denoisers and, as there, the best sigma
for each radius picked on the same photos. What differs is printed beside the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from denoiser_labels import peers
from rich.console import Console
from rich.table import Table

from smoothapi.denoise import load
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.denoise.training.surrogates import load_classifier
from smoothapi.study import Study, figures
from smoothapi_adapters.mock import MockAdapter

if TYPE_CHECKING:
    from smoothapi.study import Figure, StudyResult

RADII = (0.25, 0.5, 0.75, 1.0)
DENOISERS = ("none", "FFDNet", "BF-CNN", "ours")
SELECTION = 100
ALPHA = 0.001
PAPER = {
    "photos": ("paper: ImageNet, ResNet-50, query access", (0.48, 0.31, 0.19, 0.12)),
    "cifar10": ("paper: CIFAR-10, ResNet-110, query access", (0.45, 0.20, 0.15, 0.13)),
}
DIFFERS = {
    "photos": (
        "Ours: EfficientNet-Lite0 (91% plain accuracy on these photos); Flickr photos of ImageNet classes instead of the validation "
        "set; few photos, so wide bands. The denoisers that we compare were not trained for "
        "ResNet-50; ours saw EfficientNet-Lite0 in training, as the paper's query-access denoiser "
        "saw surrogates, not the classifier itself."
    ),
    "cifar10": (
        "Ours: a smaller classifier, ResNet-20, on pictures that were JPEG-compressed; "
        "the denoisers were not trained on CIFAR-10, as the paper's were."
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", choices=sorted(PAPER), default="photos")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--n", type=int, default=100, help="votes that estimate; 10000 to match")
    parser.add_argument("--selection", type=int, default=SELECTION, help="votes that name")
    parser.add_argument("--pilot", type=int, help="so many of the photos, drawn at random")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.12, 0.25, 0.5, 1.0])
    parser.add_argument("--denoisers", nargs="+", choices=DENOISERS, default=[*DENOISERS])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--home", type=Path, default=Path(".cache/study_tables"))
    parser.add_argument("--out", type=Path, help="folder of the study's report")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    make = of_photos if args.set == "photos" else of_cifar10
    photos, labels, provider = make(args.data, args.photos)
    denoisers = {"none": load("none"), "ours": load("default", device=args.device)}
    if {"FFDNet", "BF-CNN"} & set(args.denoisers):
        denoisers |= peers(args.data / "denoisers_peer")
    result = Study(
        photos,
        provider=provider,
        sigmas=args.sigmas,
        radii=RADII,
        max_votes=args.n + args.selection,
        complete=True,
        selection=args.selection,
        truth=labels,
        denoisers={name: denoisers[name] for name in args.denoisers},
        alpha=ALPHA,
        device=args.device,
        home=args.home,
        gallery=4,
        concurrency=16,
        name=f"{args.set}, n = {args.n}",
        command=" ".join(["python", *sys.argv]),
    ).run(
        lambda p: print(
            f"\r{p.done}/{p.total} {p.votes} votes {p.seconds:.0f} s ", end="", file=sys.stderr
        ),
        pilot=args.pilot,
    )
    if args.out is not None:
        print(f"\nReport: {result.report(args.out)}", file=sys.stderr)
    rows = {
        method: {name: best(result, name, method) for name in args.denoisers}
        for method in ("fixed", "sequential")
    }
    plain = [row["plain_right"] for row in result.records() if row["radius"] == RADII[0]]
    if args.json:
        shown = {
            method: {name: [f and f.to_row() for f in row] for name, row in of.items()}
            for method, of in rows.items()
        }
        print(json.dumps({"rows": shown, "plain": float(np.mean(plain))}))
    else:
        show(args.set, result, rows, float(np.mean(plain)))


def of_photos(data: Path, count: int) -> tuple[dict, dict, MockAdapter]:
    """Photos held out of the denoiser's training, and EfficientNet-Lite0."""
    folder = data / "labelled_photos"
    found = {path.name: path for path in files(folder)}
    kept = sorted(held_out(found, 200))[:count]
    classes = (Path(__file__).parents[1] / "adapters/smoothapi_adapters/mock/imagenet_classes.txt").read_text().splitlines()  # fmt: skip
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        truth = {r["file"]: classes[int(r["class_index"])] for r in csv.DictReader(stream)}
    return {name: found[name] for name in kept}, truth, MockAdapter()


def of_cifar10(data: Path, count: int) -> tuple[dict, dict, MockAdapter]:
    """The first of CIFAR-10's test pictures, and a ResNet-20 made for their JPEGs."""
    sys.path.insert(0, str(data / "cifar10"))
    from load import load as read

    pictures, numbers, names = read(data / "cifar10" / "cifar10_test.npz")
    path = data / "classifiers" / "cifar10_resnet20_jpeg.onnx"
    classifier = replace(load_classifier(path), size=32)
    lock = threading.Lock()

    def labeller(pixels: np.ndarray) -> list[tuple[str, float]]:
        batch = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
        with lock, torch.inference_mode():
            scores = classifier(batch)[0].softmax(0)
        top = int(scores.argmax())
        return [(names[top], float(scores[top].clamp(0, 1)))]

    labeller.labeller_id = "cifar10_resnet20_jpeg/1"
    photos = {f"{n:05d}.png": pictures[n] for n in range(count)}
    truth = {f"{n:05d}.png": names[int(numbers[n])] for n in range(count)}
    return photos, truth, MockAdapter(labeller)


def best(result: StudyResult, denoiser: str, method: str) -> list[Figure | None]:
    """For each radius the figure of the sigma with the highest accuracy, on the same photos."""
    found = [f for f in figures(result) if (f.denoiser, f.method) == (denoiser, method)]
    return [
        max(
            (f for f in found if f.radius == radius and f.accuracy is not None),
            key=lambda f: f.accuracy.share,
            default=None,
        )
        for radius in RADII
    ]


def show(kind: str, result: StudyResult, rows: dict, plain: float) -> None:
    console = Console(width=120)
    [cap] = result.rules.max_votes
    first = result.rules.selection_of(cap)
    for method, of in rows.items():
        title = f"Certified accuracy, {len(result.photos)} of {kind}, {method}, n = {cap - first} after {first}, alpha {ALPHA}"
        table = Table(title=title, title_justify="left")
        table.add_column("denoiser")
        for radius in RADII:
            table.add_column(f"r = {radius}", justify="right")
        if method == "sequential":
            table.add_column(f"votes at r={RADII[0]:g}", justify="right")
        for name, found in of.items():
            cells = [
                "-"
                if f is None
                else f"{f.accuracy.share:.0%} ({f.accuracy.low:.0%}-{f.accuracy.high:.0%}) s={f.sigma:g}"
                for f in found
            ]
            if method == "sequential":
                cells.append("-" if found[0] is None else f"{found[0].mean_queries:.0f}")
            table.add_row(name, *cells)
        table.add_section()
        name, shares = PAPER[kind]
        table.add_row(name, *(f"{share:.0%}" for share in shares))
        console.print(table)
    console.print(
        f"Plain accuracy {plain:.0%}. In brackets 95% bands; s: the best sigma, picked on the same photos."
    )
    if result.stopped:
        console.print(f"PARTIAL: {result.stopped}")
    console.print(DIFFERS[kind])


if __name__ == "__main__":
    main()
