"""What a gateway tells Prometheus, and OpenTelemetry where its API is installed."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from smoothapi.gateway.counting import METRICS, SECONDS, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from smoothapi.gateway.access import Access
    from smoothapi.gateway.room import Room
    from smoothapi.store import Account
    from smoothapi.wrapping import Finding

_GAUGES: dict[str, tuple[str, Callable[[Room], int]]] = {
    "working": ("Calls at work", lambda room: room.working),
    "waiting": ("Calls that wait for their turn", lambda room: room.inside - room.working),
    "held_bytes": ("Bytes of pictures that are held", lambda room: room.held),
}


class Counts(Protocol):
    """Who counts requests that were answered."""

    def count(self, access: Access, findings: Sequence[Finding]) -> None:
        """Count a request that was answered."""


class PrometheusMetrics:
    """The metrics of one application, in a registry of their own.

    Args:
        room: who is at work and who waits.
        accounts: returns how the budgets stand.

    Raises:
        ImportError: prometheus-client is not installed.
    """

    def __init__(self, room: Room, accounts: Callable[[], Sequence[Account]]) -> None:
        from prometheus_client import (  # noqa: PLC0415  an extra
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
        )
        from prometheus_client.exposition import CONTENT_TYPE_LATEST  # noqa: PLC0415

        self.content_type: str = CONTENT_TYPE_LATEST
        self._registry = registry = CollectorRegistry()
        self._measures: dict[str, Any] = {}
        self._of: dict[tuple[str, ...], Any] = {}  # looking one up costs more than counting
        for name, measure in METRICS.items():
            full = f"smoothapi_gateway_{name}"
            if measure.kind == "sum":
                made: Any = Counter(full, measure.text, measure.by, registry=registry)
            else:
                made = Histogram(full, measure.text, measure.by, buckets=SECONDS, registry=registry)
            self._measures[name] = made
        for name, (text, read) in _GAUGES.items():
            gauge = Gauge(f"smoothapi_gateway_{name}", text, registry=registry)
            gauge.set_function(partial(read, room))
        registry.register(_Budgets(accounts))

    def count(self, access: Access, findings: Sequence[Finding]) -> None:
        """Count a request that was answered."""
        for one in counted(access, findings):
            key = one.name, *one.of.values()
            measure = self._of.get(key)
            if measure is None:
                measure = self._of[key] = self._measures[one.name].labels(**one.of)
            if METRICS[one.name].kind == "sum":
                measure.inc(one.amount)
            else:
                measure.observe(one.amount)

    def text(self) -> bytes:
        """Return all of it in Prometheus's format."""
        from prometheus_client import generate_latest  # noqa: PLC0415

        return generate_latest(self._registry)


class OpenTelemetryMetrics:
    """The same by OpenTelemetry's API, for whatever exporter the program has set up.

    Args:
        room: who is at work and who waits; it may go while the instruments stay.

    Raises:
        ImportError: the API is not installed.
    """

    def __init__(self, room: Room) -> None:
        from opentelemetry import metrics  # noqa: PLC0415

        meter = metrics.get_meter("smoothapi.gateway")
        self._measures: dict[str, Any] = {}
        for name, measure in METRICS.items():
            full = f"smoothapi.gateway.{name}"
            if measure.kind == "sum":
                made: Any = meter.create_counter(full, measure.unit, measure.text)
            else:
                made = meter.create_histogram(
                    full,
                    measure.unit,
                    measure.text,
                    explicit_bucket_boundaries_advisory=SECONDS,
                )
            self._measures[name] = made
        known = weakref.ref(room)
        for name, (text, read) in _GAUGES.items():

            def looked_up(
                _: object, read: Callable[[Room], int] = read
            ) -> Iterable[metrics.Observation]:
                there = known()
                return [] if there is None else [metrics.Observation(read(there))]

            meter.create_observable_gauge(f"smoothapi.gateway.{name}", [looked_up], "1", text)

    def count(self, access: Access, findings: Sequence[Finding]) -> None:
        """Count a request that was answered."""
        for one in counted(access, findings):
            measure = self._measures[one.name]
            if METRICS[one.name].kind == "sum":
                measure.add(one.amount, dict(one.of))
            else:
                measure.record(one.amount, dict(one.of))


class _Budgets:
    """A collector of prometheus-client: how the budgets stand when it is asked."""

    def __init__(self, accounts: Callable[[], Sequence[Account]]) -> None:
        self._accounts = accounts

    def describe(self) -> list[Any]:
        """Say nothing before the first look: the names are this module's own."""
        return []

    def collect(self) -> Iterator[Any]:
        """Return attempts and dollars of each budget in its latest period."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

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
