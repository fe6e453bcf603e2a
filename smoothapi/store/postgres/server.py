"""One database, reached by a few connections that threads share; statements one at a time."""

from __future__ import annotations

import logging
import os
import re
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from smoothapi.errors import StoreError, UsageError
from smoothapi.provider.mask import Mask
from smoothapi.store.owners import refuse_fork
from smoothapi.store.postgres.outage import Outage
from smoothapi.store.postgres.schema import LATEST, LOCK, step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from psycopg import Connection

    from smoothapi.address import DatabaseAddress

# The pool warns of each connection that it finds closed, and Python would print that where no
# logging is set up. Where it is, its handlers still get it.
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())

PATIENCE = 60.0
"""Seconds for which a statement is made again while the server cannot be reached."""

_MOST_CONNECTIONS = 4  # a process; a statement takes well under a millisecond
_OLDEST = 140_000  # of PostgreSQL
_WAIT = 10.0  # seconds for a connection, before it is said that there is none
_PAUSE = 0.1  # seconds, and up to ten times that, between two tries

# A connection whose other end is gone is given up within half a minute. The address may say else.
_NETWORK: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "smoothapi",
}

_AGAIN = ("08", "40001", "40P01", "53300", "57P01", "57P02", "57P03", "57P05", "25006")
"""SQLSTATEs after which the same statement may be made again: nothing of it was kept, or it may be
made twice. 25006 is a standby that is being promoted."""

_REFUSED = ("40001", "40P01")
"""Of these, the ones by which a server that is there tells a statement to try again."""

_NOT_THERE = (
    "refused",
    "No such file",
    "translate host name",
    "unreachable",
    "authentication failed",
    "no password",
    "does not exist",
    "no pg_hba.conf entry",
    "invalid",
    "certificate",
    "SSL",
)
"""Words of libpq and of servers, which have no code before there is a connection."""


class Server:
    """A database. Safe for threads; a process that was forked off is refused.

    Args:
        address: of the database.
        patience: seconds for which a statement is made again while the server cannot be reached.

    Raises:
        StoreError: it cannot be reached, or not be used. No password is in the text.
    """

    def __init__(self, address: DatabaseAddress, *, patience: float = PATIENCE) -> None:
        self.where = str(address)
        self._patience = patience
        self._process = os.getpid()
        self._outage = Outage(self.where, patience)
        self._mask = Mask((*address.secrets, os.environ.get("PGPASSWORD")))
        self._began = False
        options = self._options(address)
        self._migrate(options)
        self._began = True
        self._pool: ConnectionPool[Connection[tuple[Any, ...]]] = ConnectionPool(
            "",
            # Nothing is prepared: a pooler gives each statement to another connection.
            kwargs={
                **options,
                "autocommit": True,
                "prepare_threshold": None,
                "row_factory": tuple_row,
            },
            min_size=1,
            max_size=_MOST_CONNECTIONS,
            open=True,
            reconnect_timeout=self._patience,
            name="smoothapi",
        )

    def run(
        self, statement: str, *values: Any, patience: float | None = None
    ) -> list[tuple[Any, ...]]:
        """Make one statement, which is one transaction; return its rows.

        Where the connection is lost before the outcome is known it is made again, until patience
        ends: so it must be one that may be made twice with the effect of one.

        Args:
            statement: in SQL, with %s for each value; it returns rows.
            values: what to put there.
            patience: in place of the server's.

        Raises:
            StoreError: it cannot be made. Whether it was is then not known.
            UsageError: the store is closed, or the process was forked off the one that opened it.
        """
        refuse_fork(self._process)
        end = time.monotonic() + (self._patience if patience is None else patience)
        pause = _PAUSE
        while True:
            tried = time.monotonic()
            try:
                with self._pool.connection(timeout=_WAIT) as connection:
                    rows = connection.execute(statement, values or None).fetchall()
            except PoolClosed:
                raise UsageError("The store is closed. Open another.") from None
            except psycopg.Error as error:
                again = _may_be_repeated(error) and time.monotonic() <= end
                if _may_be_repeated(error) and error.sqlstate not in _REFUSED:
                    self._outage.failed(self._said(error), since=tried, again=again)
                if not again:
                    failed = self._failed(error)
                    break
            else:
                self._outage.answered()
                return rows
            # The pool mends itself; what it finds closed it replaces.
            time.sleep(pause)
            pause = min(2.0 * pause, 10.0 * _PAUSE)
        raise failed  # outside: psycopg's own error is not chained, which knows the password

    def close(self) -> None:
        """Close all connections. In a child of the process that opened them, leave them alone."""
        if os.getpid() == self._process:
            self._pool.close()

    def _options(self, address: DatabaseAddress) -> dict[str, Any]:
        try:
            return {**_NETWORK, **conninfo.conninfo_to_dict(address.url)}
        except psycopg.Error:
            # What it says may repeat a part of a password.
            failed = StoreError(
                f"The address {self.where!r} is not one that PostgreSQL's client library takes. "
                "Expected postgresql://user@host:port/database, and only options that it knows."
            )
        raise failed

    def _migrate(self, options: Mapping[str, Any]) -> None:
        """Bring the database to the schema of this version, once for all who begin at once.

        A server that is just being started is waited for; one that is not there is not.
        """
        end = time.monotonic() + min(self._patience, _WAIT)
        while True:
            try:
                with psycopg.connect(**options, row_factory=tuple_row) as connection:
                    failed = self._too_old(connection) or self._step(connection)
                    break
            except psycopg.Error as error:
                failed = self._failed(error)
                if (
                    not _may_be_repeated(error)
                    or any(said in str(error) for said in _NOT_THERE)
                    or time.monotonic() > end
                ):
                    break
            time.sleep(2.0 * _PAUSE)
        if failed is not None:
            raise failed

    def _too_old(self, connection: Connection[Any]) -> StoreError | None:
        version = connection.info.server_version
        if version >= _OLDEST:
            return None
        return StoreError(
            f"The server of {self.where!r} is PostgreSQL {version // 10_000}; "
            f"{_OLDEST // 10_000} or newer is needed."
        )

    def _step(self, connection: Connection[tuple[Any, ...]]) -> StoreError | None:
        version = _version(connection)
        if version < LATEST:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            version = _version(connection)  # another may have been here first
            if version == 0:
                _make_schema(connection)
            for number in range(version + 1, LATEST + 1):
                connection.execute(step(number))
            # Another may have led it beyond, who knows more.
            connection.execute(
                "UPDATE smoothapi.about SET version = %s WHERE version < %s", (LATEST, LATEST)
            )
        if version > LATEST:
            return StoreError(
                f"The database {self.where!r} was written by a later smoothapi (schema {version}; "
                f"this version knows up to {LATEST}). Nothing was changed: update smoothapi on "
                "this machine, or use another database."
            )
        return None

    def _said(self, error: psycopg.Error) -> str:
        """Return what an error says, in a line and without a password."""
        if isinstance(error, PoolTimeout):
            return "the server cannot be reached"
        lines = (error.diag.message_primary or str(error)).splitlines()
        return self._mask.text(lines[0].strip() if lines else type(error).__name__)

    def _failed(self, error: psycopg.Error) -> StoreError:
        return StoreError(
            f"The database {self.where!r} cannot be used: {self._said(error)}. {_advice(error)}"
            "Nothing is sent without it, since answers and budgets could not be kept"
            # Before there was a connection nothing was reserved.
            + ("; what was reserved counts as spent." if self._began else ".")
        )


def _version(connection: Connection[tuple[Any, ...]]) -> int:
    """Return the schema that a database has; 0 for none."""
    # By a query: what to_regclass says may be as old as the wait for the lock.
    made = "SELECT FROM pg_tables WHERE schemaname = 'smoothapi' AND tablename = 'about'"
    if connection.execute(made).fetchone() is None:
        return 0
    row = connection.execute("SELECT version FROM smoothapi.about").fetchone()
    return 0 if row is None else int(row[0])


def _make_schema(connection: Connection[tuple[Any, ...]]) -> None:
    # An administrator may have made it for a role that may not. IF NOT EXISTS asks for the right.
    there = "SELECT FROM pg_namespace WHERE nspname = 'smoothapi'"
    if connection.execute(there).fetchone() is None:
        connection.execute("CREATE SCHEMA smoothapi")
    connection.execute("CREATE TABLE smoothapi.about (version integer NOT NULL)")
    connection.execute("INSERT INTO smoothapi.about VALUES (0)")


def _may_be_repeated(error: psycopg.Error) -> bool:
    if isinstance(error, PoolTimeout):
        return True
    if error.sqlstate is None:  # the connection broke, or could not be made
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_AGAIN)


def _advice(error: psycopg.Error) -> str:
    state, said = error.sqlstate or "", str(error)
    for begins, words, advice in _ADVICE:
        if (begins and state.startswith(begins)) or any(re.search(word, said) for word in words):
            return advice
    if isinstance(error, PoolTimeout) or not state:
        return "Look whether it runs, and whether this machine may reach it. "
    return ""


_ADVICE = (
    (
        "3D000",
        ('database ".*" does not exist',),
        "Make it (CREATE DATABASE ... OWNER ...), or name one that there is in SMOOTHAPI_HOME. ",
    ),
    (
        "",
        ('role ".*" does not exist',),
        (
            "Name the right user in SMOOTHAPI_HOME (postgresql://USER@host/database), or make it "
            "(CREATE ROLE ... LOGIN). "
        ),
    ),
    (
        "28",
        ("authentication failed", "no password"),
        (
            "Give the password in PGPASSWORD or ~/.pgpass, and look whether user and database are "
            "the right ones. "
        ),
    ),
    (
        "42501",
        (),
        (
            "The role lacks a right: let it create the schema (GRANT CREATE ON DATABASE), or make "
            "it the owner of a schema named smoothapi. "
        ),
    ),
    ("53", (), "The server has run out of connections, memory or disk: see its log. "),
)
"""What begins the SQLSTATE, or is said, where there is no code yet; and what to do then."""


class ServerClock:
    """The server's time, told by a clock of this machine that only counts on.

    This machine's own time is never used: it may be minutes off, or be set. What is counted on is
    what the server said last, within half a minute.

    Args:
        ask: returns the server's time, in seconds since the epoch.
        tick: seconds that only count on, through a suspension too.
    """

    def __init__(self, ask: Callable[[], float], tick: Callable[[], float] | None = None) -> None:
        self._ask = ask
        self._tick = tick or _boot_time
        self._heard: tuple[float, float, float] | None = None  # tick, earliest, latest

    def heard(self, at: float, sent: float) -> None:
        """Take note of what the server said of its time.

        Args:
            at: its time, at some moment since `sent`.
            sent: what `tick` said before it was asked.
        """
        now = self._tick()
        self._heard = now, at, at + (now - sent)

    def tick(self) -> float:
        """Return the seconds that only count on."""
        return self._tick()

    def latest(self) -> float:
        """Return the latest that it may be at the server."""
        return self._bounds()[1]

    def day(self) -> int:
        """Return the day it is at the server, in days since the epoch (UTC)."""
        while True:
            earliest, latest = (int(bound // 86_400) for bound in self._bounds())
            if earliest == latest:
                return latest
            self._heard = None  # midnight is within the way there and back: ask again

    def _bounds(self) -> tuple[float, float]:
        heard = self._heard
        if heard is None or self._tick() - heard[0] > _TRUSTED_FOR:
            sent = self._tick()
            self.heard(self._ask(), sent)
            heard = self._heard
            assert heard is not None  # noqa: S101  it was just set
        since = self._tick() - heard[0]
        return heard[1] + since, heard[2] + since


_TRUSTED_FOR = 30.0  # seconds for which two clocks count on alike


def _boot_time() -> float:
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
