"""Whether training on with a stand-in for the provider helps the denoiser: what was tried, and its bound.

    python benchmarks/denoiser_stand_in.py DATA [--provider tiny_darknet] [--queries 1000]
        [--surrogate efficientnet_lite0] [--steps 200] [--teachers pixels stand-in ...]

DATA holds labelled_photos/, photos/ and classifiers/ (see ../shared/data). The provider is asked about the 290
labelled photos beside the 200 held out: each photo and its first variant, then variants sharpened and with
noise blended back, until --queries are spent. On its answers (ten labels at most, of a score of 0.01
or more) a head is trained over what the surrogate sees at every scale: the stand-in. The first table
says how well stand-in and surrogate foretell the provider on the photos held out:

- same label: of the photos, the share that the stand-in names as the provider does
- between copies: correlation, over the photos, of how much further one noisy copy moves its answer
  than another (the Kullback-Leibler divergence from the answer to the photo) with the provider's
- sharpening: by what share of itself sharpening by 0.7 lowers that divergence

The denoiser is then trained on, at one sigma, with the same crops and noise: on pixels alone, and
with the answers of the surrogate (which costs no query), of the stand-in, of one that learnt the same
answers shuffled among the queries (so that it knows nothing of the provider), and of the provider
itself, gradients and all, which is the bound. Where noise moves a teacher's answers less than the provider's,
they weigh more in proportion. The second table is of --copies noisy copies of each photo held out,
paired with the denoiser as it is.

A step takes some 6 s on one core with AMX; without it, a card is wanted.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from smoothapi.denoise import load
from smoothapi.denoise.knobs import Knobs
from smoothapi.denoise.storage import load_network, read_header
from smoothapi.denoise.training.data import Crops, Photos
from smoothapi.denoise.training.evaluate import psnr
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.denoise.training.recipe import Recipe
from smoothapi.denoise.training.surrogates import Classifier, Features, load_classifier
from smoothapi.denoise.training.train import Trainer
from smoothapi.image import load_image
from smoothapi.noise import noisy_variants
from smoothapi.study.certified import noise_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SIZE = 224
SHARPER, NOISIER = Knobs(sharpen=0.7), Knobs(blend=0.05)
TEACHERS = ("pixels", "surrogate", "shuffled", "stand-in", "provider")
_BATCH = 8


class StandIn(nn.Module):
    """A linear head over the mean and deviation of a surrogate's maps at every scale.

    Args:
        surrogate: its weights stay as they are.
        labels: the provider's that the head knows, counted from 0; a last one stands for all others.
    """

    def __init__(self, surrogate: Classifier, labels: int) -> None:
        super().__init__()
        self.look = Features(surrogate)
        features = len(self.seen(torch.zeros(1, 3, SIZE, SIZE))[0])
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.head = nn.Linear(features, labels + 1)
        nn.init.zeros_(self.head.weight)

    def seen(self, pictures: Tensor) -> Tensor:
        maps = self.look(pictures)[1]
        pooled = [part for m in maps for part in (m.float().mean((2, 3)), m.float().std((2, 3)))]
        return torch.cat(pooled, dim=1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head((self.seen(pictures) - self.mean) / self.scale)

    def fit(self, pictures: Tensor, scores: Tensor, steps: int = 300) -> None:
        """Learn from (n, 3, H, W) and the provider's (n, labels + 1), each row a distribution."""
        with torch.no_grad():
            seen = torch.cat([self.seen(part) for part in pictures.split(_BATCH)])
            self.mean.copy_(seen.mean(0))
            self.scale.copy_(seen.std(0).clamp_min(1e-4))
            self.head.bias.copy_(scores.mean(0).clamp_min(1e-5).log())
        seen = (seen - self.mean) / self.scale
        optimizer = torch.optim.AdamW(self.head.parameters(), 3e-3, weight_decay=3.0)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
            some = torch.randint(len(seen), (256,))
            loss = F.cross_entropy(self.head(seen[some]), scores[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@dataclass(frozen=True)
class Seen:
    """What is left of the held-out photos: which are right and how far they moved, (photos, copies)."""

    right: np.ndarray
    moved: np.ndarray
    psnr: float


class Held:
    """The photos held out, their classes, and noise that is the same for every denoiser."""

    def __init__(self, args: argparse.Namespace, paths: dict, names: list, truth: dict) -> None:
        self.sigma, self.copies = args.sigma, args.copies
        self.images = [load_image(paths[name], size=SIZE) for name in names]
        self.truth = np.array([truth[name] for name in names])
        self.clean = torch.stack([tensor(image.pixels[None])[0] for image in self.images])
        self.key = noise_key(args.seed)

    def variants(self, runtime, copies: int) -> list[Tensor]:
        made = []
        for image in self.images:
            noisy = noisy_variants(image, self.sigma, range(copies), self.key)
            made.append(tensor(runtime.variants(noisy, self.sigma) / np.float32(255)))
        return made

    def measure(self, runtime, provider: Classifier) -> Seen:
        variants = self.variants(runtime, self.copies)
        answers = torch.stack([answer(provider, part) for part in variants])
        errors = [
            psnr(clean.numpy(), variant.numpy())
            for clean, part in zip(self.clean, variants, strict=True)
            for variant in part
        ]
        right = answers.argmax(-1).numpy() == self.truth[:, None]
        moved = divergence(answer(provider, self.clean)[:, None], answers)
        return Seen(right, moved, float(np.mean(errors)))


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    labelled = args.data / "labelled_photos"
    with (labelled / "labels.csv").open(encoding="utf-8") as stream:
        truth = {row["file"]: int(row["class_index"]) for row in csv.DictReader(stream)}
    paths = {path.name: path for path in files(labelled)}
    kept = held_out(paths, 200)
    others = sorted(set(paths) - kept)
    held = Held(args, paths, sorted(kept)[: args.photos], truth)
    classifiers = args.data / "classifiers"
    provider = load_classifier(classifiers / f"{args.provider}.onnx")
    surrogate = load_classifier(classifiers / f"{args.surrogate}.onnx")
    runtime = load("default")
    standing = stand_ins(args, surrogate, provider, runtime, [paths[name] for name in others])
    moved = foretold(held, runtime, provider, {"surrogate": surrogate, **standing})
    teachers = {"pixels": None, "surrogate": surrogate, "provider": provider, **standing}
    if args.steps:
        photos = Photos.load([args.data / "photos", labelled], leave_out=kept)
        weights = {name: args.weight * moved["provider"] / each for name, each in moved.items()}
        trained(args, held, runtime, provider, photos, teachers, weights)


def stand_ins(
    args, surrogate: Classifier, provider: Classifier, runtime, paths
) -> dict[str, Classifier]:
    pictures: list[list[Tensor]] = [[], [], [], []]
    for path in paths[: args.queries]:
        image = load_image(path, size=SIZE)
        noisy = noisy_variants(image, args.sigma, range(1), noise_key(args.seed + 1))
        denoised = tensor(runtime.variants(noisy, args.sigma) / np.float32(255))
        pictures[0].append(tensor(image.pixels[None]))
        pictures[1].append(denoised)
        for place, knobs in ((2, SHARPER), (3, NOISIER)):
            pictures[place].append(knobs.apply(tensor(noisy), denoised).clamp(0, 1))
    asked = torch.cat([torch.cat(some) for some in pictures])[: args.queries]
    given = answer(provider, asked).exp()
    best = given.topk(10)
    scores = torch.zeros_like(given).scatter(1, best.indices, best.values)
    scores[scores < 0.01] = 0
    known = scores.sum(0) > 0
    scores = torch.cat([scores[:, known], 1 - scores.sum(1, keepdim=True)], dim=1)
    places = torch.cat([known.nonzero().flatten(), torch.tensor([-1])])
    found = {}
    for name, learnt in (("stand-in", scores), ("shuffled", scores[torch.randperm(len(scores))])):
        standing = StandIn(surrogate, int(known.sum()))
        standing.fit(asked, learnt)
        standing.register_buffer("places", places)
        found[name] = Classifier(name, standing, SIZE)
    print(f"{len(asked)} queries, {int(known.sum())} labels")
    return found


def foretold(
    held: Held, runtime, provider: Classifier, rows: dict[str, Classifier]
) -> dict[str, float]:
    """Return how far a noisy copy moves the answers of each, which sets their weights."""
    variants = torch.stack(held.variants(runtime, 2))
    noisy = [noisy_variants(i, held.sigma, range(1), held.key) for i in held.images]
    sharp = torch.cat(
        [SHARPER.apply(tensor(n), v[:1]) for n, v in zip(noisy, variants, strict=True)]
    )
    sets = (held.clean, variants[:, 0], variants[:, 1], sharp)

    def moved(one: Classifier) -> tuple[Tensor, np.ndarray]:
        clean, *rest = (answer(one, some) for some in sets)
        return clean.argmax(-1), np.stack([divergence(clean, some) for some in rest])

    names, theirs = moved(provider)
    table = Table(title=f"{provider.name} foretold, {len(names)} photos held out")
    for column in ("", "same label", "between copies", "sharpening"):
        table.add_column(column, justify="right")
    found = {}
    for name, one in {"provider": provider, **rows}.items():
        labels, ours = moved(one)
        found[name] = float(ours[0].mean())
        places = getattr(one.module, "places", None)
        labels = labels if places is None else places[labels]
        pair = np.corrcoef(ours[0] - ours[1], theirs[0] - theirs[1])[0, 1]
        table.add_row(
            name, f"{(labels == names).float().mean():.1%}", f"{pair:.2f}",
            f"{(ours[2] - ours[0]).mean() / ours[0].mean():+.1%}",
        )  # fmt: skip
    Console(width=100).print(table)
    return found


def trained(
    args, held: Held, runtime, provider: Classifier, photos: Photos, teachers, weights
) -> None:
    before = held.measure(runtime, provider)
    table = Table(title=f"{args.steps} steps of {args.batch} crops, sigma {args.sigma:g}")
    for column in ("trained on with", "right", "gained", "lost", "p", "divergence", "PSNR"):
        table.add_column(column, justify="right")
    table.add_row("nothing", f"{before.right.mean():.1%}", "", "", "", *figures(before))
    for name in args.teachers:
        after = held.measure(
            train_on(args, photos, teachers[name], weights.get(name, 0.0)), provider
        )
        gained = int((after.right & ~before.right).sum())
        lost = int((before.right & ~after.right).sum())
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        table.add_row(
            name, f"{after.right.mean():.1%}", str(gained), str(lost), f"{p:.3f}", *figures(after)
        )
        Console(width=100).print(table)


def train_on(args: argparse.Namespace, photos: Photos, teacher: Classifier | None, weight: float):
    recipe = Recipe(
        objective="both" if teacher else "pixel",
        stability_weight=weight,
        crops=Crops(SIZE, args.batch, 0.4, turned=False),
        sigma=(args.sigma, args.sigma),
        focus_share=0.0,
        steps=args.steps,
        learning_rate=args.rate,
        warmup=10,
        clip=2.0,
        ema=0.9,
        seed=args.seed,
    )
    network = load_network(read_header(shipped())).float()
    with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
        out = Path(folder)
        trainer = Trainer(network, photos, recipe, out=out, surrogates=[teacher] if teacher else [])
        trainer.run()
        runtime = load(str(out / "weights.safetensors"))
        runtime.variants(np.zeros((1, SIZE, SIZE, 3), np.float32), args.sigma)  # reads the file
    return runtime


def shipped() -> Path:
    import smoothapi.denoise

    return Path(smoothapi.denoise.__file__).parent / "weights" / "unet-2.0.safetensors"


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(pixels, np.float32)).permute(0, 3, 1, 2).contiguous()


def answer(classifier: Classifier, pictures: Tensor) -> Tensor:
    """Log-probabilities, (n, classes)."""
    with torch.no_grad():
        parts = [classifier(part).float() for part in pictures.split(_BATCH)]
    return torch.cat(parts).log_softmax(-1)


def divergence(clean: Tensor, moved: Tensor) -> np.ndarray:
    return (clean.exp() * (clean - moved)).sum(-1).numpy()


def figures(seen: Seen) -> Sequence[str]:
    return f"{seen.moved.mean():.3f}", f"{seen.psnr:.2f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--provider", default="tiny_darknet")
    parser.add_argument("--surrogate", default="efficientnet_lite0", help="under the stand-in")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=200, help="0: the first table alone")
    parser.add_argument("--batch", type=int, default=16, help="crops a step")
    parser.add_argument("--rate", type=float, default=4e-4, help="learning rate")
    parser.add_argument(
        "--weight", type=float, default=0.1, help="of the provider's answers, beside pixels"
    )
    parser.add_argument("--teachers", nargs="+", default=[*TEACHERS], choices=TEACHERS)
    parser.add_argument("--photos", type=int, default=200, help="of the 200 held out")
    parser.add_argument("--copies", type=int, default=2, help="noisy copies of a photo, to measure")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
