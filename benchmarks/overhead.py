"""What smoothapi adds to the two things that it cannot do without.

Certifies one photo that ships, nothing stored, and compares the time with the sum of its floors
in the same process: the denoiser alone on as many variants, and the labeller alone on as many
payloads. Rounds alternate; the medians and their ratio are printed. Bar: overhead under 15%.

    python benchmarks/overhead.py [--rounds 7] [--photo PHOTO]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from smoothapi import Smoother, denoise
from smoothapi.encode import Codec
from smoothapi.image import load_image
from smoothapi.noise import NoiseKey, noisy_variants
from smoothapi_adapters.mock import MockAdapter

SIGMA = 0.25
PHOTO = Path(__file__).parent.parent / "examples" / "photos" / "school_bus.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    options = parser.parse_args()

    image = load_image(options.photo)
    runtime = denoise.load("default")
    adapter = MockAdapter()
    key = NoiseKey.generate()
    warm = runtime.variants(noisy_variants(image, SIGMA, range(8), key), SIGMA)
    adapter.ask([Codec().encode(warm[0])])

    whole, denoiser, labeller = [], [], []
    votes = 0
    for _ in range(options.rounds):
        # The same loaded networks serve all rounds: start-up is not what is measured.
        with (
            tempfile.TemporaryDirectory() as home,
            Smoother(adapter, sigma=SIGMA, denoiser=runtime, home=home) as smoother,
        ):
            began = time.perf_counter()
            certificate = smoother.certify(options.photo)
            whole.append(time.perf_counter() - began)
        votes = certificate.total_votes
        noisy = noisy_variants(image, SIGMA, range(votes), key)
        began = time.perf_counter()
        lots = [runtime.variants(noisy[i : i + 8], SIGMA) for i in range(0, votes, 8)]
        pictures = [picture for lot in lots for picture in lot]
        denoiser.append(time.perf_counter() - began)
        payloads = [Codec().encode(picture) for picture in pictures]
        payloads.append(Codec().encode(image.to_uint8()))
        began = time.perf_counter()
        for payload in payloads:
            adapter.ask([payload])
        labeller.append(time.perf_counter() - began)

    times = {"whole": whole, "denoiser": denoiser, "labeller": labeller}
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    floor = middle["denoiser"] + middle["labeller"]
    print(f"{certificate}")
    print(f"votes                       {votes}")
    for name in ("denoiser", "labeller"):
        print(f"{name} alone              {middle[name] * 1e3 / votes:8.1f} ms a vote")
    print(f"whole certify call          {middle['whole'] * 1e3 / votes:8.1f} ms a vote")
    print(f"whole / (denoiser + labeller) = {middle['whole'] / floor:.3f}  (bar: 1.15)")


if __name__ == "__main__":
    main()
