"""Google Cloud Vision: labels and safe search, over gRPC or REST."""

from __future__ import annotations

import inspect
import threading
from decimal import Decimal
from importlib.util import find_spec
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
from smoothapi.provider import (
    Credentials,
    Limits,
    Mask,
    Price,
    SafeOptions,
    Vocabulary,
    check_client,
    masked,
)
from smoothapi_adapters._common import options
from smoothapi_adapters._common.endpoints import origin, read_endpoint
from smoothapi_adapters._common.reaching import unsent
from smoothapi_adapters.google.client import Connection, application_default, held, secrets_of
from smoothapi_adapters.google.errors import mapped_error, of_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from google.cloud import vision

    from smoothapi_adapters._common.sessions import Bounds

OPERATIONS = ("labels", "safe_search")
TRANSPORTS = ("grpc", "rest")
MODELS = ("builtin/stable", "builtin/latest")

LIKELIHOOD: Mapping[str, float] = {
    "VERY_UNLIKELY": 0.0,
    "UNLIKELY": 0.25,
    "POSSIBLE": 0.5,
    "LIKELY": 0.75,
    "VERY_LIKELY": 1.0,
}
"""Score of each likelihood of a safe search; UNKNOWN has none: that answer cannot be used."""

CATEGORIES = ("adult", "spoof", "medical", "violence", "racy")

_BATCH = 16
_LONGEST = 900  # characters of an error
_REQUEST_BYTES = 10_000_000  # of a whole request; around the pictures there is little else
_FRAME_BYTES = 50_000
_HOST = "vision.googleapis.com"
PER_SECOND = 1800 / 60
"""Pictures a second, by the default quota of 1,800 requests a minute."""
_PIXELS_SIDE = 8_660  # 75 million pixels, as a square


class GoogleAdapter:
    """Google Cloud Vision, one feature a picture, up to 16 pictures a request.

    A safe search gives the labels adult, spoof, medical, violence and racy, with the scores of
    `LIKELIHOOD`: certify them with `Presence` and `Absence`; which one comes first says little.
    An UNKNOWN likelihood counts as no answer, since a label left out would count as absent.
    Google names no version of its model: `model` is what can be pinned.

    Args:
        operation: "labels" or "safe_search".
        transport: "grpc" or "rest".
        max_results: most labels of a picture, 1 to 1,000; Google's own default is 10.
        model: "builtin/stable" or "builtin/latest".
        api_key: an API key; without one, Application Default Credentials are used.
        credentials: google.auth credentials to use instead of those.
        quota_project: project that is billed, if it is not the credentials' own.
        endpoint: another host, such as "eu-vision.googleapis.com"; plain HTTP only on this machine.
        timeout: seconds for a request and its answer.
        per_second: most pictures a second: 30, as 1,800 a minute are the default quota, unless your
            project was given another.
        free_tier: count on the 1,000 pictures a month that are free. Off, since whatever else uses
            the account may have had them, and a budget in dollars would then allow too much.
        vocabulary: the labels that the service can give, where you know them: a list, or a file
            (.txt, .json, .csv); a label asked for by name that is not among them is refused.
        client: a ready `ImageAnnotatorClient`, which is not closed here; `transport`, `endpoint`
            and credentials are then its own.

    Raises:
        MissingExtraError: google-cloud-vision is not installed.
        UsageError: an option is out of range.
    """

    name = "google"
    safe_options = SafeOptions(
        names=frozenset(
            {
                "operation",
                "transport",
                "max_results",
                "model",
                "quota_project",
                "timeout",
                "per_second",
            }
        ),
        endpoint="endpoint",
        hosts=(
            "vision.googleapis.com",
            "eu-vision.googleapis.com",
            "us-vision.googleapis.com",
            "vision.mtls.googleapis.com",
            "vision.*.rep.googleapis.com",
        ),
        credentials=frozenset({"api_key"}),
    )

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
        per_second: float | str = PER_SECOND,
        free_tier: bool | str = False,
        vocabulary: Sequence[str] | str | Path | None = None,
        client: vision.ImageAnnotatorClient | None = None,
    ) -> None:
        if client is None and not _installed():
            raise MissingExtraError(
                "The provider 'google' needs google-cloud-vision. Install it with: "
                "pip install 'smoothapi-vision[google]'"
            )
        if client is not None:
            check_client(
                client, "batch_annotate_images", wanted="google.cloud.vision.ImageAnnotatorClient"
            )
        if api_key and credentials is not None:
            raise UsageError("Give api_key or credentials to the google adapter, not both.")
        self._operation = options.one_of("operation", operation, OPERATIONS)
        self._max_results = options.whole("max_results", max_results, 1, 1000)
        self._model = options.one_of("model", model, MODELS)
        self._connection = Connection(
            options.one_of("transport", transport, TRANSPORTS),
            endpoint=_endpoint(endpoint),
            api_key=options.secret("api_key", api_key),
            credentials=_checked_credentials(credentials),
            quota_project=quota_project or None,
            timeout=options.timeout(timeout),
        )
        self._vocabulary = options.vocabulary(vocabulary)
        self._mask = Mask([self._connection.api_key])
        self._client: vision.ImageAnnotatorClient | None = None
        self._bounds: Bounds | None = None
        self._own = client is None
        if client is not None:
            self._client, self._bounds = held(client, self._connection.timeout)
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
            per_second=options.above_zero("per_second", per_second),
        )
        beyond = "1.00" if operation == "labels" else "0.60"
        self.price = Price(
            per_thousand=Decimal("1.50"),
            as_of="2026-11-01",
            free_per_month=1000 if options.switch("free_tier", free_tier) else 0,
            steps=((5_000_000, Decimal(beyond)),),
        )

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """Operation, model, the cap on labels, and the endpoint if it is not Google's default."""
        endpoint = self._connection.endpoint
        return {
            "operation": self._operation,
            "model": self._model,
            "max_results": self._max_results if self._operation == "labels" else None,
            "endpoint": urlsplit(endpoint).netloc if endpoint else None,
        }

    @property
    def connection(self) -> Connection:
        """How its own client is made."""
        return self._connection

    def __repr__(self) -> str:
        transport = self._connection.transport
        return f"GoogleAdapter(operation={self._operation!r}, transport={transport!r})"

    def vocabulary(self) -> Vocabulary:
        """Return the five labels of a safe search; Google publishes no list of its others."""
        if self._vocabulary is not None:
            return self._vocabulary
        if self._operation != "safe_search":
            return Vocabulary()
        return Vocabulary(CATEGORIES, closed=True, source="SafeSearchAnnotation")

    def credentials(self) -> Credentials:
        """Look for an API key, then where Application Default Credentials are kept."""
        if self._client is not None and not self._own:
            return Credentials(found=True, where="the client that was given")
        if self._connection.credentials is not None:
            return Credentials(found=True, where="the credentials that were given")
        if self._connection.api_key:
            return Credentials(found=True, where="the option api_key")
        return application_default()

    def endpoint(self) -> str:
        """Return where requests go."""
        return origin(self._connection.endpoint or f"https://{_HOST}")

    def mask(self) -> Mask:
        """Return what masks the API key, and the token that is sent."""
        self._mask = self._mask.knowing(secrets_of(self._client))
        return self._mask

    @masked
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
                request=request, retry=None, timeout=self._connection.timeout
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
        except UsageError as error:  # a label without a name, or without a score in [0, 1]
            return TransientError(f"Google's answer is malformed: {error}")

    def _ready(self) -> vision.ImageAnnotatorClient:
        with self._lock:
            if self._client is None:
                try:
                    self._client, self._bounds = self._connection.open()
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

    def _refuse(self, error: Exception) -> NoReturn:
        seen = self._bounds.last() if self._bounds else None
        mapped = mapped_error(error, seen.status_code if seen is not None else None)
        if mapped is None:
            raise error
        place = urlsplit(self._connection.endpoint).netloc or _HOST
        mapped = unsent(mapped, error, f"Google ({place})")
        mapped.args = (self._clean(str(mapped)),)
        raise mapped from error

    def _clean(self, text: str) -> str:
        """Return a message of the provider's without the key, in case it repeats it."""
        return self.mask().quoted(text, _LONGEST)


def _safe_search(found: vision.SafeSearchAnnotation) -> tuple[Label, ...]:
    from google.cloud import vision  # noqa: PLC0415

    # Of the plain message: a number newer than the package makes the other one warn.
    plain = vision.SafeSearchAnnotation.pb(found)
    names = {likelihood.value: likelihood.name for likelihood in list(vision.Likelihood)}
    said = {category: names.get(getattr(plain, category), "") for category in CATEGORIES}
    if unknown := [category for category, name in said.items() if name not in LIKELIHOOD]:
        raise PermanentError(f"Google Vision cannot say how likely this is: {', '.join(unknown)}.")
    return tuple(Label(category, LIKELIHOOD[name]) for category, name in said.items())


def _endpoint(given: str | None) -> str:
    """Return the endpoint as a URL; "" means Google's own."""
    bare = isinstance(given, str) and given and "://" not in given
    url = f"https://{given}" if bare else given
    return read_endpoint(url, "https://eu-vision.googleapis.com", bare=True)


def _checked_credentials(given: Any) -> Any:
    """Return credentials of google.auth, or None.

    Raises:
        UsageError: they are something else, which is not shown.
    """
    sign = getattr(given, "before_request", None)
    if given is not None and (isinstance(given, type) or not callable(sign)):
        raise UsageError(
            f"credentials: they are of google.auth, and not a {type(given).__name__}. Name a file "
            "of them in GOOGLE_APPLICATION_CREDENTIALS; a key is given as api_key."
        )
    if inspect.iscoroutinefunction(sign):
        raise UsageError(
            "credentials: they are asynchronous ones (google.auth.aio). Give those of google.auth."
        )
    return given


def _installed() -> bool:
    try:
        return find_spec("google.cloud.vision") is not None
    except ModuleNotFoundError:  # not even google or google.cloud
        return False
