"""An answer as a row, ready for JSON: what every store, recording and export holds of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from smoothapi.answer import Answer
from smoothapi.errors import PermanentError, StoreError
from smoothapi.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_DIGITS = 16  # of a checksum

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
        refreshes: how often it had been asked for anew, by choice and not because it was missing.
    """

    asked: Mapping[str, object]
    outcome: Answer | PermanentError
    payload: str = ""
    key: str = ""
    refreshes: int = 0

    def row(self) -> dict[str, Any]:
        """Return what the store holds of it."""
        row = answer_row(self.asked, self.outcome, self.payload)
        return {**row, "refreshes": self.refreshes} if self.refreshes else row


@dataclass(frozen=True, slots=True)
class Seen:
    """What stored answers hold, as they spell it.

    Attributes:
        labels: names of labels, and of the parents that they came with.
        categories: names of the categories that they were filed under.
    """

    labels: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


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


def refreshes_of(row: Mapping[str, Any]) -> int:
    """Return how often the answer of a row had been asked for anew, by choice."""
    count = row.get("refreshes", 0)
    return count if type(count) is int and count > 0 else 0


def stored_answer(row: Any) -> StoredAnswer | None:
    """Return the answer that a row of a recording or another store holds; None if it was given up.

    Raises:
        StoreError: it is no such row.
    """
    try:
        if "gave_up" in row:
            return None
        return StoredAnswer(
            asked=row["asked"],
            outcome=outcome_of(row),
            payload=str(row.get("payload", "")),
            key=answer_key(row["asked"]),
            refreshes=refreshes_of(row),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreError(f"it lacks what a stored answer has: {error!r}") from error


def is_first(asked: Mapping[str, object]) -> bool:
    """Whether a question is about the first variant of a photo, which counts for the whole set."""
    return asked.get("index") == 0


def counted_on(answer: StoredAnswer, erased: int) -> StoredAnswer:
    """Return an answer with the count of refreshes that its erased predecessor left, if larger."""
    if not is_first(answer.asked) or erased <= answer.refreshes:
        return answer
    return replace(answer, refreshes=erased)


def noise_key_of(asked: Mapping[str, object]) -> str | None:
    """Return the id of the key whose noise an answer is about; None where it is about no noise."""
    noise = asked.get("noise")
    return noise if isinstance(noise, str) else None


class UnreadableRowError(ValueError):
    """A kept text is no answer, or not the one that was kept: it is damaged."""


def to_text(row: Mapping[str, Any]) -> str:
    """Return a row as it is kept: JSON of one line that ends with a checksum of the text so far."""
    text = json.dumps(row, separators=(",", ":"))[:-1]
    return f'{text},"sum":"{_digest(text.encode("ascii"))}"}}'


def from_text(text: str | bytes) -> tuple[str, dict[str, Any], Answer | PermanentError]:
    """Return the key, the row and the outcome that a kept text holds.

    Rows of before 0.2 have no checksum, and are as good as their JSON. Later ones have that of a
    recording, `checksum`, which takes as long to make as all else here.

    Raises:
        UnreadableRowError: it is damaged.
        StoreError: a later smoothapi wrote it.
    """
    try:
        row = json.loads(text)
        check, ends = row.pop("check", None), row.pop("sum", None)
        if ends is not None:
            whole = _ends_well(text.encode() if isinstance(text, str) else text)
        else:
            whole = check is None or check == checksum(row)
        found = answer_key(row["asked"]), up_to_date(row), outcome_of(row)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise UnreadableRowError(f"{type(e).__name__}: {e}") from e
    if not whole:
        raise UnreadableRowError("it is not as it was written")
    return found


def answer_to(key: str, text: str | bytes) -> tuple[dict[str, Any], Answer | PermanentError]:
    """Return the row and the outcome that a text holds which is kept for a key.

    Raises:
        UnreadableRowError: it is damaged, or about something else.
        StoreError: a later smoothapi wrote it.
    """
    kept_as, row, outcome = from_text(text)
    if kept_as != key:
        raise UnreadableRowError("it is the answer to another question")
    return row, outcome


def _ends_well(text: bytes) -> bool:
    head, _, tail = text.rpartition(b',"sum":"')
    return tail == f'{_digest(head)}"}}'.encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGITS]


def checksum(row: Mapping[str, Any]) -> str:
    """Return what a row's text is checked by: against accidents, not against forgers."""
    return _digest(canonical_json(row))


def up_to_date(row: Any) -> dict[str, Any]:
    """Return a row in the schema of this version.

    Raises:
        UnreadableRowError: it has none that ever was.
        StoreError: it has one of a later smoothapi.
    """
    schema = row["schema"]
    if type(schema) is not int or schema < 1:
        raise UnreadableRowError(f"schema {schema!r} never was")
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


SeenName: TypeAlias = "tuple[str, str, str, str]"
"""Provider, digest of its identity, "label" or "category", and a name that an answer holds."""


def names_in(asked: Any, outcome: Answer | PermanentError) -> set[SeenName]:
    """Return the names that an answer holds; none where it does not say of which provider."""
    if not isinstance(outcome, Answer):
        return set()
    return _names(asked, ((one.name, one.parents, one.categories) for one in outcome.labels))


def names_in_row(row: Any) -> set[SeenName]:
    """Return the names that a row holds, of this schema or an earlier one; the rest is not checked.

    Raises:
        StoreError: a later smoothapi wrote it.
        TypeError, ValueError, LookupError, AttributeError: it is damaged.
    """
    row = up_to_date(row)
    if "answer" not in row:
        return set()
    labels = ([*label, (), ()] for label in row["answer"]["labels"])
    return _names(row["asked"], ((name, above, of) for name, _, above, of, *_ in labels))


def _names(asked: Any, labels: Iterable[tuple[str, Iterable[str], Iterable[str]]]) -> set[SeenName]:
    if not isinstance(asked, Mapping):
        return set()
    provider, identity = asked.get("provider"), asked.get("identity")
    if not isinstance(provider, str):
        return set()
    source = source_of(provider, identity if isinstance(identity, Mapping) else {})
    found: set[SeenName] = set()
    for name, parents, categories in labels:
        found.update((*source, "label", each) for each in (name, *parents))
        found.update((*source, "category", each) for each in categories)
    return {each for each in found if all(map(_is_unicode, each))}


def source_of(provider: str, identity: Mapping[str, object]) -> tuple[str, str]:
    """Return what the names of a provider's answers are kept by: two models share none."""
    return provider, _digest(canonical_json(identity))


def _is_unicode(text: str) -> bool:
    """Whether a database can keep a text: one with a lone surrogate is no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def seen_among(names: Iterable[SeenName], source: tuple[str, str]) -> Seen:
    """Return those of one `source_of` names."""
    labels: set[str] = set()
    categories: set[str] = set()
    for its_provider, its_identity, kind, name in names:
        if (its_provider, its_identity) == source:
            (labels if kind == "label" else categories).add(name)
    return Seen(frozenset(labels), frozenset(categories))


def answer_key(parts: Mapping[str, object]) -> str:
    """Return the cache key of what decided an answer: SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(parts)).hexdigest()
