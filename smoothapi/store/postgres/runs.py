"""The runs of all machines that share a database."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smoothapi.store.ages import seconds_of
from smoothapi.store.runs import UNDER_WAY, RunRecord, is_part, moment, new_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from smoothapi.store.postgres.server import Server

_COLUMNS = "id, smoothapi.seconds(began), smoothapi.seconds(ended), content"
_OLDER = "FROM smoothapi.runs WHERE began < smoothapi.moment() - make_interval(secs => %s)"
_MOST_FOUND = 10
_STAMP = 'YYYYMMDD"T"HH24MISS'
_log = logging.getLogger("smoothapi")


class PostgresRuns:
    """The runs that were kept in a database; see `smoothapi.store.Runs`.

    Args:
        server: the database.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def begin(self, run: RunRecord) -> RunRecord:
        """Keep a run that begins; return it with its id and when that was, by the server's time."""
        token = new_id(0.0).partition("-")[2]
        # Made twice, it is kept once: the token tells.
        [(identity, began)] = self._server.run(
            "INSERT INTO smoothapi.runs (id, token, began, content) "
            "SELECT to_char(m AT TIME ZONE 'UTC', %s) || '-' || %s, %s, m, %s "
            "FROM smoothapi.moment() AS m "
            "ON CONFLICT (token) DO UPDATE SET content = excluded.content "
            "RETURNING id, smoothapi.seconds(began)",
            _STAMP,
            token,
            token,
            run.to_json(),
        )
        return replace(run, id=str(identity), began=moment(float(began)))

    def keep(self, run: RunRecord) -> RunRecord:
        """Keep a run in place of what was kept of it; return it with when it ended, if it did."""
        # One that was cleared while it was under way is there again.
        [(ended,)] = self._server.run(
            "INSERT INTO smoothapi.runs AS kept (id, token, began, ended, content) "
            "VALUES (%s, %s, %s::timestamptz, CASE WHEN %s THEN smoothapi.moment() END, %s) "
            "ON CONFLICT (id) DO UPDATE SET content = excluded.content, "
            "ended = CASE WHEN excluded.ended IS NOT NULL "
            "THEN coalesce(kept.ended, excluded.ended) END "
            "RETURNING smoothapi.seconds(ended)",
            run.id,
            run.id.partition("-")[2],
            run.began,
            run.outcome != UNDER_WAY,
            run.to_json(),
        )
        return run if ended is None else replace(run, ended=moment(float(ended)))

    def latest(self, most: int) -> list[RunRecord]:
        """Return so many runs at most, the last one first."""
        return _records(
            self._server.run(
                f"SELECT {_COLUMNS} FROM smoothapi.runs "  # noqa: S608  names of our own
                "ORDER BY began DESC, id DESC LIMIT %s",
                most,
            )
        )

    def find(self, part: str) -> list[RunRecord]:
        """Return the runs whose id begins or ends so, the last one first; ten at most."""
        if not is_part(part):
            return []
        return _records(
            self._server.run(
                f"SELECT {_COLUMNS} FROM smoothapi.runs "  # noqa: S608  names of our own
                "WHERE starts_with(id, %s) OR right(id, length(%s)) = %s "
                "ORDER BY began DESC, id DESC LIMIT %s",
                part,
                part,
                part,
                _MOST_FOUND,
            )
        )

    def older(self, days: float) -> int:
        """Return how many runs began more than so many days ago."""
        [(count,)] = self._server.run(f"SELECT count(*) {_OLDER}", seconds_of(days))
        return int(count)

    def clear(self, days: float) -> int:
        """Forget the runs that began more than so many days ago; return how many."""
        return len(self._server.run(f"DELETE {_OLDER} RETURNING id", seconds_of(days)))


def _records(rows: Iterable[tuple[Any, ...]]) -> list[RunRecord]:
    found: list[RunRecord] = []
    for identity, began, ended, content in rows:
        try:
            record = RunRecord.from_json(str(content))
        except ValueError as error:
            _log.warning(
                "The record %s of a run is left out: it cannot be read (%s).", identity, error
            )
            continue
        last = "" if ended is None else moment(float(ended))
        found.append(replace(record, id=str(identity), began=moment(float(began)), ended=last))
    return found
