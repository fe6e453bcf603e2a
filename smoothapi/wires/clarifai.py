"""Clarifai v2: a model's outputs for up to 128 inputs, with a status for each.

Codes are those of Clarifai's published list. Which HTTP status goes with which is not published:
here 401, 403, 404, 405, 429 and 5xx as their meaning is, 400 for what is wrong with a request or
with all of its inputs, and 200 for what is mixed.
"""

from __future__ import annotations

import hashlib
import time
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
    request_id,
    to_reply,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smoothapi.answer import Answer

_INPUTS = 128
_MAX_BYTES = 20 * 2**20
_MAX_SIDE = 65_500
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_MOST_CONCEPTS = 20
_MODEL_VERSION = "aa7f35c01e0642fda5cf400f543e7c40"
_TROUBLES = {
    Trouble.throttled: (429, 11005, "Too many requests"),
    Trouble.error: (500, 98009, "Internal error"),
    Trouble.unavailable: (503, 10030, "Try the request again"),
    Trouble.denied: (403, 11007, "API key has insufficient scopes"),
    Trouble.quota: (429, 11004, "Monthly request limit exceeded"),
}


@dataclass(frozen=True, slots=True)
class _OutputsAsked:
    """What is asked of a model; `ids` are the inputs', in order."""

    model: str
    version: str
    app: str
    user: str
    most: int
    lowest: float
    ids: tuple[str, ...]


class Clarifai:
    """Concepts of a model.

    Args:
        key: the API key or token that is let in; any, if None.
    """

    paths = (
        "/v2/users/{user}/apps/{app}/models/{model}/outputs",
        "/v2/users/{user}/apps/{app}/models/{model}/versions/{version}/outputs",
    )
    max_body = 128 * 2**20

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def operation(self, request: Request) -> str:
        """Return "outputs"."""
        return "outputs" if request.route else ""

    def read(self, request: Request) -> Question:
        """Read a request."""
        self._check_key(request)
        if not request.route:
            raise _refusal(404, 11101, "Resource does not exist", "The path is unknown.")
        if request.method != "POST":
            raise _refusal(405, 11103, "Request method not allowed", "Outputs take a POST.")
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
        if kind != "application/json":
            raise _malformed("the body of a request is application/json")
        data = read_json(request.body, _malformed)
        inputs = data.get("inputs")
        if not isinstance(inputs, list) or not inputs:
            raise _refusal(400, 11102, "Invalid request", "Empty or null inputs.")
        if len(inputs) > _INPUTS:
            raise _refusal(
                400, 11102, "Invalid request", f"At most {_INPUTS} inputs are taken at a time."
            )
        config = _output_config(data.get("model"))
        pictures = tuple(_picture(each) for each in inputs)
        details = _OutputsAsked(
            model=request.names["model"],
            version=request.names.get("version", ""),
            app=request.names["app"],
            user=request.names["user"],
            most=config.get("max_concepts", 0) or _MOST_CONCEPTS,
            lowest=config.get("min_value", 0.0),
            ids=tuple(str(each.get("id") or request_id().replace("-", "")) for each in inputs),
        )
        return Question("outputs", pictures, {**request.names, **config}, details)

    def _check_key(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if not key:
            raise _refusal(401, 11009, "API key not found", "Send 'Authorization: Key ...'.")
        if scheme not in {"Key", "Bearer"} or (self._key is not None and key != self._key):
            raise _refusal(401, 11008, "Invalid API key or Invalid API key/application pair", "")

    def too_large(self) -> Refusal:
        """Return what is said of too long a body."""
        return _refusal(413, 40033, "The request sent is larger than the allowed limit", "")

    def answer(self, question: Question, outcomes: Sequence[Outcome]) -> Reply:
        """Say what each input shows, or what is wrong with it."""
        outputs = [_output(outcome, question.details, at) for at, outcome in enumerate(outcomes)]
        failed = sum(isinstance(outcome, Refusal) for outcome in outcomes)
        if failed == 0:
            return self._reply(200, _status(10000, "Ok"), outputs)
        if failed < len(outcomes):
            details = "some inputs failed, see each output's status"
            return self._reply(200, _status(10010, "Mixed Success", details), outputs)
        return self._reply(400, _status(10020, "Failure", "all inputs failed"), outputs)

    def refuse(self, refusal: Refusal) -> Reply:
        """Say no with a status, and no outputs."""
        status = _status(int(refusal.code), refusal.message, refusal.more.get("details", ""))
        return self._reply(refusal.status, status, [])

    def refuse_input(self, refusal: Refusal) -> Reply:
        """Say no to the one input of a request."""
        details = refusal.more.get("details", "")
        output = {"status": _status(int(refusal.code), refusal.message, details)}
        return self._reply(400, _status(10020, "Failure", "all inputs failed"), [output])

    def unanswerable(self, reason: str) -> Refusal:
        """Return an input's error that is not worth sending again."""
        return _refusal(400, 30104, "Input invalid argument", reason)

    def trouble(self, trouble: Trouble, *, retry_after: float | None = None) -> Refusal:
        """Return trouble in Clarifai's words."""
        status, code, description = _TROUBLES[trouble]
        return Refusal(status, str(code), description, retry_after=retry_after, details="")

    def inside(self, question: Question | None) -> Reply:
        """Return a failure of all inputs under HTTP status 200."""
        count = len(question.pictures) if question else 1
        outputs = [{"status": _status(98004, "Internal error")} for _ in range(count)]
        return self._reply(200, _status(10020, "Failure"), outputs)

    def _reply(self, code: int, status: dict[str, Any], outputs: list[Any]) -> Reply:
        identity = request_id().replace("-", "")
        body = {"status": {**status, "req_id": identity}, "outputs": outputs}
        return to_reply(code, body, (("x-clarifai-request-id", identity),))


def _refusal(status: int, code: int, description: str, details: str) -> Refusal:
    return Refusal(status, str(code), description, details=details)


def _malformed(why: str) -> Refusal:
    return _refusal(400, 11100, "Bad request format", f"Malformed or invalid request: {why}.")


def _status(code: int, description: str, details: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {"code": code, "description": description}
    return {**status, "details": details} if details else status


def _output_config(model: object) -> dict[str, Any]:
    """Return max_concepts and min_value, from where older or newer requests have them."""
    config: Any = {}
    if isinstance(model, dict):
        for holder in (model, model.get("model_version")):
            info = holder.get("output_info") if isinstance(holder, dict) else None
            config = (info.get("output_config") if isinstance(info, dict) else None) or config
    if not isinstance(config, dict):
        raise _malformed("output_config is an object")
    most, lowest = config.get("max_concepts", 0), config.get("min_value", 0.0)
    if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= 200:
        raise _refusal(400, 21202, "Invalid model argument", "max_concepts is from 0 to 200.")
    if isinstance(lowest, bool) or not isinstance(lowest, (int, float)) or not 0 <= lowest <= 1:
        raise _refusal(400, 21202, "Invalid model argument", "min_value is from 0 to 1.")
    return {name: config[name] for name in ("max_concepts", "min_value") if name in config}


def _picture(each: object) -> Picture | Refusal:
    data = each.get("data") if isinstance(each, dict) else None
    image = data.get("image") if isinstance(data, dict) else None
    if not isinstance(image, dict):
        raise _refusal(400, 11102, "Invalid request", "An input has no data.image.")
    if image.get("url"):
        return _refusal(400, 30002, "Download failed; check URL", "URLs are not fetched here.")
    content = from_base64(image.get("base64"))
    if not content:
        return _refusal(400, 30300, "Input image decoding failed", "base64 is empty or invalid.")
    if len(content) > _MAX_BYTES:
        return _refusal(400, 30105, "Input image is larger than the allowed limit", "")
    try:
        return read_picture(content, _FORMATS, max_side=_MAX_SIDE)
    except UnreadableError:
        return _refusal(400, 30300, "Input image decoding failed", "Check URLs and bytes sent.")
    except TooManyPixelsError:
        return _refusal(400, 30105, "Input image is larger than the allowed limit", "")


def _output(outcome: Outcome, asked: _OutputsAsked, at: int) -> Any:
    if isinstance(outcome, ProviderJson):
        recorded = outcome.json
        whole = isinstance(recorded, dict) and "outputs" in recorded
        return recorded["outputs"][0] if whole else recorded
    output: dict[str, Any] = {
        "id": request_id().replace("-", ""),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
        "input": {"id": asked.ids[at]},
        "model": {"id": asked.model, "app_id": asked.app, "user_id": asked.user},
    }
    if isinstance(outcome, Refusal):
        details = outcome.more.get("details", "")
        return {**output, "status": _status(int(outcome.code), outcome.message, details)}
    version = asked.version or outcome.model_version or _MODEL_VERSION
    output["model"]["model_version"] = {"id": version, "status": _status(21100, "Model trained")}
    data = {"concepts": _concepts(outcome, asked)}
    return {**output, "status": _status(10000, "Ok"), "data": data}


def _concepts(answer: Answer, asked: _OutputsAsked) -> list[Mapping[str, Any]]:
    kept = [label for label in answer.labels if label.score >= asked.lowest]
    return [
        {
            "id": f"ai_{_digest(label.name)}",
            "name": label.name,
            "value": label.score,
            "app_id": asked.app,
        }
        for label in kept[: asked.most]
    ]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
