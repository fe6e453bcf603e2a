"""Label spaces from files: `smoothapi.certify` itself reads none."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from smoothapi.certify.labels import LabelSpace
from smoothapi.errors import UsageError


def read_label_space(path: str | Path) -> LabelSpace:
    """Read a label space from TOML (.toml) or JSON, in the form of `LabelSpace.parse`.

    Raises:
        UsageError: it cannot be read, or does not hold a label space; says which file.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        data = tomllib.loads(text) if file.suffix.lower() == ".toml" else _from_json(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The label file {str(file)!r} cannot be read: {error}.") from error
    try:
        return LabelSpace.parse(data)
    except UsageError as error:
        raise UsageError(f"The label file {str(file)!r} cannot be used. {error}") from error


def _from_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; of a class that is there twice JSON would keep only the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"{twice!r} is in it twice")
    return members
