"""Azure's Image Analysis 4.0 over REST, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from smoothapi.wires.azure4 import Azure4
from smoothapi.wrapping import Call, Item, Remote
from smoothapi_adapters._common.relay import own_call
from smoothapi_adapters.azure.front import AzureFront, lowered, with_photo
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


class ImageAnalysisFront(AzureFront):
    """Certifies the tags of imageanalysis:analyze."""

    name = "azure4"
    _path = "/computervision"

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        self.wire = Azure4()
        super().__init__(options, signed_by)

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks, as `wrap` reads it from the SDK's."""
        request = incoming.request
        if request.method != "POST" or request.path != "/computervision/imageanalysis:analyze":
            return None
        query = lowered(request.query)
        asked = [name.strip() for name in query.get("features", "").split(",")]
        whole = with_photo(incoming) if "tags" in asked else None
        if whole is None or isinstance(whole, Remote):
            return whole
        votes = self._votes(Azure4Adapter, request, query, ["tags"])
        if votes is None:
            return None
        own = own_call(
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
