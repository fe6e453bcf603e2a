"""Files of people: read strictly, as they may hold anything; written whole, or not at all."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import contextmanager, suppress
from errno import ENOENT
from functools import partial
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from smoothapi.errors import UsageError
from smoothapi.text import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MOST_DIGITS = 300  # a float holds not many more


class SyntaxOfJsonError(ValueError):
    """Text is no JSON at all, as what was cut off is."""


def read_text(path: str | Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or no file has such a name.
    """
    return text_of(Path(path).read_bytes())


def text_of(data: bytes) -> str:
    """Return UTF-8 as text, without a byte order mark; raises ValueError in words."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start:,} is not UTF-8: save it as UTF-8, without other encodings"
        ) from None


def file_of_package(name: str) -> Path:
    """Return where a file of an installed package is, such as "torch/version.py".

    The package is not imported.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    from importlib.util import find_spec  # noqa: PLC0415  keeps --help light

    package, _, inside = name.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), name)
    return Path(spec.origin).parent / inside


def parse_json(text: str | bytes) -> Any:
    """Return what JSON means, where all of it has one meaning that the rest of smoothapi can hold.

    Args:
        text: JSON; bytes are UTF-8, with or without a byte order mark.

    Raises:
        SyntaxOfJsonError: it is not JSON.
        ValueError: it is not UTF-8, has a name twice in one object, is nested too deeply, or holds
            a number that is not finite or beyond what a float holds.
    """
    if isinstance(text, bytes):
        text = text_of(text)
    try:
        return json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except json.JSONDecodeError as error:
        raise SyntaxOfJsonError(f"it is not valid JSON ({error})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header of a CSV file, and its rows with the line each ends in.

    Where a row is shorter than the header the rest is empty; what is longer is left out.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or not CSV.
    """
    import csv  # noqa: PLC0415  keeps --help light

    reader = csv.DictReader(StringIO(read_text(path), newline=""), restval="")
    try:
        header = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"it is not CSV ({error})") from None
    names = Counter(name.strip().lower() for name in header if name.strip())
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"its header has the column {twice[0]!r} twice")
    return header, rows


def csv_cell(value: str | float | bool | None) -> str:  # noqa: FBT001  a cell's content
    """Return a cell that no spreadsheet takes for a formula: labels come from outside."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, float) else str(value)
    return f"'{text}" if isinstance(value, str) and is_formula(text) else text


def is_formula(text: str) -> bool:
    """Whether a cell is one, or looks like what `csv_cell` makes of one."""
    return text.lstrip("'").startswith(_FORMULA)


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of TOML.

    Raises:
        ValueError: it is not TOML, is nested too deeply, or has a whole number of 300 digits.
    """
    import tomllib  # noqa: PLC0415  most have no such file

    try:
        tables = tomllib.loads(text)
        _check_numbers(tables)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return tables


def expanded(path: str | Path) -> Path:
    """Return a path with ~ replaced by the home folder of a user.

    Raises:
        UsageError: nobody knows where that is, as in a container without an entry for its user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"The path {shortened(str(path))} begins with ~, and it is not known where that home "
            "folder is (no HOME, and no such user in the password file). Write the path in full."
        ) from error


def shown_name(name: str) -> str:
    """Return a file's name as text that can be written: bytes that are not UTF-8 are spelt out."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which no file's name is
        return name.encode("utf-8", "backslashreplace").decode()


def to_json(data: Any, *, indent: int | None = None) -> str:
    """Return data as JSON, with all that is not ASCII escaped: any terminal may show it.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    return json.dumps(data, indent=indent, allow_nan=False)


@contextmanager
def replacing(path: Path, mode: str = "w", *, same_owner: bool = False) -> Iterator[IO[Any]]:
    """Yield a stream whose content takes a file's place once all is written.

    It is written beside the file: whatever ends the writing, the old file or the new one is
    there, and never a part of one. Pipes and devices are written to as they are. Owner, group and
    mode stay, where this process may give files away; a group that cannot be kept takes its rights
    along, so that no other has them.

    Args:
        path: the file.
        mode: "w" for text in UTF-8, or "wb".
        same_owner: write nothing where owner and group cannot be kept.

    Raises:
        OSError: it cannot be written.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    path = Path(os.path.realpath(path))  # a link stays one
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as stream:  # type: ignore[call-overload]
            yield stream
        return
    draft = path.with_name(f".{os.urandom(6).hex()}.partial")
    try:
        with open(draft, mode.replace("w", "x"), opener=_opener(path), **text) as stream:  # type: ignore[call-overload]
            if path.exists():
                _inherit(draft, path.stat(), same_owner=same_owner)
            yield stream
            stream.flush()
            with suppress(OSError):  # not every file system can
                os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _opener(path: Path) -> Callable[[str, int], int] | None:
    """Return what opens a draft that nobody else may read before it is known who may."""
    return partial(os.open, mode=0o600) if path.exists() else None


def _inherit(draft: Path, old: os.stat_result, *, same_owner: bool) -> None:
    """Give a draft the owner, the group and the mode of the file that it is to replace."""
    mode, new = old.st_mode & 0o777, draft.stat()
    if new.st_gid != old.st_gid:
        try:
            os.chown(draft, -1, old.st_gid)
        except OSError:
            if same_owner:
                raise
            mode = mode & 0o707 | (mode & 0o007) << 3
    draft.chmod(mode)  # while it is still this process's own
    if new.st_uid != old.st_uid:
        try:
            os.chown(draft, old.st_uid, -1)
        except OSError:
            if same_owner:
                raise


def create(path: Path, content: bytes, *, mode: int) -> None:
    """Make a file in one step: it is whole from the first moment, and replaces no other.

    Args:
        path: the file.
        content: all of it.
        mode: who may read and write it, less what the umask takes.

    Raises:
        FileExistsError: there is one already.
        OSError: it cannot be made.
    """
    draft = path.with_name(f".{os.urandom(6).hex()}.partial")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()


def canonical_json(data: Any) -> bytes:
    """Return data as JSON in one way only: names sorted, no space, ASCII, the shortest floats.

    A float is written with the fewest digits that give it back ("0.25", "1e-07"), and differs from
    a whole number ("1.0", "1").

    Raises:
        ValueError: it holds a number that is not finite.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def is_file(path: str | Path) -> bool:
    """Say whether there is a file of that name; there is none where no file can have it."""
    return os.path.isfile(path)  # noqa: PTH113  Path's own raises where a name is too long


def check_folder(folder: Path) -> None:
    """Make a folder if it is not there, and try whether files can be made in it; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{os.urandom(6).hex()}.partial"
    draft.touch(exist_ok=False)
    draft.unlink()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; of a name that is there twice JSON would keep only the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice!r} is in it twice, in one object")
    return members


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _short(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits is too large")
    return int(text)


def _check_numbers(value: Any) -> None:
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        raise ValueError(f"a whole number of more than {_MOST_DIGITS} digits is too large")
    items = value.values() if isinstance(value, dict) else value
    for item in items if isinstance(value, (dict, list)) else ():
        _check_numbers(item)
