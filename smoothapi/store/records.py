"""What a gateway keeps besides answers and budgets: its callers' tokens, and what it found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a caller's token; its secret is not.

    Attributes:
        id: by which it is found.
        name: of the caller, who has one token.
        digest: SHA-256 of the secret.
        budget: hard limit on what the caller's calls send, such as "$50/month"; "" for none.
        per_second: most requests a second; None for no limit.
        operator: whether the caller may see everybody's certificates, the page and the metrics.
        made: seconds since the epoch, by the store's clock; 0 before it is kept.
    """

    id: str
    name: str
    digest: bytes = field(repr=False)
    budget: str = ""
    per_second: float | None = None
    operator: bool = False
    made: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """What was found about one picture.

    Attributes:
        id: of the certificate.
        caller: its name.
        provider: the provider's name.
        operation: the provider's name for what was asked.
        outcome: "certified", "abstained", or what ended the votes.
        why: in words; "" where something is certified.
        finding: as `smoothapi.wrapping.Finding.to_dict` gives it.
        at: seconds since the epoch, by the store's clock; 0 before it is kept.
    """

    id: str
    caller: str
    provider: str
    operation: str
    outcome: str
    why: str
    finding: Mapping[str, Any] = field(repr=False)
    at: float = 0.0


def token_of(row: Sequence[Any]) -> Token:
    """Return the token that a database's row holds: its columns are the attributes, in order."""
    identity, name, digest, budget, per_second, operator, made = row
    return Token(identity, name, bytes(digest), budget, per_second, bool(operator), float(made))


def record_of(row: Sequence[Any]) -> Record:
    """Return the record that a database's row holds, its finding as JSON."""
    identity, caller, provider, operation, outcome, why, finding, at = row
    return Record(
        identity, caller, provider, operation, outcome, why, json.loads(finding), float(at)
    )
