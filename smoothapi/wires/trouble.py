"""Why a service answers nobody; what it then says is in each provider's own file."""

from __future__ import annotations

from enum import Enum, auto


class Trouble(Enum):
    """Why a service answers nobody for now, whatever is asked."""

    throttled = auto()
    """The caller asks too often."""
    error = auto()
    """An internal error of the service."""
    unavailable = auto()
    """The service is overloaded or down."""
    denied = auto()
    """The credentials may not do this."""
    quota = auto()
    """The quota of the month, or the free tier, is used up."""
