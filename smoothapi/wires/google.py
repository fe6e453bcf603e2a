"""Google Cloud Vision v1, `images:annotate`: labels and safe search, as REST JSON.

The same reading and wording serve gRPC: its messages are this JSON in another coat.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
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
    to_reply,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.answer import Answer

MAX_BODY = 10 * 2**20
OPERATION = "images:annotate"
_IMAGES = 16
_MAX_BYTES = 20 * 2**20
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "ICO")
_MAX_SIDE = 65_500
_MAX_PIXELS = 75_000_000
_MOST_LABELS = 10  # without maxResults

# Status, as canonical name -> (HTTP status, canonical number).
CODES = {
    "INVALID_ARGUMENT": (400, 3),
    "NOT_FOUND": (404, 5),
    "PERMISSION_DENIED": (403, 7),
    "RESOURCE_EXHAUSTED": (429, 8),
    "UNIMPLEMENTED": (501, 12),
    "INTERNAL": (500, 13),
    "UNAVAILABLE": (503, 14),
    "UNAUTHENTICATED": (401, 16),
}
_FEATURES = {
    0: "TYPE_UNSPECIFIED",
    1: "FACE_DETECTION",
    2: "LANDMARK_DETECTION",
    3: "LOGO_DETECTION",
    4: "LABEL_DETECTION",
    5: "TEXT_DETECTION",
    6: "SAFE_SEARCH_DETECTION",
    7: "IMAGE_PROPERTIES",
    9: "CROP_HINTS",
    10: "WEB_DETECTION",
    11: "DOCUMENT_TEXT_DETECTION",
    12: "PRODUCT_SEARCH",
    19: "OBJECT_LOCALIZATION",
}
_SPOKEN = ("LABEL_DETECTION", "SAFE_SEARCH_DETECTION")
_SAFE_SEARCH = ("adult", "spoof", "medical", "violence", "racy")
_LIKELIHOODS = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")
_PER_MINUTE = (
    "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute' of service "
    "'vision.googleapis.com' for consumer 'project_number:123456789012'."
)
_TROUBLES = {
    Trouble.throttled: ("RESOURCE_EXHAUSTED", _PER_MINUTE),
    Trouble.error: ("INTERNAL", "Internal error encountered."),
    Trouble.unavailable: ("UNAVAILABLE", "The service is currently unavailable."),
    Trouble.denied: (
        "PERMISSION_DENIED",
        "The caller does not have permission",
    ),
    Trouble.quota: (
        "RESOURCE_EXHAUSTED",
        _PER_MINUTE.replace("per minute", "per month"),
    ),
}


def refusal(name: str, message: str, **more: Any) -> Refusal:
    """Return a refusal by its canonical name."""
    return Refusal(CODES[name][0], name, message, **more)


@dataclass(frozen=True, slots=True)
class _FeaturesAsked:
    """What is asked about one picture; None for the most: Google's own choice."""

    labels: bool
    most: int
    safe_search: bool


class Google:
    """Labels and safe search of up to 16 pictures a request.

    Args:
        key: the API key or access token that is let in; anybody, if None, since the SDK's
            anonymous credentials are how it is pointed at a server that is not Google's.
    """

    paths = (
        "/v1/images:annotate",
        "/v1/projects/{project}/images:annotate",
        "/v1/projects/{project}/locations/{location}/images:annotate",
    )
    max_body = MAX_BODY

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def operation(self, request: Request) -> str:
        """Return the one operation that is spoken."""
        return OPERATION if request.route else ""

    def read(self, request: Request) -> Question:
        """Read a REST request."""
        if not request.route or request.method != "POST":
            raise refusal("NOT_FOUND", "Method not found.")
        self.check_key(request.headers, request.query)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise refusal(
                "INVALID_ARGUMENT",
                "Invalid value at 'content-type': the body of this method is application/json.",
            )
        return self.read_requests(read_json(request.body, _malformed))

    def check_key(self, headers: Any, query: Any) -> None:
        """Refuse whoever has not the key, if one is asked for.

        Raises:
            Refusal: no key or another one.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if self._key is None and scheme.lower() in {"", "bearer"}:
            return
        shown = query.get("key") or headers.get("x-goog-api-key") or token
        if not shown:
            raise refusal(
                "PERMISSION_DENIED",
                "Method doesn't allow unregistered callers (callers without established "
                "identity). Please use API Key or other form of API consumer identity to call "
                "this API.",
            )
        if shown == token and (scheme.lower() != "bearer" or shown != self._key):
            raise refusal(
                "UNAUTHENTICATED",
                "Request had invalid authentication credentials. Expected OAuth 2 access token, "
                "login cookie or other valid authentication credential.",
            )
        if shown != self._key:
            raise refusal(
                "INVALID_ARGUMENT",
                "API key not valid. Please pass a valid API key.",
                reason="API_KEY_INVALID",
            )

    def read_requests(self, data: dict[str, Any]) -> Question:
        """Read a BatchAnnotateImagesRequest given as JSON."""
        _known(data, ("requests", "parent", "labels"), "")
        requests = data.get("requests", [])
        if not isinstance(requests, list):
            raise _unlike("requests", "a list")
        if not requests:
            raise refusal("INVALID_ARGUMENT", "Request must contain at least one image.")
        if len(requests) > _IMAGES:
            raise refusal("INVALID_ARGUMENT", f"Too many images per request: at most {_IMAGES}.")
        asked = [_features(request, f"requests[{at}]") for at, request in enumerate(requests)]
        pictures = tuple(_picture(request) for request in requests)
        features = [request.get("features", []) for request in requests]
        return Question(OPERATION, pictures, {"features": features}, tuple(asked))

    def too_large(self) -> Refusal:
        """Return what Google says of a body over 10 MB."""
        return refusal(
            "INVALID_ARGUMENT", f"Request payload size exceeds the limit: {MAX_BODY} bytes."
        )

    def answer(self, question: Question, outcomes: Sequence[Outcome]) -> Reply:
        """Say what each picture shows, or what is wrong with it."""
        return to_reply(200, {"responses": self.responses(question, outcomes)})

    def responses(self, question: Question, outcomes: Sequence[Outcome]) -> list[Any]:
        """Return the list of AnnotateImageResponse as JSON."""
        return [
            _response(outcome, asked)
            for outcome, asked in zip(outcomes, question.details, strict=True)
        ]

    def refuse(self, refusal: Refusal) -> Reply:
        """Say no with Google's error model."""
        error: dict[str, Any] = {
            "code": refusal.status,
            "message": refusal.message,
            "status": refusal.code,
        }
        if "reason" in refusal.more:
            error["details"] = [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": refusal.more["reason"],
                    "domain": "googleapis.com",
                    "metadata": {"service": "vision.googleapis.com"},
                }
            ]
        return to_reply(refusal.status, {"error": error})

    def unanswerable(self, reason: str) -> Refusal:
        """Return an error for one picture that is not worth sending again."""
        return refusal("INVALID_ARGUMENT", reason)

    def trouble(self, trouble: Trouble, *, retry_after: float | None = None) -> Refusal:
        """Return trouble as Google words it."""
        limited = trouble in {Trouble.throttled, Trouble.quota}
        more = {"reason": "RATE_LIMIT_EXCEEDED"} if limited else {}
        return refusal(*_TROUBLES[trouble], retry_after=retry_after, **more)

    def inside(self, question: Question | None) -> Reply:
        """Return an error in the place of each picture's answer."""
        return to_reply(200, {"responses": self.inside_responses(question)})

    def inside_responses(self, question: Question | None) -> list[Any]:
        """Return an error for each picture, as JSON."""
        count = len(question.pictures) if question else 1
        return [
            _error(refusal("INTERNAL", "Internal server error. Unexpected feature response."))
        ] * count


def _malformed(why: str) -> Refusal:
    return refusal("INVALID_ARGUMENT", f"Invalid JSON payload received: {why}.")


def _unlike(where: str, what: str) -> Refusal:
    return refusal("INVALID_ARGUMENT", f"Invalid value at '{where}': expected {what}.")


def _known(data: object, names: tuple[str, ...], where: str) -> None:
    if not isinstance(data, dict):
        raise _unlike(where, "an object")
    for name in data:
        if name not in names:
            at = f" at '{where}'" if where else ""
            raise refusal(
                "INVALID_ARGUMENT",
                f'Invalid JSON payload received. Unknown name "{name[:100]}"{at}: Cannot find '
                "field.",
            )


def _features(request: Any, where: str) -> _FeaturesAsked:
    _known(request, ("image", "features", "imageContext", "image_context"), where)
    features = request.get("features", [])
    if not isinstance(features, list):
        raise _unlike(f"{where}.features", "a list")
    asked: dict[str, int] = {}
    for at, feature in enumerate(features):
        _known(feature, ("type", "maxResults", "max_results", "model"), f"{where}.features[{at}]")
        most = feature.get("maxResults", feature.get("max_results", 0))
        if isinstance(most, bool) or not isinstance(most, int) or abs(most) > 2**31 - 1:
            raise _unlike(f"{where}.features[{at}].max_results", "a 32-bit integer")
        if most < 0:
            raise refusal("INVALID_ARGUMENT", "max_results must not be negative.")
        asked[_feature(feature.get("type", 0), f"{where}.features[{at}].type")] = most
    # Without features Google answers with what it would for all of them.
    everything = not asked
    return _FeaturesAsked(
        labels=everything or "LABEL_DETECTION" in asked,
        most=asked.get("LABEL_DETECTION", 0) or _MOST_LABELS,
        safe_search=everything or "SAFE_SEARCH_DETECTION" in asked,
    )


def _feature(kind: object, where: str) -> str:
    number = isinstance(kind, int) and not isinstance(kind, bool)
    name = _FEATURES.get(kind) if number else kind  # type: ignore[call-overload]
    if not isinstance(name, str) or name not in _FEATURES.values():
        raise refusal(
            "INVALID_ARGUMENT",
            f"Invalid value at '{where}' (type.googleapis.com/google.cloud.vision.v1.Feature.Type)"
            f", {str(kind)[:100]!r}",
        )
    if name == "TYPE_UNSPECIFIED":
        raise refusal("INVALID_ARGUMENT", f"'{where}' is unspecified.")
    if name not in _SPOKEN:
        raise refusal("UNIMPLEMENTED", f"{name} is not emulated here; {' and '.join(_SPOKEN)} are.")
    return name


def _picture(request: dict[str, Any]) -> Picture | Refusal:
    image = request.get("image", {})
    _known(image, ("content", "source"), "requests.image")
    if image.get("content") and image.get("source"):
        raise refusal("INVALID_ARGUMENT", "Only one of image content and uri should be specified.")
    if image.get("source"):
        return refusal(
            "INVALID_ARGUMENT",
            "We can not access the URL currently. Please download the content and pass it in.",
        )
    content = image.get("content", b"")
    data = content if isinstance(content, bytes) else from_base64(content)
    if data is None:
        raise _unlike("requests.image.content", "base64")
    if not data:
        return refusal("INVALID_ARGUMENT", "No image present.")
    if len(data) > _MAX_BYTES:
        return refusal("INVALID_ARGUMENT", "Image size exceeds the limit of 20 MB.")
    try:
        return read_picture(data, _FORMATS, max_side=_MAX_SIDE, max_pixels=_MAX_PIXELS)
    except UnreadableError:
        return refusal("INVALID_ARGUMENT", "Bad image data.")
    except TooManyPixelsError:
        return refusal("INVALID_ARGUMENT", "Image too large. Please limit to 75 megapixels.")


def _error(refusal: Refusal) -> dict[str, Any]:
    return {"error": {"code": CODES[refusal.code][1], "message": refusal.message}}


def _response(outcome: Outcome, asked: _FeaturesAsked) -> Any:
    if isinstance(outcome, Refusal):
        return _error(outcome)
    if isinstance(outcome, ProviderJson):
        recorded = outcome.json
        whole = isinstance(recorded, dict) and "responses" in recorded
        return recorded["responses"][0] if whole else recorded
    response: dict[str, Any] = {}
    if asked.labels and outcome.labels:  # protobuf's JSON leaves empty lists out
        response["labelAnnotations"] = [
            {
                "mid": _mid(label.name),
                "description": label.name,
                "score": label.score,
                "topicality": label.score,
            }
            for label in outcome.labels[: asked.most]
        ]
    if asked.safe_search:
        response["safeSearchAnnotation"] = _safe_search(outcome)
    return response


def _mid(name: str) -> str:
    """Return a machine id that is always the same for a name, as Google's are."""
    return f"/m/0{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:6]}"


def _safe_search(answer: Answer) -> dict[str, str]:
    scores = {label.name.lower(): label.score for label in reversed(answer.labels)}
    return {kind: _LIKELIHOODS[min(4, int(5 * scores.get(kind, 0.0)))] for kind in _SAFE_SEARCH}
