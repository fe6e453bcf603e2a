"""What `smoothapi.worked_out` holds, kept in a home from one command to the next.

Only for the code and the packages that worked it out: another version of either starts anew. What
cannot be read, or is damaged, is worked out again, and what cannot be written is left. `verify`
never looks here.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi._version import __version__
from smoothapi.errors import StoreError
from smoothapi.files import file_of_package, parse_json
from smoothapi.store import Home
from smoothapi.worked_out import Number, held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.store import Store

SCHEMA = "smoothapi.numbers/1"
_NOTE = "numbers"
_MOST = 4_000  # kept, those added last: of some hundred sizes of photos
_VERSIONS = ("numpy/version.py", "PIL/_version.py", "scipy/version.py")


@contextmanager
def kept_numbers(store: Store) -> Iterator[None]:
    """Hold what is worked out, and keep it in a home that is a folder.

    In a database machines of other versions would overwrite it in turn.
    """
    if not isinstance(store, Home):
        yield
        return
    try:
        made_by = _made_by()
    except OSError:  # a package that is zipped, or says its version elsewhere
        yield
        return
    numbers = _load(store, made_by)
    known = len(numbers)
    with held(numbers):
        yield
    if len(numbers) > known:
        kept = dict(list(numbers.items())[-_MOST:])
        # A home that is read-only, or full, says so where that matters.
        with suppress(StoreError):
            store.keep_note(_NOTE, json.dumps(_note(kept, made_by)) + "\n")


def _load(store: Store, made_by: str) -> dict[str, Number]:
    try:
        text = store.note(_NOTE)
        data: Any = {} if text is None else parse_json(text)
    except (StoreError, ValueError):
        return {}
    numbers = data.get("numbers") if isinstance(data, dict) else None
    if not isinstance(numbers, dict) or data != _note(numbers, made_by):
        return {}
    return numbers if all(map(_is_number, numbers.values())) else {}


def _note(numbers: dict[str, Number], made_by: str) -> dict[str, object]:
    digest = hashlib.sha256(json.dumps([made_by, numbers]).encode()).hexdigest()
    return {"schema": SCHEMA, "digest": digest, "numbers": numbers}


def _made_by() -> str:
    """Return what the numbers depend on besides what they are given: code, packages, machine."""
    folder = Path(__file__).parent
    files = [folder / "image.py", *sorted((folder / "certify").glob("*.py"))]
    code = [(file.name, stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]]
    versions = [file_of_package(file).read_bytes() for file in _VERSIONS]
    return repr([__version__, versions, os.uname().machine, code])


def _is_number(value: object) -> bool:
    if isinstance(value, list):
        return all(type(one) is int for one in value)
    return type(value) is int or (type(value) is float and isfinite(value))
