"""What the local service sees in the photos of the tests: it goes by their colour.

The mean colour of a noisy copy is nearly the photo's, so it sees the same in both.
"""

from __future__ import annotations

import numpy as np

from smoothapi import Label

RED, ORANGE, PINK, BLUE, GREEN, WHITE = (
    (0.9, 0.1, 0.1), (0.9, 0.5, 0.1), (0.9, 0.5, 0.8), (0.1, 0.1, 0.9), (0.1, 0.9, 0.1),
    (0.9, 0.9, 0.9),
)  # fmt: skip
SEES = {
    RED: [Label("Rifle", 0.97, ("Weapon",)), Label("Person", 0.95)],
    ORANGE: [Label("Weapon", 0.8), Label("Person", 0.99)],
    PINK: [Label("Knife", 0.62, ("Weapon",)), Label("Person", 0.98)],
    BLUE: [Label("Car", 0.93, ("Vehicle",)), Label("Weapon", 0.31)],
    GREEN: [Label("Person", 0.9), Label("Car", 0.89, ("Vehicle",))],
    WHITE: [],
}


def labels(pixels: np.ndarray) -> list[Label]:
    """Return what is seen in (H, W, 3) pixels of 0 to 255."""
    colour = pixels.mean(axis=(0, 1)) / 255
    nearest = min(SEES, key=lambda known: float(np.linalg.norm(colour - known)))
    return SEES[nearest]
