"""Options that several commands take, each written once; what is not given is left to settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from smoothapi.errors import UsageError
from smoothapi.files import is_file
from smoothapi.radius import WantedRadius, parsed, working_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.certify import Target

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_HOME = "smoothapi.home"
_CLASSES = "TOML or JSON file of your classes: {class: [provider labels]}."

# click's keywords by option; a name with a slash has a form for no, and None is the default of all.
_OPTIONS: dict[str, dict[str, Any]] = {
    "provider": {"help": "Adapter to ask, or replay:FILE."},
    "sigma": {"type": float, "help": "Noise level, of the [0, 1] range."},
    "radius": {
        "callback": lambda *given: _radius(given[2]),
        "help": "L2 radius: 0.25, '0.5 native', '0.1/255 rms', or 'largest'.",
    },
    "alpha": {
        "type": float,
        "help": "Chance of a wrong certificate. Choose it before the votes: another on stored "
        "votes is a second test of them.",
    },
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
    "home": {
        "metavar": "HOME",
        "callback": lambda *given: _home(given[0], given[2]),
        "help": "Folder of key, answers and ledger, or postgresql://... .",
    },
    "partial/--no-partial": {"help": "Buy what the budget allows although it is not enough."},
    "refresh": {"is_flag": True, "default": False, "help": "Ask again although stored."},
    "record": {"type": click.Path(dir_okay=False), "help": "Write the answers to a file, too."},
    "target": {
        "default": "top1",
        "metavar": "TARGET",
        "help": "top1, top3 (any k), present:LABEL:SCORE, absent:LABEL:SCORE, "
        "scores:LABEL[:LEAST] or most-specific:SCORE. Choose it before the votes: each target "
        "keeps its alpha, all of them on the same votes up to the sum.",
    },
    "or-less": {
        "is_flag": True,
        "default": False,
        "help": "Where the radius is given up, go on for the largest below it.",
    },
    "final/--no-final": {
        "help": "Promise to ask about these photos with no more votes and at no other radius, now "
        "or later: fewer suffice. Nothing checks it: asked otherwise, alpha holds for one of both.",
    },
    "accept-radius": {
        "callback": lambda *given: _accepted(given[2]),
        "help": "Exit with 0 where at least this radius is certified; in any unit of --radius.",
    },
    "out": {
        "type": click.Path(dir_okay=False, path_type=Path),
        "metavar": "FILE",
        "help": "Keep results in FILE (.jsonl, .csv, .parquet) and continue it.",
    },
    "photos-at-once": {
        "type": click.IntRange(1, 1000),
        "default": 8,
        "show_default": True,
        "help": "Photos under way at the same time.",
    },
    "fail-fast": {
        "is_flag": True,
        "default": False,
        "help": "End at the first photo that fails; by default go on.",
    },
    "allow-private": {
        "is_flag": True,
        "default": False,
        "help": "Fetch from private addresses (and this machine's), too.",
    },
    "cluster": {
        "metavar": "ADDRESS",
        "help": "Share the work with the machines of Ray: ray://HOST, auto or local.",
    },
    "dry-run": {
        "is_flag": True,
        "default": False,
        "help": "Say what would be sent and cost; send nothing.",
    },
}

# What to do instead of giving an option twice.
_INSTEAD = {
    "budget": "Write limits of both kinds in one, such as --budget '500,$2'.",
    "target": "In Python one target takes several labels: Absence(['rifle', 'revolver'], 0.1). Or "
    "run the command once for each: votes that another bought cost nothing again, and each "
    "certificate may be wrong with its own alpha.",
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
            whole = {"default": None, **keywords, "help": said}
            if "/" not in declared and not whole.get("is_flag"):
                whole = _once(name, whole)
            command = click.option(f"--{declared}", **whole)(command)
        return command

    return decorate


def _once(name: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """Return click's keywords for an option of one value that refuses a second.

    click itself takes the last: what the others asked for would be dropped without a word.
    """
    read, default = keywords.get("callback"), keywords["default"]

    def one(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
        if len(values) > 1:
            what_to_do = _INSTEAD.get(name, "Give it once.")
            raise click.UsageError(
                f"--{name} was given {len(values)} times, and takes one value. {what_to_do}", ctx
            )
        value = values[0] if values else None
        return value if read is None else read(ctx, param, value)

    defaults = None if default is None else [default]
    return {**keywords, "multiple": True, "default": defaults, "callback": one}


def target_of(text: str) -> Target | Literal["top1"]:
    """Return what --target says.

    Raises:
        UsageError: it says something else.
    """
    from smoothapi.certify import MostSpecific, Presence, Scores, TopK  # noqa: PLC0415  keeps --help light

    kind, _, rest = text.partition(":")
    label, _, score = rest.rpartition(":")
    try:
        if re.fullmatch(r"top\d+", text):
            return "top1" if text == "top1" else TopK(int(text[3:]))
        if kind == "most-specific":
            return MostSpecific(float(rest))
        if kind == "scores" and rest:
            # A mistyped least score must not become a part of the label.
            return Scores(label, float(score)) if ":" in rest else Scores(rest)
        if kind in ("present", "absent") and label:
            return Presence(
                label, float(score), wanted="present" if kind == "present" else "absent"
            )
    except UsageError:
        raise
    except ValueError:
        pass
    raise UsageError(
        f"--target {text!r} cannot be read. Use top1, top3 (any k), present:LABEL:SCORE, "
        "absent:LABEL:SCORE, scores:LABEL, scores:LABEL:LEAST or most-specific:SCORE, such as "
        "present:rifle:0.8."
    )


def _home(ctx: click.Context, value: str | None) -> str | None:
    """Return the home given here, or else before the command; the last one counts."""
    if value is not None:
        if is_file(value):
            raise click.BadParameter(f"{value!r} is a file, and a home is a folder.")
        ctx.meta[_HOME] = value  # shared with the contexts of subcommands
    found: str | None = ctx.meta.get(_HOME)
    return found


def _accepted(value: str | None) -> WantedRadius | None:
    radius = _radius(value)
    if radius == "largest":
        raise click.BadParameter("name the least radius that is enough, such as 0.1.")
    return None if radius is None else WantedRadius.parse(radius)


def _radius(value: str | None) -> float | str | None:
    try:
        return None if value is None else parsed(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from error


def working_radius(why_not: str) -> Callable[..., float | None]:
    """Return a click callback that reads a radius around the working image."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
        del ctx, param
        try:
            return None if value is None else working_only(value, why_not)
        except UsageError as error:
            raise click.BadParameter(str(error)) from error

    return read
