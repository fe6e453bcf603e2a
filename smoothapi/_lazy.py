"""Modules and public names that are loaded when they are first used."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_loading = threading.RLock()
"""Held while something is loaded, so that threads that use their first names at once take turns.

Python's own locks are one for each module. Of two threads one can begin with a package and the
other with a module of it: then it ends what it takes for a deadlock, and one gets half a module.
"""


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose names live in other modules.

    Args:
        package: the package's `__name__`.
        homes: module -> the names that are loaded from it. A name that was used once is then an
            ordinary attribute of the package.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = _loaded(home_of[name], name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return load, names


def later(module: str) -> Any:
    """Return a stand-in for a module, which is imported when the first of its names is used.

    For what most programs that import smoothapi never call, or not before they have started.
    """
    return _Later(module)


class _Later:
    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of what copies and pickles: asked of a half-made one, too
            raise AttributeError(name)
        found = _loaded(self._module, name)
        setattr(self, name, found)
        return found


def _loaded(module: str, name: str) -> Any:
    with _loading:
        return getattr(import_module(module), name)
