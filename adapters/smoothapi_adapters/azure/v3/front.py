"""Azure Computer Vision 3.2 over REST, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from smoothapi.errors import TransientError
from smoothapi.wires.azure import Azure
from smoothapi.wrapping import Call, Item, Remote
from smoothapi_adapters._common.relay import own_call
from smoothapi_adapters.azure.errors import OF_PARSING
from smoothapi_adapters.azure.front import AzureFront, lowered, with_photo
from smoothapi_adapters.azure.options import price_of
from smoothapi_adapters.azure.v3.adapter import AzureAdapter
from smoothapi_adapters.azure.v3.client import connect
from smoothapi_adapters.azure.v3.wrap import CERTIFIED, read_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.gateway.front import Incoming, SignedBy
    from smoothapi.wires.wire import Reply
    from smoothapi.wrapping import Verdict
    from smoothapi_adapters._common.relay import Told

_SCORES = {"tags": "confidence", "categories": "score"}


class ComputerVisionFront(AzureFront):
    """Certifies the tags of /tag, the tags and categories of /analyze."""

    name = "azure"
    _path = "/vision"

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        self.wire = Azure()
        super().__init__(options, signed_by)

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks, as `wrap` reads it from the SDK's."""
        request = incoming.request
        if request.method != "POST" or request.path not in {
            "/vision/v3.2/analyze",
            "/vision/v3.2/tag",
        }:
            return None
        query = lowered(request.query)
        asked = ["tags"]
        if request.path.endswith("analyze"):
            given = query.get("visualfeatures", "") or "categories"
            asked = [name.strip().lower() for name in given.split(",")]
        features = [name for name in CERTIFIED if name in asked]
        whole = with_photo(incoming) if features else None
        if whole is None or isinstance(whole, Remote):
            return whole
        votes = self._votes(AzureAdapter, request, query, features)
        if votes is None:
            return None
        own = own_call(
            votes,
            partial(self._send, whole, identity=True),
            means=self._means,
            read=partial(_read, features=features, tagged=request.path.endswith("tag")),
            who="Azure",
            price=price_of(asked),
        )
        item = Item(whole.request.body, own, votes, None, partial(_write, features=features))
        return Call([item])

    def _client(self, signing: str) -> Any:
        client, _ = connect(self._resource_of(signing), None, self._timeout)
        return client


def _read(data: Mapping[str, Any], *, features: Sequence[str], tagged: bool) -> Answer:
    """Return the labels in a response's JSON, read as the SDK reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from azure.cognitiveservices.vision.computervision import models  # noqa: PLC0415
    from azure.core.exceptions import DeserializationError  # noqa: PLC0415
    from msrest.exceptions import ClientException  # noqa: PLC0415

    kind: Any = models.TagResult if tagged else models.ImageAnalysis
    try:
        result = kind.deserialize(data)
    except (ClientException, DeserializationError, *OF_PARSING) as error:
        raise TransientError(f"Azure's answer is malformed ({type(error).__name__}).") from None
    return read_labels(result, features)


def _write(told: Told, verdict: Verdict, *, features: Sequence[str]) -> Reply:
    for feature in features:
        if told.json.get(feature) is None:
            continue
        kept = [row for row in told.json[feature] if verdict.keeps(row["name"])]
        for row in kept:
            score = verdict.score(row["name"])
            if score is not None:
                row[_SCORES[feature]] = score
            if verdict.mark:
                row["certified"] = verdict.certified(row["name"])
        told.json[feature] = kept
    return told.written()
