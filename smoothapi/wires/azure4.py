"""Azure Image Analysis 4.0: `imageanalysis:analyze`, tags and caption."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from smoothapi.wires.azure import (
    AzureErrors,
    ids,
    invalid,
    not_found,
    recorded,
    tags,
    take_picture,
)
from smoothapi.wires.wire import (
    Outcome,
    Picture,
    ProviderJson,
    Question,
    Refusal,
    Reply,
    Request,
    to_reply,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_BYTES = 20 * 2**20
_SIDES = (50, 16_000)
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "ICO", "TIFF", "MPO")
_MODEL = "2023-10-01"
_API_VERSIONS = ("2023-10-01", "2024-02-01")
_VERSION = re.compile(r"latest|\d{4}-\d{2}-\d{2}(-preview)?", re.ASCII)
_FEATURES = ("caption", "denseCaptions", "objects", "people", "read", "smartCrops", "tags")
_SPOKEN = ("caption", "tags")


class Azure4(AzureErrors):
    """Tags and caption.

    Args:
        key: the key that is let in; any, if None.
    """

    paths = ("/computervision/imageanalysis:analyze",)
    max_body = _MAX_BYTES + 1

    def operation(self, request: Request) -> str:
        """Return "imageanalysis:analyze"."""
        return request.route.rpartition("/")[2]

    def read(self, request: Request) -> Question:
        """Read a request."""
        self.check_key(request)
        if not request.route or request.method != "POST":
            raise not_found()
        if request.query.get("api-version") not in _API_VERSIONS:
            raise not_found()
        version = request.query.get("model-version", "latest")
        if not _VERSION.fullmatch(version):
            raise invalid("InvalidModelVersion", f"Model version {version[:100]!r} is not valid.")
        wanted = _features(request.query.get("features", ""))
        picture = take_picture(request, _FORMATS, _SIDES, _MAX_BYTES)
        return Question(self.operation(request), (picture,), dict(request.query), wanted)

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
        width, height = picture.size
        body: dict[str, Any] = {
            "modelVersion": outcome.model_version or (_MODEL if asked == "latest" else asked),
            "metadata": {"width": width, "height": height},
        }
        if "tags" in question.details:
            body["tagsResult"] = {"values": tags(outcome)}
        if "caption" in question.details:
            best = max(outcome.labels, key=lambda label: label.score, default=None)
            body["captionResult"] = {
                "text": best.name if best else "",
                "confidence": best.score if best else 0.0,
            }
        return to_reply(200, body, ids())


def _features(asked: str) -> list[str]:
    by_name = {name.lower(): name for name in _FEATURES}
    wanted: list[str] = []
    if not asked:
        raise invalid("BadArgument", "The parameter 'features' is missing or empty.")
    for part in asked.split(","):
        name = by_name.get(part.strip().lower())
        if name is None:
            raise invalid(
                "NotSupportedVisualFeature",
                f"Feature is not supported: {part.strip()[:100]!r}.",
            )
        if name not in _SPOKEN:
            raise invalid(
                "NotSupportedVisualFeature",
                f"{name} is not emulated here; {' and '.join(_SPOKEN)} are.",
            )
        wanted.append(name)
    return wanted
