"""A gRPC server for Google Cloud Vision, and what can go wrong on the line.

gRPC's HTTP/2 is not ours to break: a connection that is reset, and half an answer, are shown as
the statuses that callers get to see of them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NoReturn, cast

import grpc
from grpc_status import rpc_status

from smoothapi.grpc_protocol import patient_server
from smoothapi.hosts import bracketed
from smoothapi.services.faults import Fault
from smoothapi.wires.google import OPERATION, Google
from smoothapi.wires.google_grpc import METHOD, SERVICE, read, to_message, to_status
from smoothapi.wires.wire import Refusal

if TYPE_CHECKING:
    from smoothapi.services.service import Received, Service
    from smoothapi.wires.wire import Question

_THREADS = 256
_GRACE = 3.0
_FOREVER = 4_000.0  # seconds; no adapter waits longer than an hour
_AGE = 3_600.0  # seconds; a connection that is older is made anew, which callers do not notice
_NOT_A_MESSAGE = b"<!DOCTYPE html><html></html>"


def listen(service: Service, host: str, port: int) -> GrpcTransport:
    """Serve gRPC on host:port; returns once connections are taken.

    Raises:
        OSError: the address cannot be listened on.
    """
    return GrpcTransport(service, host, port)


class GrpcTransport:
    """A gRPC server with threads of its own."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"smoothapi-{service.name}")
        self._annotator = _Annotator(service)
        self._server = patient_server(
            self._pool,
            self._annotator.answer,
            service=SERVICE,
            method=METHOD,
            most=service.wire.max_body,
            more=(
                ("grpc.max_connection_age_ms", int(1000 * _AGE)),
                ("grpc.max_connection_age_grace_ms", int(1000 * _AGE)),
            ),
        )
        try:
            self.port: int = self._server.add_insecure_port(f"{bracketed(host)}:{port}")
        except RuntimeError as error:
            self._pool.shutdown()
            raise OSError(str(error)) from error
        self._server.start()

    def stop(self) -> None:
        """Stop the server and join its threads."""
        self._annotator.stop()
        self._server.stop(grace=_GRACE).wait()
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Annotator:
    """Answers one call as planned."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._wire = cast("Google", service.wire)
        self._lock = threading.Lock()
        self._waiting: set[threading.Event] = set()
        self._stopped = False

    def answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """Return a serialized BatchAnnotateImagesResponse, or abort."""
        began = time.monotonic()
        metadata = {str(key): value for key, value in context.invocation_metadata()}
        received, question, refusal = self._service.receive(
            partial(read, self._wire, message, metadata),
            operation=OPERATION,
            headers=metadata,
            body=len(message),
        )
        status = "OK"
        try:
            return self._carry(context, received, question, refusal, began)
        except Exception:
            status = str(getattr(context.code(), "name", "ABORTED"))
            raise
        finally:
            self._service.done(received, status, began)

    def _carry(
        self,
        context: grpc.ServicerContext,
        received: Received,
        question: Question | None,
        refusal: Refusal | None,
        began: float,
    ) -> bytes:
        fault, timing = received.fault, self._service.timing
        if fault is Fault.timeout:
            self._wait(context, _FOREVER)
            context.abort(grpc.StatusCode.CANCELLED, "The caller gave up.")
        if fault is Fault.reset:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        if fault is not None and fault.trouble is not None:
            retry_after = timing.retry_after if fault.tells_to_wait else None
            self._refuse(context, self._wire.trouble(fault.trouble, retry_after=retry_after))
        if fault is Fault.garbage:
            return _NOT_A_MESSAGE
        if fault is Fault.inside:
            return to_message(self._wire.inside_responses(question))
        if question is None:
            assert refusal is not None  # noqa: S101  there is one or the other
            self._refuse(context, refusal)
        if fault is Fault.half:
            return to_message([{"error": {"code": 13, "message": "x" * 100}}])[:60]
        try:
            answer = to_message(self._wire.responses(question, self._service.label(question)))
        except Refusal as refused:
            self._refuse(context, refused)
        except Exception as error:  # noqa: BLE001  a recorded reply can be anything
            self._refuse(context, self._service.broken(error))
        pause = {Fault.late: timing.late, Fault.slow: timing.drip}.get(fault or Fault.error, 0.0)
        least = timing.latency.seconds(received.number)
        self._wait(context, max(pause, least - (time.monotonic() - began)))
        return answer

    def _refuse(self, context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
        context.abort_with_status(rpc_status.to_status(to_status(refusal)))
        raise AssertionError  # abort_with_status always raises

    def _wait(self, context: grpc.ServicerContext, seconds: float) -> None:
        """Wait, but not for a caller who left or when the service stops."""
        ended = threading.Event()
        with self._lock:
            self._waiting.add(ended)
        if seconds > 0 and context.add_callback(ended.set) and not self._stopped:
            ended.wait(seconds)
        with self._lock:
            self._waiting.discard(ended)

    def stop(self) -> None:
        """End all waiting."""
        self._stopped = True
        with self._lock:
            for ended in self._waiting:
                ended.set()
