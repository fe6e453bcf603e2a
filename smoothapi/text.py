"""Text from outside, as it may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def printable(text: str) -> str:
    """Return text without what could steer a terminal, hide in a line or forge another.

    Control characters of C0 and C1, marks of direction, what has no width, separators of lines,
    tags and lone surrogates each become U+FFFD. JSON needs no such loss: `json.dumps` escapes
    whatever is not ASCII.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def printable_lines(text: str) -> str:
    r"""Return a text of several lines, each of them printable; lines end with \n alone."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(value: object, most: int = 60) -> str:
    """Return a value from outside as it would be written, short enough for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of a number with thousands of digits, or deep nesting
        text = f"a {type(value).__name__} too large to be shown"
    return printable(text if len(text) <= most else f"{text[:most]}...")


def meant(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name that is nearest; "" if none is near."""
    from difflib import get_close_matches  # noqa: PLC0415  for errors alone

    near = get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
