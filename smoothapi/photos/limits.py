"""What bounds the fetching of one photo."""

from __future__ import annotations

from dataclasses import dataclass

from smoothapi.errors import UsageError


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one photo may take to be fetched.

    Attributes:
        most_bytes: the longest file that is read, at least 1.
        seconds: for all of it: redirects, headers and body.
        redirects: how many are followed; each is checked as the first address was.

    Raises:
        UsageError: a value is out of range.
    """

    most_bytes: int = 64 * 2**20
    seconds: float = 60.0
    redirects: int = 5

    def __post_init__(self) -> None:
        if self.most_bytes < 1 or not 0.0 < self.seconds <= 3600.0 or self.redirects < 0:
            raise UsageError(
                "Limits of fetching a photo: most_bytes is at least 1, seconds in (0, 3600], and "
                "redirects from 0 up."
            )
