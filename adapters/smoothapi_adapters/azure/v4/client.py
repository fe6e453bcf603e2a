"""How Azure's ImageAnalysisClient (4.0) is held to one request, a time and a size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.core.credentials import TokenCredential

    from smoothapi_adapters.azure.resource import Resource


def connect(
    resource: Resource, credential: TokenCredential | None, timeout: float
) -> ImageAnalysisClient:
    """Return a client that sends each request once.

    Args:
        resource: where requests go, and the key that signs them.
        credential: signs them instead of the key.
        timeout: seconds for a request and its answer.

    Raises:
        FatalError: endpoint or key were not found.
    """
    import requests  # noqa: PLC0415
    from azure.ai.vision.imageanalysis import ImageAnalysisClient  # noqa: PLC0415
    from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415
    from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415

    from smoothapi_adapters._common.sessions import BoundedHTTPAdapter  # noqa: PLC0415

    if credential is None or not resource.endpoint:
        resource.required()
    session = requests.Session()
    connections = BoundedHTTPAdapter(timeout)
    for scheme in ("https://", "http://"):
        session.mount(scheme, connections)
    return ImageAnalysisClient(
        resource.endpoint,
        credential or AzureKeyCredential(resource.key),
        transport=RequestsTransport(session=session),
        retry_total=0,  # retry_policy=None would be the default one
    )
