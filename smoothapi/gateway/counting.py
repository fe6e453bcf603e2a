"""What is counted of each request that was answered, whoever collects it.

By provider and caller, never by what is sent: a label, a picture or a path in a name would tell of
it, and have no end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from smoothapi.gateway.access import Access
    from smoothapi.wrapping import Finding

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Where the buckets of the histograms end."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is counted.

    Attributes:
        kind: a sum that only grows, or a distribution of seconds.
        text: what it is, for people.
        by: names of what it is told apart by.
        unit: of OpenTelemetry, "1" for a number of things.
    """

    kind: Literal["sum", "seconds"]
    text: str
    by: tuple[str, ...]
    unit: str = "1"


_OF = ("provider", "caller")

METRICS: dict[str, Metric] = {
    "requests": Metric("sum", "Requests that were answered, by status of HTTP", (*_OF, "status")),
    "pictures": Metric(
        "sum",
        "Pictures, by outcome: certified, abstained, or what ended the votes",
        (*_OF, "outcome"),
    ),
    "plain_label": Metric(
        "sum",
        "Whether the best label of the provider's own answer was certified",
        (*_OF, "certified"),
    ),
    "certified_attempts": Metric(
        "sum", "Attempts for pictures whose votes came to an end, retries included", _OF
    ),
    "certified_dollars": Metric(
        "sum", "Their price by the price list; budgets tell of all that was sent", _OF, "USD"
    ),
    "seconds": Metric("seconds", "From a request's headers to its reply", _OF, "s"),
    "queued_seconds": Metric(
        "seconds", "Of these, those in which it waited for its turn", ("provider",), "s"
    ),
}
"""Name -> what it is."""


@dataclass(frozen=True, slots=True)
class Counted:
    """An amount of the measure of that name, and what it is told apart by."""

    name: str
    amount: float
    of: Mapping[str, str]


def counted(access: Access, findings: Sequence[Finding]) -> Iterator[Counted]:
    """Yield what a request that was answered, and what was found for it, add to the measures."""
    of = {"provider": access.provider, "caller": access.caller}
    yield Counted("requests", 1, {**of, "status": str(access.status)})
    yield Counted("seconds", access.seconds, of)
    yield Counted("queued_seconds", access.queued, {"provider": access.provider})
    for outcome in filter(None, access.outcomes):
        yield Counted("pictures", 1, {**of, "outcome": outcome})
    for finding in findings:
        best = max(finding.labels, key=lambda label: label.own, default=None)
        if best is not None:
            said = "yes" if best.certified else "no"
            yield Counted("plain_label", 1, {**of, "certified": said})
        if finding.certificate is not None:
            yield Counted("certified_attempts", finding.certificate.attempts, of)
            yield Counted("certified_dollars", finding.certificate.cost, of)
