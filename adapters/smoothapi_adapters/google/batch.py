"""Batches of pictures, of which some are certified one by one and the others go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import vision

from smoothapi.errors import TransientError
from smoothapi.wrapping import Passed, Remote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LABELS = vision.Feature.Type.LABEL_DETECTION


def label_feature(request: vision.AnnotateImageRequest) -> vision.Feature | None:
    """Return the feature by which a request asks for labels, None if it asks for none."""
    # By protobuf's number: proto-plus warns of those that it does not know.
    features = zip(request.features, _features(request), strict=True)
    return next((feature for feature, raw in features if raw.type_ == _LABELS), None)


def could_label(request: vision.AnnotateImageRequest) -> bool:
    """Whether Google could answer with labels: they are asked for, or it cannot be read what is."""
    kinds = [feature.type_ for feature in _features(request)]
    return not kinds or _LABELS in kinds or vision.Feature.Type.TYPE_UNSPECIFIED in kinds


def to_certify(request: vision.AnnotateImageRequest) -> bool:
    """Whether a request asks for the labels of a picture that it holds."""
    return label_feature(request) is not None and bool(request.image.content)


def _features(request: vision.AnnotateImageRequest) -> Any:
    return vision.AnnotateImageRequest.pb(request).features


def remote_of(request: vision.AnnotateImageRequest, instead: str) -> Remote | None:
    """Return where the picture of a request for labels is, None if it is here or nowhere.

    Args:
        request: about one picture.
        instead: as for `Remote`.
    """
    source = request.image.source
    if label_feature(request) is None or request.image.content:
        return None
    location = source.image_uri or source.gcs_image_uri
    return Remote("a picture at a URI", instead, location) if location else None


class Together:
    """The pictures of a batch that are not to be certified, in one request of the caller's own.

    Args:
        send: sends their requests, and returns a response for each.
    """

    def __init__(self, send: Callable[[list[Any]], Sequence[Any]]) -> None:
        self._send = send
        self._requests: list[Any] = []
        self._responses: Sequence[Any] | None = None

    def passed(self, request: Any, remote: Remote | None) -> Passed:
        """Return the part of the call that is about one of them; `remote` as for `Passed`."""
        number = len(self._requests)
        self._requests.append(request)
        return Passed(lambda: self._sent()[number], remote)

    def _sent(self) -> Sequence[Any]:
        if self._responses is None:
            answered = self._send(self._requests)
            if len(answered) != len(self._requests):
                raise TransientError(
                    f"Google answered {len(answered)} of {len(self._requests)} pictures."
                )
            self._responses = answered
        return self._responses
