"""What the dispatcher does, seen from outside: structured log events, and OpenTelemetry if there.

Each event goes to the logger `smoothapi` at DEBUG as text, with its fields in the record's
attribute `smoothapi`. SMOOTHAPI_DEBUG=1 shows them on the command line. Where OpenTelemetry's API
is installed, attempts are spans and all events are counted. No event carries a payload, a key or
an answer.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("smoothapi")


def emit(event: str, **fields: str | float | bool) -> None:
    """Report that something happened: `event` is one word, `fields` say what."""
    if log.isEnabledFor(logging.DEBUG):
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        log.debug("%s %s", event, text, extra={"smoothapi": {"event": event, **fields}})
    counter = _counter()
    if counter is not None:
        counter.add(1, {"event": event, "provider": str(fields.get("provider", ""))})


@contextmanager
def attempt_span(provider: str, pictures: int) -> Iterator[None]:
    """Wrap one attempt in a span, where there is a tracer."""
    tracer = _tracer()
    if tracer is None:
        context: Any = nullcontext()
    else:
        context = tracer.start_as_current_span(
            "smoothapi.attempt",
            attributes={"smoothapi.provider": provider, "smoothapi.pictures": pictures},
        )
    with context:
        yield


@cache
def _tracer() -> Any:
    if find_spec("opentelemetry") is None:
        return None
    from opentelemetry import trace  # noqa: PLC0415

    return trace.get_tracer("smoothapi")


@cache
def _counter() -> Any:
    if find_spec("opentelemetry") is None:
        return None
    from opentelemetry import metrics  # noqa: PLC0415

    return metrics.get_meter("smoothapi").create_counter(
        "smoothapi.events", description="what the dispatcher did, by event and provider"
    )
