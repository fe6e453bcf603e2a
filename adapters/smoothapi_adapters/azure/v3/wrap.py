"""How Azure's ComputerVisionClient (3.2) is wrapped (`smoothapi.wrap`)."""

from __future__ import annotations

import inspect
import io
from typing import TYPE_CHECKING, Any

from smoothapi.answer import Answer
from smoothapi.errors import TransientError, UsageError
from smoothapi.wrapping import Call, Item, OwnCall, Remote
from smoothapi_adapters.azure.options import price_of
from smoothapi_adapters.azure.v3.adapter import AzureAdapter, labels_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smoothapi.wrapping import Verdict

_STREAMS = ("tag_image_in_stream", "analyze_image_in_stream")
_URLS = ("tag_image", "analyze_image")
CERTIFIED = ("tags", "categories")


class ComputerVisionWrapper:
    """Certifies tags of tag_image_in_stream, tags and categories of analyze_image_in_stream.

    Descriptions, adult scores and all else that is asked for stay as the service said them.
    """

    operations = frozenset((*_STREAMS, *_URLS))

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(
        self, operation: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> Call | Remote | None:
        """Say what a call asks; what the SDK or the service will refuse is left to them.

        Raises:
            UsageError: the model version is not one that can be pinned.
        """
        method = getattr(self._client, operation)
        try:
            bound = inspect.signature(method).bind(*arguments, **keywords)
        except TypeError:
            return None
        bound.apply_defaults()
        given = bound.arguments
        asked = ["tags"] if operation.startswith("tag") else _named(given["visual_features"])
        features = [name for name in CERTIFIED if name in asked]
        if not features:
            return None
        if operation in _URLS:
            return Remote(
                "a picture at a URL", f"Fetch it and call {operation}_in_stream with its bytes"
            )
        votes = AzureAdapter(
            client=self._client,
            features=features,
            model_version=given["model_version"] or "latest",
            language=given["language"] or "en",
        )
        photo = _bytes(given["image"])
        if not photo:
            return None
        unwrapped = bool(given["raw"])

        def send() -> Any:
            bound.arguments["image"] = io.BytesIO(photo)
            bound.arguments["raw"] = True
            return votes.send(operation, *bound.args, **bound.kwargs)

        def write(raw: Any, verdict: Verdict) -> Any:
            _write(raw.output, features, verdict)
            return raw if unwrapped else raw.output

        item = Item(
            photo=photo,
            own=OwnCall(
                votes, send, lambda raw: read_labels(raw.output, features), price=price_of(asked)
            ),
            votes=votes,
            score=None,
            write=write,
            also=lambda response: (response.output,) if unwrapped else (),
        )
        return Call([item])


def read_labels(result: Any, features: Sequence[str]) -> Answer:
    """Return the labels of some features of a `TagResult` or an `ImageAnalysis`.

    Raises:
        TransientError: it is malformed.
    """
    request = str(getattr(result, "request_id", None) or "")
    try:
        labels = tuple(label for name in features for label in labels_of(result, name))
        return Answer(labels, result.model_version or "", request)
    except (UsageError, AttributeError, TypeError) as error:
        raise TransientError(
            f"Azure's answer is malformed ({type(error).__name__}).", request_id=request
        ) from error


def _write(result: Any, features: Sequence[str], verdict: Verdict) -> None:
    for feature, score in (("tags", "confidence"), ("categories", "score")):
        if feature in features and getattr(result, feature) is not None:
            kept = [label for label in getattr(result, feature) if verdict.keeps(label.name)]
            for label in kept:
                certified = verdict.score(label.name)
                if certified is not None:
                    setattr(label, score, certified)
                if verdict.mark:
                    label.certified = verdict.certified(label.name)
            setattr(result, feature, kept)


def _named(features: Any) -> list[str]:
    """Return the names of visual features in small letters; the service's default is categories."""
    given = [features] if isinstance(features, str) else features or ["categories"]
    return [str(getattr(name, "value", name)).lower() for name in given]


def _bytes(image: Any) -> bytes:
    """Return what a stream or a file holds; the SDK takes those, and wrapped also bytes."""
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    read = getattr(image, "read", None)
    data = read() if read is not None else b"".join(image)
    return data if isinstance(data, bytes) else b""
