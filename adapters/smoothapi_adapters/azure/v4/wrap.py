"""How Azure's ImageAnalysisClient (4.0) is wrapped (`smoothapi.wrap`)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from smoothapi.answer import Answer, Label
from smoothapi.errors import TransientError, UsageError
from smoothapi.wrapping import Call, Item, OwnCall, Remote
from smoothapi_adapters.azure.options import price_of
from smoothapi_adapters.azure.v4.adapter import Azure4Adapter, labels_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.wrapping import Verdict


class ImageAnalysisWrapper:
    """Certifies the tags of analyze; captions, objects and all else stay as Azure said them."""

    operations = frozenset(("analyze", "analyze_from_url"))

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(
        self, operation: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> Call | Remote | None:
        """Say what a call asks; what the SDK or the service will refuse is left to them.

        Raises:
            UsageError: the model version is not one that can be pinned, or `cls` is given.
        """
        try:
            method = getattr(self._client, operation)
            bound = inspect.signature(method).bind(*arguments, **keywords)
            given = bound.arguments
            asked = [str(getattr(name, "value", name)) for name in given["visual_features"]]
        except (TypeError, KeyError):
            return None
        if "tags" not in asked:
            return None
        if operation == "analyze_from_url":
            return Remote("a picture at a URL", "Fetch it and call analyze with its bytes")
        if "cls" in keywords:
            raise UsageError(
                "analyze(cls=...) returns something else than an analysis, into which no "
                "certificate can be put: use the client that was wrapped, or leave cls out."
            )
        votes = Azure4Adapter(
            client=self._client,
            features=["tags"],
            model_version=given.get("model_version") or "latest",
            language=given.get("language") or "en",
        )

        image = given["image_data"]
        photo = image.read() if hasattr(image, "read") else image
        if not isinstance(photo, bytes) or not photo:
            return None
        given["image_data"] = photo
        item = Item(
            photo=photo,
            own=OwnCall(
                votes,
                lambda: votes.send(*bound.args, **bound.kwargs),
                read_labels,
                price=price_of(asked),
            ),
            votes=votes,
            score=None,
            write=write,
        )
        return Call([item])


def read_labels(result: Any) -> Answer:
    """Return the tags of an `ImageAnalysisResult`, or of its JSON.

    Raises:
        TransientError: it is malformed.
    """
    try:
        labels = tuple(Label(name, score) for name, score in labels_of(result, "tags"))
        return Answer(labels, str(result.get("modelVersion") or ""))
    except (UsageError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise TransientError(f"Azure's answer is malformed ({type(error).__name__}).") from error


def write(result: Any, verdict: Verdict) -> Any:
    """Leave the tags that a verdict leaves, with their scores, and return the result."""
    kept = [tag for tag in result["tagsResult"]["values"] if verdict.keeps(tag["name"])]
    for tag in kept:
        score = verdict.score(tag["name"])
        if score is not None:
            tag["confidence"] = score
        if verdict.mark:
            tag["certified"] = verdict.certified(tag["name"])
    result["tagsResult"]["values"] = kept
    return result
