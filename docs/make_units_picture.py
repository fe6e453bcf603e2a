"""Draw docs/pictures/units.jpg: what a radius in each unit allows on a small and on a large photo.

The whole change is spent on one spot of 10 x 10 pixels, where it is seen best. The large photo is
the small one enlarged, so that nothing but the size differs: python docs/make_units_picture.py
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smoothapi import load_image
from smoothapi.certificates import radius_around
from smoothapi.certify import share_deduction
from smoothapi.certify.radii import native_radius, rounding_of
from smoothapi.certify.sequential import fewest_votes
from smoothapi.radius import WantedRadius

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "photos" / "school_bus.jpg"
SIZES = ((299, 299), (4000, 3000))
ASKED = ("0.25", "0.5 native", "0.1/255 rms")
SIGMA, ALPHA = 0.25, 0.001
WIDTH, HEIGHT, INSET, GAP, TEXT = 380, 285, 150, 20, 84
SPOT, AROUND = 10, 30  # pixels of the photo: a side of the spot, and of what is shown around it
PLACE = (0.56, 0.94)  # of the spot, in parts of width and height: a plain piece of the bus
INK, DIM, BACK, MARK = (32, 35, 40), (105, 110, 118), (255, 255, 255), (190, 30, 30)


def panel(photo: Image.Image, levels: float) -> Image.Image:
    """Return the photo with a spot darker by so many levels, and that spot enlarged in a corner."""
    left, top = (round(p * s) - SPOT // 2 for p, s in zip(PLACE, photo.size, strict=True))
    pixels = np.asarray(photo, dtype=np.float64).copy()
    pixels[top : top + SPOT, left : left + SPOT] -= levels
    changed = Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))
    shown = changed.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    margin = (AROUND - SPOT) // 2
    box = (left - margin, top - margin, left - margin + AROUND, top - margin + AROUND)
    near = changed.crop(box).resize((INSET, INSET), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(shown)
    x, y = round(PLACE[0] * WIDTH), round(PLACE[1] * HEIGHT)
    pen.ellipse((x - 12, y - 12, x + 12, y + 12), outline=MARK, width=2)
    shown.paste(near, (0, 0))
    pen.rectangle((0, 0, INSET, INSET), outline=MARK, width=2)
    return shown


def draw() -> Image.Image:
    """Return the picture: a row for each size, a column for each unit."""
    rows, columns = len(SIZES), len(ASKED)
    canvas = Image.new(
        "RGB", (GAP + columns * (WIDTH + GAP), GAP + rows * (HEIGHT + TEXT + GAP)), BACK
    )
    pen = ImageDraw.Draw(canvas)
    body, small = ImageFont.load_default(19), ImageFont.load_default(16)
    for row, size in enumerate(SIZES):
        photo = Image.open(PHOTO).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        image = load_image(photo)
        rounding = rounding_of(image.pixels.size)
        delta = share_deduction(image.pixels.size, SIGMA)
        for column, asked in enumerate(ASKED):
            radius = radius_around(image, WantedRadius.parse(asked))
            native = native_radius(radius, image.gain, rounding)
            spot = 255.0 * native / math.sqrt(3 * SPOT**2)
            spread = 255.0 * native / math.sqrt(3 * size[0] * size[1])
            votes = fewest_votes(radius, SIGMA, ALPHA, delta)
            left, top = GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + TEXT + GAP)
            canvas.paste(panel(photo, spot), (left, top))
            lines = (
                f"{size[0]} x {size[1]}, {asked}: {votes} votes or more",
                f"one spot of {SPOT} x {SPOT} pixels by {spot:.0f} of 255 levels,",
                f"or all pixels by {spread:.2g} of a level (L2 {native:.2g} here)",
            )
            pen.text((left, top + HEIGHT + 8), lines[0], INK, font=body)
            for number, line in enumerate(lines[1:]):
                pen.text((left, top + HEIGHT + 36 + 24 * number), line, DIM, font=small)
    return canvas


if __name__ == "__main__":
    draw().save(ROOT / "docs" / "pictures" / "units.jpg", quality=88, subsampling=0)
