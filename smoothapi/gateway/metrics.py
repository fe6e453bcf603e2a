"""What a gateway tells Prometheus: by provider, caller and outcome, never by what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from smoothapi.gateway.access import Access
    from smoothapi.store import Account
    from smoothapi.wrapping import Finding

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The metrics of one application, in a registry of their own. Used in the event loop alone.

    Args:
        working: returns how many calls are at work.
        waiting: returns how many wait for their turn.
        held: returns how many bytes of pictures are held.
        accounts: returns how the budgets stand.
    """

    def __init__(
        self,
        *,
        working: Callable[[], int],
        waiting: Callable[[], int],
        held: Callable[[], int],
        accounts: Callable[[], Sequence[Account]],
    ) -> None:
        self._registry = registry = CollectorRegistry()
        of = ("provider", "caller")
        self._requests = Counter(
            "smoothapi_gateway_requests",
            "Requests that were answered, by status of HTTP",
            (*of, "status"),
            registry=registry,
        )
        self._pictures = Counter(
            "smoothapi_gateway_pictures",
            "Pictures, by outcome: certified, abstained, or what ended the votes",
            (*of, "outcome"),
            registry=registry,
        )
        self._agreement = Counter(
            "smoothapi_gateway_plain_label",
            "Whether the best label of the provider's own answer was certified",
            (*of, "certified"),
            registry=registry,
        )
        self._attempts = Counter(
            "smoothapi_gateway_certified_attempts",
            "Attempts for pictures whose votes came to an end, retries included",
            of,
            registry=registry,
        )
        self._dollars = Counter(
            "smoothapi_gateway_certified_dollars",
            "Their price by the price list; budgets tell of all that was sent",
            of,
            registry=registry,
        )
        self._seconds = Histogram(
            "smoothapi_gateway_seconds",
            "From a request's headers to its reply",
            of,
            buckets=_SECONDS,
            registry=registry,
        )
        self._queued = Histogram(
            "smoothapi_gateway_queued_seconds",
            "Of these, those in which it waited for its turn",
            ("provider",),
            buckets=_SECONDS,
            registry=registry,
        )
        gauges: tuple[tuple[str, str, Callable[[], int]], ...] = (
            ("working", "Calls at work", working),
            ("waiting", "Calls that wait for their turn", waiting),
            ("held_bytes", "Bytes of pictures that are held", held),
        )
        for name, text, read in gauges:
            gauge = Gauge(f"smoothapi_gateway_{name}", text, registry=registry)
            gauge.set_function(read)
        registry.register(_Budgets(accounts))

    def count(self, access: Access, findings: Sequence[Finding]) -> None:
        """Count a request that was answered."""
        of = {"provider": access.provider, "caller": access.caller}
        self._requests.labels(**of, status=str(access.status)).inc()
        self._seconds.labels(**of).observe(access.seconds)
        self._queued.labels(provider=access.provider).observe(access.queued)
        for outcome in filter(None, access.outcomes):
            self._pictures.labels(**of, outcome=outcome).inc()
        for finding in findings:
            best = max(finding.labels, key=lambda label: label.own, default=None)
            if best is not None:
                said = "yes" if best.certified else "no"
                self._agreement.labels(**of, certified=said).inc()
            if finding.certificate is not None:
                self._attempts.labels(**of).inc(finding.certificate.attempts)
                self._dollars.labels(**of).inc(finding.certificate.cost)

    def text(self) -> bytes:
        """Return all of it in Prometheus's format."""
        return generate_latest(self._registry)


class _Budgets:
    """A collector of prometheus-client: how the budgets stand when it is asked."""

    def __init__(self, accounts: Callable[[], Sequence[Account]]) -> None:
        self._accounts = accounts

    def describe(self) -> list[Any]:
        """Say nothing before the first look: the names are this module's own."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return attempts and dollars of each budget in its latest period."""
        of = ("budget", "period")
        attempts = GaugeMetricFamily(
            "smoothapi_gateway_budget_attempts", "Attempts sent or reserved", labels=of
        )
        dollars = GaugeMetricFamily(
            "smoothapi_gateway_budget_dollars", "Dollars spent or reserved", labels=of
        )
        latest = {account.name: account for account in self._accounts()}
        for account in latest.values():
            attempts.add_metric((account.name, account.period), account.attempts)
            dollars.add_metric((account.name, account.period), float(account.dollars))
        yield attempts
        yield dollars
