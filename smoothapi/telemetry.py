"""Who is told of events: the log, and OpenTelemetry if it is there.

Each event goes to the logger `smoothapi` at DEBUG as text, with its fields in the record's
attribute `smoothapi`. SMOOTHAPI_DEBUG=1 shows them on the command line. Where OpenTelemetry's API
is installed, attempts are spans, and events, pictures and dollars are counted.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from smoothapi.events import Attempted, DatabaseBack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from smoothapi.events import Event

    Hook: TypeAlias = Callable[[Event], None]

log = logging.getLogger("smoothapi")

# Its API makes what these name when it is first asked.
_PROVIDERS = ("OTEL_PYTHON_METER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER")


def emit(event: Event) -> None:
    """Tell all hooks of an event.

    Who listens may fail (a filter, an exporter); what is reported happened all the same.
    """
    for hook in HOOKS:
        try:
            hook(event)
        except Exception as error:  # noqa: BLE001  an answer that was paid for may hang on it
            log.warning("The event %r could not be told: %r", event.name, error)


def to_log(event: Event) -> None:
    """Write an event to the log, as text and as fields."""
    if log.isEnabledFor(logging.DEBUG):
        fields = asdict(event)
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        log.debug("%s %s", event.name, text, extra={"smoothapi": {"event": event.name, **fields}})


def to_counters(event: Event) -> None:
    """Count an event, and what an attempt sent and cost, by OpenTelemetry's instruments."""
    if not _may_be_listening():
        return
    counters = _counters()
    if counters is None:
        return
    events, pictures, dollars, away = counters
    of = {"provider": event.provider}
    events.add(1, {"event": event.name, **of})
    if isinstance(event, Attempted):
        of["outcome"] = event.outcome
        pictures.add(event.pictures, of)
        dollars.add(event.dollars, of)
    if isinstance(event, DatabaseBack):
        away.record(event.seconds)


HOOKS: tuple[Hook, ...] = (to_log, to_counters)


def attempt_span(provider: str, pictures: int) -> AbstractContextManager[object]:
    """Return a context for one attempt: a span, where somebody collects spans."""
    tracer = _tracer() if _may_be_listening() else None
    if tracer is None or _nobody_traces():
        return _NO_SPAN
    return _span(tracer, provider, pictures)


@contextmanager
def _span(tracer: Any, provider: str, pictures: int) -> Generator[None]:
    stack = ExitStack()
    try:
        stack.enter_context(
            tracer.start_as_current_span(
                "smoothapi.attempt",
                attributes={"smoothapi.provider": provider, "smoothapi.pictures": pictures},
            )
        )
    except Exception as error:  # noqa: BLE001  as in `emit`
        log.warning("A span could not be told: %r", error)
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        try:
            stack.__exit__(type(failed) if failed else None, failed, None)
        except Exception as error:  # noqa: BLE001
            if error is not failed:
                log.warning("A span could not be told: %r", error)


_NO_SPAN = nullcontext()


def _may_be_listening() -> bool:
    """Whether somebody may have set up OpenTelemetry: its API is not loaded to find out."""
    return "opentelemetry" in sys.modules or any(name in os.environ for name in _PROVIDERS)


def _nobody_traces() -> bool:
    """Whether OpenTelemetry's API is installed and no SDK set up (yet): spans would be no-ops."""
    from opentelemetry import trace  # noqa: PLC0415

    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def _tracer() -> Any:
    try:  # a name space package of that name may lie around without the API in it
        from opentelemetry import trace  # noqa: PLC0415
    except ImportError:
        return None
    return trace.get_tracer("smoothapi")


@cache
def _counters() -> Any:
    """Return what counts events, pictures sent, dollars, and seconds without the database."""
    try:
        from opentelemetry import metrics  # noqa: PLC0415
    except ImportError:
        return None
    meter = metrics.get_meter("smoothapi")
    return (
        meter.create_counter(
            "smoothapi.events", description="what the dispatcher did, by event and provider"
        ),
        meter.create_counter(
            "smoothapi.pictures", description="pictures sent, retries included, by outcome"
        ),
        meter.create_counter("smoothapi.dollars", unit="USD", description="their price"),
        meter.create_histogram(
            "smoothapi.database_lost", unit="s", description="how long the database was away"
        ),
    )
