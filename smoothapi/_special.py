"""scipy.special, imported when the first of its functions is needed: it takes a third of a second.

`from smoothapi import Smoother` and whatever does no statistics are spared it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class _Special:
    """Has the functions of scipy.special."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module("scipy.special"), name)
        setattr(self, name, found)
        return found


special: Any = _Special()
