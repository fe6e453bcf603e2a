"""Testing without a network, an account or a bill: contract suites, assertions, a pytest plugin.

Labellers, faults and local services are in `smoothapi.services`. Public names are loaded when they
are first used: importing smoothapi.testing loads neither pytest nor torch nor a cloud SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi._lazy import lazy_names

if TYPE_CHECKING:
    from smoothapi.testing.assertions import assert_abstained, assert_certified
    from smoothapi.testing.contract import AdapterContract, unused_port
    from smoothapi.testing.store_contract import StoreContract

_HOMES = {
    "smoothapi.testing.assertions": ("assert_abstained", "assert_certified"),
    "smoothapi.testing.contract": ("AdapterContract", "unused_port"),
    "smoothapi.testing.store_contract": ("StoreContract",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "AdapterContract",
    "StoreContract",
    "assert_abstained",
    "assert_certified",
    "unused_port",
]
