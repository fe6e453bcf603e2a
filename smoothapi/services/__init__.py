"""The providers' wire protocols, server side: local services that the real SDKs talk to.

`serve("aws", labeller)` answers on a port of this machine as Rekognition would, with its limits,
its error bodies and, if asked to, its failures. Needs the extra "emulate".

Public names are loaded when they are first used: importing smoothapi.services loads no web server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothapi.services.backends import load_backend
    from smoothapi.services.service import PROVIDERS, Received, Service, serve

_HOMES = {
    "smoothapi.services.backends": ("load_backend",),
    "smoothapi.services.service": ("PROVIDERS", "Received", "Service", "serve"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["PROVIDERS", "Received", "Service", "load_backend", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'smoothapi.services' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
