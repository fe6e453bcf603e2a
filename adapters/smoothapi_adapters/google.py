"""Google Cloud Vision: labels and safe search, over gRPC or REST."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from smoothapi.answer import Answer, Label
from smoothapi.errors import (
    FatalError,
    MissingExtraError,
    PermanentError,
    ProviderError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Credentials, Limits, Price
from smoothapi_adapters._options import switch
from smoothapi_adapters.google_errors import ADVICE, mapped_error, of_picture
from smoothapi_adapters.secrets import checked_secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.cloud import vision

    from smoothapi_adapters.sessions import BoundedHTTPAdapter

OPERATIONS = ("labels", "safe_search")
TRANSPORTS = ("grpc", "rest")

LIKELIHOOD: Mapping[str, float] = {
    "VERY_UNLIKELY": 0.0,
    "UNLIKELY": 0.25,
    "POSSIBLE": 0.5,
    "LIKELY": 0.75,
    "VERY_LIKELY": 1.0,
}
"""Score of each likelihood of a safe search; UNKNOWN has none, and makes the answer none."""

CATEGORIES = ("adult", "spoof", "medical", "violence", "racy")

_HOST = "vision.googleapis.com"
_BATCH = 16
_LONGEST = 900  # characters of an error
_REQUEST_BYTES = 10_000_000  # of a whole request; around the pictures there is little else
_FRAME_BYTES = 50_000
_PIXELS_SIDE = 8_660  # 75 million pixels, as a square

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WORKER_VARIABLES = ("K_SERVICE", "GAE_SERVICE", "GAE_ENV")
_PRODUCT = Path("/sys/class/dmi/id/product_name")


class GoogleAdapter:
    """Google Cloud Vision, one feature a picture, up to 16 pictures a request.

    A safe search gives the labels adult, spoof, medical, violence and racy, with the scores of
    `LIKELIHOOD`: certify them with `Presence` and `Absence`; which one comes first says little.
    An answer with an UNKNOWN likelihood is none, since a label left out would count as absent.
    Google names no version of its model: `model` is what can be pinned.

    Args:
        operation: "labels" or "safe_search".
        transport: "grpc" or "rest".
        max_results: most labels of a picture, 1 to 1,000; Google's own default is 10.
        model: "builtin/stable" or "builtin/latest".
        api_key: an API key; without one, Application Default Credentials are used.
        credentials: google.auth credentials to use instead of those.
        quota_project: project that is billed, if it is not the credentials' own.
        endpoint: another host, such as "eu-vision.googleapis.com"; http:// only on this machine.
        timeout: seconds for a request and its answer.
        free_tier: count on the 1,000 pictures a month that are free. Off, since whatever else uses
            the account may have had them, and a budget in dollars would then allow too much.
        client: a ready `ImageAnnotatorClient`, which is not closed here; `transport`, `endpoint`
            and credentials are then its own.

    Raises:
        MissingExtraError: google-cloud-vision is not installed.
        UsageError: an option is out of range.
    """

    name = "google"

    def __init__(
        self,
        *,
        operation: str = "labels",
        transport: str = "grpc",
        max_results: int | str = 50,
        model: str = "builtin/stable",
        api_key: str | None = None,
        credentials: Any = None,
        quota_project: str | None = None,
        endpoint: str | None = None,
        timeout: float | str = 30.0,
        free_tier: bool | str = False,
        client: vision.ImageAnnotatorClient | None = None,
    ) -> None:
        if client is None and not _installed():
            raise MissingExtraError(
                "The provider 'google' needs google-cloud-vision. Install it with: "
                "pip install 'smoothapi-vision[google]'"
            )
        _one_of("operation", operation, OPERATIONS)
        _one_of("transport", transport, TRANSPORTS)
        _one_of("model", model, ("builtin/stable", "builtin/latest"))
        if api_key and credentials is not None:
            raise UsageError("Give api_key or credentials to the google adapter, not both.")
        self._operation = operation
        self._transport = transport
        self._max_results = int(max_results)
        self._model = model
        self._api_key = checked_secret("api_key", api_key) or None
        self._credentials = credentials
        self._quota_project = quota_project or None
        self._endpoint = _checked(endpoint)
        self._timeout = float(timeout)
        if not 1 <= self._max_results <= 1000:
            raise UsageError(f"max_results={max_results}: a picture has 1 to 1,000 labels.")
        if not 0.0 < self._timeout <= 3600.0:
            raise UsageError(f"timeout={timeout}: seconds above 0, up to 3,600.")
        self._client = client
        self._own = client is None
        self._connections: BoundedHTTPAdapter | None = None
        self._lock = threading.Lock()
        room = _REQUEST_BYTES - _FRAME_BYTES
        if transport == "rest":  # base64 makes four bytes of three
            room = room * 3 // 4
        self.limits = Limits(
            batch=_BATCH,
            max_bytes=room,  # of a file 20 MB, but a picture that is sent along is in the request
            max_request_bytes=room,
            max_side=_PIXELS_SIDE,
            formats=("png", "jpeg"),
            per_second=1800 / 60,
        )
        beyond = "1.00" if operation == "labels" else "0.60"
        self.price = Price(
            per_thousand=Decimal("1.50"),
            as_of="2026-11-01",
            free_per_month=1000 if switch("free_tier", free_tier) else 0,
            steps=((5_000_000, Decimal(beyond)),),
        )

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """Operation, model, the cap on labels, and the endpoint if it is not Google's default."""
        return {
            "operation": self._operation,
            "model": self._model,
            "max_results": self._max_results if self._operation == "labels" else None,
            "endpoint": urlsplit(self._endpoint).netloc if self._endpoint else None,
        }

    def __repr__(self) -> str:
        return f"GoogleAdapter(operation={self._operation!r}, transport={self._transport!r})"

    def credentials(self) -> Credentials:
        """Look for an API key, then where Application Default Credentials are kept."""
        if self._client is not None and not self._own:
            return Credentials(found=True, where="the client that was given")
        if self._credentials is not None:
            return Credentials(found=True, where="the credentials that were given")
        if self._api_key:
            return Credentials(found=True, where="the option api_key")
        return _application_default()

    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Label up to 16 pictures in one request; errors as the contract says."""
        from google.cloud import vision  # noqa: PLC0415  0.4 s: when the first picture comes

        kind = (
            vision.Feature.Type.LABEL_DETECTION
            if self._operation == "labels"
            else vision.Feature.Type.SAFE_SEARCH_DETECTION
        )
        feature = vision.Feature(type_=kind, model=self._model)
        if self._operation == "labels":
            feature.max_results = self._max_results
        request = vision.BatchAnnotateImagesRequest(
            requests=[
                vision.AnnotateImageRequest(image=vision.Image(content=p), features=[feature])
                for p in payloads
            ]
        )
        client = self._ready()
        try:
            # retry=None: by default UNAVAILABLE is sent again for ten minutes, timeout or not.
            answered = client.batch_annotate_images(
                request=request, retry=None, timeout=self._timeout
            )
        except Exception as error:  # noqa: BLE001  raised again, as ours where it is the SDK's
            self._refuse(error)
        if len(answered.responses) != len(payloads):
            raise TransientError(
                f"Google answered {len(answered.responses)} of {len(payloads)} pictures of a "
                "request: the answer is malformed."
            )
        return [self._outcome(response) for response in answered.responses]

    def close(self) -> None:
        """Close the connections, if the client is this adapter's own."""
        if self._own and self._client is not None:
            self._client.transport.close()  # type: ignore[no-untyped-call]

    def _outcome(self, response: vision.AnnotateImageResponse) -> Answer | ProviderError:
        """Return one picture's labels, or the error that stands in their place."""
        if response.error.code:
            return of_picture(response.error.code, self._clean(response.error.message))
        try:
            if self._operation == "labels":
                return Answer(
                    tuple(Label(a.description, a.score) for a in response.label_annotations)
                )
            if "safe_search_annotation" not in response:
                return TransientError("Google's answer holds no safe search: it is malformed.")
            return Answer(_safe_search(response.safe_search_annotation))
        except PermanentError as error:
            return error
        except UsageError as error:  # a label without a name, a score that is none
            return TransientError(f"Google's answer is malformed: {error}")

    def _ready(self) -> vision.ImageAnnotatorClient:
        with self._lock:
            if self._client is None:
                try:
                    self._client = self._connect()
                except ProviderError:
                    raise
                except ValueError as error:  # of the SDK's own checking of options
                    said = self._clean(str(error))
                    raise FatalError(
                        f"No client for Google can be made: {said}", sent=False
                    ) from error
                except Exception as error:  # noqa: BLE001
                    self._refuse(error)
            return self._client

    def _connect(self) -> vision.ImageAnnotatorClient:
        """Sign in, and make a client that sends each request once."""
        from google.cloud import vision  # noqa: PLC0415

        given = self._credentials
        if given is None and not self._api_key:
            given = _sign_in(self._quota_project)
        plain = self._endpoint.startswith("http://") and self._transport == "grpc"
        if plain:  # gRPC signs in over TLS only
            host = urlsplit(self._endpoint).netloc
            return vision.ImageAnnotatorClient(transport=_plain_transport(host, self._api_key))
        options: dict[str, Any] = {}
        if self._endpoint:
            options["api_endpoint"] = self._endpoint
        if self._quota_project:
            options["quota_project_id"] = self._quota_project
        if self._api_key:
            options["api_key"] = self._api_key
        client = vision.ImageAnnotatorClient(
            credentials=given,
            client_options=options,
            transport="rest" if self._transport == "rest" else _grpc_transport,
        )
        if self._transport == "rest":
            self._hold_to_one_request(client)
        return client

    def _hold_to_one_request(self, client: vision.ImageAnnotatorClient) -> None:
        from smoothapi_adapters.sessions import BoundedHTTPAdapter  # noqa: PLC0415

        session = client.transport._session  # type: ignore[attr-defined]  # noqa: SLF001  no other way in
        # After a 401 it would sign in again and send the same once more, twice.
        session._max_refresh_attempts = 0  # noqa: SLF001
        session.max_redirects = 0
        if not session.is_mtls:
            self._connections = BoundedHTTPAdapter(self._timeout)
            for scheme in ("https://", "http://"):
                session.mount(scheme, self._connections)

    def _refuse(self, error: Exception) -> NoReturn:
        seen = self._connections.last() if self._connections else None
        mapped = mapped_error(error, seen.status_code if seen is not None else None)
        if mapped is None:
            raise error
        mapped.args = (self._clean(str(mapped)),)
        raise mapped from error

    def _clean(self, text: str) -> str:
        """Return a message of the provider's without the key, in case it repeats it."""
        hidden = text.replace(self._api_key, "********") if self._api_key else text
        return hidden[:_LONGEST]


def _safe_search(found: vision.SafeSearchAnnotation) -> tuple[Label, ...]:
    from google.cloud import vision  # noqa: PLC0415

    # Of the plain message: a number newer than the package makes the other one warn.
    plain = vision.SafeSearchAnnotation.pb(found)
    names = {likelihood.value: likelihood.name for likelihood in list(vision.Likelihood)}
    said = {category: names.get(getattr(plain, category), "") for category in CATEGORIES}
    if unknown := [category for category, name in said.items() if name not in LIKELIHOOD]:
        raise PermanentError(f"Google Vision cannot say how likely this is: {', '.join(unknown)}.")
    return tuple(Label(category, LIKELIHOOD[name]) for category, name in said.items())


def _sign_in(quota_project: str | None) -> Any:
    import google.auth  # noqa: PLC0415
    from google.auth import exceptions  # noqa: PLC0415

    try:
        found, _ = google.auth.default(quota_project_id=quota_project)
    except exceptions.DefaultCredentialsError as error:
        looked = _application_default()
        said = (
            f"what is in {looked.where} cannot be used ({error})" if looked.found else looked.where
        )
        raise FatalError(
            f"There are no credentials for Google: {said}. {ADVICE}", sent=False
        ) from error
    return found


def _application_default() -> Credentials:
    """Look where google.auth.default would, as far as that needs no network."""
    looked: list[str] = []
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        if Path(named).is_file():
            where = "the file that GOOGLE_APPLICATION_CREDENTIALS names"
            return Credentials(found=True, where=where)
        looked.append("GOOGLE_APPLICATION_CREDENTIALS names a file that is not there")
    else:
        looked.append("GOOGLE_APPLICATION_CREDENTIALS is not set")
    folder = os.environ.get("CLOUDSDK_CONFIG")
    login = Path(folder) if folder else Path.home() / ".config" / "gcloud"
    if not named and (login / "application_default_credentials.json").is_file():
        return Credentials(found=True, where="the login of gcloud (application-default)")
    looked.append("gcloud has no application-default login here")
    if not named and _on_google():
        where = "this machine of Google's, whose metadata server is asked at the first request"
        return Credentials(found=True, where=where)
    looked.append("this is no machine of Google's")
    return Credentials(found=False, where="; ".join(looked))


def _on_google() -> bool:
    if any(os.environ.get(name) for name in _WORKER_VARIABLES):
        return True
    with suppress(OSError):
        return _PRODUCT.read_text(encoding="ascii", errors="replace").startswith("Google")
    return False


_ONCE = (
    ("grpc.enable_retries", 0),
    # After an outage a channel would stay away for up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
"""Options of a channel that sends each request once, of any length."""


def _grpc_transport(**arguments: Any) -> Any:
    from google.cloud.vision_v1.services.image_annotator.transports import (  # noqa: PLC0415
        ImageAnnotatorGrpcTransport,
    )

    def connect(host: str, **more: Any) -> Any:
        return ImageAnnotatorGrpcTransport.create_channel(host, **{**more, "options": _ONCE})

    arguments["host"] = arguments["host"].removeprefix("https://")
    return ImageAnnotatorGrpcTransport(channel=connect, **arguments)


def _plain_transport(host: str, api_key: str | None) -> Any:
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


def _checked(endpoint: str | None) -> str:
    """Return the endpoint without a slash at its end; "" means Google's own."""
    if not endpoint:
        return ""
    url = endpoint.rstrip("/")
    if "://" not in url:
        url = f"https://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise UsageError(
            "endpoint: give a host such as eu-vision.googleapis.com, with no user name in it."
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(
            f"endpoint: http://{parts.hostname} is not encrypted, and the request carries "
            "credentials. Use https:// for all but this machine."
        )
    return url


def _one_of(option: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{option}={value!r}: choose from {', '.join(choices)}.")


def _installed() -> bool:
    try:
        return find_spec("google.cloud.vision") is not None
    except ModuleNotFoundError:  # not even google or google.cloud
        return False
