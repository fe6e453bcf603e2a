"""The answers in a database: lines of JSON, each with a checksum, as every store keeps them."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

import platformdirs

from smoothapi.errors import StoreError
from smoothapi.store.recording import to_line
from smoothapi.store.rows import (
    StoredAnswer,
    UnreadableRowError,
    answer_key,
    answer_to,
    counted_on,
    is_first,
    names_in,
    noise_key_of,
    refreshes_of,
    seen_among,
    source_of,
    to_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.errors import PermanentError
    from smoothapi.store.postgres.server import Server
    from smoothapi.store.rows import Seen, SeenName

_GET = "SELECT key, line FROM smoothapi.answers WHERE key = ANY (%s::bytea[])"
# In the order of keys, so that no two that write the same ones wait for each other.
_NEW = """
WITH named AS (
    INSERT INTO smoothapi.seen SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
        AS its(provider, identity, kind, name) ORDER BY provider, identity, kind, name
    ON CONFLICT DO NOTHING
)
INSERT INTO smoothapi.answers AS a (key, noise_key, stored, line)
    SELECT key, noise_key, smoothapi.moment(), line
    FROM unnest(%s::bytea[], %s::text[], %s::text[]) AS new(key, noise_key, line)
    WHERE smoothapi.durable() ORDER BY key
"""
_PUT = f"""{_NEW}
ON CONFLICT (key) DO UPDATE SET
    noise_key = excluded.noise_key, stored = excluded.stored, line = excluded.line
RETURNING 1
"""
_ADD = f"""{_NEW}
ON CONFLICT (key) DO NOTHING RETURNING key
"""
_PAGE = """
SELECT key, line FROM smoothapi.answers WHERE key > %s ORDER BY key LIMIT %s
"""
_ERASED = "SELECT key, refreshes FROM smoothapi.erased WHERE key = ANY (%s::bytea[])"
_CLEAR = """
WITH names AS (DELETE FROM smoothapi.seen), counts AS (
    INSERT INTO smoothapi.erased AS e (key, refreshes)
        SELECT * FROM unnest(%s::bytea[], %s::bigint[])
    ON CONFLICT (key) DO UPDATE SET refreshes = greatest(e.refreshes, excluded.refreshes)
)
DELETE FROM smoothapi.answers RETURNING 1
"""
_AT_ONCE = 1000  # rows of a page

_log = logging.getLogger("smoothapi")


class PostgresAnswers:
    """Answers in a database, by what decided them; a `KeptAnswers`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._named: set[SeenName] = set()  # what the database has of names, as far as is known

    @property
    def where(self) -> str:
        """The address of the database, without a password."""
        return self._server.where

    def get(self, key: str) -> Answer | PermanentError | None:
        """Return what was answered for `key`, or None if it was never asked.

        What cannot be read any more counts as never asked: it is asked again, and replaced.
        """
        return self.get_all([key]).get(key)

    def get_all(self, keys: Sequence[str]) -> dict[str, Answer | PermanentError]:
        """Return what was answered for those of `keys` that were ever asked, in one statement."""
        found: dict[str, Answer | PermanentError] = {}
        if not keys:
            return found
        for kept_as, line in self._server.run(_GET, [bytes.fromhex(key) for key in keys]):
            key = kept_as.hex()
            try:
                found[key] = answer_to(key, line)[1]
            except UnreadableRowError as error:
                _log.warning("A stored answer is damaged, and will be asked again: %s.", error)
        return found

    def put(self, *answers: StoredAnswer) -> None:
        """Write answers in one transaction; they are on the server's disk when this returns.

        Raises:
            StoreError: they could not be written, none of them.
        """
        if not answers:
            return
        try:
            self._write(_PUT, answers)
        except StoreError as error:
            raise StoreError(f"{error} {_rescued(answers)}") from error

    def add(self, answers: Sequence[StoredAnswer]) -> int:
        """Keep those that are not here yet, in one transaction; return how many these were."""
        if not answers:
            return 0
        given = {answer.key or answer_key(answer.asked): answer for answer in answers}
        erased = self._erased(list(given))
        here = {key: counted_on(answer, erased.get(key, 0)) for key, answer in given.items()}
        added = {key.hex() for (key,) in self._write(_ADD, list(here.values()))}
        for key in (*added, *self.get_all(list(here.keys() - added))):
            del here[key]
        self.put(*here.values())  # in the place of what is damaged
        return len(added) + len(here)

    def seen(self, provider: str, identity: Mapping[str, object]) -> Seen:
        """Return what the answers hold that a provider gave with one identity."""
        source = source_of(provider, identity)
        rows = self._server.run(
            "SELECT provider, identity, kind, name FROM smoothapi.seen "
            "WHERE provider = %s AND identity = %s",
            *source,
        )
        return seen_among(rows, source)

    def _write(self, statement: str, answers: Sequence[StoredAnswer]) -> list[tuple[Any, ...]]:
        """Write answers, of those to one question the last, and the names in them."""
        found = {answer.key or answer_key(answer.asked): answer for answer in answers}
        names: set[SeenName] = set().union(
            *(names_in(one.asked, one.outcome) for one in found.values())
        )
        new = [each for each in names - self._named if "\0" not in "".join(each)]
        rows = self._server.run(
            statement,
            *([each[column] for each in new] for column in range(4)),
            [bytes.fromhex(key) for key in found],
            [noise_key_of(answer.asked) for answer in found.values()],
            [to_text(answer.row()) for answer in found.values()],
        )
        self._named.update(new)
        return rows

    def give_up(self, asked: Mapping[str, object], why: str) -> None:
        """Do nothing: a variant that was given up after its retries is asked again next time."""

    def row(self, key: str) -> dict[str, Any]:
        """Return a stored answer with what was asked, as JSON-ready values.

        Of one that `clear` deleted only how often it will have been asked for anew.

        Raises:
            StoreError: it is damaged, or there no more.
        """
        rows = self._server.run(_GET, [bytes.fromhex(key)])
        if not rows:
            if erased := self._erased([key]):
                return {"refreshes": erased[key]}
            raise StoreError("A stored answer is there no more: another process deleted it.")
        return _row(key, rows[0][1])

    def scan(self) -> Iterator[tuple[str, dict[str, Any] | StoreError]]:
        """Yield key and row of each answer, or why it cannot be read; a page at a time."""
        last = b""
        while rows := self._server.run(_PAGE, last, _AT_ONCE):
            for key, line in rows:
                last = bytes(key)
                try:
                    yield last.hex(), _row(last.hex(), line)
                except StoreError as error:
                    yield last.hex(), error

    def noise_keys(self) -> dict[str, int]:
        """Return the public id of each noise key -> how many answers are about its noise."""
        return dict(
            self._server.run(
                "SELECT noise_key, count(*) FROM smoothapi.answers "
                "WHERE noise_key IS NOT NULL GROUP BY 1 ORDER BY 1"
            )
        )

    def bytes(self) -> int:
        """Return how much room they take up on the server, their index included."""
        [(size,)] = self._server.run("SELECT pg_total_relation_size('smoothapi.answers')")
        return int(size)

    def clear(self) -> int:
        """Delete all answers, but for how often they were asked for; return how many there were."""
        self._named.clear()
        counts = {
            bytes.fromhex(key): refreshes_of(row) + 1
            for key, row in self.scan()
            if not isinstance(row, StoreError) and is_first(row["asked"])
        }
        return len(self._server.run(_CLEAR, list(counts), list(counts.values())))

    def _erased(self, keys: Sequence[str]) -> dict[str, int]:
        """Return how often those of `keys` that were deleted will have been asked for anew."""
        rows = self._server.run(_ERASED, [bytes.fromhex(key) for key in keys])
        return {bytes(key).hex(): int(refreshes) for key, refreshes in rows}

    def close(self) -> None:
        """Nothing to release: the connections are the store's."""

    def __len__(self) -> int:
        [(count,)] = self._server.run("SELECT count(*) FROM smoothapi.answers")
        return int(count)


def _rescued(answers: Sequence[StoredAnswer]) -> str:
    """Write answers that are paid for to a file of this machine; return what to say of it."""
    place = platformdirs.user_data_path("smoothapi") / f"rescued-{time.strftime('%Y%m%d')}.jsonl"
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(file, "ab") as stream:  # one write, so that processes may share it
            stream.write("".join(to_line(answer.row()) for answer in answers).encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return (
            f"The {len(answers):,} answers under way could not be kept here either "
            f"({error.strerror})."
        )
    return (
        f"The {len(answers):,} answers under way, which are paid for, were written to "
        f"{str(place)!r}: when the database is back, run `smoothapi cache import` with that file."
    )


def _row(key: str, line: str) -> dict[str, Any]:
    try:
        return answer_to(key, line)[0]
    except UnreadableRowError as error:
        raise StoreError(f"A stored answer is damaged: {error}.") from error
