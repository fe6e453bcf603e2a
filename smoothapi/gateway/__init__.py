"""`smoothapi serve`: certified labels in the providers' own protocols, for code in any language.

A gateway stands between callers and a provider. It speaks the provider's protocol to both, makes
the caller's own call as it came but for what signs it, and puts the labels in the answer to the
vote: it is the certifier of `smoothapi.wrap` behind a socket, and a response means what it means
there (`smoothapi.wrapping`).

Public names are loaded when they are first used: importing smoothapi.gateway loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi._lazy import lazy_names

if TYPE_CHECKING:
    from smoothapi.gateway.asgi import GatewayApp, app
    from smoothapi.gateway.config import GatewayConfig, read_config
    from smoothapi.gateway.front import Front, Incoming
    from smoothapi.gateway.records import Records

_HOMES = {
    "smoothapi.gateway.asgi": ("GatewayApp", "app"),
    "smoothapi.gateway.config": ("GatewayConfig", "read_config"),
    "smoothapi.gateway.front": ("Front", "Incoming"),
    "smoothapi.gateway.records": ("Records",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Front",
    "GatewayApp",
    "GatewayConfig",
    "Incoming",
    "Records",
    "app",
    "read_config",
]
