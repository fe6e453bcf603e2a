"""Azure AI Vision, Image Analysis 4.0."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from smoothapi.answer import Answer, Label
from smoothapi.errors import (
    FatalError,
    MissingExtraError,
    ProviderError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Credentials, Limits
from smoothapi_adapters import azure_common as common

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.core.credentials import TokenCredential

FEATURES = ("tags", "caption", "denseCaptions", "objects")

_RESULTS = {
    "tags": "tagsResult",
    "caption": "captionResult",
    "denseCaptions": "denseCaptionsResult",
    "objects": "objectsResult",
}

# How JSON that is no object of theirs fails in the SDK's own reading of it.
_OF_PARSING = (ValueError, AttributeError, TypeError, KeyError)


class Azure4Adapter:
    """Azure AI Vision 4.0. One picture a request; each feature is charged for.

    Azure retires this API on 25 September 2028. What becomes a label: each tag; the caption, or
    each dense caption, as its sentence; of objects each name, with the best of its scores. With
    several features each label has the feature it is from as its category.

    Args:
        features: one or more of tags, caption, denseCaptions, objects; several as a list or with
            commas between. Captions are there in some regions only.
        model_version: "latest", or a pinned one such as "2023-10-01".
        language: of the labels.
        endpoint: URL of the resource; by default VISION_ENDPOINT or COMPUTER_VISION_ENDPOINT.
        key: by default VISION_KEY, COMPUTER_VISION_SUBSCRIPTION_KEY or COMPUTER_VISION_KEY.
        credential: a token credential, such as `azure.identity.DefaultAzureCredential()`, instead
            of a key.
        timeout: seconds for a request and its answer.
        client: a ready `ImageAnalysisClient`, which is not closed here; endpoint and credentials
            are then its own.

    Raises:
        MissingExtraError: the SDK is not installed.
        UsageError: an option is out of range.
    """

    name = "azure4"
    retires = common.RETIRES

    def __init__(
        self,
        *,
        features: str | Iterable[str] = "tags",
        model_version: str = "latest",
        language: str = "en",
        endpoint: str | None = None,
        key: str | None = None,
        credential: TokenCredential | None = None,
        timeout: float | str = 30.0,
        client: ImageAnalysisClient | None = None,
    ) -> None:
        if client is None and not _installed():
            raise MissingExtraError(
                "The provider 'azure4' needs azure-ai-vision-imageanalysis. Install it with: "
                "pip install 'smoothapi-vision[azure]'"
            )
        if key and credential is not None:
            raise UsageError("Give key or credential to the azure4 adapter, not both.")
        self._features = common.chosen_features(features, FEATURES)
        self._model_version = common.checked_pin(model_version)
        self._language = language
        self._timeout = common.checked_timeout(timeout)
        self._credential = credential
        self._client = client
        self._own = client is None
        self._account = (
            common.account(endpoint, key)
            if client is None
            else common.Account(_endpoint_of(client), "", "the client that was given")
        )
        self._lock = threading.Lock()
        self.limits = Limits(
            max_bytes=19_999_999,  # "less than 20 megabytes"
            min_side=50,
            max_side=16_000,
            formats=("png", "jpeg"),
            per_second=10.0,  # of the tier S1, as far as is known; the free one takes 20 a minute
        )
        self.price = common.price(self._features)

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """Features, model pin, language, and the resource's host: each may run another model."""
        return {
            "operation": ",".join(self._features),
            "model_version": self._model_version,
            "language": self._language,
            "endpoint": urlsplit(self._account.endpoint).netloc,
        }

    def __repr__(self) -> str:
        return f"Azure4Adapter(features={','.join(self._features)!r})"

    def credentials(self) -> Credentials:
        """Look for endpoint and key in the options and the environment."""
        if not self._own:
            return Credentials(found=True, where="the client that was given")
        if self._credential is not None and self._account.endpoint:
            where = self._account.where.partition(";")[0]
            return Credentials(found=True, where=f"{where}; the token credential that was given")
        return self._account.credentials

    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Label one picture; errors as the contract says."""
        [payload] = payloads
        client = self._ready()
        features: Any = list(self._features)  # their names do as well as the enumeration
        try:
            result, headers = client.analyze(
                payload,
                features,
                language=self._language,
                model_version=self._model_version,
                # For this call, so that a client that was given stays as it is.
                retry_total=0,
                permit_redirects=False,
                connection_timeout=self._timeout,
                read_timeout=self._timeout,
                cls=lambda response, parsed, _: (parsed, response.http_response.headers),
            )
        except Exception as error:  # noqa: BLE001  raised again, as ours where it is the SDK's
            self._refuse(error)
        return [self._answer(result, headers)]

    def close(self) -> None:
        """Close the connections, if the client is this adapter's own."""
        if self._own and self._client is not None:
            self._client.close()

    def _answer(self, result: Any, headers: Any) -> Answer:
        """Return what the service said.

        Raises:
            TransientError: it is no analysis; `{}` and null are none, no values are.
        """
        request = headers.get("apim-request-id") or headers.get("x-ms-request-id") or ""
        try:
            labels = tuple(
                Label(name, score, (), (feature,) if len(self._features) > 1 else ())
                for feature in self._features
                for name, score in labels_of(result, feature)
            )
            return Answer(labels, str(result.get("modelVersion") or ""), str(request))
        except (UsageError, *_OF_PARSING) as error:
            raise TransientError(
                f"Azure's answer is malformed: {self._account.clean(error)}.",
                request_id=str(request),
            ) from error

    def _ready(self) -> ImageAnalysisClient:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> ImageAnalysisClient:
        import requests  # noqa: PLC0415
        from azure.ai.vision.imageanalysis import ImageAnalysisClient  # noqa: PLC0415
        from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415
        from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415

        from smoothapi_adapters.sessions import BoundedHTTPAdapter  # noqa: PLC0415

        if self._credential is None or not self._account.endpoint:
            self._account.required()
        session = requests.Session()
        connections = BoundedHTTPAdapter(self._timeout)
        for scheme in ("https://", "http://"):
            session.mount(scheme, connections)
        return ImageAnalysisClient(
            self._account.endpoint,
            self._credential or AzureKeyCredential(self._account.key),
            transport=RequestsTransport(session=session),
            retry_total=0,  # retry_policy=None would be the default one
        )

    def _refuse(self, error: Exception) -> NoReturn:
        mapped = mapped_error(error, self._account)
        if mapped is None:
            raise error
        raise mapped from error


def labels_of(result: Any, feature: str) -> Iterator[tuple[str, float]]:
    """Yield name and score of the labels of one feature of an `ImageAnalysisResult`.

    Raises:
        KeyError, TypeError: the answer does not hold the feature.
    """
    found = result[_RESULTS[feature]]
    if feature == "caption":
        yield found["text"], found["confidence"]
    elif feature == "tags":
        yield from ((tag["name"], tag["confidence"]) for tag in found["values"])
    elif feature == "denseCaptions":
        best: dict[str, float] = {}
        for caption in found["values"]:
            text, score = caption["text"], caption["confidence"]
            best[text] = max(score, best.get(text, 0.0))
        yield from best.items()
    else:
        best = {}
        for thing in found["values"]:
            for tag in thing["tags"]:
                best[tag["name"]] = max(tag["confidence"], best.get(tag["name"], 0.0))
        yield from best.items()


def mapped_error(error: Exception, owner: common.Account) -> ProviderError | None:
    """Return the error of ours that one of the SDK's stands for; None if it is not the SDK's."""
    from azure.core import exceptions as core  # noqa: PLC0415

    kind = type(error).__name__
    mapped: ProviderError | None = None
    # An answer cut short has the status that it began with.
    if isinstance(error, core.HttpResponseError) and not isinstance(error, core.DecodeError):
        mapped = _of_answer(error, owner)
    elif isinstance(error, core.SerializationError):
        mapped = FatalError(f"The request to Azure could not be made ({kind}).")
    elif isinstance(error, (core.DecodeError, core.DeserializationError, *_OF_PARSING)):
        mapped = _of_unread(error, kind, owner)
    elif isinstance(error, core.ServiceRequestError):
        mapped = _of_connection(error, owner)
    elif isinstance(error, core.ServiceResponseError):
        mapped = TransientError(f"The connection to Azure failed ({kind}).")
    elif isinstance(error, core.AzureError):
        mapped = FatalError(f"The request to Azure failed ({kind}): {owner.clean(error.message)}.")
    return mapped


def _of_answer(error: Any, owner: common.Account) -> ProviderError:
    response = error.response
    if response is None:
        if type(error).__name__ == "ClientAuthenticationError":  # no token to send
            said = owner.clean(error.message)
            return FatalError(f"Signing in to Azure failed: {said}. {common.ADVICE}")
        return TransientError(f"The connection to Azure failed ({type(error).__name__}).")
    try:
        body = response.text()
    except Exception:  # noqa: BLE001  whatever it is, the status says enough
        body = ""
    return common.of_status(error.status_code, body, response.headers, owner)


def _of_unread(error: Any, kind: str, owner: common.Account) -> ProviderError:
    """Map a body that is no JSON: its status counts, if that is known and none of success."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 200)
    if response is not None and status != 200:
        return common.of_status(status, "", response.headers, owner)
    return TransientError(f"Azure's answer is malformed ({kind}).")


def _of_connection(error: Any, owner: common.Account) -> ProviderError:
    import requests  # noqa: PLC0415
    from azure.core.exceptions import ServiceRequestTimeoutError  # noqa: PLC0415

    from smoothapi_adapters.sessions import of_requests  # noqa: PLC0415

    inner = error.inner_exception
    if isinstance(inner, requests.RequestException):
        return of_requests(inner, "Azure")
    if inner is None and not isinstance(error, ServiceRequestTimeoutError):
        # The SDK itself would not send it: a token without TLS, say.
        return FatalError(
            f"The request to Azure was not sent: {owner.clean(error.message)}", sent=False
        )
    return TransientError(f"The connection to Azure failed ({type(error).__name__}).")


def _endpoint_of(client: Any) -> str:
    return str(getattr(getattr(client, "_config", None), "endpoint", "")).rstrip("/")


def _installed() -> bool:
    try:
        return find_spec("azure.ai.vision.imageanalysis") is not None
    except ModuleNotFoundError:  # not even azure
        return False
