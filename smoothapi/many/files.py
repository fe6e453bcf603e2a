"""A file of results: written as they come, and continued by the same command.

A photo that is in it, unchanged and with the same settings, is not looked at again. One that had
failed is, and so is one whose place says nothing of its content (the web, standard input).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
from array import array
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from smoothapi.advice import advise
from smoothapi.errors import MissingExtraError, StoreError, UsageError
from smoothapi.files import parse_json, shown_name, to_json
from smoothapi.many.results import COLUMNS, PhotoResult, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.photos import FoundPhoto
    from smoothapi.provider import Price

SCHEMA = "smoothapi.result/1"

_MORE = {"settings": str, "stamp": str}
_COLUMNS = {**COLUMNS, **_MORE}
_GROUP = 1000  # rows of a Parquet file that are written together
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, Any]


class ResultFile:
    """A file of results, open to be continued. Use it in a `with` statement.

    Args:
        path: its name; .jsonl (with the certificates), .csv or .parquet.
        settings: what tells these results from those of other settings.
        price: of the provider, for what advice would cost.

    Attributes:
        kept: how many of each outcome it held already and keeps.

    Raises:
        UsageError: another suffix; or there is a file that is no such file, or of other settings.
        MissingExtraError: Parquet needs the extra `parquet`.
        StoreError: it cannot be read or written.
    """

    def __init__(self, path: str | Path, settings: str, price: Price | None = None) -> None:
        self.path = Path(os.path.realpath(path))
        self._settings = settings
        self._known = array("Q")
        self.kept = {"certified": 0, "abstained": 0}
        kind = _KINDS.get(self.path.suffix.lower())
        if kind is None:
            raise UsageError(
                f"The suffix of {shown_name(self.path.name)!r} says no format of results: name a "
                f"file that ends in {', '.join(_KINDS)}."
            )
        draft = self.path.with_name(f".{secrets.token_hex(6)}.partial")
        try:
            self._format: _Format = kind(draft)
            try:
                if self.path.exists():
                    self._keep(kind)
                if isinstance(self._format, _Lines):
                    self._format.price = price
                if kind is not _Parquet:  # whose file can be read only once it is ended
                    self._place(draft)
            except BaseException:
                self._format.close()
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _cannot(self.path, error) from error
        self._draft = draft
        self._sorted = np.sort(np.frombuffer(self._known, dtype=np.uint64))

    def holds(self, photo: FoundPhoto) -> bool:
        """Whether the result of a photo, as it is now, is in the file."""
        if not photo.stamp:
            return False
        key = np.uint64(_key(photo.name, photo.stamp))
        place = int(np.searchsorted(self._sorted, key))
        return place < len(self._sorted) and bool(self._sorted[place] == key)

    def write(self, result: PhotoResult) -> None:
        """Add a result; it is with the system when this returns, but for Parquet.

        Raises:
            StoreError: it cannot be written; the answers are kept all the same.
        """
        row: Row = {**result.row(), "settings": self._settings, "stamp": result.stamp}
        try:
            self._format.write(row, result)
        except OSError as error:
            raise _cannot(self.path, error) from error

    def close(self) -> None:
        """End the file. After any end but a kill a Parquet file is whole, too."""
        try:
            self._format.close()
            if self._draft.exists():
                self._place(self._draft)
        except OSError as error:
            raise _cannot(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, kind: type[_Format]) -> None:
        """Copy the rows that stand: not of what failed, nor half of one that was cut off."""
        for row in kind.read(self.path):
            if row.get("settings") != self._settings:
                raise UsageError(
                    f"{shown_name(str(self.path))!r} holds results of other settings (or something "
                    "else). Name another file, or delete this one."
                )
            if row["outcome"] in self.kept:
                self.kept[row["outcome"]] += 1
                self._known.append(_key(row["photo"], row["stamp"]))
                self._format.write(row, None)

    def _place(self, draft: Path) -> None:
        if self.path.exists():
            draft.chmod(self.path.stat().st_mode & 0o777)
        draft.replace(self.path)


class _Format(Protocol):
    """How rows are written to a file and read from one."""

    def __init__(self, path: Path) -> None: ...

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

    price: Price | None = None

    def __init__(self, path: Path) -> None:
        self._stream: IO[str] = path.open("x", encoding="utf-8", newline="\n")

    def write(self, row: Row, result: PhotoResult | None) -> None:
        if result is not None:
            certificate = result.certificate
            told = None if certificate is None else certificate.to_dict()
            advice = None if certificate is None else advise(certificate, self.price)
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
            for line in stream:
                try:
                    row = parse_json(line)
                except ValueError:
                    if line.endswith(b"\n"):
                        yield {}
                    return  # cut off by whatever ended the last run
                yield row if isinstance(row, dict) and row.get("schema") == SCHEMA else {}


class _Csv:
    """Comma-separated values with a header; None is empty, true and false are words."""

    def __init__(self, path: Path) -> None:
        self._stream: IO[str] = path.open("x", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._stream, list(_COLUMNS), lineterminator="\r\n")
        self._writer.writeheader()

    def write(self, row: Row, result: PhotoResult | None) -> None:
        told = row if result is None else {name: _cell(value) for name, value in row.items()}
        self._writer.writerow(told)
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
                for row in reader:
                    if None in row or None in row.values():
                        return  # cut off
                    yield {**row, "photo": _uncell(row["photo"])}
            except (csv.Error, UnicodeDecodeError):
                yield {}


class _Parquet:
    """Parquet, by pyarrow: a thousand rows at a time, and readable once it is closed."""

    def __init__(self, path: Path) -> None:
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


def certificates_of(lines: bytes) -> list[bytes] | None:
    """Return the certificates in JSON lines of results; None if they are not such lines."""
    found: list[bytes] = []
    for line in io.BytesIO(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict) or row.get("schema") != SCHEMA:
            return None
        if row.get("certificate") is not None:
            found.append(to_json(row["certificate"]).encode())
    return found


def _key(name: str, stamp: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{stamp}\n{name}".encode()).digest()[:8])


def _cell(value: Value) -> str:
    """Return a cell that no spreadsheet takes for a formula: labels come from outside."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, float) else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _uncell(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


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
