"""Waiting for what another thread, or another process, does in its own time."""

from __future__ import annotations

import time

PATIENCE = 60.0
"""Seconds for what does come: a busy machine takes a few, and what never comes takes all."""


def until(met, *, seconds=PATIENCE):
    """Wait until `met()`."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.001)


def seconds_for(fault, hasty=0.4):
    """Return the timeout of a caller who meets a fault: short only where nothing else ends it."""
    return hasty if fault in ("timeout", "late", "slow") else PATIENCE
