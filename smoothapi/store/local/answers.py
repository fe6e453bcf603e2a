"""The store: no paid answer is lost, and none is paid for twice.

One plain diskcache `Cache` (`smoothapi.store.local.cache`). Values are JSON text in the database
itself, each with a checksum; anything pickled is refused on reading, since unpickling runs code.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from smoothapi.errors import SmoothAPIError, StoreError, UsageError
from smoothapi.files import parse_json, replacing
from smoothapi.store.local.cache import FILE, AnswerCache
from smoothapi.store.local.damage import (
    first_of,
    is_damage,
    is_full,
    is_locked,
    is_undecodable,
)
from smoothapi.store.local.rebuild import rebuild
from smoothapi.store.owners import refuse_fork
from smoothapi.store.rows import (
    StoredAnswer,
    UnreadableRowError,
    answer_key,
    answer_to,
    counted_on,
    is_first,
    names_in,
    refreshes_of,
    source_of,
    to_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from smoothapi.answer import Answer
    from smoothapi.errors import PermanentError
    from smoothapi.store.rows import Seen, SeenName

_Read = TypeVar("_Read")

_PATIENCE = 300.0  # seconds to wait for another process that writes
_LAST = 100  # answers, which say what noise is in use; to look at all takes seconds a million
_log = logging.getLogger("smoothapi")


_ERASED = "erased.json"
_SPARE = 2**19  # bytes set aside for what is under way when the disk is full


class _Row(NamedTuple):
    """What is written of an answer: its key, its text, and the names in it."""

    key: str
    text: str
    names: set[SeenName]


class AnswerStore:
    """Answers on disk, by what decided them. Safe for threads and for processes."""

    def __init__(self, directory: Path) -> None:
        """Open or make the store.

        Raises:
            StoreError: the folder cannot be used.
        """
        self.directory = directory
        self._process = os.getpid()
        self._writing = threading.RLock()
        self._quiet = threading.Condition()  # when nobody reads
        self._readers = 0
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.name == "posix":
                directory.chmod(0o700)
        except OSError as error:
            raise StoreError(
                f"The answer store {str(directory)!r} cannot be made: {error.strerror}. Set "
                "SMOOTHAPI_HOME to a folder that you can write to."
            ) from error
        self._closed = False
        self._retired: list[AnswerCache] = []  # other threads may be reading from them
        self._spare: Path | None = None
        self._cache = self._open()
        self._opened = self._file()

    def get(self, key: str) -> Answer | PermanentError | None:
        """Return what was answered for `key`, or None if it was never asked.

        What cannot be read any more counts as never asked: it is asked again, and replaced.

        Raises:
            StoreError: the store cannot be read, or the row was not written by smoothapi.
        """
        try:
            found = self._find(key)
        except UnreadableRowError as error:
            _log.warning("A stored answer is damaged, and will be asked again: %s.", error)
            return None
        return None if found is None else found[1]

    def _find(self, key: str) -> tuple[dict[str, Any], Answer | PermanentError] | None:
        """Return the row of a key, and its outcome; raises UnreadableRowError."""
        text = self._read(lambda cache: _text_of(cache, key))
        return None if text is None else answer_to(key, text)

    def get_all(self, keys: Sequence[str]) -> dict[str, Answer | PermanentError]:
        """Return what was answered for those of `keys` that were ever asked."""
        found = ((key, self.get(key)) for key in keys)
        return {key: outcome for key, outcome in found if outcome is not None}

    def _read(self, read: Callable[[AnswerCache], _Read]) -> _Read:
        """Read from the database; set it aside and read from a new one if it proves damaged."""
        for _ in range(2):
            with self._read_from() as cache:
                try:
                    return read(cache)
                except (SmoothAPIError, UnreadableRowError):
                    raise
                except Exception as error:  # noqa: BLE001  whatever diskcache makes of it
                    failed = first_of(error)
            if not is_damage(failed):
                break
            self._replace(cache)
        raise StoreError(f"The answer store cannot be read: {failed!r}.") from failed

    @contextmanager
    def _read_from(self) -> Iterator[AnswerCache]:
        """Have the database stay open for a block.

        A connection that another thread closes in the middle of a statement ends the process.
        """
        refuse_fork(self._process)
        with self._quiet:
            cache = self._in_use()
            self._readers += 1
        try:
            yield cache
        finally:
            with self._quiet:
                self._readers -= 1
                self._quiet.notify_all()

    def _in_use(self) -> AnswerCache:
        if self._closed:
            raise UsageError("The answer store is closed. Open another.")
        return self._cache

    def _open(self) -> AnswerCache:
        try:
            return AnswerCache(self.directory)
        except SmoothAPIError:
            raise
        except Exception as error:  # noqa: BLE001  whatever diskcache makes of it
            failed = first_of(error)
        if is_damage(failed):
            return rebuild(self.directory)
        held = (
            " Another process has held it for a minute: look for one that was stopped "
            "(Ctrl-Z, a debugger), and let it go on or end it. Nothing was sent."
        )
        raise StoreError(
            f"The answer store {str(self.directory)!r} cannot be opened: {failed}."
            f"{held if is_locked(failed) else ''}"
        ) from failed

    def _replace(self, damaged: AnswerCache) -> None:
        with self._writing:
            if self._cache is damaged:  # else another thread was here first
                self._retired.append(damaged)
                self._cache = rebuild(self.directory)
                self._opened = self._file()

    def put(self, *answers: StoredAnswer) -> None:
        """Write answers in one transaction; they are on disk when this returns.

        What was asked is kept beside each, so that an export says what it holds.

        Raises:
            StoreError: they could not be written, none of them; or the disk is full, and those
                were kept for which there was room.
        """
        rows = [
            _Row(
                kept.key or answer_key(kept.asked),
                to_text(kept.row()),
                names_in(kept.asked, kept.outcome),
            )
            for kept in answers
        ]
        with self._writing:
            cache = self._in_use()
            error = self._attempt(rows)
            if error is not None and is_damage(error):
                self._replace(cache)
                error = self._attempt(rows)
            if error is not None and is_full(error):
                raise self._full(rows) from error
        if error is not None:
            raise StoreError(
                f"An answer could not be stored in {str(self.directory)!r}: {error!r}. The "
                "run stops rather than pay for answers that cannot be kept."
            ) from error

    def give_up(self, asked: Mapping[str, object], why: str) -> None:
        """Do nothing: a variant that was given up after its retries is asked again next time."""

    def _full(self, rows: Sequence[_Row]) -> StoreError:
        """Write what is under way into the room that was set aside; return what to say."""
        with suppress(OSError):
            (self.directory / "spare").unlink(missing_ok=True)
        with suppress(sqlite3.Error):  # what the log holds many times the file holds once
            self._cache.write_log()
        kept = len(rows) if self._attempt(rows) is None else 0
        if not kept:
            kept = sum(self._attempt([row]) is None for row in rows)
        lost = len(rows) - kept
        return StoreError(
            f"The disk of {str(self.directory)!r} is full. Of the answers under way {kept:,} were "
            f"kept{f', and {lost:,} could not be' if lost else ''}. Free some of it: the same "
            "call continues where this one ended."
        )

    def _set_aside_room(self) -> None:
        """Keep some room for what is under way when the disk is full."""
        self._spare = self.directory / "spare"
        with suppress(OSError, AttributeError):  # not every system can; then there is none
            size = min(_SPARE, shutil.disk_usage(self.directory).free // 3)
            if not self._spare.exists() and size:
                with self._spare.open("xb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)

    def _file(self) -> tuple[int, int]:
        facts = (self.directory / FILE).stat()
        return facts.st_dev, facts.st_ino

    def _follow(self) -> None:
        """Open the database anew if its file was deleted, or set aside by another process.

        SQLite would go on writing to what nobody can read again.
        """
        with suppress(FileNotFoundError):
            if self._file() == self._opened:
                return
        self._retired.append(self._cache)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cache = self._open()
        self._opened = self._file()

    def _attempt(self, rows: Sequence[_Row]) -> BaseException | None:
        """Write all in one transaction; return what prevented it."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._follow()
                names = set().union(*(row.names for row in rows))
                self._cache.keep([(row.key, row.text) for row in rows], names)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  diskcache calls every error a time-out
                failed = first_of(error)
                # Asked to retry, it would do so for ever.
                if not is_locked(failed) or time.monotonic() > end:
                    return failed
            else:
                if self._spare is None:
                    self._set_aside_room()
                return None

    def all_keys(self) -> Iterator[str]:
        """Yield the keys of all answers, in the order of storing; damaged ones, too."""
        select = "SELECT CAST(key AS BLOB) FROM Cache ORDER BY rowid"
        for (key,) in self._read(lambda cache: cache._sql(select).fetchall()):  # noqa: SLF001
            yield (key or b"").decode(errors="replace")

    def row(self, key: str) -> dict[str, Any]:
        """Return a stored answer with what was asked, as JSON-ready values.

        Of one that `clear` deleted only what must outlive it: how often it will have been asked for
        anew once it is asked for again.

        Raises:
            StoreError: the row is damaged, or was not written by smoothapi.
        """
        try:
            found = self._find(key)
        except UnreadableRowError as error:
            raise StoreError(f"A stored answer is damaged: {error}.") from error
        if found is None:
            if erased := self._erased().get(key):
                return {"refreshes": erased}
            raise StoreError("A stored answer is there no more: another process deleted it.")
        return found[0]

    def seen(self, provider: str, identity: Mapping[str, object]) -> Seen:
        """Return what the answers hold that a provider gave; see `Answers.seen`.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._read(lambda cache: cache.seen(source_of(provider, identity)))

    def scan(self) -> Iterator[tuple[str, dict[str, Any] | StoreError]]:
        """Yield key and row of each answer, or why it cannot be read."""
        for key in self.all_keys():
            try:
                yield key, self.row(key)
            except StoreError as error:
                yield key, error

    def add(self, answers: Sequence[StoredAnswer]) -> int:
        """Keep those that are not here yet, in one transaction; return how many these were."""
        found = {answer.key or answer_key(answer.asked): answer for answer in answers}
        erased = self._erased()
        new = [
            counted_on(answer, erased.get(key, 0))
            for key, answer in found.items()
            if self.get(key) is None
        ]
        if new:
            self.put(*new)
        return len(new)

    @property
    def where(self) -> str:
        """The folder that they are in."""
        return str(self.directory)

    def noise_keys(self) -> dict[str, int]:
        """Return the public id of each noise key -> how many answers are about its noise."""
        select = (
            "SELECT CASE WHEN typeof(value) = 'text' AND json_valid(value) "
            "THEN json_extract(value, '$.asked.noise') END AS noise, COUNT(*) "
            "FROM Cache GROUP BY noise ORDER BY noise"
        )
        rows = self._read(lambda cache: cache._sql(select).fetchall())  # noqa: SLF001
        return {noise: count for noise, count in rows if isinstance(noise, str)}

    def latest_noise_keys(self) -> set[str]:
        """Return the public ids of the noise keys that the last answers are about."""
        select = (
            "SELECT DISTINCT CASE WHEN typeof(value) = 'text' AND json_valid(value) "
            "THEN json_extract(value, '$.asked.noise') END "
            "FROM (SELECT value FROM Cache ORDER BY rowid DESC LIMIT ?)"
        )
        rows = self._read(lambda cache: cache._sql(select, (_LAST,)).fetchall())  # noqa: SLF001
        return {noise for (noise,) in rows if isinstance(noise, str)}

    def bytes(self) -> int:
        """Return the size on disk."""
        return sum(file.stat().st_size for file in self.directory.glob(f"{FILE}*"))

    def clear(self) -> int:
        """Delete all answers; return how many there were.

        How often they were asked for anew stays, and asking again will be once more: who erases
        answers until a set of them certifies has the chance alpha with each set.
        """
        self._note_erased()
        count = self._read(lambda cache: int(cache.clear()))
        # Nor is what is gone to be found again in the log.
        self._read(lambda cache: cache.write_log())
        return count

    def _note_erased(self) -> None:
        """Write down, for each photo, how often its answers will have been asked for anew."""
        erased = self._erased()
        for key in self.all_keys():
            try:
                row = self.row(key)
            except StoreError:
                continue
            if is_first(row["asked"]):
                erased[key] = refreshes_of(row) + 1
        if not erased:
            return
        try:
            with replacing(self.directory / _ERASED) as stream:
                stream.write(json.dumps(erased) + "\n")
        except OSError as error:
            raise StoreError(
                f"Nothing was deleted: how often the answers had been asked for cannot be written "
                f"to {str(self.directory / _ERASED)!r}: {error.strerror}."
            ) from error

    def _erased(self) -> dict[str, int]:
        """Return what was written down of answers that are no more, by key."""
        try:
            found = parse_json((self.directory / _ERASED).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{str(self.directory / _ERASED)!r} cannot be read: {error}. It says how often "
                "answers that were deleted had been asked for, which certificates count."
            ) from error
        counts = found.items() if isinstance(found, dict) else ()
        return {key: count for key, count in counts if type(count) is int and count > 0}

    def close(self) -> None:
        """Close the database, for all threads, once nobody reads or writes.

        In a child of the process that opened it, leave it alone: it is the parent's.
        """
        if os.getpid() != self._process:
            return
        with self._quiet:
            self._closed = True
            self._quiet.wait_for(lambda: not self._readers)
        with self._writing:
            for cache in (*self._retired, self._cache):
                cache.close()

    def __len__(self) -> int:
        # diskcache's own count is kept by a trigger, which is only as sound as the file.
        select = "SELECT COUNT(*) FROM Cache"
        return int(self._read(lambda cache: cache._sql(select).fetchone()[0]))  # noqa: SLF001


def _text_of(cache: AnswerCache, key: str) -> str | None:
    """Return the text of a key; raises UnreadableRowError where the row alone is damaged."""
    try:
        return cache.text(key)
    except SmoothAPIError:
        raise
    except (TypeError, ValueError) as error:
        raise UnreadableRowError(str(error)) from error
    except sqlite3.OperationalError as error:
        if is_undecodable(error):
            raise UnreadableRowError("it is no UTF-8") from error
        raise
