"""Azure's Image Analysis 4.0 over REST, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from smoothapi.wires.azure4 import Azure4
from smoothapi.wrapping import Call, Item, Remote
from smoothapi_adapters._common.relay import RelayedCall, plain_path, uncertifiable
from smoothapi_adapters.azure.front import AzureFront, features_of, query_of, with_photo
from smoothapi_adapters.azure.options import price_of
from smoothapi_adapters.azure.v4.adapter import Azure4Adapter
from smoothapi_adapters.azure.v4.client import connect
from smoothapi_adapters.azure.v4.wrap import read_labels, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.gateway.front import Incoming, SignedBy
    from smoothapi.wires.wire import Reply
    from smoothapi.wrapping import Verdict
    from smoothapi_adapters._common.relay import Told

_ANALYZE = "/computervision/imageanalysis:analyze"
_LABELLING = re.compile(r"/computervision/(.*[/:])?analyze\b.*")
_FEATURES = ("tags", "caption", "denseCaptions", "objects", "people", "read", "smartCrops")


class ImageAnalysisFront(AzureFront):
    """Certifies the tags of imageanalysis:analyze; those of customized models are refused."""

    name = "azure4"
    _path = "/computervision"

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        self.wire = Azure4()
        super().__init__(options, signed_by)

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks, as `wrap` reads it from the SDK's."""
        request = incoming.request
        if not _LABELLING.fullmatch(plain_path(request.path)):
            return None
        query = query_of(incoming)
        if "model-name" in query:
            raise uncertifiable("They are those of Azure's own model: leave model-name out.")
        asked = features_of(query.get("features", ""), _FEATURES)
        if "tags" not in asked:
            return None
        if request.method != "POST" or request.path.lower() != _ANALYZE:
            raise uncertifiable(f"They are those of POST {_ANALYZE}: ask there.")
        whole = with_photo(incoming)
        if isinstance(whole, Remote):
            return whole
        votes = self._votes(Azure4Adapter, request, query, ["tags"])
        own = RelayedCall(
            votes,
            partial(self._send, whole, identity=True),
            means=self._means,
            read=read_labels,
            who="Azure",
            price=price_of(asked),
        )
        return Call([Item(whole.request.body, own, votes, None, _write)])

    def _client(self, signing: str) -> Any:
        return connect(self._resource_of(signing), self._timeout)


def _write(told: Told, verdict: Verdict) -> Reply:
    write(told.json, verdict)
    return told.written()
