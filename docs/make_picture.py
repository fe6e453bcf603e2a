"""Draw docs/result.jpg: a photo, one noisy copy, the same copy denoised, and the certificate.

Everything in it is real: python docs/make_picture.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smoothapi import Certificate, Smoother, denoise, load_image
from smoothapi.certify.certificate import confidence, rounded_down
from smoothapi.noise import NoiseKey, noisy_variants

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "photos" / "school_bus.jpg"
SIGMA = 0.25
SIDE, GAP, TEXT = 336, 24, 108
INK, DIM, BACK, GREEN = (32, 35, 40), (105, 110, 118), (255, 255, 255), (28, 126, 62)


def pictures() -> list[np.ndarray]:
    """Return the working image, variant 0 as it is, and variant 0 denoised."""
    image = load_image(PHOTO)
    noisy = noisy_variants(image, SIGMA, [0], NoiseKey(bytes(range(32))))
    clean = denoise.load("default").variants(noisy, SIGMA)[0]
    return [image.to_uint8(), np.rint(noisy[0].clip(0, 1) * 255).astype(np.uint8), clean]


def certify() -> Certificate:
    """Certify the photo with the mock, from nothing."""
    with (
        tempfile.TemporaryDirectory() as home,
        Smoother("mock", sigma=SIGMA, home=home) as smoother,
    ):
        return smoother.certify(PHOTO)


def draw(panels: list[np.ndarray], certificate: Certificate) -> Image.Image:
    """Return the picture."""
    canvas = Image.new("RGB", (4 * GAP + 3 * SIDE, 3 * GAP + SIDE + TEXT), BACK)
    pen = ImageDraw.Draw(canvas)
    body, small = ImageFont.load_default(19), ImageFont.load_default(16)
    votes = ", ".join(f"{count} {label}" for label, count in certificate.tally.items())
    captions = [
        ("The photo", f"API: {certificate.plain_label}"),
        (f"A noisy copy (sigma {SIGMA:g})", "drawn with a secret key"),
        ("The copy denoised", "what the API is sent"),
    ]
    for column, (panel, (title, line)) in enumerate(zip(panels, captions, strict=True)):
        left = GAP + column * (SIDE + GAP)
        scaled = Image.fromarray(panel).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        canvas.paste(scaled, (left, GAP))
        pen.text((left, GAP + SIDE + 8), title, INK, font=body)
        pen.text((left, GAP + SIDE + 34), line, DIM, font=small)
    top = GAP + SIDE + 74
    pen.text(
        (GAP, top),
        f"{certificate.label}: certified at L2 radius {rounded_down(certificate.radius)} "
        f"({rounded_down(certificate.radius_native)} before the resize), "
        f"confidence {confidence(certificate.alpha)}",
        GREEN,
        font=body,
    )
    pen.text(
        (GAP, top + 30),
        f"{certificate.total_votes} votes: {votes}.  {certificate.queries} queries, "
        f"${certificate.cost:.3f} at the mock's price.",
        INK,
        font=small,
    )
    return canvas


if __name__ == "__main__":
    draw(pictures(), certify()).save(ROOT / "docs" / "result.jpg", quality=90, subsampling=0)
