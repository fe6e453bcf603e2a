"""Draw docs/pictures/radius.jpg: what an L2 radius of 0.25 covers on a photo, and what it does not.

The change of norm 0.25 is the one that hurts the mock's labeller most, to first order: a step
along the gradient of its score. All norms in the captions are computed:
python docs/make_radius_picture.py
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from smoothapi import load_image
from smoothapi_adapters.mock import EfficientNetLite0

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "photos" / "school_bus.jpg"
SIDE, GAP, TEXT = 300, 20, 62
INK, DIM, BACK = (32, 35, 40), (105, 110, 118), (255, 255, 255)
GREEN, RED = (28, 126, 62), (168, 40, 40)


def worst_direction(pixels: np.ndarray) -> np.ndarray:
    """Return the direction, of norm 1, in which the top score falls fastest."""
    labeller: Any = EfficientNetLite0()
    labeller((pixels * 255).astype(np.uint8))  # loads the network
    picture = torch.tensor(pixels, dtype=torch.float32, requires_grad=True)
    values = (picture.permute(2, 0, 1).unsqueeze(0) * 255 - 127) / 128
    torch.log_softmax(labeller._network(values)[0], 0).max().backward()  # noqa: SLF001
    assert picture.grad is not None  # noqa: S101
    gradient = picture.grad.double().numpy()
    return -gradient / np.linalg.norm(gradient)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return the picture after a JPEG file of it."""
    stream = io.BytesIO()
    Image.fromarray(_bytes(pixels)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)) / 255.0


def sticker(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return the picture with a white square on it."""
    changed = pixels.copy()
    changed[100 : 100 + side, 100 : 100 + side] = 1.0
    return changed


def rotated(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Return the picture, turned."""
    turned = Image.fromarray(_bytes(pixels)).rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(turned) / 255.0


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)


def panels(pixels: np.ndarray) -> list[tuple[np.ndarray, str, str, tuple[int, int, int]]]:
    """Return (picture, title, line, colour of the title) of each panel."""
    worst = worst_direction(pixels)
    covered = pixels + 0.25 * worst
    times = 200
    others = [
        (pixels + 1 / 255, "all pixels one level of 255 lighter"),
        (jpeg(pixels, 90), "saved as a JPEG, quality 90"),
        (sticker(pixels, 20), "a white sticker, 20 x 20"),
        (rotated(pixels, 1.0), "turned by one degree"),
    ]
    return [
        (pixels, "the working image", "224 x 224, channel values in [0, 1]", INK),
        (covered, "norm 0.25: covered", "the step that hurts this labeller most", GREEN),
        (0.5 + times * 0.25 * worst, "the same step", f"made {times} times as strong", GREEN),
        (pixels + worst, "norm 1.00", "needs a larger radius than 0.25", INK),
        *(
            (np.asarray(p), f"norm {np.linalg.norm(p - pixels):.2f}: not covered", line, RED)
            for p, line in others
        ),
    ]


def draw(pixels: np.ndarray) -> Image.Image:
    """Return the picture: two rows of four panels."""
    canvas = Image.new("RGB", (5 * GAP + 4 * SIDE, 3 * GAP + 2 * (SIDE + TEXT)), BACK)
    pen = ImageDraw.Draw(canvas)
    body, small = ImageFont.load_default(18), ImageFont.load_default(15)
    for number, (panel, title, line, colour) in enumerate(panels(pixels)):
        left = GAP + number % 4 * (SIDE + GAP)
        top = GAP + number // 4 * (SIDE + TEXT + GAP)
        scaled = Image.fromarray(_bytes(panel)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        canvas.paste(scaled, (left, top))
        pen.text((left, top + SIDE + 6), title, colour, font=body)
        pen.text((left, top + SIDE + 32), line, DIM, font=small)
    return canvas


if __name__ == "__main__":
    target = ROOT / "docs" / "pictures" / "radius.jpg"
    draw(np.asarray(load_image(PHOTO).pixels)).save(target, quality=88, subsampling=0)
