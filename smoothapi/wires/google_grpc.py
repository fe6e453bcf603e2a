"""Google Cloud Vision over gRPC, with the messages of Google's own package.

A message is turned into REST's JSON and back, so that both are read and worded by the same code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud.vision_v1 import types
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from smoothapi.wires.google import CODES
from smoothapi.wires.wire import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.wires.google import Google
    from smoothapi.wires.wire import Question

SERVICE = "google.cloud.vision.v1.ImageAnnotator"
METHOD = "BatchAnnotateImages"


def read(wire: Google, message: bytes, metadata: Mapping[str, Any]) -> Question:
    """Read a serialized BatchAnnotateImagesRequest.

    Raises:
        Refusal: the real service would refuse it.
    """
    wire.check_key(metadata, {})
    batch = _parsed(message)
    return wire.read_requests({"requests": [_to_json(each) for each in batch.requests]})


def to_rest(message: bytes) -> dict[str, Any]:
    """Return a serialized BatchAnnotateImagesRequest as the JSON that REST's callers send.

    Raises:
        Refusal: it is none.
    """
    data: dict[str, Any] = json_format.MessageToDict(_parsed(message))
    return data


def error_of_rest(data: Any, *, retry_after: float | None) -> Any:
    """Return the JSON of an error of REST as a google.rpc.Status."""
    error = data.get("error") if isinstance(data, dict) else None
    said: dict[str, Any] = error if isinstance(error, dict) else {}
    name = said.get("status")
    known = isinstance(name, str) and name in code_pb2.Code.keys()  # noqa: SIM118  no dict
    code = code_pb2.Code.Value(name) if known else code_pb2.UNKNOWN
    status = status_pb2.Status(code=code, message=str(said.get("message", "")))
    details = said.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and isinstance(detail.get("reason"), str):
            _add_reason(status, detail["reason"])
    _add_wait(status, retry_after)
    return status


def to_message(responses: list[Any]) -> bytes:
    """Return a serialized BatchAnnotateImagesResponse of AnnotateImageResponses as JSON.

    Raises:
        ValueError: they are none.
    """
    batch = parsed_json({"responses": responses}, types.BatchAnnotateImagesResponse.pb()())
    serialized: bytes = batch.SerializeToString()
    return serialized


def parsed_json(data: Any, message: Any) -> Any:
    """Fill a message from JSON, and return it; fields that it does not know are left out.

    Raises:
        ValueError: the JSON is of another kind.
    """
    try:
        return json_format.ParseDict(data, message, ignore_unknown_fields=True)
    # Infinity as a whole number; half of a character, of which protobuf's C tells no better.
    except (json_format.Error, OverflowError, SystemError, TypeError, RecursionError):
        raise ValueError(f"it is no {message.DESCRIPTOR.name}") from None


def to_status(refusal: Refusal) -> Any:
    """Return a refusal as a google.rpc.Status, its reason and Retry-After as details."""
    status = status_pb2.Status(code=CODES[refusal.code][1], message=refusal.message)
    if "reason" in refusal.more:
        _add_reason(status, refusal.more["reason"])
    _add_wait(status, refusal.retry_after)
    return status


def _add_reason(status: Any, reason: str) -> None:
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain="googleapis.com", metadata={"service": "vision.googleapis.com"}
    )
    status.details.add().Pack(info)


def _add_wait(status: Any, seconds: float | None) -> None:
    if seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))


def _parsed(message: bytes) -> Any:
    batch = types.BatchAnnotateImagesRequest.pb()()
    try:
        batch.ParseFromString(message)
    except Exception as error:
        raise Refusal(400, "INVALID_ARGUMENT", "Request could not be parsed.") from error
    return batch


def _to_json(request: Any) -> dict[str, Any]:
    """Return an AnnotateImageRequest as REST's JSON, its picture still as bytes."""
    image: dict[str, Any] = {"content": request.image.content}
    if request.image.HasField("source"):
        image["source"] = json_format.MessageToDict(request.image.source)
    features = [
        {"type": feature.type_, "maxResults": feature.max_results} for feature in request.features
    ]
    return {"image": image, "features": features}
