"""The one place where the commands print errors."""

from __future__ import annotations

from smoothapi import files
from smoothapi.cli.terminal import echo
from smoothapi.errors import ProviderError, SmoothAPIError
from smoothapi.text import printable

SCHEMA = "smoothapi.error/1"
_SHORTEST_SHOWN = 0.05  # seconds


def report(error: SmoothAPIError, *, as_json: bool, photo: str | None = None) -> None:
    """Print an error as lines on stderr and, if JSON is asked for, as an object on stdout.

    Args:
        error: what ended the command, or the work on one photo.
        as_json: whether the command writes JSON.
        photo: the photo that it is about; None if it is not about one.
    """
    if as_json:
        echo(to_json(error, photo))
    echo(f"smoothapi: {printable(str(error))}", err=True)
    if error.attempts:
        again = f", {error.retries:,} of them retries" if error.retries else ""
        waited = f"; {error.waited:.1f} s waited" if error.waited >= _SHORTEST_SHOWN else ""
        echo(f"Sent until then: {error.attempts:,} (${error.cost:.4f}){again}{waited}.", err=True)


def to_json(error: SmoothAPIError, photo: str | None = None) -> str:
    """Return an error as one line of JSON; docs/reference/errors.md lists the fields."""
    by_provider = error if isinstance(error, ProviderError) else None
    fields = {
        "schema": SCHEMA,
        "error": type(error).__name__,
        "message": str(error),
        "photo": photo,
        "provider": (by_provider.provider or None) if by_provider else None,
        "request_id": (by_provider.request_id or None) if by_provider else None,
        "attempts": error.attempts,
        "retries": error.retries,
        "cost": error.cost,
        "waited": round(error.waited, 3),
    }
    return files.to_json(fields)
