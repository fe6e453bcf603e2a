"""What sound noise costs: keyed, exact on the grid, against float32 noise as one would draw it.

Both make one variant of the photo that ships; the denoiser and the labeller are timed in the same
rounds, so that the difference can be said as a share of a whole vote. Bar: at most 10%.

    python benchmarks/noise.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from smoothapi import denoise, load_image
from smoothapi.encode import Codec
from smoothapi.noise import NoiseKey, noisy_variants
from smoothapi_adapters.mock import MockAdapter

PHOTO = Path(__file__).parent.parent / "examples" / "photos" / "school_bus.jpg"
SIGMA, LOT = 0.25, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    image = load_image(PHOTO)
    pixels = image.pixels.astype(np.float32)
    key, generator = NoiseKey.generate(), np.random.default_rng()
    runtime, adapter = denoise.load("default"), MockAdapter()
    noisy = noisy_variants(image, SIGMA, range(LOT), key)
    payloads = [Codec().encode(picture) for picture in runtime.variants(noisy, SIGMA)]

    def naive() -> object:
        shape = (LOT, *pixels.shape)
        return pixels + generator.standard_normal(shape, dtype=np.float32) * np.float32(SIGMA)

    steps = {
        "sound noise": lambda: noisy_variants(image, SIGMA, range(LOT), key),
        "naive float32 noise": naive,
        "denoiser": lambda: runtime.variants(noisy, SIGMA),
        "labeller": lambda: [adapter.ask([payload]) for payload in payloads],
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append((time.perf_counter() - began) / LOT)
    ms = {name: statistics.median(times[1:]) * 1e3 for name, times in seconds.items()}
    for name, value in ms.items():
        print(f"{name:20s} {value:7.2f} ms a variant of {image.size[0]} x {image.size[1]}")
    more = ms["sound noise"] - ms["naive float32 noise"]
    vote = ms["naive float32 noise"] + ms["denoiser"] + ms["labeller"]
    print(f"sound noise makes a vote {more / vote:.1%} slower (bar: 10%)")


if __name__ == "__main__":
    main()
