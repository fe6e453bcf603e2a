"""The steps that led to the tables and functions of the database's schema `smoothapi`.

Step n (steps/n.sql) leads from schema n - 1 to n; a new database has 0. Steps are added, never
changed. All that are missing are made in one transaction.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

LATEST = 3
"""The schema of this version."""

LOCK = 32489947700422753
"""The advisory lock under which the ledger and the schema are written, one transaction at a time;
steps/1.sql has it, too."""


@cache
def step(number: int) -> str:
    """Return the statements that lead to a schema from the one before it."""
    return (files(__package__) / "steps" / f"{number}.sql").read_text(encoding="utf-8")
