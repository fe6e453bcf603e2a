"""Amazon Rekognition: JSON 1.1, every operation a POST to /.

Shapes and limits are those of botocore's service model; the texts are those that users of the
service report.
"""

from __future__ import annotations

import re
from math import isnan
from typing import TYPE_CHECKING, Any

from smoothapi.wires.trouble import Trouble
from smoothapi.wires.wire import (
    Outcome,
    Picture,
    ProviderJson,
    Question,
    Refusal,
    Reply,
    Request,
    TooManyPixelsError,
    UnreadableError,
    from_base64,
    read_json,
    read_picture,
    request_id,
    to_reply,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from smoothapi.answer import Answer, Label

_JSON = "application/x-amz-json-1.1"
_TARGET = "RekognitionService."
_MAX_BYTES = 5_242_880
_SIDES = (80, 10_000)
_MODEL = "3.0"
_MODERATION_MODEL = "7.0"
_ARN = re.compile(
    r"arn:[a-z\d-]+:rekognition:[a-z\d-]+:\d{12}:project/[a-zA-Z0-9_.\-]{1,255}"
    r"/version/[a-zA-Z0-9_.\-]{1,255}/[0-9]+"
)
_SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/\s]+)/\d{8}/[^/\s]+/rekognition/", re.ASCII
)
_FEATURES = ("GENERAL_LABELS", "IMAGE_PROPERTIES")

# Members of each request, and the default of MinConfidence.
_MEMBERS = {
    "DetectLabels": ("Image", "MaxLabels", "MinConfidence", "Features", "Settings"),
    "DetectModerationLabels": ("Image", "MinConfidence", "HumanLoopConfig", "ProjectVersion"),
    "DetectCustomLabels": ("Image", "ProjectVersionArn", "MaxResults", "MinConfidence"),
}
_MIN_CONFIDENCE = {
    "DetectLabels": 55.0,
    "DetectModerationLabels": 50.0,
    # The real one is the model's own, chosen in training.
    "DetectCustomLabels": 50.0,
}

_TROUBLES = {
    Trouble.throttled: (400, "ThrottlingException", "Rate exceeded"),
    Trouble.error: (500, "InternalServerError", "Internal server error"),
    Trouble.unavailable: (503, "ServiceUnavailableException", "Service is unavailable"),
    Trouble.denied: (
        400,
        "AccessDeniedException",
        "User: arn:aws:iam::123456789012:user/emulated is not authorized to perform this action",
    ),
    Trouble.quota: (400, "LimitExceededException", "Service limit exceeded"),
}
_THROTTLED_FOR_A_TIME = (
    400,
    "ProvisionedThroughputExceededException",
    "Provisioned rate exceeded",
)


class Aws:
    """Rekognition's label operations.

    Args:
        key: the access key id that requests must be signed with; any, if None. Signatures are
            looked for and not verified.
    """

    paths = ("/",)
    max_body = 8 * 2**20  # 5 MiB as base64, and settings

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def operation(self, request: Request) -> str:
        """Return what X-Amz-Target names."""
        target = request.headers.get("x-amz-target", "")
        operation = target.removeprefix(_TARGET)
        known = request.route and target.startswith(_TARGET) and operation in _MEMBERS
        return operation if known else ""

    def read(self, request: Request) -> Question:
        """Read a signed request."""
        operation = self.operation(request)
        kind = request.headers.get("content-type", "")
        if request.method != "POST" or not operation or not kind.startswith(_JSON):
            raise Refusal(400 if request.method == "POST" else 404, "UnknownOperationException", "")
        self._check_signature(request)
        data = read_json(request.body, _malformed)
        known = _MEMBERS[operation]
        parameters = {name: data[name] for name in known if name in data and name != "Image"}
        _check_parameters(operation, parameters)
        picture = _picture(data.get("Image"))
        return Question(operation, (picture,), parameters)

    def _check_signature(self, request: Request) -> None:
        header = request.headers.get("authorization", "")
        if not header:
            raise Refusal(
                400, "MissingAuthenticationTokenException", "Missing Authentication Token"
            )
        match = _SIGNATURE.match(header)
        if match is None or "Signature=" not in header or "SignedHeaders=" not in header:
            raise Refusal(
                400,
                "IncompleteSignatureException",
                "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' "
                "parameters, scoped to the service 'rekognition'.",
            )
        if "x-amz-date" not in request.headers and "date" not in request.headers:
            raise Refusal(
                400,
                "IncompleteSignatureException",
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' "
                "header.",
            )
        if self._key is not None and match[1] != self._key:
            raise Refusal(
                400,
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )

    def too_large(self) -> Refusal:
        """Return what the gateway says."""
        return Refusal(413, "RequestEntityTooLargeException", "Request entity too large")

    def answer(self, question: Question, outcomes: Sequence[Outcome]) -> Reply:
        """Say the labels of the one picture."""
        (outcome,) = outcomes
        if isinstance(outcome, Refusal):
            return self.refuse(outcome)
        if isinstance(outcome, ProviderJson):
            return Reply(200, outcome.body, (("content-type", _JSON), *_ids()))
        build = {
            "DetectLabels": _labels,
            "DetectModerationLabels": _moderation,
            "DetectCustomLabels": _custom,
        }[question.operation]
        return to_reply(200, build(outcome, question.parameters), _ids(), _JSON)

    def refuse(self, refusal: Refusal) -> Reply:
        """Say no, as Rekognition does: the code in the body and in a header."""
        identity = request_id()
        body = {
            "__type": refusal.code,
            "Code": refusal.code,
            "Message": refusal.message,
            "Logref": identity,
        }
        headers = (*_ids(identity), ("x-amzn-errortype", refusal.code))
        return to_reply(refusal.status, body, headers, _JSON)

    def unanswerable(self, reason: str) -> Refusal:
        """Return an error that no SDK repeats."""
        return Refusal(400, "InvalidParameterException", reason)

    def trouble(self, trouble: Trouble, *, retry_after: float | None = None) -> Refusal:
        """Return trouble as Rekognition words it: throttling has status 400."""
        words = _TROUBLES[trouble]
        if trouble is Trouble.throttled and retry_after is not None:
            words = _THROTTLED_FOR_A_TIME
        return Refusal(*words, retry_after=retry_after)

    def inside(self, question: Question | None) -> Reply:
        """Return an error's body under status 200."""
        del question
        body = {"__type": "InternalServerError", "Message": "Internal server error"}
        return to_reply(200, body, _ids(), _JSON)


def _ids(identity: str = "") -> tuple[tuple[str, str], ...]:
    return (("x-amzn-requestid", identity or request_id()),)


def _malformed(why: str) -> Refusal:
    del why
    return Refusal(400, "SerializationException", "")


def _invalid(value: object, member: str, constraint: str) -> Refusal:
    return Refusal(
        400,
        "ValidationException",
        f"1 validation error detected: Value {str(value)[:100]!r} at {member!r} failed to satisfy "
        f"constraint: Member must {constraint}",
    )


def _check_parameters(operation: str, parameters: dict[str, Any]) -> None:
    _check_confidence(parameters.get("MinConfidence", 0))
    _check_most(parameters.get("MaxLabels", 0), "maxLabels")
    _check_most(parameters.get("MaxResults", 0), "maxResults")
    features = parameters.get("Features", [])
    if not isinstance(features, list) or not isinstance(parameters.get("Settings", {}), dict):
        raise _malformed("")
    if any(feature not in _FEATURES for feature in features):
        raise _invalid(features, "features", f"satisfy enum value set: {list(_FEATURES)}")
    if operation == "DetectCustomLabels":
        _check_arn(parameters.get("ProjectVersionArn"))


def _check_confidence(lowest: object) -> None:
    if isinstance(lowest, bool) or not isinstance(lowest, (int, float)) or isnan(lowest):
        raise _malformed("")
    if lowest > 100:
        raise _invalid(lowest, "minConfidence", "have value less than or equal to 100")
    if lowest < 0:
        raise _invalid(lowest, "minConfidence", "have value greater than or equal to 0")


def _check_most(most: object, member: str) -> None:
    if isinstance(most, bool) or not isinstance(most, int) or most > 2**31 - 1:
        raise _malformed("")
    if most < 0:
        raise _invalid(most, member, "have value greater than or equal to 0")


def _check_arn(arn: object) -> None:
    if arn is None:
        raise _invalid("null", "projectVersionArn", "not be null")
    if not isinstance(arn, str):
        raise _malformed("")
    if not _ARN.fullmatch(arn):
        wanted = f"satisfy regular expression pattern: {_ARN.pattern}"
        raise _invalid(arn, "projectVersionArn", wanted)


def _picture(image: object) -> Picture:
    data = _bytes(image)
    if not data:
        raise _invalid("", "image.bytes", "have length greater than or equal to 1")
    if len(data) > _MAX_BYTES:
        raise _invalid(
            f"java.nio.HeapByteBuffer[pos=0 lim={len(data)} cap={len(data)}]",
            "image.bytes",
            f"have length less than or equal to {_MAX_BYTES}",
        )
    try:
        picture = read_picture(data, ("PNG", "JPEG"), max_side=_SIDES[1])
    except UnreadableError:
        raise Refusal(
            400, "InvalidImageFormatException", "Request has invalid image format"
        ) from None
    except TooManyPixelsError as error:
        raise Refusal(
            400,
            "ImageTooLargeException",
            f"Input image dimensions {error} exceed maximum dimension size of {_SIDES[1]} pixels",
        ) from None
    if min(picture.size) < _SIDES[0]:
        raise Refusal(400, "InvalidParameterException", "Request has invalid parameters")
    return picture


def _bytes(image: object) -> bytes:
    if image is None:
        raise _invalid("null", "image", "not be null")
    if not isinstance(image, dict):
        raise _malformed("")
    if image.get("S3Object") is not None:
        raise Refusal(
            400,
            "InvalidS3ObjectException",
            "Unable to get object metadata from S3. Check object key, region and/or access "
            "permissions.",
        )
    if image.get("Bytes") is None:
        raise Refusal(400, "InvalidParameterException", "Request has invalid parameters")
    data = from_base64(image["Bytes"])
    if data is None:
        raise _malformed("")
    return data


def _kept(
    answer: Answer, operation: str, parameters: Any, most: int | None = None
) -> Iterable[Label]:
    lowest = parameters.get("MinConfidence", _MIN_CONFIDENCE[operation])
    kept = [label for label in answer.labels if label.score * 100 >= lowest]
    return kept if most is None else kept[:most]


def _labels(answer: Answer, parameters: Any) -> dict[str, Any]:
    most = parameters.get("MaxLabels")
    labels = [
        {
            "Name": label.name,
            "Confidence": label.score * 100,
            "Instances": [],
            "Parents": [{"Name": name} for name in label.parents],
            "Aliases": [],
            "Categories": [{"Name": name} for name in label.categories],
        }
        for label in _kept(answer, "DetectLabels", parameters, most)
    ]
    return {"Labels": labels, "LabelModelVersion": answer.model_version or _MODEL}


def _moderation(answer: Answer, parameters: Any) -> dict[str, Any]:
    labels = [
        {
            "Name": label.name,
            "Confidence": label.score * 100,
            "ParentName": label.parents[0] if label.parents else "",
            "TaxonomyLevel": len(label.parents) + 1,
        }
        for label in _kept(answer, "DetectModerationLabels", parameters)
    ]
    return {
        "ModerationLabels": labels,
        "ModerationModelVersion": answer.model_version or _MODERATION_MODEL,
        "ContentTypes": [],
    }


def _custom(answer: Answer, parameters: Any) -> dict[str, Any]:
    most = parameters.get("MaxResults")
    labels = [
        {"Name": label.name, "Confidence": label.score * 100}
        for label in _kept(answer, "DetectCustomLabels", parameters, most)
    ]
    return {"CustomLabels": labels}
