"""Testing without a network, an account or a bill.

Public names are loaded when they are first used: importing smoothapi.testing loads neither
pytest nor torch nor a cloud SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothapi.testing.assertions import assert_abstained, assert_certified
    from smoothapi.testing.colours import by_colour
    from smoothapi.testing.contract import AdapterContract, unused_port
    from smoothapi.testing.faults import Fault, Faults
    from smoothapi.testing.labellers import Probabilities, Recorded, Table, picture_digest
    from smoothapi.testing.latency import Latency
    from smoothapi.testing.store_contract import StoreContract

_HOMES = {
    "smoothapi.testing.assertions": ("assert_abstained", "assert_certified"),
    "smoothapi.testing.colours": ("by_colour",),
    "smoothapi.testing.contract": ("AdapterContract", "unused_port"),
    "smoothapi.testing.faults": ("Fault", "Faults"),
    "smoothapi.testing.labellers": ("Probabilities", "Recorded", "Table", "picture_digest"),
    "smoothapi.testing.latency": ("Latency",),
    "smoothapi.testing.store_contract": ("StoreContract",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdapterContract",
    "Fault",
    "Faults",
    "Latency",
    "Probabilities",
    "Recorded",
    "StoreContract",
    "Table",
    "assert_abstained",
    "assert_certified",
    "by_colour",
    "picture_digest",
    "unused_port",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'smoothapi.testing' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
