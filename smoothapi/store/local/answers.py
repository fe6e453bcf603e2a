"""The store: no paid answer is lost, and none is paid for twice.

One plain diskcache `Cache`. Its defaults would lose answers (1 GiB, then the oldest go), so
eviction is off and the size unlimited, set anew at each opening because the file remembers what
it was first opened with. Values are JSON text in the database itself; anything pickled is refused
on reading, since unpickling runs code.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import diskcache

from smoothapi.errors import StoreError, UsageError
from smoothapi.store.rows import StoredAnswer, answer_key, outcome_of, up_to_date
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from smoothapi.answer import Answer
    from smoothapi.errors import PermanentError

_PATIENCE = 300.0  # seconds to wait for another process that writes
_log = logging.getLogger("smoothapi")


class _TextDisk(diskcache.Disk):  # type: ignore[misc]
    """Stores text in the database, and reads nothing else back."""

    def put(self, key: Any) -> tuple[str, bool]:
        return _text(key), True

    def get(self, key: Any, raw: bool) -> str:  # noqa: FBT001  diskcache's signature
        if not raw:
            raise StoreError(_PLANTED)
        return _text(key)

    def store(
        self,
        value: Any,
        read: bool,  # noqa: FBT001
        key: Any = diskcache.UNKNOWN,
    ) -> tuple[int, int, None, str]:
        del read, key
        return 0, diskcache.core.MODE_RAW, None, _text(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> str:  # noqa: FBT001
        del filename, read
        if mode != diskcache.core.MODE_RAW:
            raise StoreError(_PLANTED)
        return _text(value)


_PLANTED = (
    "The answer store holds a row that smoothapi did not write (it is not plain text, and may be a "
    "pickle, which runs code when it is read). It was not read. Find out who can write to the "
    "store, then move its folder away; answers bought anew will fill a fresh one."
)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise StoreError(_PLANTED)
    return value


class AnswerStore:
    """Answers on disk, by what decided them. Safe for threads and for processes."""

    def __init__(self, directory: Path) -> None:
        """Open or make the store.

        Raises:
            StoreError: the folder cannot be used.
        """
        self.directory = directory
        self._writing = threading.RLock()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.name == "posix":
                directory.chmod(0o700)
        except OSError as error:
            raise StoreError(
                f"The answer store {str(directory)!r} cannot be made: {error.strerror}. Set "
                "SMOOTHAPI_HOME to a folder that you can write to."
            ) from error
        try:
            self._cache = _open(directory)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                held = (
                    " Another process has held it for a minute: look for one that was stopped "
                    "(Ctrl-Z, a debugger), and let it go on or end it. Nothing was sent."
                )
                raise StoreError(
                    f"The answer store {str(directory)!r} cannot be opened: {error}."
                    f"{held if 'locked' in str(error) else ''}"
                ) from error
            self._cache = _open_afresh(directory)
        self._opened = self._file()

    def get(self, key: str) -> Answer | PermanentError | None:
        """Return what was answered for `key`, or None if it was never asked.

        Raises:
            StoreError: the row cannot be read, or was not written by smoothapi.
        """
        row = self._row(key)
        return None if row is None else _outcome(row)

    def _row(self, key: str) -> Any:
        text = self._read(lambda cache: cache.get(key))
        if text is None:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"A stored answer is damaged: {error!r}.") from error

    def _read(self, read: Callable[[Any], Any]) -> Any:
        """Read from the database; set it aside and read from a new one if it proves damaged."""
        cache = self._cache
        try:
            return read(cache)
        except (sqlite3.Error, diskcache.Timeout) as error:
            if not _is_damage(error):
                raise StoreError(f"The answer store cannot be read: {error!r}.") from error
        try:
            self._replace(cache)
            return read(self._cache)
        except (sqlite3.Error, diskcache.Timeout) as error:
            raise StoreError(f"The answer store cannot be read: {error!r}.") from error

    def _replace(self, damaged: Any) -> None:
        with self._writing:
            if self._cache is damaged:  # else another thread was here first
                damaged.close()
                self._cache = _open_afresh(self.directory)
                self._opened = self._file()

    def put(self, *answers: StoredAnswer) -> None:
        """Write answers in one transaction; they are on disk when this returns.

        What was asked is kept beside each, so that an export says what it holds.

        Raises:
            StoreError: they could not be written (the disk is full, say); none of them was.
        """
        self._write([(kept.key or answer_key(kept.asked), kept.row()) for kept in answers])

    def give_up(self, asked: Mapping[str, object], why: str) -> None:
        """Do nothing: a variant that was given up after its retries is asked again next time."""

    def _write(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        texts = [(key, json.dumps(row, separators=(",", ":"))) for key, row in rows]
        try:
            with self._writing:
                try:
                    self._store(texts)
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._replace(self._cache)
                    self._store(texts)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"An answer could not be stored in {str(self.directory)!r}: {error}. The "
                "run stops rather than pay for answers that cannot be kept."
            ) from error

    def _file(self) -> tuple[int, int]:
        facts = (self.directory / "cache.db").stat()
        return facts.st_dev, facts.st_ino

    def _follow(self) -> None:
        """Open the database anew if its file was deleted, or set aside by another process.

        SQLite would go on writing to what nobody can read again.
        """
        with suppress(FileNotFoundError):
            if self._file() == self._opened:
                return
        self._cache.close()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cache = _open(self.directory)
        self._opened = self._file()

    def _store(self, texts: Sequence[tuple[str, str]]) -> None:
        """Write all in one transaction."""
        self._follow()
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                with self._cache.transact():
                    for key, text in texts:
                        self._cache.set(key, text)
            except diskcache.Timeout as timeout:
                # It calls every error so; asked to retry, it would do so for ever.
                error = timeout.__context__
                if not isinstance(error, sqlite3.Error):
                    raise
                if "locked" not in str(error) or time.monotonic() > end:
                    raise error from None
            else:
                return

    def all_keys(self) -> Iterator[str]:
        """Yield the keys of all answers, in the order of storing."""
        yield from self._cache.iterkeys()

    def row(self, key: str) -> dict[str, Any]:
        """Return a stored answer with what was asked, as JSON-ready values.

        Raises:
            StoreError: the row is damaged, or was not written by smoothapi.
        """
        found = self._row(key)
        if found is None:
            raise StoreError("A stored answer is there no more: another process deleted it.")
        _outcome(found)
        row = up_to_date(found)
        if answer_key(row.get("asked", {})) != key:
            raise StoreError("A stored answer is not the answer to what it says was asked.")
        return row

    def add_row(self, row: object) -> bool:
        """Store a row that `row` returned, here or elsewhere; False if it was here already.

        That a variant was given up is not stored: it may be asked again.

        Raises:
            StoreError: it is no such row, or cannot be written.
        """
        try:
            asked = row["asked"]  # type: ignore[index]
            outcome = outcome_of(row)
            key = answer_key(asked)
            payload = str(row.get("payload", ""))  # type: ignore[attr-defined]
            gave_up = "gave_up" in row  # type: ignore[operator]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"it lacks what a stored answer has: {error!r}") from error
        if gave_up or self.get(key) is not None:
            return False
        self.put(StoredAnswer(asked, outcome, payload, key))
        return True

    def bytes(self) -> int:
        """Return the size on disk."""
        return int(self._read(lambda cache: cache.volume()))

    def clear(self) -> int:
        """Delete all answers; return how many there were."""
        return int(self._read(lambda cache: cache.clear()))

    def close(self) -> None:
        """Close the database."""
        self._cache.close()

    def __len__(self) -> int:
        return int(self._read(len))


def _outcome(row: Any) -> Answer | PermanentError:
    try:
        return outcome_of(row)
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise StoreError(f"A stored answer is damaged: {error!r}.") from error


def _open(directory: Path) -> Any:
    return diskcache.Cache(
        str(directory),
        disk=_TextDisk,
        eviction_policy="none",
        size_limit=2**62,
        cull_limit=0,
        statistics=0,
        sqlite_synchronous=2,
        timeout=60,
    )


def _is_damage(error: Exception) -> bool:
    """Whether it says that the file is no sound database, not that it is locked, full or gone."""
    return type(error) is sqlite3.DatabaseError


def _open_afresh(directory: Path) -> Any:
    """Set a damaged database aside under another name, and begin a new one with what it still says.

    Raises:
        StoreError: it cannot be set aside.
    """
    with _alone(directory):
        with suppress(sqlite3.DatabaseError):
            cache = _open(directory)
            if cache._sql("PRAGMA quick_check").fetchone() == ("ok",):  # noqa: SLF001
                return cache  # another process has set it aside meanwhile
            cache.close()
        aside = f"damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        try:
            for file in sorted(directory.glob("cache.db*")):
                file.rename(directory / file.name.replace("cache.db", f"{aside}.db", 1))
            cache = _open(directory)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The answer store in {str(directory)!r} is damaged, and could not be set aside "
                f"({error}). Move its folder away, or set SMOOTHAPI_HOME to another."
            ) from error
        saved = _save_rows(directory / f"{aside}.db", cache)
    _log.warning(
        "The answer store in %s is damaged; it was set aside as %s.db and a new one begun, with "
        "the %d answers that could still be read.",
        printable(str(directory)),
        aside,
        saved,
    )
    return cache


def _save_rows(damaged: Path, cache: Any) -> int:
    """Copy what can be read of a damaged database, checked; return how many answers."""
    saved = 0
    with closing(sqlite3.connect(damaged)) as database, cache.transact(), suppress(sqlite3.Error):
        for key, text in database.execute("SELECT key, value FROM Cache WHERE mode = 1"):
            with suppress(ValueError, KeyError, TypeError, RecursionError, StoreError):
                row = json.loads(_text(text))
                outcome_of(row)
                if answer_key(row["asked"]) == key:
                    cache.set(key, text)
                    saved += 1
    return saved


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold a lock on the store's folder against other processes, where the system has such."""
    try:
        import fcntl  # noqa: PLC0415  not everywhere
    except ImportError:
        yield
        return
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
