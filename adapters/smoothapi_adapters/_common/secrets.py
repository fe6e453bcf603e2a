"""What a key must look like before a library is given it."""

from __future__ import annotations

from smoothapi.errors import UsageError


def checked_secret(option: str, value: str | None) -> str:
    """Return a key without spaces around it; "" if there is none.

    A line break inside would be refused as part of a header, by an error that shows the key.

    Raises:
        UsageError: it holds a space, or a character that no key has. The key is not shown.
    """
    key = (value or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{option}: it holds a space, a line break or a letter that no key has. Copy it again."
        )
    return key
