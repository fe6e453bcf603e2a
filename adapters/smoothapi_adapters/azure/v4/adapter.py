"""Azure AI Vision, Image Analysis 4.0."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smoothapi.answer import Answer, Label
from smoothapi.errors import (
    MissingExtraError,
    ProviderError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Credentials, Limits, Mask, Vocabulary, check_client, masked
from smoothapi_adapters._common import options
from smoothapi_adapters._common.endpoints import origin
from smoothapi_adapters._common.reaching import unsent
from smoothapi_adapters.azure.errors import OF_PARSING
from smoothapi_adapters.azure.options import (
    RETIRES,
    SAFE_OPTIONS,
    checked_pin,
    chosen_features,
    price_of,
)
from smoothapi_adapters.azure.resource import Resource, find_resource
from smoothapi_adapters.azure.v4.client import connect, held
from smoothapi_adapters.azure.v4.errors import mapped_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.core.credentials import TokenCredential

FEATURES = ("tags", "caption", "denseCaptions", "objects")

_RESULTS = {
    "tags": "tagsResult",
    "caption": "captionResult",
    "denseCaptions": "denseCaptionsResult",
    "objects": "objectsResult",
}


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
        credential: instead of a key a token credential, such as
            `azure.identity.DefaultAzureCredential()`, or "default", which is that one. Where there
            is no key, an identity in AZURE_* variables is used likewise.
        per_second: most pictures a second: 10 in the tier S1, as far as is known, unless yours were
            raised; the free one takes 20 a minute.
        timeout: seconds for a request and its answer.
        vocabulary: the labels that the service can give, where you know them: a list, or a file
            (.txt, .json, .csv); a label asked for by name that is not among them is refused.
        client: a ready `ImageAnalysisClient`, which is not closed here; endpoint and credentials
            are then its own.

    Raises:
        MissingExtraError: the SDK is not installed.
        UsageError: an option is out of range.
    """

    name = "azure4"
    retires = RETIRES
    safe_options = SAFE_OPTIONS

    def __init__(
        self,
        *,
        features: str | Iterable[str] = "tags",
        model_version: str = "latest",
        language: str = "en",
        endpoint: str | None = None,
        key: str | None = None,
        credential: TokenCredential | str | None = None,
        per_second: float | str = 10.0,
        timeout: float | str = 30.0,
        vocabulary: Sequence[str] | str | Path | None = None,
        client: ImageAnalysisClient | None = None,
    ) -> None:
        if client is None and not _installed():
            raise MissingExtraError(
                "The provider 'azure4' needs azure-ai-vision-imageanalysis. Install it with: "
                "pip install 'smoothapi-vision[azure]'"
            )
        if client is not None:
            check_client(
                client, "analyze", wanted="azure.ai.vision.imageanalysis.ImageAnalysisClient"
            )
        self._features = chosen_features(features, FEATURES)
        self._model_version = checked_pin(model_version)
        self._language = language
        self._timeout = options.timeout(timeout)
        self._vocabulary = options.vocabulary(vocabulary)
        self._client = None if client is None else held(client, self._timeout)
        self._own = client is None
        self._resource = (
            find_resource(endpoint, key, credential)
            if client is None
            else Resource(_endpoint_of(client), "", "the client that was given")
        )
        self._lock = threading.Lock()
        self.limits = Limits(
            max_bytes=19_999_999,  # "less than 20 megabytes"
            min_side=50,
            max_side=16_000,
            formats=("png", "jpeg"),
            per_second=options.above_zero("per_second", per_second),
        )
        self.price = price_of(self._features)

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """Features, model pin, language, and the resource's host: each may run another model."""
        return {
            "operation": ",".join(self._features),
            "model_version": self._model_version,
            "language": self._language,
            "endpoint": urlsplit(self._resource.endpoint).netloc,
        }

    def __repr__(self) -> str:
        return f"Azure4Adapter(features={','.join(self._features)!r})"

    def vocabulary(self) -> Vocabulary:
        """Return the labels given; Azure publishes no list of its own."""
        return self._vocabulary or Vocabulary()

    def credentials(self) -> Credentials:
        """Look for endpoint and key in the options and the environment."""
        if not self._own:
            return Credentials(found=True, where="the client that was given")
        return self._resource.credentials

    def endpoint(self) -> str:
        """Return where requests go; "" if no resource is named."""
        return origin(self._resource.endpoint) if self._resource.endpoint else ""

    def mask(self) -> Mask:
        """Return what masks the key; a token is masked as the request that an error is about."""
        config = getattr(self._client, "_config", None)
        return self._resource.mask.knowing(
            [getattr(getattr(config, "credential", None), "key", "")]
        )

    @masked
    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Label one picture; errors as the contract says."""
        [payload] = payloads
        result, headers = self.send(
            payload,
            list(self._features),  # their names do as well as the enumeration
            language=self._language,
            model_version=self._model_version,
            cls=lambda response, parsed, _: (parsed, response.http_response.headers),
        )
        return [self._answer(result, headers)]

    def send(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the client's `analyze` once, and return what it does; raises as `ask` does."""
        client: Any = self._ready()
        if self._own:
            self._resource.required()
        timeouts = {"connection_timeout": self._timeout, "read_timeout": self._timeout}
        # For this call, so that a client that was given stays as it is.
        once = {"retry_total": 0, "permit_redirects": False}
        try:
            return client.analyze(*arguments, **{**timeouts, **keywords, **once})
        except Exception as error:
            mapped = mapped_error(error, self._resource)
            if mapped is None:
                raise
            raise unsent(mapped, error, "Azure") from error

    def close(self) -> None:
        """Close the connections, if the client is this adapter's own."""
        if self._own and self._client is not None:
            self._client.close()

    def _answer(self, result: Any, headers: Any) -> Answer:
        """Return what the service said.

        Raises:
            TransientError: it is malformed, as `{}` and null are; an empty list is an answer.
        """
        request = headers.get("apim-request-id") or headers.get("x-ms-request-id") or ""
        try:
            labels = tuple(
                Label(name, score, (), (feature,) if len(self._features) > 1 else ())
                for feature in self._features
                for name, score in labels_of(result, feature)
            )
            return Answer(labels, str(result.get("modelVersion") or ""), str(request))
        except (UsageError, *OF_PARSING) as error:
            raise TransientError(
                f"Azure's answer is malformed: {self._resource.clean(error)}.",
                request_id=str(request),
            ) from error

    def _ready(self) -> ImageAnalysisClient:
        with self._lock:
            if self._client is None:
                self._client = connect(self._resource, self._timeout)
            return self._client


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


def _endpoint_of(client: Any) -> str:
    return str(getattr(getattr(client, "_config", None), "endpoint", "")).rstrip("/")


def _installed() -> bool:
    try:
        return find_spec("azure.ai.vision.imageanalysis") is not None
    except ModuleNotFoundError:  # not even azure
        return False
