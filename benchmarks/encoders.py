"""Milliseconds and bytes of a variant: our PNG beside Pillow's, in turns on the same pictures.

Denoised variants of the photos that ship, at three noise levels. Each PNG is decoded again and
compared. Bar: one core packs 50 variants a second, so at most 20 ms each.

    python benchmarks/encoders.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import io
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from smoothapi import denoise, load_image
from smoothapi.encode import Codec
from smoothapi.noise import NoiseKey, noisy_variants

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


def pillow(picture: np.ndarray, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1, **options)
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    runtime, key = denoise.load("default"), NoiseKey(bytes(range(32)))
    pictures = [
        runtime.variants(noisy_variants(load_image(path), sigma, [0], key), sigma)[0]
        for path in sorted(PHOTOS.glob("*.jpg"))
        for sigma in (0.12, 0.25, 0.5)
    ]
    encoders = {
        "Codec('png')": Codec("png").encode,
        "Pillow, level 1": pillow,
        "Pillow, level 1, runs": partial(pillow, compress_type=zlib.Z_RLE),
        "Codec('jpeg')": Codec("jpeg").encode,
    }
    seconds = {name: [[] for _ in pictures] for name in encoders}
    for _ in range(rounds):
        for number, picture in enumerate(pictures):
            for name, encode in encoders.items():
                began = time.perf_counter()
                encode(picture)
                seconds[name][number].append(time.perf_counter() - began)
    ours = sum(map(min, seconds["Codec('png')"]))
    for name, encode in encoders.items():
        packed = [encode(picture) for picture in pictures]
        if "jpeg" not in name:
            for data, picture in zip(packed, pictures, strict=True):
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)
        spent = sum(map(min, seconds[name]))
        size = sum(map(len, packed)) / len(packed)
        print(
            f"{name:22} {1e3 * spent / len(pictures):5.2f} ms  {size:8,.0f} bytes  "
            f"{spent / ours:4.1f} times ours"
        )


if __name__ == "__main__":
    main()
