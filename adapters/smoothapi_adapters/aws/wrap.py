"""How boto3's Rekognition client is wrapped (`smoothapi.wrap`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from smoothapi.errors import UsageError
from smoothapi.wrapping import Call, Item, OwnCall, Remote
from smoothapi_adapters.aws.adapter import MODEL_THRESHOLD, AwsAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.wrapping import Verdict

_OPERATIONS = {
    "detect_labels": ("labels", "Labels", 55.0),
    "detect_moderation_labels": ("moderation", "ModerationLabels", 50.0),
    "detect_custom_labels": ("custom", "CustomLabels", MODEL_THRESHOLD),
}
_MOST_LABELS = 100


class RekognitionWrapper:
    """Certifies the labels of detect_labels, detect_moderation_labels and detect_custom_labels.

    Noisy copies are asked about with the call's MinConfidence, or the service's default for it, and
    with room for at least 100 labels: a label that falls from the third to the fourth place is
    still there. Filters (Settings) and IMAGE_PROPERTIES concern the caller's own call.
    """

    operations = frozenset(_OPERATIONS)

    def __init__(self, client: Any) -> None:
        check_service(client, "a boto3 client")
        self._client = client

    def read(
        self, operation: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> Call | Remote | None:
        """Say what a call asks; what boto3 or the service will refuse is left to them."""
        if arguments:
            return None
        asked = asked_of(self._client, operation, keywords)
        if not isinstance(asked, Asked):
            return asked
        whole = {**keywords, "Image": {"Bytes": asked.photo}}
        item = Item(
            photo=asked.photo,
            own=OwnCall(asked.votes, lambda: asked.votes.send(operation, whole), asked.votes.read),
            votes=asked.votes,
            score=asked.score,
            write=lambda response, verdict: write(response, asked.rows, verdict),
        )
        return Call([item])


def check_service(client: Any, kind: str) -> None:
    """Refuse the client of another service; `kind` says in words what the client is."""
    service = client.meta.service_model.service_name
    if service != "rekognition":
        raise UsageError(
            f"This is {kind} for {service!r}, which labels no pictures: wrap the one for "
            '"rekognition", such as boto3.client("rekognition").'
        )


@dataclass(frozen=True)
class Asked:
    """What a call asks of one picture.

    Attributes:
        photo: the picture.
        votes: asks the same about noisy copies.
        rows: key of the labels in a response.
        score: least score of a label that the call asks for, in (0, 1]; None if it says none.
    """

    photo: bytes = field(repr=False)
    votes: AwsAdapter
    rows: str
    score: float | None


def asked_of(
    client: Any,
    operation: str,
    keywords: Mapping[str, Any],
    *,
    timeout: float = 30.0,
    per_second: float | None = None,
) -> Asked | Remote | None:
    """Say what the keywords of a call ask; None if it has no labels, or will be refused.

    Args:
        client: boto3's, through which noisy copies are asked about.
        operation: its method.
        keywords: as for the method, which are the members of the request's JSON.
        timeout: seconds for a request about a noisy copy.
        per_second: of these, the most a second; None for the region's usual quota.
    """
    kind, rows, confidence = _OPERATIONS[operation]
    image = keywords.get("Image")
    confidence = keywords.get("MinConfidence", confidence)
    if not isinstance(image, dict) or not _can_be(confidence) or not _wants_labels(keywords):
        return None
    if isinstance(confidence, Decimal):  # as boto3 takes it
        confidence = float(confidence)
    if "S3Object" in image and "Bytes" not in image:
        instead = 'Fetch it and call with Image={"Bytes": ...}'
        return Remote("an object in S3", instead, _location(image["S3Object"]))
    if set(image) != {"Bytes"}:
        return None
    arn = keywords.get("ProjectVersionArn" if kind == "custom" else "ProjectVersion")
    try:
        votes = AwsAdapter(
            kind,
            client=client,
            min_confidence=confidence,
            max_labels=_room(keywords.get("MaxLabels"), keywords.get("MaxResults")),
            project_version_arn=arn,
            timeout=timeout,
            per_second=per_second,
        )
    except (UsageError, TypeError):  # a malformed ARN, which boto3 or the service will refuse
        return None
    photo = _bytes(image["Bytes"])
    if not photo:
        return None
    score = None if confidence in (MODEL_THRESHOLD, 0) else confidence / 100
    return Asked(photo, votes, rows, score)


def write(response: dict[str, Any], rows: str, verdict: Verdict) -> dict[str, Any]:
    """Leave in a response the labels that a verdict leaves, with their scores."""
    kept = [row for row in response[rows] if verdict.keeps(row["Name"])]
    for row in kept:
        score = verdict.score(row["Name"])
        if score is not None:
            row["Confidence"] = _percent(score)
        if verdict.mark:
            row["Certified"] = verdict.certified(row["Name"])
    response[rows] = kept
    return response


def _location(at: Any) -> str:
    """Return where an S3Object is, "" for what is none and for another version than the latest."""
    if not isinstance(at, dict) or at.keys() != {"Bucket", "Name"}:
        return ""
    bucket, key = at["Bucket"], at["Name"]
    named = isinstance(bucket, str) and isinstance(key, str) and "/" not in bucket
    return f"s3://{bucket}/{key}" if named else ""


def _percent(score: float) -> float:
    """Return the service's number that was read as this score: 57.0, and not 56.99999999999999."""
    product = 100 * score
    numbers = (round(product, digits) for digits in range(17))
    down = product if product / 100 <= score else math.nextafter(product, 0)
    return next((number for number in numbers if number / 100 == score), down)


def _wants_labels(keywords: Mapping[str, Any]) -> bool:
    features = keywords.get("Features", ("GENERAL_LABELS",))
    return isinstance(features, (list, tuple)) and "GENERAL_LABELS" in features


def _can_be(confidence: object) -> bool:
    if confidence == MODEL_THRESHOLD:
        return True
    number = isinstance(confidence, (int, float, Decimal)) and not isinstance(confidence, bool)
    return number and 0 <= confidence <= 100  # type: ignore[operator]


def _room(*caps: object) -> int:
    return max([_MOST_LABELS, *(cap for cap in caps if isinstance(cap, int))])


def _bytes(given: Any) -> bytes:
    """Return what boto3 takes as a blob; b"" for anything else."""
    if hasattr(given, "read"):
        given = given.read()
    return bytes(given) if isinstance(given, (bytes, bytearray)) else b""
