"""How Azure's ImageAnalysisClient (4.0) is held to one request, a time and a size."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from smoothapi.errors import TransientError
from smoothapi_adapters._common.aio import BoundedSession, SeenFromThread
from smoothapi_adapters._common.twins import twin_of

if TYPE_CHECKING:
    from collections.abc import Callable

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

    from smoothapi_adapters._common.sessions import Bounds  # noqa: PLC0415

    resource.required()
    session = requests.Session()
    Bounds(timeout).mount(session)
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


def held(client: ImageAnalysisClient, timeout: float) -> ImageAnalysisClient:
    """Return a client that does as a given one does, each exchange within a time and a size.

    Connections, credentials and policies are shared; `client` itself is not changed. Where it has
    a transport that is not of requests, or an azure-core that is built otherwise, it is returned
    as it is: then the time is one for each read.
    """
    twin: Any
    if isinstance(client, SeenFromThread):
        twin = client.holding(_twin_through(client.client, _async_bounded), timeout)
    else:
        twin = _twin_through(client, partial(_bounded, timeout=timeout))
    held: ImageAnalysisClient = twin
    return held


def _twin_through(client: Any, bounded: Callable[[Any], Any]) -> Any:
    """Return a client that sends through a transport of its own, by the same policies.

    Args:
        client: either of the SDK's.
        bounded: transport -> what to send through, or None for this one as it is.
    """
    twin: Any = twin_of(client)
    try:
        twin._client = twin_of(twin._client)  # noqa: SLF001  there is no public way
        twin._client._pipeline = pipeline = twin_of(twin._client._pipeline)  # noqa: SLF001
        transport, policies = pipeline._transport, pipeline._impl_policies  # noqa: SLF001
        runner = twin_of(policies[-1].next)
        if runner._sender is not transport:  # noqa: SLF001
            return client
    except AttributeError:
        return client
    sender = bounded(transport)
    if sender is None:
        return client
    runner._sender = sender  # noqa: SLF001
    policies = [_sending_once(twin_of(policy)) for policy in policies]
    for policy, following in pairwise([*policies, runner]):
        policy.next = following
    pipeline._transport, pipeline._impl_policies = sender, policies  # noqa: SLF001
    return twin


def _bounded(transport: Any, timeout: float) -> Any:
    from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415

    from smoothapi_adapters._common.sessions import Bounds  # noqa: PLC0415

    if not isinstance(transport, RequestsTransport):
        return None
    transport.open()  # as the first request would
    sender = twin_of(transport)
    sender.session = Bounds(timeout).held(transport.session)
    return sender


def _async_bounded(transport: Any) -> Any:
    from azure.core.pipeline.transport import AioHttpTransport  # noqa: PLC0415

    return _AsyncBounded(transport) if isinstance(transport, AioHttpTransport) else None


class _AsyncBounded:
    """A transport of aiohttp that reads no endless answer."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def send(self, request: Any, **options: Any) -> Any:
        """Send as the transport does, which opens its session when it is first needed."""
        await self._transport.open()
        once = twin_of(self._transport)
        once.session = BoundedSession(self._transport.session)
        return await once.send(request, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _sending_once(policy: Any) -> Any:
    """Return a policy that, where it would send a refused request again, leaves that to us.

    A bearer policy that is told to sign in otherwise sends at once what it sent before, and nobody
    counts it. The token that it got stays with it.
    """
    answer = getattr(policy, "on_challenge", None)
    if answer is None:
        return policy

    def once(again: bool) -> bool:  # noqa: FBT001
        if again:
            raise TransientError("Azure asked to sign in again before it answers.")
        return False

    def on_challenge(request: Any, response: Any) -> bool:
        return once(answer(request, response))

    async def on_challenge_awaited(request: Any, response: Any) -> bool:
        return once(await answer(request, response))

    policy.on_challenge = on_challenge_awaited if iscoroutinefunction(answer) else on_challenge
    return policy


def _signing(tokens: Tokens) -> Any:
    """Return a policy that signs with a token; the SDK's own would send a refused request again."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy  # noqa: PLC0415

    class Signing(SansIOHTTPPolicy[Any, Any]):
        def on_request(self, request: Any) -> None:
            request.http_request.headers["Authorization"] = f"Bearer {tokens.current()}"

    return Signing()
