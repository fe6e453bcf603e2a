"""An answer as a row, ready for JSON: what every store, recording and export holds of it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smoothapi.answer import Answer
from smoothapi.errors import PermanentError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STEPS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()
"""Step n leads a row from schema n + 1 to n + 2. Rows are brought up to date when they are read, so
that recordings and exports of any age can be read too. Steps are added, never changed."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer to be kept.

    Attributes:
        asked: all that decided it, ready for JSON; its key is made of this.
        outcome: what was answered.
        payload: SHA-256 of the bytes that were sent, "" if that is not known.
        key: `answer_key(asked)`, where it is at hand.
    """

    asked: Mapping[str, object]
    outcome: Answer | PermanentError
    payload: str = ""
    key: str = ""

    def row(self) -> dict[str, Any]:
        """Return what the store holds of it."""
        return answer_row(self.asked, self.outcome, self.payload)


def answer_row(
    asked: Mapping[str, object],
    outcome: Answer | PermanentError,
    payload: str = "",
    *,
    gave_up: bool = False,
) -> dict[str, Any]:
    """Return what is kept of an answer, ready for JSON."""
    row: dict[str, Any] = {"schema": _schema(), "stored": int(time.time()), "asked": dict(asked)}
    if isinstance(outcome, Answer):
        row["answer"] = outcome.to_dict()
    else:
        row["gave_up" if gave_up else "failed"] = str(outcome)
    if payload:
        row["payload"] = payload
    return row


def outcome_of(row: Any) -> Answer | PermanentError:
    """Return the answer, or the failure, that a row holds; of this schema or an earlier one.

    Raises:
        StoreError: a later smoothapi wrote it.
    """
    row = up_to_date(row)
    for failure in ("failed", "gave_up"):
        if failure in row:
            return PermanentError(str(row[failure]))
    return Answer.from_dict(row["answer"])


def up_to_date(row: Any) -> dict[str, Any]:
    """Return a row in the schema of this version.

    Raises:
        StoreError: it has none that is known.
    """
    schema = row["schema"]
    if type(schema) is not int or schema < 1:
        raise StoreError(f"A stored answer has schema {schema!r}, which never was: it is damaged.")
    if schema > _schema():
        raise StoreError(
            f"A stored answer was written by a later smoothapi (schema {schema}; this version "
            f"knows up to {_schema()}). Update smoothapi, or use another SMOOTHAPI_HOME."
        )
    for step in _STEPS[schema - 1 :]:
        row = step(dict(row))
    return {**row, "schema": _schema()}


def _schema() -> int:
    return 1 + len(_STEPS)


def answer_key(parts: Mapping[str, object]) -> str:
    """Return the cache key of what decided an answer: SHA-256 of its canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
