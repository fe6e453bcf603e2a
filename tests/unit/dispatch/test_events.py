"""What is seen from outside: events, OpenTelemetry, totals on success and on failure."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image

from smoothapi import parts, telemetry
from smoothapi.cli import run as run_command
from smoothapi.dispatch import Retry
from smoothapi.errors import BudgetExceededError, FatalError, ThrottledError, TransientError
from smoothapi.events import DatabaseBack, DatabaseLost, Stored
from smoothapi.store import Budget
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import run


@pytest.fixture
def happened(caplog):
    """Return the events so far, or those of one name."""
    caplog.set_level(logging.DEBUG, logger="smoothapi")

    def named(name=None):
        found = [record.smoothapi for record in caplog.records if hasattr(record, "smoothapi")]
        return [event for event in found if name in (None, event["event"])]

    return named


@pytest.fixture
def collected(monkeypatch):
    """Give the dispatcher a tracer and counters of OpenTelemetry's SDK; read what they got."""
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    metering = MeterProvider([metrics])
    from opentelemetry import metrics as metrics_api
    from opentelemetry import trace as trace_api

    monkeypatch.setattr(trace_api, "get_tracer", tracing.get_tracer)
    monkeypatch.setattr(trace_api, "get_tracer_provider", lambda: tracing)
    monkeypatch.setattr(metrics_api, "get_meter", metering.get_meter)
    telemetry._tracer.cache_clear()
    telemetry._counters.cache_clear()

    def counted(name):
        points = {}
        for resource in metrics.get_metrics_data().resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            of = tuple(sorted(dict(point.attributes).items()))
                            points[of] = point.value if hasattr(point, "value") else point.sum
        return points

    yield spans.get_finished_spans, counted
    telemetry._tracer.cache_clear()
    telemetry._counters.cache_clear()
    tracing.shutdown()
    metering.shutdown()


def busy_once(payload, attempt):
    return TransientError("busy") if attempt == 1 and payload == b"1" else answer()


def test_a_retry_is_an_event_with_its_number_and_its_wait(store, happened):
    run(ScriptedAdapter(busy_once), store, count=3)
    [retry] = happened("retry")
    assert (retry["provider"], retry["attempt"]) == ("scripted", 2)
    assert 0.0 <= retry["wait"] <= 0.002


def test_throttling_is_an_event_with_the_new_pace_and_the_pause(store, happened):
    run(
        ScriptedAdapter(
            lambda p, n: ThrottledError("429", retry_after=0.1) if n == 1 else answer()
        ),
        store,
        count=1,
    )
    [throttled] = happened("throttled")
    assert throttled["per_second"] > 0.0
    assert 0.0 < throttled["pause"] <= 0.2
    assert [e["outcome"] for e in happened("attempt")] == ["throttled", "answered"]


def test_an_outage_opens_and_closes_the_breaker_once(store, happened):
    sent = []

    def script(payload, attempt):
        sent.append(payload)
        return TransientError("refused") if len(sent) <= 8 else answer()

    run(ScriptedAdapter(script), store, count=6, concurrency=4)
    assert [event["state"] for event in happened("breaker")] == ["open", "closed"]


def test_what_is_reserved_is_settled(store, happened):
    adapter = ScriptedAdapter(busy_once)
    run(adapter, store, count=10, budget=Budget(attempts=1000))
    # A block is reserved whole; what of it was not used is given back, not settled.
    assert sum(event["queries"] for event in happened("reserved")) >= adapter.sent == 11
    assert sum(event["queries"] for event in happened("settled")) == 11
    [ended] = happened("ended")
    assert (ended["queries"], ended["attempts"], ended["retries"]) == (10, 11, 1)
    assert ended["dollars"] == pytest.approx(0.011)


def test_attempts_are_spans_and_pictures_and_dollars_are_counted(store, collected):
    spans, counted = collected
    run(ScriptedAdapter(busy_once), store, count=5)
    made = spans()
    assert [span.name for span in made] == ["smoothapi.attempt"] * 6
    assert all(span.attributes["smoothapi.provider"] == "scripted" for span in made)
    assert sum(span.attributes["smoothapi.pictures"] for span in made) == 6
    assert sum(not span.status.is_ok and bool(span.events) for span in made) == 1
    assert counted("smoothapi.pictures") == {
        (("outcome", "answered"), ("provider", "scripted")): 5,
        (("outcome", "failed"), ("provider", "scripted")): 1,
    }
    assert sum(counted("smoothapi.dollars").values()) == pytest.approx(0.006)
    seen = counted("smoothapi.events")
    assert seen[("event", "attempt"), ("provider", "scripted")] == 6
    assert seen[("event", "retry"), ("provider", "scripted")] == 1


def test_how_long_the_database_was_away_is_measured(collected):
    _, counted = collected
    for seconds in (0.25, 3.0):
        telemetry.emit(DatabaseLost(""))
        telemetry.emit(DatabaseBack("", seconds, 2))
    assert counted("smoothapi.database_lost") == {(): 3.25}
    seen = counted("smoothapi.events")
    assert [n for (event, _), n in seen.items() if event[1].startswith("database")] == [2, 2]


def test_an_error_carries_the_totals_of_its_run(store):
    def script(payload, attempt):
        if payload != b"0":
            return answer()
        return TransientError("busy") if attempt < 3 else FatalError("key revoked")

    adapter = ScriptedAdapter(script)
    retry = Retry(attempts=4, base=0.01, cap=0.02)
    with pytest.raises(FatalError) as caught:
        run(adapter, store, count=20, concurrency=1, retry=retry)
    error = caught.value
    assert error.attempts == adapter.sent
    assert error.retries == adapter.sent - len(adapter.attempts) == 2
    assert error.cost == pytest.approx(adapter.sent / 1000)
    assert error.waited > 0.0
    with pytest.raises(BudgetExceededError) as caught:
        run(ScriptedAdapter(), store, count=100, budget=Budget(attempts=3), concurrency=1)
    assert (caught.value.attempts, caught.value.cost) == (3, pytest.approx(0.003))


@pytest.mark.parametrize("failing", [False, True])
def test_the_command_line_shows_retries_and_waits_if_there_were_any(monkeypatch, capsys, failing):
    def script(payload, attempt):
        if attempt == 1:
            return ThrottledError("429", retry_after=0.2)
        return FatalError("key revoked") if failing else answer()

    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    monkeypatch.setenv("SMOOTHAPI_PLAIN", "false")
    monkeypatch.setattr(parts, "make_adapter", lambda name, **_: ScriptedAdapter(script))
    Image.fromarray(np.zeros((24, 32, 3), dtype=np.uint8)).save("photo.png")
    command = ["certify", "photo.png", "--alpha", "0.3", "--radius", "0.01"]
    assert run_command(command) == (4 if failing else 0)
    said = capsys.readouterr()
    shown = said.err if failing else said.out
    assert "retries" in shown
    assert "s waited" in shown
    if not failing:
        assert run_command(command) == 0
        out = capsys.readouterr().out
        assert "retries" not in out
        assert "waited" not in out


def test_opentelemetry_is_not_loaded_before_somebody_may_have_set_it_up(monkeypatch):
    asked = []
    monkeypatch.setattr(telemetry, "_counters", lambda: asked.append("counters"))
    monkeypatch.setattr(telemetry, "_tracer", lambda: asked.append("tracer"))

    def happens():
        asked.clear()
        with telemetry.attempt_span("mock", 1):
            telemetry.emit(Stored("mock", 1))
        return sorted(asked)

    assert happens() == ["counters", "tracer"]  # it is imported
    monkeypatch.delitem(sys.modules, "opentelemetry")
    assert happens() == []
    monkeypatch.setenv("OTEL_PYTHON_METER_PROVIDER", "sdk_meter_provider")
    assert happens() == ["counters", "tracer"]
