"""The Retry-After header, as seconds."""

from __future__ import annotations

import math
import time
from datetime import UTC


def retry_after_seconds(value: str | None, *, now: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3).

    Args:
        value: the header: seconds, or an HTTP date; None if there was none.
        now: Unix time to count a date from; by default the clock's.

    Returns:
        Seconds, at least 0; None if there is no header, or none that can be read.
    """
    text = (value or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        from email.utils import parsedate_to_datetime  # noqa: PLC0415  all of email, for a rare form

        try:
            at = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if at.tzinfo is None:  # the oldest of the three forms names no zone: it means UTC
            at = at.replace(tzinfo=UTC)
        seconds = at.timestamp() - (time.time() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None
