"""The radius that somebody asks for: a number, and the unit that it is in.

- working: the L2 norm of a change of the working image, channel values in [0, 1]. Certificates are
  about this one.
- native: the L2 norm of a change of the photo as it was decoded, before the resize.
- rms: the root mean square of such a change over all channel values of the photo, its L2 norm
  divided by the square root of how many there are; 1/255 is one step of an 8-bit value, everywhere.

An attacker changes the photo that is uploaded, so the last two are what he is bounded in.
`smoothapi.certify.radii` says what they come to around the working image.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from smoothapi.errors import UsageError

Unit: TypeAlias = Literal["working", "native", "rms"]

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TEXT = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER}))?\s*(working|native|rms)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class WantedRadius:
    """A radius as it was asked for.

    Attributes:
        value: above 0.
        unit: "working", "native" or "rms": see the top of this module.
    """

    value: float
    unit: Unit = "working"

    @classmethod
    def parse(cls, given: float | str) -> WantedRadius:
        """Return what is meant by 0.25, "0.25", "0.5 native" or "0.1/255 rms".

        Raises:
            UsageError: it is none of these, or not a number above 0.
        """
        value, unit = math.nan, "working"
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            value = float(given)
        elif isinstance(given, str) and (match := _TEXT.fullmatch(given)):
            over = float(match[2] or 1.0)
            value = float(match[1]) / over if over else math.nan
            unit = match[3] or "working"
        if not (math.isfinite(value) and value > 0.0):
            raise UsageError(
                f"{given!r} is no radius: use a number above 0, such as 0.25; a radius around the "
                'photo before the resize, such as "0.5 native" or "0.1/255 rms"; or "largest".'
            )
        return cls(value, cast("Unit", unit))

    def __str__(self) -> str:
        return f"{self.value!r} {self.unit}"


def parsed(given: float | str) -> float | str:
    """Return a radius as settings hold it.

    Args:
        given: what `WantedRadius.parse` takes, or "largest".

    Returns:
        A number around the working image, the text of one in another unit, or "largest".

    Raises:
        UsageError: it is no radius.
    """
    if given == "largest":
        return given
    asked = WantedRadius.parse(given)
    return asked.value if asked.unit == "working" else str(given)


def working_only(given: float | str, why_not: str) -> float:
    """Return a radius around the working image, where no other can be meant.

    Args:
        given: as for `parsed`.
        why_not: why other units cannot be used here, and what to do, in a sentence.

    Raises:
        UsageError: it is no radius, the largest, or one in another unit.
    """
    radius = parsed(given)
    if isinstance(radius, str):
        raise UsageError(
            f"{given!r} is not a radius around the working image, such as 0.25. {why_not}"
        )
    return radius
