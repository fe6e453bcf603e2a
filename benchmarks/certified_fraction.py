"""What counts in the end: how many photos are certified with the right label, and for how much.

    python benchmarks/certified_fraction.py DATA [--photos 200] [--sigmas 0.25] [--radii 0.25]
        [--denoisers default small FFDNet BF-CNN none] [--device cuda] [--json FILE]

DATA holds labelled_photos/, classifiers/ and denoisers_peer/ (see ../shared/data). The photos are
of the 200 that no training saw, in the order of the SHA-256 of their names, so that any number of
them is a random sample. Each gets at most 200 votes, by smoothapi's own sequential test at alpha
0.001, on the same noise for every denoiser; a variant is denoised once and shown to all
classifiers. "Right" is the photo's label, "as clean" what the classifier says of the photo itself: a
certified fraction alone means nothing, since a classifier that calls all noise by one name
certifies it everywhere. Intervals are exact (Clopper and Pearson, 95%).

Several radii are each asked for in a run of their own, answered from the same kept votes: the table
of a pair (sigma, radius) is what a user with that pair would get and pay.

Votes are kept in --cache after every photo: a run that was ended goes on where it was, and more
photos, votes, radii or denoisers only cost what is new. `--complete` buys all votes of each photo, so
that any radius can be worked out later: `--kept` does so from the files in --cache alone, on any
machine.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from denoiser_labels import CLASSIFIERS, DENOISERS, peers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scipy.special import betaincinv

from smoothapi.certify import SequentialCertify
from smoothapi.certify.arithmetic import noise_delta
from smoothapi.denoise import load
from smoothapi.denoise.data import files, held_out
from smoothapi.denoise.surrogates import Classifier, load_classifier
from smoothapi.image import WorkingImage, load_image
from smoothapi.noise import NoiseKey, noisy_variants, variant_seeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.certify.sequential import Decision
    from smoothapi.denoise import DenoiserRuntime

SIZE = 224
BATCH = 8


@dataclass(frozen=True)
class Row:
    """One denoiser before one classifier at one sigma; shares with their 95% intervals."""

    sigma: float
    radius: float
    denoiser: str
    classifier: str
    photos: int
    clean_right: float
    right: tuple[float, float, float]
    as_clean: tuple[float, float, float]
    wrong: tuple[float, float, float]
    mean_votes: float


class Votes:
    """Votes by photo, kept in a file: class numbers in order of index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, list[int]] = json.loads(path.read_text()) if path.exists() else {}

    def __getitem__(self, key: str) -> list[int]:
        return self._kept.setdefault(key, [])

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(self._kept))
        draft.replace(self._path)


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    truth, images = photos(args)
    classifiers = named_classifiers(args)
    clean = {
        key: {name: plain(classifier, image) for name, image in images.items()}
        for key, classifier in classifiers.items()
    }
    rows: list[Row] = []
    ends: list[dict] = []
    with progress() as bar:
        for sigma in args.sigmas:
            for denoiser, runtime in chosen(args):
                task = bar.add_task(f"{denoiser}, sigma {sigma:g}", total=len(images))
                votes = Votes(kept_file(args.cache, denoiser, runtime))
                decided: dict[tuple[float, str], dict[str, Decision]] = {}
                for name, image in images.items():
                    decisions = certify(args, sigma, runtime, classifiers, image, votes)
                    for case, decision in decisions.items():
                        decided.setdefault(case, {})[name] = decision
                    bar.advance(task)
                if not args.kept:
                    votes.save()
                for (radius, key), decisions in decided.items():
                    about = {"sigma": sigma, "radius": radius, "denoiser": denoiser}
                    about["classifier"] = key
                    rows.append(summary(sigma, radius, denoiser, key, decisions, clean[key], truth))
                    ends += [about | end for end in photo_ends(decisions, clean[key], truth)]
    show(rows, args)
    if args.json:
        given = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        report = {"arguments": given, "rows": [asdict(row) for row in rows], "photos": ends}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=200, help="of the 200 held out")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25])
    parser.add_argument("--radii", type=float, nargs="+", default=[0.25])
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--votes", type=int, default=200, help="most votes a photo")
    parser.add_argument(
        "--denoisers", nargs="+", default=[*DENOISERS], help=f"of {', '.join(DENOISERS)}, or files"
    )
    parser.add_argument("--classifiers", nargs="+", default=[*CLASSIFIERS])
    parser.add_argument("--device", default="cpu", help="of denoisers and classifiers")
    parser.add_argument("--kept", action="store_true", help="buy nothing: what is kept suffices")
    parser.add_argument("--complete", action="store_true", help="buy all votes of each photo")
    parser.add_argument("--precision", default="bf16", help="of every denoiser")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    parser.add_argument("--cache", type=Path, default=Path("runs/certified_fraction"))
    parser.add_argument("--json", type=Path, help="also write the rows and each photo's end there")
    return parser.parse_args()


def photos(args: argparse.Namespace) -> tuple[dict[str, int], dict[str, WorkingImage]]:
    """Return what each labelled photo shows, and those that are asked about."""
    labelled = args.data / "labelled_photos"
    with (labelled / "labels.csv").open(encoding="utf-8") as stream:
        truth = {row["file"]: int(row["class_index"]) for row in csv.DictReader(stream)}
    paths = {path.name: path for path in files(labelled)}
    order = sorted(held_out(paths, 200), key=lambda name: hashlib.sha256(name.encode()).digest())
    return truth, {name: load_image(paths[name], size=SIZE) for name in order[: args.photos]}


def named_classifiers(args: argparse.Namespace) -> dict[str, Classifier]:
    """Return classifiers by name and a piece of their files' digests: votes are kept under it."""
    paths = {name: args.data / "classifiers" / f"{name}.onnx" for name in args.classifiers}
    device = torch.device(args.device)
    return {
        f"{name}:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}": load_classifier(path).to(
            device
        )
        for name, path in paths.items()
    }


def chosen(args: argparse.Namespace) -> Iterator[tuple[str, DenoiserRuntime | None]]:
    if args.kept:
        yield from ((name, None) for name in args.denoisers)
        return
    options = {"precision": args.precision, "device": args.device}
    found = {}
    if {"FFDNet", "BF-CNN"} & set(args.denoisers):
        found |= peers(args.data / "denoisers_peer", **options)
    for name in args.denoisers:
        if name not in found:
            found[name] = load(name, **({} if name == "none" else options))
        yield Path(name).stem if name.endswith(".safetensors") else name, found[name]


def kept_file(cache: Path, denoiser: str, runtime: DenoiserRuntime | None) -> Path:
    if runtime is not None:
        return cache / f"{denoiser}-{runtime.fingerprint}.json"
    found = sorted(cache.glob(f"{denoiser}-*.json"))
    if len(found) != 1:
        sys.exit(f"{cache} holds {len(found)} files of votes {denoiser}-*.json; one is needed.")
    return found[0]


def certify(
    args: argparse.Namespace,
    sigma: float,
    runtime: DenoiserRuntime | None,
    classifiers: dict[str, Classifier],
    image: WorkingImage,
    votes: Votes,
) -> dict[tuple[float, str], Decision]:
    """Feed each test, by radius and classifier, until all are done; denoise only what is new."""
    delta = noise_delta(image.pixels.size, sigma)
    tests = {
        (radius, key): SequentialCertify(
            sigma=sigma, alpha=args.alpha, max_votes=args.votes, radius=radius, delta=delta
        )
        for radius in args.radii
        for key in classifiers
    }
    lot = args.votes if args.complete else BATCH
    for start in range(0, args.votes, lot):
        stop = min(start + lot, args.votes)
        undecided = {key for (_, key), test in tests.items() if args.complete or not test.done}
        if not undecided:
            break
        kept = {
            key: votes[f"{key} {sigma:g} {args.seed} {image.digest[:16]}"] for key in classifiers
        }
        lacking = [key for key in undecided if len(kept[key]) < stop]
        if lacking:
            made = variants(args, sigma, runtime, image, range(start, stop))
            for key in lacking:
                del kept[key][start:]
                kept[key] += labels(classifiers[key], made)
            if not args.complete:
                votes.save()
        for (_, key), test in tests.items():
            for vote in kept[key][start:stop]:
                if not test.done:
                    test.add(str(vote))
    return {case: test.result() for case, test in tests.items()}


def variants(
    args: argparse.Namespace,
    sigma: float,
    runtime: DenoiserRuntime | None,
    image: WorkingImage,
    indices: range,
) -> np.ndarray:
    if runtime is None:
        sys.exit(f"Votes {indices} of the picture {image.digest[:16]} at {sigma} are not kept.")
    secret = NoiseKey(hashlib.sha256(f"certified fraction {args.seed}".encode()).digest())
    if runtime.draws_noise:
        seeds = variant_seeds(image, sigma, indices, secret)
        return runtime.variants_of(image.pixels, sigma, seeds)
    return runtime.variants(noisy_variants(image, sigma, indices, secret), sigma)


def plain(classifier: Classifier, image: WorkingImage) -> int:
    return labels(classifier, np.rint(image.pixels * 255).astype(np.uint8)[None])[0]


def labels(classifier: Classifier, variants: np.ndarray) -> list[int]:
    with torch.inference_mode():
        pictures = (
            torch.from_numpy(variants).to(classifier.device).permute(0, 3, 1, 2).float() / 255
        )
        return classifier(pictures).argmax(dim=1).tolist()


def summary(
    sigma: float,
    radius: float,
    denoiser: str,
    classifier: str,
    decisions: dict[str, Decision],
    clean: dict[str, int],
    truth: dict[str, int],
) -> Row:
    given = {n: None if d.label is None else int(d.label) for n, d in decisions.items()}
    count = len(given)
    return Row(
        sigma=sigma,
        radius=radius,
        denoiser=denoiser,
        classifier=classifier.partition(":")[0],
        photos=count,
        clean_right=sum(clean[n] == truth[n] for n in given) / count,
        right=share(sum(label == truth[n] for n, label in given.items()), count),
        as_clean=share(sum(label == clean[n] for n, label in given.items()), count),
        wrong=share(
            sum(label is not None and label != truth[n] for n, label in given.items()), count
        ),
        mean_votes=sum(d.votes for d in decisions.values()) / count,
    )


def photo_ends(
    decisions: dict[str, Decision], clean: dict[str, int], truth: dict[str, int]
) -> Iterator[dict]:
    for name, decision in decisions.items():
        yield {
            "photo": name,
            "label": decision.label,
            "reason": str(decision.reason),
            "votes": decision.votes,
            "clean": clean[name],
            "truth": truth[name],
        }


def share(successes: int, count: int) -> tuple[float, float, float]:
    """The share, and the exact 95% interval of its chance."""
    low = float(betaincinv(successes, count - successes + 1, 0.025)) if successes else 0.0
    high = float(betaincinv(successes + 1, count - successes, 0.975)) if successes < count else 1.0
    return successes / count, low, high


def show(rows: list[Row], args: argparse.Namespace) -> None:
    title = (
        f"Certified with at most {args.votes} votes, alpha "
        f"{args.alpha:g}, of {rows[0].photos} photos that no training saw (95% intervals)"
    )
    table = Table(title=title)
    for column in ("sigma", "radius", "classifier", "denoiser"):
        table.add_column(column)
    for column in ("clean right", "certified right", "certified as clean", "certified wrong"):
        table.add_column(column, justify="right")
    table.add_column("votes", justify="right")
    ordered = sorted(rows, key=_group)
    for index, row in enumerate(ordered):
        if index and _group(row) != _group(ordered[index - 1]):
            table.add_section()
        table.add_row(
            f"{row.sigma:g}",
            f"{row.radius:g}",
            row.classifier,
            row.denoiser,
            f"{row.clean_right:.1%}",
            *(f"{p:.1%} ({a:.0%}-{b:.0%})" for p, a, b in (row.right, row.as_clean, row.wrong)),
            f"{row.mean_votes:.0f}",
        )
    Console(width=140).print(table)


def _group(row: Row) -> tuple[float, float, str]:
    return row.sigma, row.radius, row.classifier


def progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not sys.stderr.isatty())


if __name__ == "__main__":
    main()
