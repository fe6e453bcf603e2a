"""Label spaces from files: `smoothapi.certify` itself reads none."""

from __future__ import annotations

from pathlib import Path

from smoothapi.certify.labels import LabelSpace
from smoothapi.errors import UsageError
from smoothapi.files import parse_json, parse_toml, read_text


def read_label_space(path: str | Path) -> LabelSpace:
    """Read a label space from TOML (.toml) or JSON, in the form of `LabelSpace.parse`.

    Raises:
        UsageError: it cannot be read, or does not hold a label space; says which file.
    """
    file = Path(path)
    try:
        text = read_text(file)
        data = parse_toml(text) if file.suffix.lower() == ".toml" else parse_json(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"The label file {str(file)!r} cannot be read: {why}.") from error
    try:
        return LabelSpace.parse(data)
    except UsageError as error:
        raise UsageError(f"The label file {str(file)!r} cannot be used. {error}") from error
