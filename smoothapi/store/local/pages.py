"""SQLite's files, read page by page where SQLite itself cannot: https://sqlite.org/fileformat2.html.

What a damaged page holds is lost, and nothing else: no table of contents is needed, so neither the
header, nor the schema, nor the pages that lead to others. Whoever reads so must be able to tell a
record from chance: nothing here is checked.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import ExitStack, suppress
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

_PAGE = 4096  # bytes, since SQLite 3.12
_LEAF = 0x0D  # a page that holds rows of a table
_LOG_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = 0x377F0682  # of a log; its last bit says whether checksums are big-endian
_LOOKS = (0.0, 0.05, 0.1)  # seconds to wait before each look at a log
_MOST = 2**26  # bytes of a record: more is chance

_Place: TypeAlias = tuple[BinaryIO, int]


def log_of(database: Path) -> Path:
    """Return where SQLite keeps what it has not yet written into a database."""
    return database.with_name(f"{database.name}-wal")


def log_is_damaged(log: Path) -> bool:
    """Whether a write-ahead log holds transactions that SQLite would pass over without a word.

    It reads up to the first frame that is not as it was written. What a crash cut off there was
    never told to be kept; but if a transaction ends behind it, that is damage.
    """
    for wait in _LOOKS:  # another process may be writing it
        time.sleep(wait)
        try:
            with log.open("rb") as file:
                if not _is_damaged(file):
                    return False
        except FileNotFoundError:
            return False
    return True


def _is_damaged(file: BinaryIO) -> bool:
    header = file.read(_LOG_HEADER)
    if len(header) < _LOG_HEADER:
        return False
    magic, _, page, _ = struct.unpack(">4I", header[:16])
    salt = header[16:24]
    kind = ">u4" if magic & 1 else "<u4"
    state = _checksum(header[:24], kind, (0, 0))
    sound = magic & ~1 == _MAGIC and state == struct.unpack(">2I", header[24:])
    if not sound:
        return bool(file.read().strip(b"\0"))
    whole = True
    while len(frame := file.read(_FRAME_HEADER + page)) == _FRAME_HEADER + page:
        if frame[8:16] == salt:
            if whole:
                state = _checksum(frame[:8] + frame[_FRAME_HEADER:], kind, state)
                whole = state == struct.unpack(">2I", frame[16:24])
            if not whole and any(frame[4:8]):  # the last frame of a transaction
                return True
        else:  # of a former round; or it was damaged
            whole = False
    return False


def _checksum(data: bytes, kind: str, state: tuple[int, int]) -> tuple[int, int]:
    """Return SQLite's checksum of a log, continued from `state`.

    For each pair (a, b) it does s += a + t; t += b + s (mod 2^32): a linear map, whose powers hold
    Fibonacci numbers, so that all pairs are summed at once.
    """
    import numpy as np  # noqa: PLC0415  most logs are gone, and most who open a home count nothing

    words = np.frombuffer(data, kind).astype(np.uint32)
    first, second = words[::2], words[1::2]
    count = len(first)
    fibonacci = _fibonacci(2 * count + 2)
    left = 2 * np.arange(count)[::-1]  # twice the pairs behind each
    s = np.sum(fibonacci[left + 1] * first + fibonacci[left] * second, dtype=np.uint32)
    t = np.sum(fibonacci[left + 2] * first + fibonacci[left + 1] * second, dtype=np.uint32)
    s0, t0 = state
    f = [int(fibonacci[2 * count + k]) for k in (-1, 0, 1)]
    return (int(s) + f[0] * s0 + f[1] * t0) % 2**32, (int(t) + f[1] * s0 + f[2] * t0) % 2**32


@cache
def _fibonacci(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    import numpy as np  # noqa: PLC0415

    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append((numbers[-1] + numbers[-2]) % 2**32)
    return np.array(numbers, np.uint32)


def texts(database: Path) -> Iterator[bytes]:
    """Yield the last column of every row, if text or bytes, of a database and then of its log.

    Of a row that was written anew what it was before may come too, but before.
    """
    with ExitStack() as opened:
        places: list[_Place] = []
        latest: dict[int, _Place] = {}  # by the page's number
        for path in (database, log_of(database)):
            if path.exists():
                file = opened.enter_context(path.open("rb"))
                for number, place in _pages(file, is_log=path != database):
                    places.append(place)
                    latest[number] = place
        for place in places:
            yield from _texts(_read(place), latest)


def _pages(file: BinaryIO, *, is_log: bool) -> Iterator[tuple[int, _Place]]:
    end = file.seek(0, os.SEEK_END)
    if not is_log:
        for number, start in enumerate(range(0, end, _PAGE), start=1):
            yield number, (file, start)
        return
    for start in range(_LOG_HEADER, end - _FRAME_HEADER, _FRAME_HEADER + _PAGE):
        file.seek(start)
        yield int.from_bytes(file.read(4)), (file, start + _FRAME_HEADER)


def _read(place: _Place) -> bytes:
    file, start = place
    file.seek(start)
    return file.read(_PAGE).ljust(_PAGE, b"\0")


def _texts(page: bytes, latest: dict[int, _Place]) -> Iterator[bytes]:
    """Yield the last texts of the rows of a page, if it looks like one with rows."""
    if page[0] != _LEAF:
        return
    cells = min(int.from_bytes(page[3:5]), (_PAGE - 8) // 2)
    for start in struct.unpack_from(f">{cells}H", page, 8):
        with suppress(IndexError, ValueError):
            record = _record(page, start, latest)
            text = None if record is None else _last_text(record)
            if text is not None:
                yield text


def _record(page: bytes, at: int, latest: dict[int, _Place]) -> bytes | None:
    """Return the record of the cell at `at`, with what did not fit into its page."""
    size, at = _varint(page, at)
    _, at = _varint(page, at)  # the row's number
    most, least = _PAGE - 35, (_PAGE - 12) * 32 // 255 - 23
    if size <= most:
        return page[at : at + size]
    if size > _MOST:
        return None
    here = least + (size - least) % (_PAGE - 4)
    if here > most:
        here = least
    parts, left = [page[at : at + here]], size - here
    following = int.from_bytes(page[at + here : at + here + 4])
    while left > 0:
        place = latest.get(following)
        if place is None:
            return None
        more = _read(place)
        following = int.from_bytes(more[:4])
        parts.append(more[4 : 4 + left])
        left -= _PAGE - 4
    return b"".join(parts)


def _last_text(record: bytes) -> bytes | None:
    """Return the last column of a record, None if it is neither text nor bytes."""
    end, at = _varint(record, 0)
    kind = 0
    while at < end:
        kind, at = _varint(record, at)
    length = (kind - 12) // 2
    if kind < 12 or length > len(record) - end:
        return None
    return record[len(record) - length :]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    for more in range(8):
        byte = data[at + more]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + more + 1
    return value << 8 | data[at + 8], at + 9
