"""Measure how sure our own labeller is of photos under noise: what `smoothapi plan` assumes.

    python benchmarks/study_shares.py DATA [--photos 200] [--votes 100] [--out FILE]
    python benchmarks/study_shares.py DATA --kept VOTES.json --of "DENOISER on DEVICE" [--out FILE]

With --kept the votes are those that `benchmarks/certified_fraction.py --at-least VOTES` bought and kept, of
the same labeller, photos and size. DATA holds labelled_photos/ (see ../shared/data). Studies those photos that were held out of the
denoiser's training, and writes, for each sigma, k of n votes for each photo's top label. All of
the n votes are bought, so that no stopping rule leans the counts. Run again, it continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.study import Shares, Study

SIGMAS = (0.12, 0.25, 0.5)
SHIPPED = Path(__file__).parents[1] / "smoothapi" / "study" / "data" / "shares.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=200, help="of the 200 held out")
    parser.add_argument("--votes", type=int, default=100)
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--home", type=Path, default=Path(".cache/study_shares"))
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--kept", type=Path, help="votes of certified_fraction.py --at-least VOTES")
    parser.add_argument("--of", help="what gave the kept votes: the denoiser, and its device")
    args = parser.parse_args()
    if args.kept:
        write(args, kept_shares(args))
        return
    folder = args.data / "labelled_photos"
    found = {path.name: path for path in files(folder)}
    study = Study(
        [found[name] for name in sorted(held_out(found, 200))],
        provider="mock",
        sigmas=args.sigmas,
        radii=0.05,
        max_votes=args.votes,
        complete=True,
        gallery=0,
        device=args.device,
        home=args.home,
        name="held-out labelled photos",
    )
    result = study.run(
        lambda p: print(f"\r{p.phase} {p.done}/{p.total}, {p.votes} votes, {p.seconds:.0f} s", end="", file=sys.stderr),
        pilot=args.photos,
    )  # fmt: skip
    measured = Shares.of_study(result)
    source = (
        f"EfficientNet-Lite0 behind the denoiser {result.denoisers[0].name}, "
        f"{len(result.photos)} labelled photos (Flickr, ImageNet classes) held out of training, "
        f"224 px, {args.votes} votes each, {result.created[:10]}, smoothapi "
        f"{result.versions['smoothapi']}: benchmarks/study_shares.py"
    )
    write(args, Shares(source, measured.counts))


def kept_shares(args: argparse.Namespace) -> Shares:
    """Count the top label's votes of each photo, by sigma."""
    counts: dict[float, list[tuple[int, int]]] = {}
    for key, votes in json.loads(args.kept.read_text()).items():
        classifier, sigma, _, _ = key.rsplit(" ", 3)
        if float(sigma) not in args.sigmas or not classifier.startswith("efficientnet_lite0:"):
            continue
        if len(votes) >= args.votes:
            top = Counter(votes[: args.votes]).most_common(1)[0][1]
            counts.setdefault(float(sigma), []).append((top, args.votes))
    photos = min(len(rows) for rows in counts.values())
    source = (
        f"EfficientNet-Lite0 behind the denoiser {args.of}, {photos} labelled photos (Flickr, "
        f"ImageNet classes) held out of training, 224 px, {args.votes} votes each, "
        f"{datetime.now(tz=UTC):%Y-%m-%d}: benchmarks/study_shares.py"
    )
    return Shares(source, {sigma: tuple(counts[sigma]) for sigma in sorted(counts)})


def write(args: argparse.Namespace, shares: Shares) -> None:
    data = shares.to_dict()
    data["counts"] = {sigma: sorted(rows) for sigma, rows in data["counts"].items()}
    args.out.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"\n{args.out}: {shares.source}")
    for sigma in shares.counts:
        values = shares.at(sigma)
        shown = ", ".join(f"{float((values > p).mean()):.0%} above {p}" for p in (0.5, 0.84, 0.98))
        print(f"  sigma {sigma:g}: mean {values.mean():.2f}, {shown}")


if __name__ == "__main__":
    main()
