"""Measure how sure our own labeller is of photos under noise: what `smoothapi plan` assumes.

    python benchmarks/study_shares.py DATA [--photos 200] [--votes 100] [--out FILE]

DATA holds labelled_photos/ (see ../shared/data). Studies those photos that were held out of the
denoiser's training, and writes, for each sigma, k of n votes for each photo's top label. All of
the n votes are bought, so that no stopping rule leans the counts. Run again, it continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from smoothapi.denoise.data import files, held_out
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
    args = parser.parse_args()
    folder = args.data / "labelled_photos"
    found = {path.name: path for path in files(folder)}
    study = Study(
        [found[name] for name in sorted(held_out(found, 200))],
        provider="mock",
        sigmas=args.sigmas,
        radii=0.05,
        caps=args.votes,
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
    data = Shares(source, measured.counts).to_dict()
    data["counts"] = {sigma: sorted(rows) for sigma, rows in data["counts"].items()}
    args.out.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"\n{args.out}: {source}")
    for sigma in args.sigmas:
        values = measured.at(sigma)
        shown = ", ".join(f"{float((values > p).mean()):.0%} above {p}" for p in (0.5, 0.84, 0.98))
        print(f"  sigma {sigma:g}: {shown}")


if __name__ == "__main__":
    main()
