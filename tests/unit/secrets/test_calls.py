"""What a service repeats over gRPC is masked on every way out, as it is over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.cloud import vision
from google.rpc import error_details_pb2, status_pb2

from smoothapi.provider import make_adapter
from smoothapi.testing.watch import everything_logged
from tests.unit.secrets.conftest import ENCODINGS, SECRET
from tests.unit.secrets.test_adapters import PNG, SOME, check, tells

MALFORMED = b"\xff" + SOME.encode()


class Echo(grpc.GenericRpcHandler):
    """Answers every call with `reply(context)`; `seen` says if the secret had come."""

    def __init__(self):
        self.seen, self.reply = [], None

    def service(self, details):
        self.seen.append(any(SECRET in str(value) for _, value in details.invocation_metadata))
        return grpc.unary_unary_rpc_method_handler(lambda _, context: self.reply(context))


@pytest.fixture(scope="module")
def echo():
    handler = Echo()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[handler])
        handler.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield handler
        server.stop(0).wait()


@pytest.fixture(scope="module")
def adapter(echo):
    made = make_adapter("google", endpoint=echo.url, api_key=SECRET)
    yield made
    made.close()


def refused(code, said):
    def reply(context):
        info = error_details_pb2.ErrorInfo(reason=said, domain=said, metadata={"key": said})
        status = status_pb2.Status(code=code.value[0], message=said)
        status.details.add().Pack(info)
        trailing = [("grpc-status-details-bin", status.SerializeToString()), ("x-said", said)]
        context.set_trailing_metadata(trailing)
        context.abort(code, said)

    return reply


def labelled(said):
    answer = vision.BatchAnnotateImagesResponse()
    label = vision.EntityAnnotation(description=said, score=0.9, mid=said)
    answer.responses.append(vision.AnnotateImageResponse(label_annotations=[label]))
    data = vision.BatchAnnotateImagesResponse.serialize(answer)
    return lambda _: data


def picture_refused(said):
    answer = vision.BatchAnnotateImagesResponse()
    answer.responses.append(vision.AnnotateImageResponse(error={"code": 3, "message": said}))
    data = vision.BatchAnnotateImagesResponse.serialize(answer)
    return lambda _: data


REPLIES = {
    **{
        code.name: refused(code, SOME) for code in grpc.StatusCode if code is not grpc.StatusCode.OK
    },
    **{f"encoded: {name}": refused(grpc.StatusCode.INTERNAL, encode(SECRET))
       for name, encode in ENCODINGS.items()},
    "labels": labelled(SOME),
    "an error of one picture": picture_refused(SOME),
    "malformed": lambda _: MALFORMED,
}  # fmt: skip


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", REPLIES)
def test_what_is_repeated_over_grpc_is_masked(name, echo, adapter):
    echo.reply, echo.seen = REPLIES[name], []
    with everything_logged() as logged:
        try:
            [outcome] = adapter.ask([PNG])
        except Exception as error:  # noqa: BLE001  whatever it is, it is looked at
            outcome = error
    assert echo.seen == [True], "not sent once, or without the secret"
    check(outcome, name)
    telling = {logger for logger, text in logged if tells(text)}
    # What the SDK writes at DEBUG alone, whose readers ask for all that is said on the wire.
    assert telling <= {"google.cloud.vision_v1.services.image_annotator.transports.grpc"}
