"""How Azure's ImageAnalysisClient (4.0) is held to one request, a time and a size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.ai.vision.imageanalysis import ImageAnalysisClient

    from smoothapi_adapters.azure.resource import Resource
    from smoothapi_adapters.azure.tokens import Tokens


def connect(resource: Resource, timeout: float) -> ImageAnalysisClient:
    """Return a client that sends each request once.

    Args:
        resource: where requests go, and what signs them.
        timeout: seconds for a request and its answer.

    Raises:
        FatalError: endpoint or key were not found, or signing in failed.
    """
    import requests  # noqa: PLC0415
    from azure.ai.vision.imageanalysis import ImageAnalysisClient  # noqa: PLC0415
    from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415
    from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415

    from smoothapi_adapters._common.sessions import BoundedHTTPAdapter  # noqa: PLC0415

    resource.required()
    session = requests.Session()
    connections = BoundedHTTPAdapter(timeout)
    for scheme in ("https://", "http://"):
        session.mount(scheme, connections)
    more: dict[str, Any] = {}
    if resource.tokens is not None:
        more["authentication_policy"] = _signing(resource.tokens)
    return ImageAnalysisClient(
        resource.endpoint,
        AzureKeyCredential(resource.key or "-"),  # it must be something
        transport=RequestsTransport(session=session),
        retry_total=0,  # retry_policy=None would be the default one
        **more,
    )


def _signing(tokens: Tokens) -> Any:
    """Return a policy that signs with a token; the SDK's own would send a refused request again."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy  # noqa: PLC0415

    class Signing(SansIOHTTPPolicy[Any, Any]):
        def on_request(self, request: Any) -> None:
            request.http_request.headers["Authorization"] = f"Bearer {tokens.current()}"

    return Signing()
