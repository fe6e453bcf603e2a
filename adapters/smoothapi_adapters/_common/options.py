"""Options of adapters, read one way: from Python, or as text from settings and the environment.

An empty text is a value like any other: only where an option may be left out (an endpoint, a key)
does it mean the same as None. Errors are `option=value: what to give`; a secret is not shown.
"""

from __future__ import annotations

import csv
import io
import math
import re
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.encode import CODECS
from smoothapi.errors import UsageError
from smoothapi.files import expanded, is_file, parse_json, read_text, shown_name
from smoothapi.provider import Price, Vocabulary
from smoothapi.text import meant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST = 3600.0  # seconds of a timeout

_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def text(option: str, value: str) -> str:
    """Return a text that is not empty; settings may hold anything."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{option}={value!r}: give a text.")
    return value


def known(provider: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse options that are not among the known ones.

    Raises:
        UsageError: says which there are.
    """
    for name in given:
        if name not in names:
            raise UsageError(
                f"The gateway's way to {provider} has no option {name!r}.{meant(name, names)} "
                f"It takes: {', '.join(names)}. What is asked about pictures comes with each call."
            )


def short_name(value: str) -> str:
    """Return a provider's name, as it is typed on a command line."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text("name", value)):
        raise UsageError(f"name={value!r}: use small letters, digits, - and _.")
    return value


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """Return a value that is among the known ones."""
    if text(option, value) not in known:
        raise UsageError(f"{option}={value!r}: choose from {', '.join(known)}.")
    return value


def switch(option: str, value: bool | str) -> bool:  # noqa: FBT001  an option's value
    """Return what an option says that is on or off."""
    said = _SWITCH.get(str(value).lower())
    if said is None:
        raise UsageError(f"{option}={value!r}: write true or false.")
    return said


def number(option: str, value: float | str, low: float, high: float) -> float:
    """Return a number from `low` to `high`."""
    found = _float(value)
    if not low <= found <= high:
        raise UsageError(f"{option}={value!r}: give a number from {low:,g} to {high:,g}.")
    return found


def whole(option: str, value: float | str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`."""
    found = _float(value)
    if not low <= found <= high or found != int(found):
        raise UsageError(f"{option}={value!r}: give a whole number from {low:,} to {high:,}.")
    return int(found)


def share(option: str, value: float | str) -> float:
    """Return a number in [0, 1]."""
    return number(option, value, 0.0, 1.0)


def above_zero(option: str, value: float | str) -> float:
    """Return a finite number above 0."""
    found = _float(value)
    if not (math.isfinite(found) and found > 0.0):
        raise UsageError(f"{option}={value!r}: give a number above 0.")
    return found


def count(option: str, value: float | str) -> int:
    """Return a whole number from 1."""
    found = above_zero(option, value)
    if found != int(found):
        raise UsageError(f"{option}={value!r}: give a whole number from 1.")
    return int(found)


def integer(option: str, value: int | str) -> int:
    """Return a whole number of any size and sign."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{option}={value!r}: give a whole number.") from None


def seconds(option: str, value: float | str) -> float:
    """Return finite seconds, from 0."""
    found = _float(value)
    if not (math.isfinite(found) and found >= 0.0):
        raise UsageError(f"{option}={value!r}: give seconds from 0.")
    return found


def timeout(value: float | str) -> float:
    """Return the seconds of a timeout: above 0, up to an hour."""
    found = _float(value)
    if not 0.0 < found <= LONGEST:
        raise UsageError(f"timeout={value!r}: give seconds above 0, up to {LONGEST:,g}.")
    return found


def price(value: float | str | Decimal, as_of: str = "") -> Price:
    """Return the price of 1,000 pictures in dollars, with the day it was looked up."""
    try:
        return Price(Decimal(str(value)), as_of=as_of)
    except ArithmeticError:
        raise UsageError(f"price={value!r}: give dollars for 1,000 pictures.") from None


def formats(value: Sequence[str] | str) -> tuple[str, ...]:
    """Return codecs, preferred first, from a list or from text such as "png, jpeg"."""
    names = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    if not names:
        raise UsageError(f"formats={value!r}: choose from {', '.join(CODECS)}.")
    return tuple(one_of("formats", name, CODECS) for name in names)


def names(option: str, value: Sequence[str] | str | Path) -> list[str]:
    """Return names in their order: a list, or those in a file.

    Args:
        option: what they are given as.
        value: a list, or the path of a file: .txt (a line each), .json (a list) or .csv (a column
            "name" or "label").

    Raises:
        UsageError: the file cannot be read, there is no name, or one is no text or empty.
    """
    found: Any
    if not isinstance(value, (str, Path)):
        found = list(value)
    else:
        path = expanded(value)
        try:
            found = _names_in(path)
        except (OSError, ValueError, LookupError, csv.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"{option}: the names in {shown_name(str(path))} cannot be read ({reason}). Give a "
                '.txt with one in a line, a .json with a list, or a .csv with a column "name".'
            ) from error
    if not isinstance(found, list) or not all(isinstance(n, str) and n.strip() for n in found):
        raise UsageError(f"{option}: give the names as texts that are not empty.")
    if not found:
        raise UsageError(f"{option}: give at least one name.")
    return [name.strip() for name in found]


def vocabulary(value: Sequence[str] | str | Path | None) -> Vocabulary | None:
    """Return the closed vocabulary that a user gives for a service; None where none is given."""
    if value is None:
        return None
    listed = dict.fromkeys(names("vocabulary", value))
    source = shown_name(Path(value).name) if isinstance(value, (str, Path)) else "the list given"
    return Vocabulary(tuple(listed), closed=True, source=source)


def _names_in(path: Path) -> Any:
    """Return the names in a file; raises OSError, ValueError, LookupError or csv.Error."""
    if not is_file(path):
        raise ValueError("there is no such file")
    suffix, text = path.suffix.lower(), read_text(path)
    if suffix == ".json":
        return parse_json(text)
    if suffix != ".csv":
        return text.splitlines()
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    header = [name.strip().lower() for name in rows[0]]
    columns = [header.index(name) for name in ("name", "label", "labels") if name in header]
    if not columns:
        raise ValueError("no column has such a name")
    return [row[columns[0]] for row in rows[1:]]


def secret(option: str, value: str | None) -> str:
    """Return a key without spaces around it; "" if it is not given.

    A line break inside would be refused as part of a header, by an error that shows the key.

    Raises:
        UsageError: it holds a space, or a character that no key has. The key is not shown.
    """
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{option}: it is no text. Write it in quotes.")
    key = (value or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{option}: it holds a space, a line break or a letter that no key has. Copy it again."
        )
    return key


def fresh_id(thing: object) -> str:
    """Return an id for a callable that has none: a new one each time, as it may have changed."""
    kind: Any = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}-{uuid.uuid4().hex[:12]}"


def _float(value: float | str) -> float:
    """Return a number; NaN if it cannot be read as one."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
