"""How Azure's ComputerVisionClient (3.2) is held to one request, a time and a size."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.cognitiveservices.vision.computervision import ComputerVisionClient

    from smoothapi_adapters._common.sessions import BoundedHTTPAdapter
    from smoothapi_adapters.azure.resource import Resource

_BLOCK = 65_536


def connect(
    resource: Resource, given: ComputerVisionClient | None, timeout: float
) -> tuple[ComputerVisionClient, BoundedHTTPAdapter | None]:
    """Return a client of our own that sends each request once, and its connections.

    Args:
        resource: signs the requests, where no client is given.
        given: whose endpoint, credentials, proxies and hooks are used; it is not changed. Where
            its owner sets up sessions, for certificates of one's own, say, they bring their own
            connections.
        timeout: seconds for a request and its answer.

    Raises:
        FatalError: endpoint or key were not found.
    """
    with warnings.catch_warnings():
        # The package is archived: what it does that is deprecated will stay so.
        warnings.simplefilter("ignore")
        from azure.cognitiveservices.vision.computervision import (  # noqa: PLC0415
            ComputerVisionClient,
        )
        from msrest.authentication import CognitiveServicesCredentials  # noqa: PLC0415
    from smoothapi_adapters._common.sessions import BoundedHTTPAdapter  # noqa: PLC0415

    make: Any = ComputerVisionClient
    client: ComputerVisionClient
    if given is None:
        resource.required()
        client = make(resource.endpoint, CognitiveServicesCredentials(resource.key))
        client.config.connection.data_block_size = _BLOCK
    else:
        theirs = given.config
        client = make(theirs.endpoint, theirs.credentials)
        for name in ("connection", "proxies", "hooks", "headers", "base_url"):
            setattr(client.config, name, getattr(theirs, name))
    client.config.retry_policy.policy.total = 0
    if given is not None:
        setup = given.config.session_configuration_callback
        if setup is not client.config.session_configuration_callback:
            client.config.session_configuration_callback = setup
            return client, None
    connections = BoundedHTTPAdapter(timeout)

    def mount(session: Any, *_: object, **more: Any) -> dict[str, Any]:
        """Give a thread's new session the connections that all threads share."""
        for scheme in ("https://", "http://"):
            if session.adapters.get(scheme) is not connections:
                session.mount(scheme, connections)
        more.pop("msrest", None)
        return more

    client.config.session_configuration_callback = mount
    return client, connections


def secrets_of(client: ComputerVisionClient) -> list[str]:
    """Return what a client signs its requests with."""
    credentials: Any = client.config.credentials
    found = {**(getattr(credentials, "in_headers", None) or {})}
    found |= getattr(credentials, "in_query", None) or {}
    token = getattr(credentials, "token", None)
    found |= token if isinstance(token, dict) else {"token": token}
    found["password"] = getattr(credentials, "password", None)
    return [value for value in found.values() if isinstance(value, str)]
