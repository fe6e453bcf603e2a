"""What was run: when, by whom, with which settings, at what cost and to what end.

A record is history and nothing else: no certificate, budget or answer rests on it, so a store
that cannot keep one has lost nothing that was paid for.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping  # noqa: TC003  a field's type
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from smoothapi.files import parse_json, to_json

SCHEMA = "smoothapi.run/1"
UNDER_WAY = "under way"
DONE = "done"
_PART = re.compile("[0-9A-Za-z-]{1,40}")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a command, or one process of a wrapped client or a gateway.

    Attributes:
        command: what ran, in one word: "certify", "study", "wrap".
        id: that the store gave it, from which the others' order follows; "" before.
        began: when, by the store's clock (ISO 8601, UTC); "" before.
        ended: likewise; "" while it is under way, and where its process was killed.
        outcome: "under way", "done", or what ended it, in words.
        by: who ran it: the user and the machine, or a gateway's caller.
        line: the command line, "" from Python; without what opens a door.
        provider: who was asked.
        settings: what decided, ready for JSON.
        counts: photos by what became of them.
        attempts: pictures sent, retries included: what is paid for.
        cached: answers that were stored already.
        dollars: their price.
        photos: the first photos, each with what became of it, ready for JSON.
    """

    command: str
    id: str = ""
    began: str = ""
    ended: str = ""
    outcome: str = UNDER_WAY
    by: str = ""
    line: str = ""
    provider: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 0
    cached: int = 0
    dollars: float = 0.0
    photos: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; `from_json` reads it again."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_json(self) -> str:
        """Return it as one line of JSON."""
        return to_json(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Rebuild a record.

        Raises:
            ValueError: the text is none, or of another schema.
        """
        data = parse_json(text)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError(f"it has not the schema {SCHEMA}")
        known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        try:
            record = cls(**{**known, "photos": tuple(known.get("photos", ()))})
        except TypeError as error:
            raise ValueError("it lacks a field") from error
        _check(record)
        return record


def _check(record: RunRecord) -> None:
    texts = ("command", "id", "began", "ended", "outcome", "by", "line", "provider")
    if not all(isinstance(getattr(record, name), str) for name in texts):
        raise ValueError("a text of it is none")
    numbers = (record.attempts, record.cached, record.dollars, *_values(record.counts))
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        raise ValueError("a number of it is none")
    if not isinstance(record.settings, dict) or not all(isinstance(p, dict) for p in record.photos):
        raise ValueError("its settings or photos are no objects")


def _values(counts: object) -> list[Any]:
    if not isinstance(counts, dict):
        raise ValueError("its counts are no object")  # noqa: TRY004  one error for a bad file
    return list(counts.values())


def new_id(now: float) -> str:
    """Return an id that sorts by time, at seconds since the epoch."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}"


def moment(now: float) -> str:
    """Return a time in seconds since the epoch as it stands in a record."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def is_part(text: str) -> bool:
    """Whether a text can be the beginning or the end of an id."""
    return _PART.fullmatch(text) is not None


def has_part(identity: str, part: str) -> bool:
    """Whether an id begins or ends with a text."""
    return identity.startswith(part) or identity.endswith(part)
