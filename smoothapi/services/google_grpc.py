"""Google Cloud Vision over gRPC, with the messages of Google's own package.

A message is turned into REST's JSON and back, so that both are read and worded by the same code.
gRPC's HTTP/2 is not ours to break: a connection that is reset, and half an answer, are shown as
the statuses that callers get to see of them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from google.cloud.vision_v1 import types
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from smoothapi.services.google import CODES, OPERATION, Google
from smoothapi.services.wire import Refusal
from smoothapi.testing.faults import Fault

if TYPE_CHECKING:
    from smoothapi.services.service import Received, Service
    from smoothapi.services.wire import Question

_THREADS = 256
_SERVICE = "google.cloud.vision.v1.ImageAnnotator"
_METHOD = "BatchAnnotateImages"
_GRACE = 3.0
_FOREVER = 86_400.0
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
        most = service.wire.max_body
        # Messages are read where a bad one can be counted and refused.
        method = grpc.unary_unary_rpc_method_handler(self._annotator.answer)
        self._server = grpc.server(
            self._pool,
            handlers=[grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: method})],
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.so_reuseport", 0),
            ],
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port: int = self._server.add_insecure_port(address)
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
            partial(self._read, message, metadata),
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

    def _read(self, message: bytes, metadata: dict[str, Any]) -> Question:
        self._wire.check_key(metadata, {})
        request = types.BatchAnnotateImagesRequest.pb()()
        try:
            request.ParseFromString(message)
        except Exception as error:
            raise Refusal(400, "INVALID_ARGUMENT", "Request could not be parsed.") from error
        return self._wire.read_requests(
            {"requests": [_request_json(each) for each in request.requests]}
        )

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
        if fault is not None and (worded := self._worded(fault)) is not None:
            self._refuse(context, worded, fault)
        if fault is Fault.garbage:
            return _NOT_A_MESSAGE
        if fault is Fault.inside:
            return _message(self._wire.inside_responses(question))
        if question is None:
            assert refusal is not None  # noqa: S101  there is one or the other
            self._refuse(context, refusal)
        if fault is Fault.half:
            return _message([{"error": {"code": 13, "message": "x" * 100}}])[:60]
        try:
            answer = _message(self._wire.responses(question, self._service.label(question)))
        except Refusal as refused:
            self._refuse(context, refused)
        except Exception as error:  # noqa: BLE001  replies that are none, say
            self._refuse(context, self._service.broken(error))
        pause = {Fault.late: timing.late, Fault.slow: timing.drip}.get(fault or Fault.error, 0.0)
        least = timing.latency.seconds(received.number)
        self._wait(context, max(pause, least - (time.monotonic() - began)))
        return answer

    def _worded(self, fault: Fault) -> Refusal | None:
        try:
            return self._wire.fault(fault)
        except KeyError:
            return None

    def _refuse(
        self, context: grpc.ServicerContext, refusal: Refusal, fault: Fault | None = None
    ) -> NoReturn:
        details: list[Any] = []
        if "reason" in refusal.more:
            details.append(
                error_details_pb2.ErrorInfo(
                    reason=refusal.more["reason"],
                    domain="googleapis.com",
                    metadata={"service": "vision.googleapis.com"},
                )
            )
        if fault in {Fault.throttled_wait, Fault.throttled_date}:
            delay = Duration()
            delay.FromNanoseconds(int(self._service.timing.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=CODES[refusal.code][1], message=refusal.message)
        for detail in details:
            status.details.add().Pack(detail)
        context.abort_with_status(rpc_status.to_status(status))
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


def _request_json(request: Any) -> dict[str, Any]:
    """Return an AnnotateImageRequest as REST's JSON, its picture still as bytes."""
    image: dict[str, Any] = {"content": request.image.content}
    if request.image.HasField("source"):
        image["source"] = json_format.MessageToDict(request.image.source)
    features = [
        {"type": feature.type_, "maxResults": feature.max_results} for feature in request.features
    ]
    return {"image": image, "features": features}


def _message(responses: list[Any]) -> bytes:
    response = types.BatchAnnotateImagesResponse.pb()()
    json_format.ParseDict({"responses": responses}, response, ignore_unknown_fields=True)
    serialized: bytes = response.SerializeToString()
    return serialized
