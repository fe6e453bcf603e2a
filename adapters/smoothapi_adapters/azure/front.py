"""What both versions of Azure's Image Analysis have in common behind the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from smoothapi.errors import UsageError
from smoothapi.text import printable
from smoothapi.wires.wire import Refusal, Reply
from smoothapi.wrapping import Remote
from smoothapi_adapters._common import options as read_option
from smoothapi_adapters._common.kept import Kept
from smoothapi_adapters._common.relay import Relay, Signature, read_body, uncertifiable
from smoothapi_adapters.azure.errors import of_status
from smoothapi_adapters.azure.resource import Resource, find_resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.errors import ProviderError
    from smoothapi.gateway.front import Incoming, SignedBy
    from smoothapi.wires.wire import Request

_Votes = TypeVar("_Votes")

_OPTIONS = ("endpoint", "key", "credential", "per_second", "timeout")
_KEYS = ("authorization", "ocp-apim-subscription-key")
_WRONG_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
    "valid key for an active subscription and use a correct regional API endpoint for your "
    "resource."
)


class AzureFront:
    """How requests come in, are signed and sent on; a subclass reads those that it certifies.

    Args:
        options: endpoint, key, credential, per_second and timeout, as for the adapters.
        signed_by: "caller" hands on the caller's key or bearer token.
    """

    name: str
    _path: str

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        read_option.known(self.name, options, _OPTIONS)
        self._signed_by = signed_by
        self._timeout = read_option.timeout(options.get("timeout", 30.0))
        self._per_second = read_option.above_zero("per_second", options.get("per_second", 10.0))
        place, key, credential = (options.get(name) for name in _OPTIONS[:3])
        if signed_by == "caller" and (key or credential):
            raise UsageError(
                'With signed_by = "caller" each caller sends a key: leave key and credential out.'
            )
        self._resource = find_resource(place, key, credential)
        if not self._resource.endpoint:
            raise UsageError(f"The endpoint of Azure's resource: {self._resource.where}.")
        self._relay = Relay("Azure", self._resource.endpoint, timeout=self._timeout)
        self._clients: Kept[str, Any] = Kept(self._client, lambda client: client.close())

    def owns(self, request: Request) -> bool:
        """Whether the path is in this version's tree; Azure takes it in any case."""
        return request.path.lower().startswith(f"{self._path}/")

    def operation(self, request: Request) -> str:
        """Return the last part of the path, such as "analyze"."""
        return request.path.rpartition("/")[2]

    def shown(self, request: Request) -> str:
        """Return the key, or the bearer token."""
        key = request.headers.get("ocp-apim-subscription-key", "")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return key or (token.strip() if scheme.lower() == "bearer" else "")

    def stranger(self, shown: str) -> Refusal:
        """Return what Azure says of a wrong key, and of none."""
        del shown
        return Refusal(401, "401", _WRONG_KEY)

    def relay(self, incoming: Incoming) -> Reply:
        """Send a request on, signed."""
        return self._send(incoming)

    def close(self) -> None:
        """Close the connections."""
        self._relay.close()
        self._clients.close()

    def _client(self, signing: str) -> Any:
        """Return the SDK's client for noisy copies, which signs as `signing` says."""
        raise NotImplementedError

    def _votes(
        self,
        adapter: Callable[..., _Votes],
        request: Request,
        query: Mapping[str, str],
        features: Sequence[str],
    ) -> _Votes:
        """Return who asks the same about noisy copies.

        Raises:
            UsageError: it asks for a model version that the service will refuse.
        """
        try:
            return adapter(
                client=self._clients[self._signing(request)],
                features=features,
                model_version=query.get("model-version") or "latest",
                language=query.get("language") or "en",
                per_second=self._per_second,
                timeout=self._timeout,
            )
        except UsageError as error:  # a model version that cannot be pinned
            raise uncertifiable(str(error)) from None

    def _resource_of(self, signing: str) -> Resource:
        """Return the resource as the gateway (""), or a caller, signs to it."""
        kind, _, secret = signing.partition(" ")
        endpoint = self._resource.endpoint
        if kind == "key":
            return Resource(endpoint, secret, "the caller's")
        if kind == "bearer":
            return find_resource(endpoint, None, _Token(secret))
        return self._resource

    def _signing(self, request: Request) -> str:
        if self._signed_by == "gateway":
            return ""
        kind = "key" if request.headers.get("ocp-apim-subscription-key") else "bearer"
        return f"{kind} {self.shown(request)}"

    def _send(self, incoming: Incoming, *, identity: bool = False) -> Reply:
        headers, signature = incoming.headers, Signature()
        if self._signed_by == "gateway":
            headers = tuple((n, v) for n, v in headers if n.lower() not in _KEYS)
            resource = self._resource.required()
            secret = resource.key or (resource.tokens.current() if resource.tokens else "")
            signed = (
                {"Ocp-Apim-Subscription-Key": secret}
                if resource.key
                else {"Authorization": f"Bearer {secret}"}
            )
            signature = Signature(signed, secrets=(secret,))
        request = incoming.request
        return self._relay.send(
            request.method, incoming.target, headers, request.body, signature, identity=identity
        )

    def _means(self, reply: Reply) -> ProviderError | None:
        if reply.status == 200:
            return None
        headers = {name.lower(): value for name, value in reply.headers}
        text = reply.body.decode(errors="replace")
        return of_status(reply.status, text, headers, self._resource)


def query_of(incoming: Incoming) -> dict[str, str]:
    """Return a request's query by its names in small letters: Azure takes them in any.

    Raises:
        UsageError: one is there twice, and which of them Azure takes need not be the one here.
    """
    found: dict[str, str] = {}
    query = incoming.target.partition("?")[2]
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.lower() in found:
            raise UsageError(f"The query of this call has {printable(name[:100])!r} twice.")
        found[name.lower()] = value
    return found


def features_of(given: str, known: Sequence[str]) -> list[str]:
    """Return the names of features as they are in `known`: Azure takes them in any case.

    Raises:
        UsageError: one is not there, and what Azure makes of it is not known.
    """
    by_name = {name.lower(): name for name in known}
    asked = [name.strip() for name in given.split(",")]
    odd = next((name for name in asked if name.lower() not in by_name), None)
    if odd is not None:
        raise uncertifiable(
            f"The feature {printable(odd[:100])!r} is not known: ask for {', '.join(known)}."
        )
    return [by_name[name.lower()] for name in asked]


def with_photo(incoming: Incoming) -> Incoming | Remote:
    """Return a request whose body is its picture.

    A picture at a URL is fetched, and the request carries its bytes then; `Remote` if the call is
    to be made as it is.

    Raises:
        UsageError: it is not to be fetched, or cannot be; or the body is no picture.
    """
    request = incoming.request
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        instead = "Fetch it and send its bytes as the body"
        remote = Remote("a picture at a URL", instead, _url(request.body))
        photo = incoming.fetch(remote)
        return incoming.with_body(photo, "application/octet-stream") if photo else remote
    taken = kind in {"", "application/octet-stream"} or kind.startswith("image/")
    if not taken or not request.body:
        raise uncertifiable(
            "This call holds no picture that can be read: send its bytes as the body, as "
            "application/octet-stream."
        )
    return incoming


def _url(body: bytes) -> str:
    data = read_body(body)
    url = data.get("url") if isinstance(data, dict) else None
    return url if isinstance(url, str) else ""


class _Token:
    """A caller's bearer token, as a credential of azure-core."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """Return the token; when it ends, only its issuer knows."""
        from azure.core.credentials import AccessToken  # noqa: PLC0415

        del scopes, options
        return AccessToken(self._token, 2**40)
