"""The one way to a person's terminal: nothing unprintable passes, wherever it came from.

Settings, file names, labels and services' words can hold characters that steer a terminal or make
a line read as another. JSON needs no such care: `json.dumps` escapes them. Tables and progress go
through `smoothapi.cli.console`.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from smoothapi.text import printable, printable_lines


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


def prompt(question: str, **options: Any) -> Any:
    """Ask for a value on the terminal; `options` are click's."""
    return click.prompt(printable(question), **options)


def confirm(question: str, **options: Any) -> bool:
    """Ask a question on the terminal; `options` are click's."""
    return click.confirm(printable(question), **options)
