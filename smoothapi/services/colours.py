"""A labeller with nothing to install: it names the colour of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")


def by_colour(picture: NDArray[np.uint8]) -> list[tuple[str, float]]:
    """Label an (H, W, 3) uint8 RGB picture with its mean colour: what a service can stand on.

    Returns the nearest of eight colour names with score 0.75, and "bright" with the mean
    brightness in [0, 1].
    """
    red, green, blue = (float(mean) for mean in picture.reshape(-1, 3).mean(axis=0))
    name = _COLOURS[4 * (red > 127) + 2 * (green > 127) + (blue > 127)]
    return [(name, 0.75), ("bright", round((red + green + blue) / 765.0, 4))]
