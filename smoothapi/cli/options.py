"""Options that several commands take, each written once; what is not given is left to settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_CLASSES = "TOML or JSON file of your classes: {class: [provider labels]}."

# click's keywords by option; a name with a slash has a form for no, and None is the default of all.
_OPTIONS: dict[str, dict[str, Any]] = {
    "provider": {"help": "Adapter to ask, or replay:FILE."},
    "sigma": {"type": float, "help": "Noise level, of the [0, 1] range."},
    "radius": {"callback": lambda *given: _radius(given[2]), "help": "L2 radius, or 'largest'."},
    "alpha": {"type": float, "help": "Chance of a wrong certificate."},
    "max-votes": {"type": int, "help": "Most votes for one photo."},
    "budget": {"help": "Hard limit for this command: 500, $2 or '500,$2'."},
    "size": {"type": int, "help": "Shorter side of the working image."},
    "classes": {"type": click.Path(dir_okay=False, path_type=Path), "help": _CLASSES},
    "truth": {"type": _FILE, "help": "CSV file with the columns file and label: what is right."},
    "plain/--no-plain": {"help": "Ask for the plain label too."},
    "denoiser": {"help": "default, small, none, or a file of one."},
    "device": {"help": "auto, cpu, cuda, cuda:N or mps."},
    "codec": {"type": click.Choice(["png", "jpeg"]), "help": "Encoding."},
    "concurrency": {"type": int, "help": "Most requests in flight."},
    "home": {"type": click.Path(file_okay=False), "help": "Folder of key, answers and ledger."},
    "partial/--no-partial": {"help": "Buy what the budget allows although it is not enough."},
    "refresh": {"is_flag": True, "default": False, "help": "Ask again although stored."},
    "record": {"type": click.Path(dir_okay=False), "help": "Write the answers to a file, too."},
    "target": {
        "default": "top1",
        "metavar": "TARGET",
        "help": "top1, top3 (any k), present:LABEL:SCORE, absent:LABEL:SCORE or "
        "most-specific:SCORE.",
    },
    "dry-run": {
        "is_flag": True,
        "default": False,
        "help": "Say what would be sent and cost; send nothing.",
    },
}


def options(*names: str, **changes: str) -> Callable[[_Command], _Command]:
    """Add options to a command, in this order.

    Args:
        names: of the table above, with hyphens; "plain" is both --plain and --no-plain.
        changes: another help text, by the parameter's name.
    """
    by_name = {name.partition("/")[0]: (name, keywords) for name, keywords in _OPTIONS.items()}

    def decorate(command: _Command) -> _Command:
        for name in reversed(names):
            declared, keywords = by_name[name]
            said = changes.get(name.replace("-", "_"), keywords["help"])
            add = click.option(f"--{declared}", **{"default": None, **keywords, "help": said})
            command = add(command)
        return command

    return decorate


def _radius(value: str | None) -> float | str | None:
    if value is None or value == "largest":
        return value
    try:
        return float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number nor 'largest'.") from error
