"""Azure Computer Vision 3.2: /tag and /analyze, a picture as the (often chunked) body."""

from __future__ import annotations

import re
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
    read_json,
    read_picture,
    request_id,
    to_reply,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.answer import Answer

_MAX_BYTES = 4 * 2**20
_SIDES = (50, 16_000)
_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
_MODEL = "2021-05-01"
_VERSION = re.compile(r"(latest|\d{4}-\d{2}-\d{2})(-preview)?", re.ASCII)
_LANGUAGES = ("en", "es", "ja", "pt", "zh")
_FEATURES = (
    "Adult",
    "Brands",
    "Categories",
    "Color",
    "Description",
    "Faces",
    "ImageType",
    "Objects",
    "Tags",
)
_SPOKEN = ("Adult", "Categories", "Description", "Tags")

_WRONG_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
    "valid key for an active subscription and use a correct regional API endpoint for your "
    "resource."
)
_TROUBLES = {
    Trouble.throttled: (429, "429", "Rate limit is exceeded. Try again later."),
    Trouble.error: (500, "InternalServerError", "An internal server error has occurred."),
    Trouble.unavailable: (503, "ServiceUnavailable", "The service is temporarily unavailable."),
    Trouble.denied: (403, "403", "Access denied due to Virtual Network/Firewall rules."),
    Trouble.quota: (
        403,
        "403",
        (
            "Out of call volume quota for ComputerVision F0 pricing tier. Please retry after 15 "
            "days. To increase your call volume switch to a paid tier."
        ),
    ),
}


class AzureErrors:
    """How Azure's vision services let callers in, and how they say no."""

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def check_key(self, request: Request) -> None:
        """Refuse whoever shows no key, or another one than is asked for.

        Raises:
            Refusal: status 401.
        """
        shown = request.headers.get("ocp-apim-subscription-key", "")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not shown and scheme.lower() == "bearer":
            shown = token  # what Entra ID's credentials send
        if not shown or (self._key is not None and shown != self._key):
            raise Refusal(401, "401", _WRONG_KEY)

    def refuse(self, refusal: Refusal) -> Reply:
        """Say no: code and message, and within them the reason."""
        error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
        if "inner" in refusal.more:
            error["innererror"] = {"code": refusal.more["inner"], "message": refusal.message}
        return to_reply(refusal.status, {"error": error}, ids())

    def too_large(self) -> Refusal:
        """Return what is said of too many bytes."""
        return invalid("InvalidImageSize", "Input image is too large.")

    def unanswerable(self, reason: str) -> Refusal:
        """Return an error that is not worth sending again."""
        return invalid("InvalidImageFormat", reason)

    def trouble(self, trouble: Trouble, *, retry_after: float | None = None) -> Refusal:
        """Return trouble in Azure's words."""
        return Refusal(*_TROUBLES[trouble], retry_after=retry_after)

    def inside(self, question: Question | None) -> Reply:
        """Return an answer that says nothing: the SDKs make None of what is missing."""
        del question
        return to_reply(200, {}, ids())


class Azure(AzureErrors):
    """Tags, categories, description and adult scores.

    Args:
        key: the subscription key that is let in; any, if None.
    """

    paths = ("/vision/v3.2/tag", "/vision/v3.2/analyze")
    max_body = _MAX_BYTES + 64 * 2**10  # a multipart envelope

    def operation(self, request: Request) -> str:
        """Return "tag" or "analyze"."""
        return request.route.rpartition("/")[2]

    def read(self, request: Request) -> Question:
        """Read a request."""
        self.check_key(request)
        operation = self.operation(request)
        if not operation or request.method != "POST":
            raise not_found()
        parameters = dict(request.query)
        _check(parameters)
        wanted = ["Tags"] if operation == "tag" else _features(parameters)
        picture = take_picture(request, _FORMATS, _SIDES, _MAX_BYTES)
        return Question(operation, (picture,), parameters, wanted)

    def answer(self, question: Question, outcomes: Sequence[Outcome]) -> Reply:
        """Say what the one picture shows."""
        (outcome,) = outcomes
        if isinstance(outcome, Refusal):
            return self.refuse(outcome)
        if isinstance(outcome, ProviderJson):
            return recorded(outcome)
        (picture,) = question.pictures
        assert isinstance(picture, Picture)  # noqa: S101  it was labelled
        asked = question.parameters.get("model-version", "latest")
        body: dict[str, Any] = {}
        for feature in question.details:
            name, build = _BUILD[feature]
            body[name] = build(outcome)
        width, height = picture.size
        body["requestId"] = identity = request_id()
        form = picture.format.capitalize()
        body["metadata"] = {"height": height, "width": width, "format": form}
        body["modelVersion"] = outcome.model_version or (_MODEL if asked == "latest" else asked)
        return to_reply(200, body, ids(identity))


def ids(identity: str = "") -> tuple[tuple[str, str], ...]:
    """Return the header with the request's id."""
    return (("apim-request-id", identity or request_id()),)


def invalid(reason: str, message: str, code: str = "InvalidRequest") -> Refusal:
    """Return a refusal of what the caller sent."""
    return Refusal(400, code, message, inner=reason)


def not_found() -> Refusal:
    """Return what is said of an unknown path."""
    return Refusal(404, "404", "Resource not found")


def recorded(outcome: ProviderJson) -> Reply:
    """Return a recorded answer as it is."""
    return Reply(200, outcome.body, (("content-type", "application/json; charset=utf-8"), *ids()))


def take_picture(
    request: Request, formats: Sequence[str], sides: tuple[int, int], max_bytes: int
) -> Picture:
    """Return the picture in a body.

    Raises:
        Refusal: Azure would not take what the body holds.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        read_json(
            request.body, lambda why: Refusal(400, "BadArgument", f"JSON format error: {why}.")
        )
        raise invalid("InvalidImageUrl", "Image URL is badly formatted or not accessible.")
    if kind != "application/octet-stream" and not kind.startswith("image/"):
        raise Refusal(
            415,
            "UnsupportedMediaType",
            "Unsupported media type. Supported are application/octet-stream and application/json.",
        )
    if not request.body:
        raise invalid("InvalidImageSize", "Image size is zero.")
    if len(request.body) > max_bytes:
        raise invalid("InvalidImageSize", "Input image is too large.")
    try:
        picture = read_picture(request.body, formats, max_side=sides[1])
    except UnreadableError:
        raise invalid("InvalidImageFormat", "Input data is not a valid image.") from None
    except TooManyPixelsError:
        raise invalid("InvalidImageDimension", "Input image is too large.") from None
    if min(picture.size) < sides[0]:
        raise invalid(
            "InvalidImageDimension",
            f"Image must be at least {sides[0]} pixels in width and height",
        )
    return picture


def _check(parameters: dict[str, str]) -> None:
    version = parameters.get("model-version", "latest")
    if not _VERSION.fullmatch(version):
        raise invalid("BadArgument", f"Model version {version[:100]!r} is not valid.")
    if parameters.get("language", "en") not in _LANGUAGES:
        raise invalid(
            "NotSupportedLanguage", "The input language is not supported.", "InvalidArgument"
        )


def _features(parameters: dict[str, str]) -> list[str]:
    asked = parameters.get("visualFeatures", "Categories")
    by_name = {name.lower(): name for name in _FEATURES}
    wanted: list[str] = []
    for part in asked.split(","):
        name = by_name.get(part.strip().lower())
        if name is None:
            raise invalid(
                "NotSupportedVisualFeature",
                f"Specified feature type is not valid: {part.strip()[:100]!r}.",
                "InvalidArgument",
            )
        if name not in _SPOKEN:
            raise invalid(
                "NotSupportedFeature",
                f"{name} is not emulated here; {', '.join(_SPOKEN)} are.",
                "InvalidArgument",
            )
        if name not in wanted:
            wanted.append(name)
    return wanted


def tags(answer: Answer) -> list[dict[str, Any]]:
    """Return the labels as Azure's tags."""
    return [{"name": label.name, "confidence": label.score} for label in answer.labels]


def _categories(answer: Answer) -> list[dict[str, Any]]:
    """Return the labels' categories; the labels themselves, of a labeller that knows none."""
    scores: dict[str, float] = {}
    for label in answer.labels:
        for name in label.categories:
            scores[name] = max(label.score, scores.get(name, 0.0))
    if not scores:
        scores = {label.name: label.score for label in reversed(answer.labels)}
        scores = {label.name: scores[label.name] for label in answer.labels}
    return [{"name": name, "score": score} for name, score in scores.items()]


def _description(answer: Answer) -> dict[str, Any]:
    captions = [
        {"text": label.name, "confidence": label.score}
        for label in sorted(answer.labels, key=lambda label: -label.score)[:1]
    ]
    return {"tags": [label.name for label in answer.labels], "captions": captions}


def _adult(answer: Answer) -> dict[str, Any]:
    scores = {label.name.lower(): label.score for label in reversed(answer.labels)}
    adult, racy, gore = (scores.get(name, 0.0) for name in ("adult", "racy", "gore"))
    return {
        "isAdultContent": adult > 0.5,
        "isRacyContent": racy > 0.5,
        "isGoryContent": gore > 0.5,
        "adultScore": adult,
        "racyScore": racy,
        "goreScore": gore,
    }


_BUILD = {
    "Tags": ("tags", tags),
    "Categories": ("categories", _categories),
    "Description": ("description", _description),
    "Adult": ("adult", _adult),
}
