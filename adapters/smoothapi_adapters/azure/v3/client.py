"""How Azure's ComputerVisionClient (3.2) is held to one request, a time and a size."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.cognitiveservices.vision.computervision import ComputerVisionClient

    from smoothapi_adapters._common.sessions import Bounds
    from smoothapi_adapters.azure.resource import Resource
    from smoothapi_adapters.azure.tokens import Tokens

_BLOCK = 65_536


def connect(
    resource: Resource, given: ComputerVisionClient | None, timeout: float
) -> tuple[ComputerVisionClient, Bounds]:
    """Return a client of our own that sends each request once, and their bounds.

    Args:
        resource: signs the requests, where no client is given.
        given: whose endpoint, credentials, proxies and hooks are used; it is not changed. Where
            its owner sets up sessions, with certificates of one's own, say, so are those here.
        timeout: seconds for a request and its answer.

    Raises:
        FatalError: endpoint or key were not found, or signing in failed.
    """
    with warnings.catch_warnings():
        # The package is archived: what it does that is deprecated will stay so.
        warnings.simplefilter("ignore")
        from azure.cognitiveservices.vision.computervision import (  # noqa: PLC0415
            ComputerVisionClient,
        )
        from msrest.authentication import CognitiveServicesCredentials  # noqa: PLC0415
    from smoothapi_adapters._common.sessions import Bounds  # noqa: PLC0415

    make: Any = ComputerVisionClient
    client: ComputerVisionClient
    if given is None:
        resource.required()
        tokens = resource.tokens
        client = make(
            resource.endpoint,
            CognitiveServicesCredentials(resource.key) if tokens is None else _signing(tokens),
        )
        client.config.connection.data_block_size = _BLOCK
    else:
        theirs = given.config
        client = make(theirs.endpoint, theirs.credentials)
        for name in ("connection", "proxies", "hooks", "headers", "base_url"):
            setattr(client.config, name, getattr(theirs, name))
    client.config.retry_policy.policy.total = 0
    client.config.redirect_policy.allow = False
    bounds = Bounds(timeout)
    plain = client.config.session_configuration_callback
    setup = plain if given is None else given.config.session_configuration_callback

    def hold(session: Any, *about: Any, **more: Any) -> dict[str, Any]:
        """Hold a thread's session: to the shared connections, or its owner's own."""
        if setup is plain:
            bounds.mount(session)
        more = setup(session, *about, **more) or more
        bounds.hold(session)
        more.pop("msrest", None)
        return more

    client.config.session_configuration_callback = hold
    return client, bounds


def secrets_of(client: ComputerVisionClient) -> list[str]:
    """Return what a client signs its requests with."""
    credentials: Any = client.config.credentials
    found = {**(getattr(credentials, "in_headers", None) or {})}
    found |= getattr(credentials, "in_query", None) or {}
    token = getattr(credentials, "token", None)
    found |= token if isinstance(token, dict) else {"token": token}
    found["password"] = getattr(credentials, "password", None)
    return [value for value in found.values() if isinstance(value, str)]


def _signing(tokens: Tokens) -> Any:
    """Return credentials of the SDK that sign each request with a token."""
    from msrest.authentication import Authentication  # noqa: PLC0415

    class Signing(Authentication):
        def signed_session(self, session: Any = None) -> Any:
            session = super().signed_session(session)
            session.auth = _sign  # as a header of the session, a .netrc would replace it
            return session

    def _sign(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {tokens.current()}"
        return request

    return Signing()
