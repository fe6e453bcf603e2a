"""What a radius around the working image comes to around the photo, and the other way round.

The guarantee is about the working image. The resize takes a change of the photo of norm e to one of
at most gain * e (gain being its operator norm), and rounding to the grid adds a little. A radius in
another unit (`smoothapi.radius`) is turned into the working image's before the first vote, by the
photo's size alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.certify.arithmetic import ceil_to, floor_to, rounding_radius
from smoothapi.certify.decision import RADIUS_DECIMALS

if TYPE_CHECKING:
    from smoothapi.radius import WantedRadius

_RMS_DECIMALS = 9


def working_radius(
    wanted: WantedRadius, native_size: tuple[int, int], gain: float, rounding: float
) -> float:
    """Return the L2 radius around the working image that covers the one wanted, rounded up.

    Args:
        wanted: in any unit.
        native_size: (width, height) of the photo before the resize.
        gain: operator norm of the resize.
        rounding: what is taken off for rounding to the grid.
    """
    if wanted.unit == "working":
        return wanted.value
    native = wanted.value
    if wanted.unit == "rms":
        native *= math.sqrt(_values(native_size))
    return ceil_to(native * gain * (1.0 + 1e-12) + rounding, RADIUS_DECIMALS)


def rounding_of(values: int) -> float:
    """Return what is taken off the native radius for rounding so many numbers to the grid."""
    return ceil_to(rounding_radius(values), RADIUS_DECIMALS)


def native_radius(radius: float, gain: float, rounding: float) -> float:
    """Return the radius around the photo before the resize, rounded down.

    A change of norm e there changes the working image by at most gain * e + rounding.
    """
    return floor_to(max(0.0, radius - rounding) / gain, RADIUS_DECIMALS)


def rms_radius(native: float, native_size: tuple[int, int]) -> float:
    """Return a native radius as a root mean square over the photo's channel values, rounded down.

    Args:
        native: L2 radius around the photo before the resize.
        native_size: (width, height) of it.
    """
    return floor_to(native / math.sqrt(_values(native_size)), _RMS_DECIMALS)


def rms_steps(radius: float, native_size: tuple[int, int], gain: float, rounding: float) -> float:
    """Return a radius around the working image as a root mean square, in steps of 8-bit values.

    Rounded down to three digits, for people: 0.1 stands for "0.1/255 rms".

    Args:
        radius: L2, around the working image.
        native_size: (width, height) of the photo before the resize.
        gain: operator norm of the resize.
        rounding: what is taken off for rounding to the grid.
    """
    return _three_digits(
        255.0 * max(0.0, radius - rounding) / gain / math.sqrt(_values(native_size))
    )


@dataclass(frozen=True, slots=True)
class PhotoRadii:
    """What a radius around the working image comes to around the photo.

    Attributes:
        native: L2, before the resize, rounded down.
        rms: the same as a root mean square over the photo's channel values.
        steps: that in steps of 8-bit values, for people (`rms_steps`).
    """

    native: float
    rms: float
    steps: float


def photo_radii(
    radius: float, native_size: tuple[int, int], gain: float, rounding: float
) -> PhotoRadii:
    """Return a radius in the units around the photo; arguments as for `rms_steps`."""
    native = native_radius(radius, gain, rounding)
    steps = rms_steps(radius, native_size, gain, rounding)
    return PhotoRadii(native, rms_radius(native, native_size), steps)


def _three_digits(value: float) -> float:
    return floor_to(value, 2 - math.floor(math.log10(value))) if value else 0.0


def _values(size: tuple[int, int]) -> int:
    width, height = size
    return 3 * max(1, width) * max(1, height)
