"""How Google's ImageAnnotatorClient is wrapped (`smoothapi.wrap`)."""

from __future__ import annotations

import inspect
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.cloud import vision

from smoothapi.answer import Answer, Label
from smoothapi.errors import TransientError, UsageError
from smoothapi.provider import Price
from smoothapi.wrapping import Call, Item, OwnCall
from smoothapi_adapters._common.reaching import unsent
from smoothapi_adapters.google.adapter import PER_SECOND, GoogleAdapter
from smoothapi_adapters.google.batch import Together, label_feature, remote_of, to_certify
from smoothapi_adapters.google.client import held
from smoothapi_adapters.google.errors import mapped_error, of_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smoothapi.wrapping import Remote, Verdict

_LABELS = vision.Feature.Type.LABEL_DETECTION
_HOST = "vision.googleapis.com"
_TIMEOUT = 30.0
_MOST_LABELS = 50


class ImageAnnotatorWrapper:
    """Certifies the label annotations of label_detection, annotate_image and batch_annotate_images.

    What other features of a request find stays as Google said it. A safe search alone has no labels
    and is not certified: use Smoother("google", operation="safe_search") with Presence or Absence.
    Pictures of a batch that are to be certified are sent one by one, which costs the same; all
    others go together, as the caller would have sent them.
    """

    operations = frozenset(("label_detection", "annotate_image", "batch_annotate_images"))

    def __init__(self, client: Any) -> None:
        if not hasattr(client, "batch_annotate_images"):
            raise UsageError(
                f"A {type(client).__name__} cannot be wrapped: wrap an ImageAnnotatorClient."
            )
        self._client = client

    def read(
        self, operation: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> Call | Remote | None:
        """Say what a call asks; what the SDK will refuse is left to it."""
        try:
            bound = inspect.signature(getattr(self._client, operation)).bind(*arguments, **keywords)
            bound.apply_defaults()
            whole, requests = _asked(operation, dict(bound.arguments))
        except (TypeError, ValueError, OSError):
            return None
        if not any(to_certify(request) for request in requests):
            return next(filter(None, map(_remote, requests)), None)
        client = CallersClient(self._client, whole, bound.arguments)
        together = Together(partial(self._sent_together, whole, bound.arguments))
        parts = [
            self._item(request, client)
            if to_certify(request)
            else together.passed(request, _remote(request))
            for request in requests
        ]
        if operation == "batch_annotate_images":
            return Call(
                parts,
                lambda done: vision.BatchAnnotateImagesResponse(responses=done),
                lambda joined: joined.responses,
            )
        return Call(parts)

    def _sent_together(
        self, whole: Any, given: Mapping[str, Any], requests: list[Any]
    ) -> Sequence[vision.AnnotateImageResponse]:
        """Send a part of the caller's whole request as the caller's call would have been."""
        request = vision.BatchAnnotateImagesRequest(
            requests=requests, parent=whole.parent, labels=whole.labels
        )
        options = {name: given[name] for name in ("retry", "timeout", "metadata")}
        answered = self._client.batch_annotate_images(request=request, **options)
        responses: Sequence[vision.AnnotateImageResponse] = answered.responses
        return responses

    def _item(self, request: vision.AnnotateImageRequest, client: CallersClient) -> Item:
        feature: Any = label_feature(request)
        votes = client.votes(feature)

        def send() -> Any:
            try:
                response = client.send(request)
            except Exception as error:
                mapped = mapped_error(error)
                if mapped is None:
                    raise
                raise unsent(mapped, error, "Google") from error
            return response

        own = _Row(votes, send, read_labels, price=times(votes.price, len(request.features)))
        return Item(photo=request.image.content, own=own, votes=votes, score=None, write=_write)


class _Row(OwnCall):
    """One picture of a batch, whose error Google returns in its place."""

    def _make(self) -> Any:
        response = super()._make()
        self.refusal = response if response.error.code else None
        return response


class CallersClient:
    """The caller's client with the caller's metadata, project and timeout, and without retries.

    Args:
        client: of the SDK.
        whole: the caller's request of several pictures, if the call has one.
        given: the other arguments of the call.
        per_second: most pictures a second.
    """

    def __init__(
        self, client: Any, whole: Any, given: Mapping[str, Any], per_second: float = PER_SECOND
    ) -> None:
        self._whole = whole
        self._per_second = per_second
        self._metadata: Sequence[tuple[str, str | bytes]] = tuple(given.get("metadata") or ())
        timeout = given.get("timeout")
        known = isinstance(timeout, (int, float)) and timeout > 0
        self.timeout = float(timeout) if known and timeout is not None else _TIMEOUT
        self._client, _ = held(client, self.timeout)

    @property
    def transport(self) -> Any:
        """The client's, which knows what signs its requests."""
        return self._client.transport

    def votes(self, feature: vision.Feature) -> GoogleAdapter:
        """Return what asks for the labels of noisy copies, as a call asks for them."""
        return GoogleAdapter(
            operation="labels",
            max_results=max(_MOST_LABELS, feature.max_results),
            model=feature.model or "builtin/stable",
            endpoint=_endpoint(self._client),
            timeout=self.timeout,
            per_second=self._per_second,
            client=self,  # type: ignore[arg-type]  # all that the adapter uses of a client
        )

    def send(self, request: vision.AnnotateImageRequest) -> vision.AnnotateImageResponse:
        """Ask about one picture, once."""
        answered = self.batch_annotate_images(
            request=vision.BatchAnnotateImagesRequest(requests=[request])
        )
        if len(answered.responses) != 1:
            raise TransientError(f"Google answered {len(answered.responses)} of 1 pictures.")
        response: vision.AnnotateImageResponse = answered.responses[0]
        return response

    def batch_annotate_images(
        self, *, request: vision.BatchAnnotateImagesRequest, **options: Any
    ) -> Any:
        """Send a request as the caller would have; `options` are the adapter's."""
        if self._whole is not None:
            request.parent = self._whole.parent
            request.labels = self._whole.labels
        options["metadata"] = (*self._metadata, *options.get("metadata", ()))
        return self._client.batch_annotate_images(
            request=request, **{**options, "retry": None, "timeout": self.timeout}
        )


def _asked(operation: str, given: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return the whole request, if the call has one, and the requests of single pictures.

    Raises:
        TypeError, ValueError: the SDK would refuse it.
        OSError: it names a file that cannot be read.
    """
    if operation == "batch_annotate_images":
        if (given["request"] is None) == (given["requests"] is None):
            raise TypeError("request or requests")
        whole = vision.BatchAnnotateImagesRequest(
            given["request"] or {"requests": given["requests"]}
        )
        return whole, [vision.AnnotateImageRequest(request) for request in whole.requests]
    if operation == "annotate_image":
        return None, [_one(given["request"])]
    feature = {"type_": _LABELS, "max_results": given["max_results"] or 0}
    return None, [_one({"image": given["image"], "features": [feature], **given.get("kwargs", {})})]


def _one(request: Any) -> vision.AnnotateImageRequest:
    """Return a request about one picture as annotate_image reads it: files too, all features.

    Raises:
        TypeError: it asks for no labels; then no file has been read.
    """
    if isinstance(request, dict):
        request = dict(request)
        features = [vision.Feature(feature) for feature in request.get("features") or ()]
        if features and all(feature.type_ != _LABELS for feature in features):
            raise TypeError("no labels are asked for")
        image = request.get("image")
        source = image.get("source") if isinstance(image, dict) else None
        if hasattr(image, "read"):
            request["image"] = {"content": image.read()}
        elif isinstance(source, dict) and source.get("filename"):
            request["image"] = {"content": Path(source["filename"]).read_bytes()}
    whole = vision.AnnotateImageRequest(request)
    if not whole.features:
        whole.features = [vision.Feature(type_=kind) for kind in list(vision.Feature.Type) if kind]
    return whole


def _remote(request: vision.AnnotateImageRequest) -> Remote | None:
    return remote_of(request, "Fetch it and give its bytes as image=vision.Image(content=...)")


def _endpoint(client: Any) -> str | None:
    """Return the client's host if it is not Google's usual one: models may differ."""
    host = str(getattr(client.transport, "host", "")).removesuffix(":443")
    return None if host.rpartition("//")[2] in ("", _HOST) else host


def times(price: Price, features: int) -> Price:
    """Return the price of a picture with several features, each as dear as labels."""
    return Price(
        price.per_thousand * features,
        price.as_of,
        price.free_per_month,
        tuple((start, step * Decimal(features)) for start, step in price.steps),
    )


def read_labels(response: Any) -> Answer:
    """Return the labels of one picture's part of a response.

    Raises:
        ProviderError: there is an error in their place, or they are malformed.
    """
    if response.error.code:
        raise of_picture(response.error.code, response.error.message)
    try:
        return Answer(tuple(Label(a.description, a.score) for a in response.label_annotations))
    except UsageError as error:
        raise TransientError(f"Google's answer is malformed: {error}") from error


def _write(response: Any, verdict: Verdict) -> Any:
    kept = [label for label in response.label_annotations if verdict.keeps(label.description)]
    for label in kept:
        score = verdict.score(label.description)
        if score is not None:
            label.score = score
        if verdict.mark:
            said = "certified" if verdict.certified(label.description) else "uncertified"
            label.properties.append(vision.Property(name="smoothapi", value=said))
    response.label_annotations = kept
    return response
