"""What `smoothapi denoiser adapt` gains: before and after on photos that neither training nor tuning saw.

    python benchmarks/denoiser_adapt.py DATA [--budget 1000] [--sigma 0.25] [--copies 2]
        [--certify] [--device cuda] [--home FOLDER] [--json FILE]

DATA holds labelled_photos/ and classifiers/ (see ../shared/data). Each classifier stands behind the
`torch` adapter as a provider of which nothing is known; the 290 labelled photos beside the 200 held
out tune the knobs, by the provider's own labels, with --budget queries. What counts is measured on
the 200: the photo's right label after one noisy copy (the mean of --copies of them, the same noise
before and after), and with --certify, certified at radius 0.25 with at most 200 votes. Labels gained
and lost tell how sure the difference is (an exact sign test's two-sided p).

efficientnet_lite0 was a surrogate in training, tiny_darknet never.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from denoiser_labels import CLASSIFIERS
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from smoothapi.adapting import Adapted, KnobTuning
from smoothapi.denoise import load
from smoothapi.denoise.training.evaluate import labels_of
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.denoise.training.surrogates import load_classifier
from smoothapi.image import load_image
from smoothapi.noise import noisy_variants
from smoothapi.study.certified import Terms, certified, noise_key
from smoothapi_adapters.torch import TorchAdapter

SIZE = 224
RADIUS = 0.25
_BATCH = 8


@dataclass(frozen=True)
class Result:
    classifier: str
    setting: str
    queries: int
    tuned_on: int
    before: float
    after: float
    gained: int
    lost: int
    p: float
    certified_before: float | None = None
    certified_after: float | None = None


def main() -> None:
    args = arguments()
    labelled = args.data / "labelled_photos"
    with (labelled / "labels.csv").open(encoding="utf-8") as stream:
        truth = {row["file"]: int(row["class_index"]) for row in csv.DictReader(stream)}
    paths = {path.name: path for path in files(labelled)}
    kept = sorted(held_out(paths, 200))
    others = {name: path for name, path in sorted(paths.items()) if name not in set(kept)}
    images = {name: load_image(paths[name], size=SIZE) for name in kept[: args.photos]}
    results = []
    for name in args.classifiers:
        model = load_classifier(args.data / "classifiers" / f"{name}.onnx")
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(args, name, model, others, images, truth, Path(folder)))
        show(results, args)
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")


def measure(args, name, model, others, images, truth, folder) -> Result:
    provider = TorchAdapter(model, name=name, model_id=name, size=SIZE, device=args.device)
    adapted = tune(args, provider, others, folder)
    denoisers = [load(args.weights, device=args.device)]
    written = folder / "adapted.json"
    adapted.write(written)
    if adapted.changed:
        denoisers.append(load(str(written), device=args.device))
    right = [rights(args, runtime, model, images, truth) for runtime in denoisers]
    before, after = right[0], right[-1]
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    shares = [None, None]
    if args.certify:
        shares = [certified_share(args, runtime, model, images, truth) for runtime in denoisers]
    return Result(
        classifier=name,
        setting=str(adapted.adaptation.knobs) if adapted.changed else "left as it is",
        queries=adapted.queries + adapted.cached,
        tuned_on=adapted.photos,
        before=float(before.mean()),
        after=float(after.mean()),
        gained=gained,
        lost=lost,
        p=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        certified_before=shares[0],
        certified_after=shares[-1],
    )


def tune(args: argparse.Namespace, provider: TorchAdapter, others: dict, folder: Path) -> Adapted:
    tuning = KnobTuning(
        others,
        provider=provider,
        sigma=args.sigma,
        weights=args.weights,
        budget=str(args.budget),
        size=SIZE,
        device=args.device,
        home=args.home or folder / "home",
    )
    adapted = tuning.run()
    for tried in adapted.tried:
        print(f"  {provider.name}: {tried}")
    return adapted


def rights(args, runtime, model, images, truth) -> np.ndarray:
    """Return (photos x copies) whether the label after one noisy copy is the photo's."""
    key = noise_key(args.seed)
    found = []
    for name, image in images.items():
        noisy = noisy_variants(image, args.sigma, range(args.copies), key)
        labels = labels_of(model, runtime.variants(noisy, args.sigma))
        found.append([label == truth[name] for label in labels])
    return np.array(found)


def certified_share(args, runtime, model, images, truth) -> float:
    terms = Terms(RADIUS, 0.001, 200)
    found = certified(
        runtime, images, [model], terms, sigmas=[args.sigma], truth=truth, seed=args.seed
    )
    return found.rows[0].right.share


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--budget", type=int, default=1000, help="queries of a tuning")
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--copies", type=int, default=2, help="noisy copies of a photo, to measure")
    parser.add_argument("--photos", type=int, default=200, help="of the 200 held out")
    parser.add_argument("--weights", default="default", help='"default", "small", or a file')
    parser.add_argument("--classifiers", nargs="+", default=[*CLASSIFIERS])
    parser.add_argument("--certify", action="store_true", help="certified shares, too: slow")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that measures")
    parser.add_argument("--device", default="cpu", help="of denoisers and classifiers")
    parser.add_argument("--home", type=Path, help="keeps the answers; by default they are dropped")
    parser.add_argument("--json", type=Path, help="also write the results there")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_grad_enabled(False)
    return args


def show(results: list[Result], args: argparse.Namespace) -> None:
    table = Table(
        title=f"{args.budget} queries, sigma {args.sigma:g}, {args.photos} photos held out"
    )
    for column in ("classifier", "setting", "queries", "tuned on", "right before", "right after"):
        table.add_column(column, justify="right")
    for column in ("gained", "lost", "p", "certified before", "certified after"):
        table.add_column(column, justify="right")
    for one in results:
        shares = [
            "" if share is None else f"{share:.1%}"
            for share in (one.certified_before, one.certified_after)
        ]
        table.add_row(
            one.classifier, one.setting, str(one.queries), str(one.tuned_on), f"{one.before:.1%}",
            f"{one.after:.1%}", str(one.gained), str(one.lost), f"{one.p:.3f}", *shares,
        )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
