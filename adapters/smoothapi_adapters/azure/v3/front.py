"""Azure Computer Vision 3.2 over REST, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from smoothapi.errors import TransientError
from smoothapi.wires.azure import Azure
from smoothapi.wrapping import Call, Item, Remote
from smoothapi_adapters._common.relay import RelayedCall, plain_path, uncertifiable
from smoothapi_adapters.azure.errors import OF_PARSING
from smoothapi_adapters.azure.front import AzureFront, features_of, query_of, with_photo
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

_TAG, _ANALYZE = "/vision/v3.2/tag", "/vision/v3.2/analyze"
_LABELLING = re.compile(r"/vision/[^/]+/(operations/)?(imageanalysis:)?(?P<what>tag|analyze)\b.*")
_FEATURES = ("categories", "tags", "adult", "brands", "color", "description", "faces", "imagetype",
             "objects")  # fmt: skip
_SCORES = {"tags": "confidence", "categories": "score"}


class ComputerVisionFront(AzureFront):
    """Certifies the tags of /tag, the tags and categories of /analyze.

    Those of other versions than 3.2 are refused.
    """

    name = "azure"
    _path = "/vision"

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        self.wire = Azure()
        super().__init__(options, signed_by)

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks, as `wrap` reads it from the SDK's."""
        request, path = incoming.request, incoming.request.path.lower()
        labelling = _LABELLING.fullmatch(plain_path(path))
        if labelling is None:
            return None
        query = query_of(incoming)
        asked = ["tags"]
        if labelling["what"] == "analyze":
            asked = features_of(query.get("visualfeatures", "") or "categories", _FEATURES)
        features = [name for name in CERTIFIED if name in asked]
        if not features:
            return None
        if request.method != "POST" or path not in {_TAG, _ANALYZE}:
            raise uncertifiable(f"They are those of POST {_TAG} and {_ANALYZE}: ask there.")
        whole = with_photo(incoming)
        if isinstance(whole, Remote):
            return whole
        votes = self._votes(AzureAdapter, request, query, features)
        own = RelayedCall(
            votes,
            partial(self._send, whole, identity=True),
            means=self._means,
            read=partial(_read, features=features, tagged=path == _TAG),
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
        _check_names(data, features)
        result = kind.deserialize(data)
    except (ClientException, DeserializationError, *OF_PARSING) as error:
        raise TransientError(f"Azure's answer is malformed ({type(error).__name__}).") from None
    return read_labels(result, features)


def _check_names(data: Mapping[str, Any], features: Sequence[str]) -> None:
    """Raise TypeError if a name is not text: the SDK would make one of anything."""
    for feature in features:
        for row in data.get(feature) or ():
            if not isinstance(row["name"], str):
                raise TypeError("a name that is not text")


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
