"""How old what is kept may get: past runs, and what a gateway found."""

from __future__ import annotations

_DAY = 86_400.0  # seconds
_FOR_GOOD = 365_000.0  # days; a database counts back to 4713 BC, and no further


def seconds_of(days: float) -> float:
    """Return days as seconds: of those that no store can count back, a thousand years'."""
    return min(days, _FOR_GOOD) * _DAY
