"""What nobody foresaw, as it is logged."""

from __future__ import annotations

import logging

_log = logging.getLogger("smoothapi")


def log_unforeseen(error: Exception, what: str = "The gateway could not answer a request") -> None:
    """Log an error that nobody foresaw: its words and its trace could hold a key or a picture.

    Args:
        error: that was met.
        what: failed, in words.
    """
    _log.error("%s: %s", what, type(error).__name__)
    _log.debug("It was raised at:", exc_info=error)
