"""What happens between a run and its provider, as values; `smoothapi.telemetry` tells of them.

No event carries a payload, a key or an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Outcome = Literal["answered", "refused", "throttled", "failed", "fatal", "unsent", "left"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        name: one word, the same for all events of a class.
        provider: the adapter's name, "" where it is not about one.
    """

    name: ClassVar[str]
    provider: str


@dataclass(frozen=True, slots=True)
class Stored(Event):
    """A variant's answer was found in the store."""

    name: ClassVar[str] = "stored"
    index: int


@dataclass(frozen=True, slots=True)
class Paced(Event):
    """A request waits for the pace, in seconds."""

    name: ClassVar[str] = "paced"
    seconds: float


@dataclass(frozen=True, slots=True)
class Reserved(Event):
    """So many attempts were set aside in the ledger; the log has always called them queries."""

    name: ClassVar[str] = "reserved"
    queries: int


@dataclass(frozen=True, slots=True)
class Attempted(Event):
    """A request was made.

    Attributes:
        outcome: what came of it.
        pictures: how many were in it.
        dollars: their price.
        seconds: how long it took.
    """

    name: ClassVar[str] = "attempt"
    outcome: Outcome
    pictures: int
    dollars: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """So many attempts of one reservation were made, and the ledger knows; named as above."""

    name: ClassVar[str] = "settled"
    queries: int


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """A request is about to be made again: which attempt it will be, after how many seconds."""

    name: ClassVar[str] = "retry"
    attempt: int
    wait: float


@dataclass(frozen=True, slots=True)
class Throttled(Event):
    """The provider asked to be called less often.

    Attributes:
        per_second: the pace from now on.
        pause: seconds before anything more is sent.
    """

    name: ClassVar[str] = "throttled"
    per_second: float
    pause: float


@dataclass(frozen=True, slots=True)
class BreakerChanged(Event):
    """The service was taken to be down ("open"), or answers again ("closed")."""

    name: ClassVar[str] = "breaker"
    state: Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class Split(Event):
    """Pictures that were to go together are sent in several requests."""

    name: ClassVar[str] = "split"
    pictures: int
    requests: int


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """A run ended; the counts are those of `smoothapi.dispatch.Totals`."""

    name: ClassVar[str] = "ended"
    delivered: int
    queries: int
    attempts: int
    retries: int
    cached: int
    failed: int
    waited: float
    dollars: float


@dataclass(frozen=True, slots=True)
class Uncertified(Event):
    """A wrapped client's call was answered without a certificate, since this ended it first."""

    name: ClassVar[str] = "uncertified"
    ended: str


@dataclass(frozen=True, slots=True)
class DatabaseLost(Event):
    """The database of the home does not answer; statements wait and are made again."""

    name: ClassVar[str] = "database_lost"


@dataclass(frozen=True, slots=True)
class DatabaseBack(Event):
    """The database of the home answers again.

    Attributes:
        seconds: since it was lost.
        repeated: how often a statement was made again meanwhile.
    """

    name: ClassVar[str] = "database_back"
    seconds: float
    repeated: int


@dataclass(frozen=True, slots=True)
class Served(Event):
    """A gateway answered a request.

    Attributes:
        operation: the provider's name for what was asked, as the caller wrote it.
        outcome: one word for each picture, with commas between.
        status: of HTTP.
        seconds: how long it took.
    """

    name: ClassVar[str] = "served"
    operation: str
    outcome: str
    status: int
    seconds: float
