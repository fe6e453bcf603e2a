"""One request that was answered, as the access log and the metrics have it."""

from __future__ import annotations

from dataclasses import dataclass

from smoothapi.gateway.gateway import joined
from smoothapi.text import printable


@dataclass(frozen=True, slots=True)
class Access:
    """One request that was answered, as the access log has it: no picture, no key.

    Attributes:
        caller: name, "" if it was not let in.
        provider: name, "" for the gateway's own pages.
        operation: the provider's name for it, no longer than `LONGEST_OPERATION`.
        status: of HTTP.
        outcomes: as of `Answered`.
        certificates: ids.
        bytes: of the body that came.
        seconds: from its headers to its reply.
        queued: of these, those in which it waited for its turn.
    """

    caller: str
    provider: str
    operation: str
    status: int
    outcomes: tuple[str, ...]
    certificates: tuple[str, ...]
    bytes: int
    seconds: float
    queued: float

    def __str__(self) -> str:
        facts = {
            "caller": self.caller,
            "provider": self.provider,
            "operation": self.operation,
            "status": self.status,
            "outcome": joined(self.outcomes),
            "certificate": joined(self.certificates),
            "bytes": self.bytes,
            "seconds": f"{self.seconds:.3f}",
            "queued": f"{self.queued:.3f}",
        }
        return " ".join(
            f"{name}={printable(str(value)).replace(' ', '_') or '-'}"
            for name, value in facts.items()
        )
