"""The accounts of budgets in the database of a home: how they stand, and how they are mended."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING

from smoothapi.store.limits import NANO, OWN_ACCOUNT
from smoothapi.store.owners import owner_is_dead
from smoothapi.store.protocols import Account

if TYPE_CHECKING:
    from sqlite3 import Connection

    from smoothapi.store.local.database import Database


def accounts(database: Database) -> list[Account]:
    """Return how every budget of a home stands; unnamed budgets of a run are left out."""
    with database.transaction() as sql:
        rows = sql.execute(
            "SELECT name, period, queries, nano, query_limit, nano_limit FROM accounts "
            "ORDER BY name, period"
        ).fetchall()
        reservations = sql.execute("SELECT accounts, queries FROM reservations").fetchall()
        reserved: dict[tuple[str, str], int] = {}
        for text, attempts in reservations:
            for name, period in json.loads(text):
                reserved[name, period] = reserved.get((name, period), 0) + attempts
    return [
        Account(
            name=name,
            period=period,
            attempts=attempts,
            dollars=Decimal(nano) / NANO,
            reserved=reserved.get((name, period), 0),
            attempt_limit=attempt_limit,
            dollar_limit=None if nano_limit is None else Decimal(nano_limit) / NANO,
        )
        for name, period, attempts, nano, attempt_limit, nano_limit in rows
        if reserved.get((name, period)) or not OWN_ACCOUNT.fullmatch(name)
    ]


def release_abandoned(database: Database, *, everywhere: bool = False) -> int:
    """Give back what processes reserved that are gone; return how many attempts.

    Do this only when you know that those attempts were not billed: some of them were sent, since
    up to twice 32 are reserved at once.

    Args:
        database: of the home.
        everywhere: whatever is reserved, also by processes that cannot be looked at from here (of
            another host or container). Only when none is running.
    """
    with database.transaction() as sql:
        rows = sql.execute("SELECT id, owner, queries FROM reservations").fetchall()
        abandoned = [row for row in rows if everywhere or owner_is_dead(row[1])]
        for number, _, _ in abandoned:
            reduce_reservation(sql, number, 0, 0)
            sql.execute("DELETE FROM reservations WHERE id = ?", (number,))
        # What budgets without a name left behind when their process was killed.
        for (name,) in sql.execute("SELECT DISTINCT name FROM accounts").fetchall():
            own = OWN_ACCOUNT.fullmatch(name)
            if own and owner_is_dead(own[1] or ""):
                sql.execute("DELETE FROM accounts WHERE name = ?", (name,))
    return sum(row[2] for row in abandoned)


def reset(database: Database, name: str) -> int:
    """Forget what was spent under a budget's name, in all periods; return how many accounts."""
    with database.transaction() as sql:
        # Open reservations belong to the old account; releasing them must not credit the new one.
        for number, text in sql.execute("SELECT id, accounts FROM reservations").fetchall():
            kept = [key for key in json.loads(text) if key[0] != name]
            sql.execute(
                "UPDATE reservations SET accounts = ? WHERE id = ?", (json.dumps(kept), number)
            )
        return sql.execute("DELETE FROM accounts WHERE name = ?", (name,)).rowcount


def reduce_reservation(sql: Connection, number: int, attempts: int, nano: int) -> None:
    """Reduce a reservation, its accounts and its provider's month to what was sent of it."""
    row = sql.execute(
        "SELECT provider, month, accounts, queries, nano FROM reservations WHERE id = ?", (number,)
    ).fetchone()
    if row is None:  # somebody released it as abandoned
        return
    provider, month, text, reserved, price = row
    for name, period in json.loads(text):
        sql.execute(
            "UPDATE accounts SET queries = queries - ?, nano = nano - ? "
            "WHERE name = ? AND period = ?",
            (reserved - attempts, price - nano, name, period),
        )
    sql.execute(
        "UPDATE usage SET queries = queries - ? WHERE provider = ? AND month = ?",
        (reserved - attempts, provider, month),
    )
    sql.execute(
        "UPDATE reservations SET queries = ?, nano = ? WHERE id = ?", (attempts, nano, number)
    )


def month_of(now: float) -> str:
    """Return the calendar month (UTC) of a moment in seconds since the epoch, as 2026-11."""
    return time.strftime("%Y-%m", time.gmtime(now))
