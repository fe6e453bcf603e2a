"""Local services that speak the providers' protocols, and what can stand behind them.

`serve("aws", labeller)` answers on a port of this machine as Rekognition would, with its limits,
its error bodies and, if asked to, its failures: the real SDKs talk to it. Needs the extra
"emulate". Labellers, faults and latencies are also what the provider "mock" is made of.

Public names are loaded when they are first used: importing smoothapi.services loads no web server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi._lazy import lazy_names

if TYPE_CHECKING:
    from smoothapi.services.backends import load_backend
    from smoothapi.services.colours import by_colour
    from smoothapi.services.faults import Fault, Faults
    from smoothapi.services.labellers import Probabilities, Recorded, Table, picture_digest
    from smoothapi.services.latency import Latency
    from smoothapi.services.service import PROVIDERS, Received, Service, serve

_HOMES = {
    "smoothapi.services.backends": ("load_backend",),
    "smoothapi.services.colours": ("by_colour",),
    "smoothapi.services.faults": ("Fault", "Faults"),
    "smoothapi.services.labellers": ("Probabilities", "Recorded", "Table", "picture_digest"),
    "smoothapi.services.latency": ("Latency",),
    "smoothapi.services.service": ("PROVIDERS", "Received", "Service", "serve"),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "PROVIDERS",
    "Fault",
    "Faults",
    "Latency",
    "Probabilities",
    "Received",
    "Recorded",
    "Service",
    "Table",
    "by_colour",
    "load_backend",
    "picture_digest",
    "serve",
]
