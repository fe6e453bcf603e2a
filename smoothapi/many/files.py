"""A file of results: written as they come, and continued by the same command.

A photo that is in it, unchanged and with the same settings, is not looked at again. One that had
failed is, and so is one whose place says nothing of its content (the web, standard input). A photo
has one row, of its last result: an older one goes when the file is closed, or next opened.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import secrets
from array import array
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from smoothapi.advice import advise
from smoothapi.errors import CertificateError, MissingExtraError, StoreError, UsageError
from smoothapi.files import csv_cell, is_formula, parse_json, shown_name, to_json
from smoothapi.many.results import COLUMNS, PhotoResult
from smoothapi.photos.fetching import file_name, is_remote
from smoothapi.photos.naming import LONGEST
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from smoothapi.certify.certificate import Certificate
    from smoothapi.photos import FoundPhoto
    from smoothapi.provider import Price

SCHEMA = "smoothapi.result/1"

_MORE = {"settings": str, "stamp": str, "accepted": bool}
_COLUMNS = {**COLUMNS, **_MORE}
_GROUP = 1000  # rows of a Parquet file that are written together
_START = f'{{"schema": "{SCHEMA}"'.encode()
_OF_A_FAILURE = frozenset(
    {"schema", "photo", "outcome", "error", "message", "attempts", "cost", *_MORE}
)
_OUTCOMES = ("certified", "abstained")  # that stand, where a failure is tried again
_NO_ROW = "it is no row of results"
_BOOL = {"true": True, "false": False}

Row = dict[str, Any]


class ResultFile:
    """A file of results, open to be continued. Use it in a `with` statement.

    Args:
        path: its name; .jsonl (with the certificates), .csv or .parquet.
        settings: what tells these results from those of other settings.
        price: of the provider, for what advice would cost.

    Raises:
        UsageError: another suffix; or there is a file that is no such file, or of other settings,
            or that another process is writing.
        MissingExtraError: Parquet needs the extra `parquet`.
        StoreError: it cannot be read or written.
    """

    def __init__(self, path: str | Path, settings: str, price: Price | None = None) -> None:
        self.path = Path(os.path.realpath(path))
        self._settings = settings
        self._price = price
        self._kept: dict[Held, array[int]] = {
            Held(outcome, accepted): array("Q")
            for outcome in _OUTCOMES
            for accepted in (True, False)
        }
        self._names = array("Q")  # of all rows, in their order
        kind = _KINDS.get(self.path.suffix.lower())
        if kind is None:
            raise UsageError(
                f"The suffix of {shown_name(self.path.name)!r} says no format of results: name a "
                f"file that ends in {', '.join(_KINDS)}."
            )
        self._kind: type[_Format] = kind
        with ExitStack() as stack:
            try:
                stack.enter_context(_alone(self.path))
                self._draft, self._format = self._copied(anew=True)
                if kind is not _Parquet:  # whose file can be read only once it is ended
                    stack.callback(self._format.close)
                    self._place()
            except OSError as error:
                raise _cannot(self.path, error) from error
            self._lock = stack.pop_all()
        self._sorted = {held: _sorted(keys) for held, keys in self._kept.items()}

    def held(self, photo: FoundPhoto) -> Held | None:
        """Return what is in the file about a photo as it is now; None if nothing is."""
        if photo.stamp:
            key = np.uint64(_key(photo.name, photo.stamp))
            for held, keys in self._sorted.items():
                place = int(np.searchsorted(keys, key))
                if place < len(keys) and keys[place] == key:
                    return held
        return None

    def write(self, result: PhotoResult, *, accepted: bool | None = None) -> None:
        """Add a result; it is with the system when this returns, but for Parquet.

        Args:
            result: it.
            accepted: whether its certificate is enough for who asked; None where there is none.

        Raises:
            StoreError: it cannot be written; the answers are kept all the same.
        """
        more = {"settings": self._settings, "stamp": result.stamp, "accepted": accepted}
        try:
            self._format.write({**result.row(), **more}, result)
        except OSError as error:
            raise _cannot(self.path, error) from error
        self._names.append(_key(result.photo))

    def close(self) -> None:
        """End the file. After any end but a kill a Parquet file is whole, too."""
        with self._lock:
            try:
                self._format.close()
                if self._draft.exists():
                    self._place()
                if len(np.unique(_sorted(self._names))) < len(self._names):
                    self._draft, self._format = self._copied(anew=False)
                    self._format.close()
                    self._place()
            except OSError as error:
                raise _cannot(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _copied(self, *, anew: bool) -> tuple[Path, _Format]:
        """Begin a file with the rows of the one that is there: the last of each photo.

        Args:
            anew: whether a photo that failed is to be tried again, and so has no row.
        """
        path = self.path
        draft = path.with_name(f".{secrets.token_hex(6)}.partial")
        new = self._kind(draft, self._price)
        try:
            last = self._last_of_each() if path.exists() else []
            self._names = array("Q")
            for row, is_last in zip(self._kind.read(path) if last else (), last, strict=True):
                if is_last and not (anew and row["outcome"] == "failed"):
                    new.write(row, None)
                    self._names.append(_key(row["photo"]))
                    if anew:
                        held = Held(row["outcome"], row["accepted"])
                        self._kept[held].append(_key(row["photo"], row["stamp"]))
        except BaseException:
            new.close()
            draft.unlink(missing_ok=True)
            raise
        return draft, new

    def _last_of_each(self) -> list[bool]:
        """Return of each row whether its photo has none after it; raises UsageError of others."""
        names = array("Q")
        for row in self._kind.read(self.path):
            if not self._is_ours(row):
                raise UsageError(
                    f"{shown_name(str(self.path))!r} holds results of other settings (or something "
                    "else). Name another file, or delete this one."
                )
            names.append(_key(row["photo"]))
        backwards = np.frombuffer(names, dtype=np.uint64)[::-1]
        is_last = np.zeros(len(names), dtype=bool)
        is_last[len(names) - 1 - np.unique(backwards, return_index=True)[1]] = True
        return is_last.tolist()

    def _is_ours(self, row: Row) -> bool:
        if row.get("settings") != self._settings:
            return False
        if not (isinstance(row.get("photo"), str) and isinstance(row.get("stamp"), str)):
            return False
        if row.get("outcome") == "failed":
            return True
        return row.get("outcome") in _OUTCOMES and isinstance(row.get("accepted"), bool)

    def _place(self) -> None:
        try:
            if self.path.exists():
                self._draft.chmod(self.path.stat().st_mode & 0o777)
            self._draft.replace(self.path)
        finally:
            self._draft.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Held:
    """What a file holds about a photo.

    Attributes:
        outcome: "certified" or "abstained".
        accepted: whether that was enough for who asked.
    """

    outcome: str
    accepted: bool


class _Format(Protocol):
    """How rows are written to a file and read from one."""

    def __init__(self, path: Path, price: Price | None) -> None: ...

    def write(self, row: Row, result: PhotoResult | None) -> None:
        """Write a row: of a result, or as `read` gave it."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...

    @staticmethod
    def read(path: Path) -> Iterator[Row]:
        """Yield the rows of a file; of one that is none of these a row without settings."""
        ...


class _Lines:
    """JSON lines: a row each, and in it the whole certificate, or what an abstention advises."""

    def __init__(self, path: Path, price: Price | None) -> None:
        self._price = price
        self._stream: IO[str] = path.open("x", encoding="utf-8", newline="\n")

    def write(self, row: Row, result: PhotoResult | None) -> None:
        if result is not None:
            certificate = result.certificate
            told = None if certificate is None else certificate.to_dict()
            advice = None if certificate is None else advise(certificate, self._price)
            row = {
                "schema": SCHEMA,
                **row,
                "advice": None if advice is None else advice.to_dict(),
                "certificate": told,
            }
        self._stream.write(to_json(row) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    @staticmethod
    def read(path: Path) -> Iterator[Row]:
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                try:
                    row = parse_json(line)
                except ValueError:
                    if not _is_cut(line, begun=number > 0):
                        yield {}
                    return  # cut off by whatever ended the last run
                yield row if isinstance(row, dict) and row.get("schema") == SCHEMA else {}


class _Csv:
    """Comma-separated values with a header; None is empty, true and false are words."""

    def __init__(self, path: Path, _: Price | None) -> None:
        self._stream: IO[str] = path.open("x", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._stream, list(_COLUMNS), lineterminator="\r\n")
        self._writer.writeheader()

    def write(self, row: Row, _: PhotoResult | None) -> None:
        self._writer.writerow({name: csv_cell(value) for name, value in row.items()})
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    @staticmethod
    def read(path: Path) -> Iterator[Row]:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            try:
                if reader.fieldnames is not None and list(reader.fieldnames) != list(_COLUMNS):
                    yield {}
                for cells in reader:
                    row = _row(cells)
                    if row is None:
                        if next(reader, None) is not None:
                            yield {}
                        return  # cut off by whatever ended the last run
                    yield row
            except (csv.Error, UnicodeDecodeError):
                yield {}


class _Parquet:
    """Parquet, by pyarrow: a thousand rows at a time, and readable once it is closed."""

    def __init__(self, path: Path, _: Price | None) -> None:
        self._arrow, parquet = _pyarrow()
        types = {str: "string", float: "float64", int: "int64", bool: "bool"}
        fields = [(name, types[kind]) for name, kind in _COLUMNS.items()]
        self._schema = self._arrow.schema(
            [(name, self._arrow.type_for_alias(alias)) for name, alias in fields]
        )
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []

    def write(self, row: Row, _: PhotoResult | None) -> None:
        self._rows.append(row)
        if len(self._rows) >= _GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
            self._rows = []

    @staticmethod
    def read(path: Path) -> Iterator[Row]:
        arrow, parquet = _pyarrow()
        try:
            with parquet.ParquetFile(path) as file:
                if file.schema_arrow.names != list(_COLUMNS):
                    yield {}
                    return
                for batch in file.iter_batches(_GROUP):
                    yield from batch.to_pylist()
        except arrow.ArrowInvalid:
            yield {}


_KINDS: dict[str, type[_Format]] = {".jsonl": _Lines, ".csv": _Csv, ".parquet": _Parquet}


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A line of results.

    Attributes:
        number: of the line, from 1.
        row: what it says; empty where it cannot be read.
        problem: why it cannot be read, in words; "" where it can.
    """

    number: int
    row: Row
    problem: str = ""

    @property
    def certificate(self) -> bytes:
        """The certificate in it as JSON: null where there is none."""
        return to_json(self.row.get("certificate")).encode()

    @property
    def is_failure(self) -> bool:
        """Whether it is of a photo that failed, and claims nothing."""
        told = {name for name, value in self.row.items() if value is not None}
        return self.row.get("outcome") == "failed" and told <= _OF_A_FAILURE

    def check(self, certificate: Certificate) -> None:
        """Hold what the row says against its certificate.

        Raises:
            CertificateError: it says something else.
        """
        row = self.row
        told = PhotoResult(0, str(row.get("photo")), certificate).row()
        names = [name for name in COLUMNS if name in row and row[name] != told[name]]
        if not _is_named(str(row.get("photo")), certificate.image.name):
            names.insert(0, "photo")
        if names:
            raise CertificateError(
                f"The row says something else than its certificate, in {', '.join(names)}: it was "
                "changed after it was written."
            )


def result_lines(text: bytes) -> list[ResultLine] | None:
    """Return the lines of results; None if the text is not such lines.

    A last line that was cut off is left out: what ended the command ended it, too.
    """
    lines = [(n, line) for n, line in enumerate(io.BytesIO(text), 1) if line.strip()]
    found: list[ResultLine] = []
    ours = False
    for number, line in lines:
        try:
            row = parse_json(line)
        except ValueError as error:
            is_cut = number == lines[-1][0] and _is_cut(line, begun=ours)
            ours = ours or line.startswith(_START)
            if not is_cut:
                found.append(ResultLine(number, {}, str(error)))
        else:
            is_one = isinstance(row, dict) and row.get("schema") == SCHEMA
            ours = ours or is_one
            found.append(ResultLine(number, row if is_one else {}, "" if is_one else _NO_ROW))
    return found if ours else None


def _is_named(photo: str, name: str) -> bool:
    """Whether a photo, as it is called in a row, has a file's name."""
    if is_remote(photo):
        return len(photo) > LONGEST or printable(file_name(photo)) == printable(name)
    return photo in {"-", name} or photo.endswith((f"/{name}", rf"\{name}"))


def _is_cut(line: bytes, *, begun: bool) -> bool:
    """Whether a line is the beginning of one of ours, and not its end.

    Args:
        line: that is no JSON.
        begun: whether others of ours are before it; else a few bytes may be anyone's.
    """
    if line.endswith(b"\n"):
        return False
    return line.startswith(_START) or (begun and _START.startswith(line))


def _sorted(keys: array[int]) -> NDArray[np.uint64]:
    return np.sort(np.frombuffer(keys, dtype=np.uint64))


def _key(*parts: str) -> int:
    told = "\n".join(reversed(parts))
    return int.from_bytes(hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()[:8])


def _row(cells: dict[str | Any, str | Any]) -> Row | None:
    """Return what `csv_cell` made cells of; None if they are not all of a row."""
    row: Row = {}
    if None in cells:
        return None
    try:
        for name, kind in _COLUMNS.items():
            text = cells[name]
            if text is None:
                return None
            if kind is str:
                row[name] = text[1:] if text.startswith("'") and is_formula(text) else text
            else:
                row[name] = None if not text else _BOOL[text] if kind is bool else kind(text)
    except (ValueError, KeyError):
        return None
    return None if row["accepted"] is None and row["outcome"] != "failed" else row


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a file against other processes, where the system has locks.

    Raises:
        UsageError: another one holds it.
        OSError: the file's folder cannot be written.
    """
    try:
        import fcntl  # noqa: PLC0415  not everywhere
    except ImportError:
        yield
        return
    beside = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        while True:
            lock = stack.enter_context(beside.open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"Another command is writing its results to {shown_name(str(path))!r}. Wait "
                    "for its end, or name another file: both can run at once."
                ) from None
            except OSError:  # a file system without locks
                break
            with suppress(FileNotFoundError):  # whoever held it took it away
                if os.fstat(lock.fileno()).st_ino == beside.stat().st_ino:
                    break
        stack.callback(beside.unlink, missing_ok=True)
        yield


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: ICN001, PLC0415  an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "Results as Parquet need another package: pip install 'smoothapi-vision[parquet]'. Or "
            "write them as .jsonl or .csv."
        ) from error
    return pyarrow, parquet


def _cannot(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The results cannot be kept in {shown_name(str(path))!r}: {error.strerror or error}. All "
        "answers that were paid for are kept."
    )
