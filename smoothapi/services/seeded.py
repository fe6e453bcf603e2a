"""Chance that comes out the same each time: a draw is a hash of what it is for.

Draws do not depend on each other, on threads or on the order in which they are made.
"""

from __future__ import annotations

import hashlib

BITS = 64


def bits(*parts: str | int | bytes) -> int:
    """Return a uniform draw from 0 to 2**64 - 1 that is a pure function of `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[: BITS // 8])


def uniform(*parts: str | int | bytes) -> float:
    """Return a uniform draw from the open interval (0, 1), a pure function of `parts`."""
    return ((bits(*parts) >> 12) + 0.5) / float(2 ** (BITS - 12))
