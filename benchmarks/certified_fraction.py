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

Several radii are each asked for in a run of their own, answered from the same votes: the row of a
pair (sigma, radius) is what a user with that pair gets and pays. Pairs that the votes cannot reach
are left out.

The counting is that of `smoothapi denoiser eval --certify`; this compares denoisers, and resumes.
Votes are kept in --cache after every photo: a run that was ended goes on where it was, and more
photos, votes, radii or denoisers only cost what is new. `--at-least` buys so many votes of each
photo, whatever the tests need, for `study_shares.py --kept`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from denoiser_labels import CLASSIFIERS, DENOISERS, peers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from smoothapi.denoise import load
from smoothapi.denoise.training.evaluate import labels_of
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.denoise.training.surrogates import Classifier, load_classifier
from smoothapi.errors import UnreachableRadiusError
from smoothapi.image import WorkingImage, load_image
from smoothapi.noise import noisy_variants
from smoothapi.study.certified import (
    CertifiedPhoto,
    Terms,
    certify_photo,
    ended,
    noise_key,
    summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.certify.decision import Decision
    from smoothapi.denoise import DenoiserRuntime

SIZE = 224


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
        key: {n: labels_of(classifier, i.to_uint8()[None])[0] for n, i in images.items()}
        for key, classifier in classifiers.items()
    }
    rows: list[Row] = []
    ends: list[dict] = []
    with progress() as bar:
        for sigma, (denoiser, runtime) in product(args.sigmas, chosen(args)):
            task = bar.add_task(f"{denoiser}, sigma {sigma:g}", total=len(images))
            votes = Votes(args.cache / f"{denoiser}-{runtime.fingerprint}.json")
            found: dict[tuple[float, str], list[CertifiedPhoto]] = defaultdict(list)
            for name, image in images.items():
                decisions = certify(args, sigma, runtime, classifiers, image, votes)
                for (radius, key), decision in decisions.items():
                    about = {"photo": name, "clean": clean[key][name], "truth": truth[name]}
                    found[radius, key].append(ended(decision, sigma, key, **about))
                bar.advance(task)
            for (radius, _), of_one in found.items():
                rows.append(row_of(denoiser, radius, of_one))
                ends += [photo_end(denoiser, radius, end) for end in of_one]
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
    parser.add_argument("--max-votes", type=int, default=200, help="most votes a photo")
    parser.add_argument("--at-least", type=int, default=0, help="votes a photo to buy anyway")
    parser.add_argument(
        "--denoisers", nargs="+", default=[*DENOISERS], help=f"of {', '.join(DENOISERS)}, or files"
    )
    parser.add_argument("--classifiers", nargs="+", default=[*CLASSIFIERS])
    parser.add_argument("--device", default="cpu", help="of denoisers and classifiers")
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


def chosen(args: argparse.Namespace) -> Iterator[tuple[str, DenoiserRuntime]]:
    options = {"precision": args.precision, "device": args.device}
    found = {}
    if {"FFDNet", "BF-CNN"} & set(args.denoisers):
        found |= peers(args.data / "denoisers_peer", **options)
    for name in args.denoisers:
        if name not in found:
            found[name] = load(name, **({} if name == "none" else options))
        yield Path(name).stem if name.endswith(".safetensors") else name, found[name]


def certify(
    args: argparse.Namespace,
    sigma: float,
    runtime: DenoiserRuntime,
    classifiers: dict[str, Classifier],
    image: WorkingImage,
    votes: Votes,
) -> dict[tuple[float, str], Decision]:
    """Let the library decide about a photo, with the votes that are kept; keep those it buys."""
    kept = {key: votes[f"{key} {sigma:g} {args.seed} {image.digest[:16]}"] for key in classifiers}
    before = [len(given) for given in kept.values()]
    key = noise_key(args.seed)
    found = {}
    for radius in args.radii:
        terms = Terms(radius, args.alpha, args.max_votes)
        with suppress(UnreachableRadiusError):
            decisions = certify_photo(
                image, runtime, classifiers, terms, sigma=sigma, key=key, votes=kept
            )
            found |= {(radius, name): decision for name, decision in decisions.items()}
    for name, given in kept.items():
        if len(given) < args.at_least:
            indices = range(len(given), args.at_least)
            variants = runtime.variants(noisy_variants(image, sigma, indices, key), sigma)
            given.extend(labels_of(classifiers[name], variants))
    if before != [len(given) for given in kept.values()]:
        votes.save()
    return found


def row_of(denoiser: str, radius: float, ends: list[CertifiedPhoto]) -> Row:
    found = summary(ends)
    right, as_clean, wrong = (
        (band.share, band.low, band.high) for band in (found.right, found.as_clean, found.wrong)
    )
    return Row(
        sigma=found.sigma,
        radius=radius,
        denoiser=denoiser,
        classifier=found.classifier.partition(":")[0],
        photos=found.photos,
        clean_right=found.clean_right.share,
        right=right,
        as_clean=as_clean,
        wrong=wrong,
        mean_votes=found.mean_votes,
    )


def photo_end(denoiser: str, radius: float, end: CertifiedPhoto) -> dict:
    label = None if end.label is None else str(end.label)
    return asdict(end) | {"denoiser": denoiser, "radius": radius, "label": label}


def show(rows: list[Row], args: argparse.Namespace) -> None:
    title = (
        f"Certified with at most {args.max_votes} votes, alpha "
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
