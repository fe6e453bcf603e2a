"""Others' objects, changed for us alone."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def twin_of(thing: T) -> T:
    """Return a shallow copy; `copy.copy` would not come back from the __getattr__ of some."""
    twin = object.__new__(type(thing))
    vars(twin).update(vars(thing))
    return twin
