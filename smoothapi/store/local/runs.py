"""The runs of a home: a small file each, whose names sort by time."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from smoothapi.errors import StoreError
from smoothapi.store.ages import seconds_of
from smoothapi.store.runs import UNDER_WAY, RunRecord, has_part, is_part, moment, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MOST_FOUND = 10
_log = logging.getLogger("smoothapi")


class LocalRuns:
    """The runs that were kept in a folder; see `smoothapi.store.Runs`.

    A write is one small file beside, put in place: no lock, and no wait for the disk. A loss of
    power may lose the last ones.

    Args:
        folder: of the files; made with the first.
        clock: seconds since the epoch.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock

    def begin(self, run: RunRecord) -> RunRecord:
        """Keep a run that begins; return it with its id and when that was."""
        now = self._clock()
        begun = replace(run, id=new_id(now), began=moment(now))
        self._write(begun)
        return begun

    def keep(self, run: RunRecord) -> RunRecord:
        """Keep a run in place of what was kept of it; return it with when it ended, if it did."""
        if run.outcome != UNDER_WAY and not run.ended:
            run = replace(run, ended=moment(self._clock()))
        self._write(run)
        return run

    def latest(self, most: int) -> list[RunRecord]:
        """Return so many runs at most, the last one first."""
        found: list[RunRecord] = []
        for run in self._all():
            if len(found) == most:
                break
            found.append(run)
        return found

    def find(self, part: str) -> list[RunRecord]:
        """Return the runs whose id begins or ends so, the last one first; ten at most."""
        if not is_part(part):
            return []
        names = [name for name in self._names() if has_part(name, part)]
        return [run for name in names[:_MOST_FOUND] if (run := self._read(name)) is not None]

    def older(self, days: float) -> int:
        """Return how many runs began more than so many days ago."""
        return len(self._older(days))

    def clear(self, days: float) -> int:
        """Forget the runs that began more than so many days ago; return how many."""
        cleared = 0
        for name in self._older(days):
            try:
                (self._folder / f"{name}.json").unlink()
            except FileNotFoundError:  # by another process, just now
                continue
            except OSError as error:
                raise self._failed("deleted", error) from error
            cleared += 1
        return cleared

    def _older(self, days: float) -> list[str]:
        """Return the names of runs that began so long ago: an id is a moment, then chance."""
        last = new_id(max(0.0, self._clock() - seconds_of(days))).partition("-")[0]
        return [name for name in self._names() if name.partition("-")[0] <= last]

    def _all(self) -> Iterator[RunRecord]:
        for name in self._names():
            if (run := self._read(name)) is not None:
                yield run

    def _names(self) -> list[str]:
        try:
            files = os.listdir(self._folder)  # noqa: PTH208  names alone
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failed("read", error) from error
        names = [file.removesuffix(".json") for file in files if file.endswith(".json")]
        return sorted(filter(is_part, names), reverse=True)

    def _read(self, name: str) -> RunRecord | None:
        file = self._folder / f"{name}.json"
        try:
            return RunRecord.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            _log.warning("The record %s of a run cannot be read, and is left out: %s.", file, error)
            return None

    def _write(self, run: RunRecord) -> None:
        draft = self._folder / f".{secrets.token_hex(6)}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(run.to_json())
            draft.replace(self._folder / f"{run.id}.json")
        except (OSError, ValueError) as error:
            raise self._failed("written", error) from error
        finally:
            with suppress(OSError, ValueError):
                draft.unlink(missing_ok=True)

    def _failed(self, what: str, error: Exception) -> StoreError:
        reason = error.strerror if isinstance(error, OSError) else error
        return StoreError(f"The runs in {str(self._folder)!r} cannot be {what}: {reason}.")
