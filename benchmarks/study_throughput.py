"""How near a study comes to the denoiser's own ceiling: variants per second, photos per minute.

    python benchmarks/study_throughput.py [--photos 20] [--votes 48] [--latency 0.05] [--rounds 3]

The ceiling is the denoiser alone, in lots as large as the study's, on variants that are ready. The
study draws the noise, denoises, encodes, asks a service that takes 50 ms, stores and tests, with 20
photos at once; what the service itself works, decoding pictures, is not counted, for it would be
on another machine. Both are measured in turns in one run; the bar is 85%.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np

from smoothapi.answer import Answer, Label
from smoothapi.denoise import load
from smoothapi.study import Study
from smoothapi_adapters.mock import MockAdapter

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGMA = 0.25
LOT = 8


class Elsewhere(MockAdapter):
    """A service on another machine: it takes its time, and nothing of our processor."""

    def __init__(self, latency: float) -> None:
        super().__init__({"bus": 1.0})
        self._wait = latency

    def ask(self, payloads: Sequence[bytes]) -> list[Answer]:
        time.sleep(self._wait)
        return [Answer((Label("bus", 0.9),)) for _ in payloads]


def ceiling(runtime, size: int, seconds: float) -> float:
    """Variants per second of the denoiser alone."""
    noisy = np.random.default_rng(0).normal(0.5, SIGMA, (4 * LOT, size, size, 3)).astype(np.float32)
    runtime.variants(noisy[:LOT], SIGMA)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        runtime.variants(noisy, SIGMA)
        done += len(noisy)
    return done / (time.perf_counter() - began)


def studied(runtime, args, round_: int) -> tuple[float, float]:
    """(variants per second, photos per minute) of a study."""
    random = np.random.default_rng(round_)
    photos = {
        f"{n}.png": random.integers(0, 255, (args.size, args.size, 3), dtype=np.uint8)
        for n in range(args.photos)
    }
    home = tempfile.mkdtemp()
    try:
        study = Study(
            photos,
            provider=Elsewhere(args.latency),
            sigmas=SIGMA,
            radii=0.05,
            max_votes=args.votes,
            complete=True,
            denoisers=runtime,
            size=args.size,
            concurrency=args.concurrency,
            photos_at_once=20,
            gallery=0,
            home=home,
        )
        began = time.perf_counter()
        result = study.run()
        seconds = time.perf_counter() - began
    finally:
        shutil.rmtree(home, ignore_errors=True)
    votes = sum(cell.total_votes for cell in result.cells)
    return votes / seconds, 60 * len(result.photos) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--votes", type=int, default=48)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each look at the ceiling")
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    runtime = load(args.denoiser, device=args.device)
    rounds = []
    for round_ in range(args.rounds):
        before = ceiling(runtime, args.size, args.seconds / 2)
        rate, per_minute = studied(runtime, args, round_)
        after = ceiling(runtime, args.size, args.seconds / 2)
        top = (before + after) / 2
        rounds.append(
            {"ceiling": top, "study": rate, "share": rate / top, "photos_a_minute": per_minute}
        )
        if not args.json:
            print(
                f"round {round_ + 1}: {rate:.1f} of {top:.1f} variants/s ({rate / top:.0%}), "
                f"{per_minute:.1f} photos/min of {args.votes} votes"
            )
    share = statistics.median(row["share"] for row in rounds)
    if args.json:
        print(json.dumps({"rounds": rounds, "share": share, "device": runtime.device}))
    else:
        print(f"median {share:.0%} of the ceiling on {runtime.device}; the bar is 85%")


if __name__ == "__main__":
    main()
