"""A damaged database of answers, set aside, and a new one begun with all that it still says."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from smoothapi.errors import StoreError
from smoothapi.store.local.cache import FILE, AnswerCache
from smoothapi.store.local.damage import first_of, is_damage
from smoothapi.store.local.pages import log_of, texts
from smoothapi.store.rows import UnreadableRowError, from_text, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.store.rows import SeenName

_AT_ONCE = 1000  # rows in a transaction
_log = logging.getLogger("smoothapi")


def rebuild(directory: Path) -> AnswerCache:
    """Return a sound database in place of a damaged one.

    The new one takes the old one's place only when it has all that can be read, each row checked.

    Raises:
        StoreError: it cannot be made, or the old one not be set aside; nothing was changed.
    """
    with _alone(directory):
        if (cache := _if_sound(directory)) is not None:
            return cache  # another process, or thread, has rebuilt it meanwhile
        aside = directory / f"damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.db"
        draft = Path(tempfile.mkdtemp(prefix=".rebuilding-", dir=directory))
        try:
            with closing(AnswerCache(draft)) as cache:
                for some, names in _answers(directory / FILE):
                    cache.keep(some, names)
            _exchange(directory / FILE, draft / FILE, aside)
            # What another process wrote between was written to what is now aside.
            cache = AnswerCache(directory)
            for some, names in _answers(aside):
                missing = [(key, text) for key, text in some if cache.text(key) is None]
                cache.keep(missing, names)
            kept = int(cache._sql("SELECT COUNT(*) FROM Cache").fetchone()[0])  # noqa: SLF001
        except Exception as error:
            raise StoreError(
                f"The answer store in {str(directory)!r} is damaged, and could not be rebuilt "
                f"({first_of(error)}). Free the disk, move its folder away, or set SMOOTHAPI_HOME "
                "to another."
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    _log.warning(
        "The answer store in %s is damaged; it was set aside as %s and a new one begun, with "
        "the %d answers that could still be read.",
        directory,
        aside.name,
        kept,
    )
    return cache


def _if_sound(directory: Path) -> AnswerCache | None:
    cache = None
    try:
        cache = AnswerCache(directory)
        if cache._sql("PRAGMA integrity_check").fetchone() == ("ok",):  # noqa: SLF001
            return cache
    except Exception as error:
        if not is_damage(first_of(error)):
            raise
    if cache is not None:
        cache.close()
    return None


def _answers(damaged: Path) -> Iterator[tuple[list[tuple[str, str]], set[SeenName]]]:
    """Yield what can be read of a damaged database, each row checked, many at once.

    They come with the names in them.
    """
    some: list[tuple[str, str]] = []
    names: set[SeenName] = set()
    for text in texts(damaged):
        with suppress(UnreadableRowError, UnicodeDecodeError, StoreError):
            key, row, outcome = from_text(text)
            some.append((key, text.decode()))
            names |= names_in(row["asked"], outcome)
        if len(some) == _AT_ONCE:
            yield some, names
            some, names = [], set()
    yield some, names


def _exchange(database: Path, new: Path, aside: Path) -> None:
    """Put a new database in the place of another, whose files stay under another name."""
    if database.exists():
        os.link(database, aside)
    for file in (log_of(database), database.with_name(f"{database.name}-shm")):
        with suppress(FileNotFoundError):  # else the new database would take the log for its own
            file.rename(file.with_name(file.name.replace(database.name, aside.name, 1)))
    new.replace(database)


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
