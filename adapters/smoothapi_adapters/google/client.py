"""How Google's client signs in and is held to one request; where its credentials are kept."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smoothapi.errors import FatalError
from smoothapi.files import is_file
from smoothapi.provider import Credentials
from smoothapi_adapters._common.aio import SeenFromThread
from smoothapi_adapters._common.bounds import MOST_BYTES
from smoothapi_adapters._common.twins import twin_of
from smoothapi_adapters.google.errors import ADVICE

if TYPE_CHECKING:
    from google.cloud import vision

    from smoothapi_adapters._common.sessions import Bounds

_WORKER_VARIABLES = ("K_SERVICE", "GAE_SERVICE", "GAE_ENV")
_PRODUCT = Path("/sys/class/dmi/id/product_name")

_LATER = 2.0  # seconds

_ONCE = (
    ("grpc.enable_retries", 0),
    # After an outage a channel would stay away for up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MOST_BYTES),
)
"""Options of a channel that sends each request once, of any length, and reads no endless answer."""


@dataclass(frozen=True)
class Connection:
    """How a client is made.

    Attributes:
        transport: "grpc" or "rest".
        endpoint: URL; "" means Google's own.
        api_key: "" where Application Default Credentials sign.
        credentials: of google.auth, instead of those.
        quota_project: project that is billed, if it is not the credentials' own.
        timeout: seconds for a request and its answer.
    """

    transport: str
    endpoint: str = ""
    api_key: str = field(default="", repr=False)
    credentials: Any = field(default=None, repr=False)
    quota_project: str | None = None
    timeout: float = 30.0

    def open(self) -> tuple[vision.ImageAnnotatorClient, Bounds | None]:
        """Sign in, and return a client that sends each request once, with its bounds if REST.

        Raises:
            FatalError: credentials were not found, or cannot be used.
        """
        from google.cloud import vision  # noqa: PLC0415  0.4 s: when the first picture comes

        given = self.credentials
        if given is None and not self.api_key:
            given = sign_in(self.quota_project)
        if self.endpoint.startswith("http://") and self.transport == "grpc":
            # gRPC signs in over TLS only.
            channel = _plain_transport(urlsplit(self.endpoint).netloc, self.api_key)
            return vision.ImageAnnotatorClient(transport=channel), None
        options: dict[str, Any] = {}
        if self.endpoint:
            options["api_endpoint"] = self.endpoint
        if self.quota_project:
            options["quota_project_id"] = self.quota_project
        if self.api_key:
            options["api_key"] = self.api_key
        client = vision.ImageAnnotatorClient(
            credentials=given,
            client_options=options,
            transport="rest" if self.transport == "rest" else _grpc_transport,
        )
        if self.transport == "rest":
            _pool_connections(client)
        return held(client, self.timeout)


def held(
    client: vision.ImageAnnotatorClient, timeout: float
) -> tuple[vision.ImageAnnotatorClient, Bounds | None]:
    """Return a client that does as a given one does, but over REST once and within bounds.

    Connections and credentials are shared; `client` itself is not changed. A call of gRPC has a
    deadline as it is, so such a client is returned as it was.
    """
    if isinstance(client, SeenFromThread):  # gRPC's own deadline comes first
        return client.holding(client.client, timeout + _LATER), None
    given: Any = getattr(client, "_transport", None)  # what only looks like a client has none
    if getattr(given, "kind", "") != "rest":
        return client, None
    from google.cloud.vision_v1.services.image_annotator.transports.rest import (  # noqa: PLC0415
        DEFAULT_CLIENT_INFO,
    )

    from smoothapi_adapters._common.sessions import Bounds  # noqa: PLC0415

    bounds = Bounds(timeout)
    session = bounds.held(given._session)  # noqa: SLF001  no other way in
    # After a 401 it would sign in again and send the same once more, twice.
    session._max_refresh_attempts = 0  # noqa: SLF001
    session.max_redirects = 0
    transport = twin_of(given)
    transport._session = session  # noqa: SLF001
    transport._prep_wrapped_messages(DEFAULT_CLIENT_INFO)  # noqa: SLF001
    twin: Any = twin_of(client)
    twin._transport = transport  # noqa: SLF001
    return twin, bounds


def _pool_connections(client: vision.ImageAnnotatorClient) -> None:
    """Have a client over REST keep a connection for each thread; one of mTLS has its own way."""
    from smoothapi_adapters._common.sessions import connections  # noqa: PLC0415

    session = client.transport._session  # type: ignore[attr-defined]  # noqa: SLF001
    if not session.is_mtls:
        mounted = connections()
        for scheme in ("https://", "http://"):
            session.mount(scheme, mounted)


def sign_in(quota_project: str | None) -> Any:
    """Return Application Default Credentials.

    Raises:
        FatalError: they were not found, or cannot be used.
    """
    import google.auth  # noqa: PLC0415
    from google.auth import exceptions  # noqa: PLC0415

    try:
        found, _ = google.auth.default(quota_project_id=quota_project)
    except exceptions.DefaultCredentialsError as error:
        looked = application_default()
        said = (
            f"what is in {looked.where} cannot be used ({error})" if looked.found else looked.where
        )
        raise FatalError(
            f"Credentials for Google were not found: {said}. {ADVICE}", sent=False
        ) from error
    return found


def application_default() -> Credentials:
    """Look where google.auth.default would, as far as that needs no network."""
    looked: list[str] = []
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        if is_file(named):
            where = "the file that GOOGLE_APPLICATION_CREDENTIALS names"
            return Credentials(found=True, where=where)
        looked.append("GOOGLE_APPLICATION_CREDENTIALS names a file that is not there")
    else:
        looked.append("GOOGLE_APPLICATION_CREDENTIALS is not set")
    folder = os.environ.get("CLOUDSDK_CONFIG")
    login = Path(folder) if folder else Path.home() / ".config" / "gcloud"
    if not named and is_file(login / "application_default_credentials.json"):
        return Credentials(found=True, where="the login of gcloud (application-default)")
    looked.append("gcloud has no application-default login here")
    if not named and _on_google():
        where = "this machine of Google's, whose metadata server is asked at the first request"
        return Credentials(found=True, where=where)
    looked.append("this is not a machine of Google's")
    return Credentials(found=False, where="; ".join(looked))


def secrets_of(client: Any) -> list[str]:
    """Return what a client, or None, signs its requests with now."""
    transport = getattr(client, "transport", None)
    token = getattr(getattr(transport, "_credentials", None), "token", None)
    return [token] if isinstance(token, str) else []


def _on_google() -> bool:
    if any(os.environ.get(name) for name in _WORKER_VARIABLES):
        return True
    with suppress(OSError):
        return _PRODUCT.read_text(encoding="ascii", errors="replace").startswith("Google")
    return False


def _grpc_transport(**arguments: Any) -> Any:
    from google.cloud.vision_v1.services.image_annotator.transports import (  # noqa: PLC0415
        ImageAnnotatorGrpcTransport,
    )

    def connect(host: str, **more: Any) -> Any:
        return ImageAnnotatorGrpcTransport.create_channel(host, **{**more, "options": _ONCE})

    arguments["host"] = arguments["host"].removeprefix("https://")
    return ImageAnnotatorGrpcTransport(channel=connect, **arguments)


def _plain_transport(host: str, api_key: str) -> Any:
    """Return a transport to this machine, unencrypted; gRPC itself gives it no credentials."""
    import grpc  # noqa: PLC0415
    from google.cloud.vision_v1.services.image_annotator.transports import (  # noqa: PLC0415
        ImageAnnotatorGrpcTransport,
    )

    class Sign(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        """Adds the key beneath where the SDK would log it as one of the call's arguments."""

        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            metadata = [*(details.metadata or ()), ("x-goog-api-key", api_key)]
            return continuation(details._replace(metadata=metadata), request)

    channel = grpc.insecure_channel(host, options=_ONCE)
    if api_key:
        channel = grpc.intercept_channel(channel, Sign())
    return ImageAnnotatorGrpcTransport(host=host, channel=channel)
