"""The one way to a person's terminal: nothing unprintable passes, wherever it came from.

Settings, file names, labels and services' words can hold characters that steer a terminal or make
a line read as another. JSON needs no such care: `json.dumps` escapes them. Tables and progress go
through `smoothapi.cli.console`.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any
from unicodedata import combining, east_asian_width

import click

from smoothapi.text import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

_NARROWEST = 20  # cells of a fact


def command_line() -> str:
    """Return the command that runs, to be kept: of addresses only what opens no door."""
    return shlex.join(["smoothapi", *map(_without_secrets, sys.argv[1:])])


def _without_secrets(argument: str) -> str:
    if "://" not in argument:
        return argument
    from smoothapi.photos.naming import shown_location  # noqa: PLC0415  keeps --help light

    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", "")
    return f"{option}{equals}{shown_location(value or argument)}"


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a text of one or more lines on stdout or stderr."""
    click.echo(printable_lines(str(text)), err=err)


def echo_styled(*parts: tuple[str, dict[str, Any]]) -> None:
    """Print a line of parts and their styles, `click.style`'s; colours are for terminals."""
    line = "".join(click.style(printable(text), **style) for text, style in parts)
    click.echo(line, color=_colours())


def echo_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and what each is, side by side, in the width of the terminal.

    rich, which prints what has more columns, takes as long to load as a stored certificate to make.
    """
    from shutil import get_terminal_size  # noqa: PLC0415  keeps --help light

    rows = list(facts)
    names = max((_cells(name) for name, _ in rows), default=0) + 2
    width = max(_NARROWEST, get_terminal_size().columns - names)
    for name, fact in rows:
        lines = printable_lines(fact).split("\n")
        first, *more = [part for line in lines for part in _wrapped(line, width)]
        echo_styled((name + " " * (names - _cells(name)), {"dim": True}), (first, {}))
        for line in more:
            echo_styled((" " * names + line, {}))


def _colours() -> bool | None:
    """Whether there are colours; None for on terminals alone. See https://no-color.org."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in {"dumb", "unknown"}:
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def _wrapped(text: str, width: int) -> list[str]:
    """Return lines of at most `width` cells, broken between words; a longer word is cut."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if _cells(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = ""
        for character in word:
            if _cells(line + character) > width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line]


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text takes: a Chinese character two, an accent none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def prompt(question: str, **options: Any) -> Any:
    """Ask for a value on the terminal; `options` are click's."""
    return click.prompt(printable(question), **options)


def confirm(question: str, **options: Any) -> bool:
    """Ask a question on the terminal; `options` are click's."""
    return click.confirm(printable(question), **options)
