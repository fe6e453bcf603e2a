"""Azure Computer Vision 3.2, through the SDK that is deprecated and still serves."""

from __future__ import annotations

import io
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
from smoothapi.provider.consent import is_own_host
from smoothapi_adapters._common import options
from smoothapi_adapters._common.endpoints import origin
from smoothapi_adapters._common.reaching import unsent
from smoothapi_adapters.azure.options import (
    RETIRES,
    SAFE_OPTIONS,
    checked_pin,
    chosen_features,
    price_of,
)
from smoothapi_adapters.azure.resource import Resource, find_resource
from smoothapi_adapters.azure.v3.client import connect, secrets_of
from smoothapi_adapters.azure.v3.errors import mapped_error
from smoothapi_adapters.azure.v3.vocabulary import ADULT, parents_of, stated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from azure.cognitiveservices.vision.computervision import ComputerVisionClient
    from azure.core.credentials import TokenCredential

    from smoothapi_adapters._common.sessions import Bounds

FEATURES = ("tags", "categories", "description", "adult")


class AzureAdapter:
    """Azure Computer Vision 3.2. One picture a request; each feature is charged for.

    Azure retires this API on 25 September 2028. What becomes a label: each tag; each category, with
    its group (`trans_bus` has the parent `trans_`); each caption of the description, as its
    sentence (its tags carry no score); adult, racy and gory with their scores, which are for
    `Presence` and `Absence`: which one comes first says little. With several features each label
    has the feature it is from as its category.

    Args:
        features: one or more of tags, categories, description, adult; several as a list or with
            commas between.
        model_version: "latest", or a pinned one such as "2021-04-01".
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
        client: a ready `ComputerVisionClient`: its endpoint, credentials, proxies and hooks are
            used, itself it is not changed and not closed.

    Raises:
        MissingExtraError: the SDK is not installed.
        UsageError: an option is out of range.
    """

    name = "azure"
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
        client: ComputerVisionClient | None = None,
    ) -> None:
        if not _installed():
            raise MissingExtraError(
                "The provider 'azure' needs azure-cognitiveservices-vision-computervision. "
                "Install it with: pip install 'smoothapi-vision[azure]'"
            )
        if client is not None:
            check_client(
                client,
                "tag_image_in_stream",
                "analyze_image_in_stream",
                wanted="azure.cognitiveservices.vision.computervision.ComputerVisionClient",
            )
        self._features = chosen_features(features, FEATURES)
        self._model_version = checked_pin(model_version)
        self._language = language
        self._timeout = options.timeout(timeout)
        self._vocabulary = options.vocabulary(vocabulary)
        self._given = client
        self._resource = (
            find_resource(endpoint, key, credential)
            if client is None
            else Resource(client.config.endpoint.rstrip("/"), "", "the client that was given")
        )
        self._client: ComputerVisionClient | None = None
        self._bounds: Bounds | None = None
        self._lock = threading.Lock()
        self.limits = Limits(
            max_bytes=3_999_999,  # "less than 4 megabytes"
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
        return f"AzureAdapter(features={','.join(self._features)!r})"

    def vocabulary(self) -> Vocabulary:
        """Return what the features have to say; tags and descriptions have no list.

        Nor is it known what answers at an endpoint that is not Azure's.
        """
        if self._vocabulary is not None:
            return self._vocabulary
        own = is_own_host(self._resource.endpoint, SAFE_OPTIONS.hosts)
        return Vocabulary.of_all(stated(name, own=own) for name in self._features)

    def credentials(self) -> Credentials:
        """Look for endpoint and key in the options and the environment."""
        if self._given is not None:
            return Credentials(found=True, where="the client that was given")
        return self._resource.credentials

    def endpoint(self) -> str:
        """Return where requests go; "" if no resource is named."""
        return origin(self._resource.endpoint) if self._resource.endpoint else ""

    def mask(self) -> Mask:
        """Return what masks the key, or what a client that was given signs with."""
        mask = self._resource.mask
        return mask if self._given is None else mask.knowing(secrets_of(self._given))

    @masked
    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Label one picture; errors as the contract says."""
        [payload] = payloads
        more: dict[str, Any] = {
            "image": io.BytesIO(payload),  # given bytes, the SDK fails half-way through the request
            "language": self._language,
            "model_version": self._model_version,
            "raw": True,
            "timeout": self._timeout,
            "allow_redirects": False,
        }
        if self._features == ("tags",):
            return [self._answer(self.send("tag_image_in_stream", **more))]
        wanted = [name.capitalize() for name in self._features]
        raw = self.send("analyze_image_in_stream", visual_features=wanted, **more)
        return [self._answer(raw)]

    def send(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method of the client once, and return what it does; raises as `ask` does."""
        client = self._ready()
        if self._given is None:
            self._resource.required()
        try:
            return getattr(client, method)(*arguments, **keywords)
        except Exception as error:
            seen = None if self._bounds is None else self._bounds.last()
            mapped = mapped_error(error, self._resource, seen)
            if mapped is None:
                raise
            raise unsent(mapped, error, "Azure") from error

    def close(self) -> None:
        """Close the connections."""
        if self._bounds is not None:
            self._bounds.close()

    def _answer(self, raw: Any) -> Answer:
        """Return what the service said.

        Raises:
            TransientError: it is malformed, as `{}`, "" and null are; `{"tags": []}` is an answer.
        """
        result, headers = raw.output, raw.response.headers
        request = getattr(result, "request_id", None) or headers.get("apim-request-id") or ""
        try:
            labels = tuple(
                Label(
                    label.name,
                    label.score,
                    label.parents,
                    (name,) if len(self._features) > 1 else (),
                )
                for name in self._features
                for label in labels_of(result, name)
            )
            return Answer(labels, result.model_version or "", str(request))
        except (UsageError, AttributeError, TypeError) as error:
            raise TransientError(
                f"Azure's answer is malformed: {self._resource.clean(error)}.",
                request_id=str(request),
            ) from error

    def _ready(self) -> ComputerVisionClient:
        with self._lock:
            if self._client is None:
                self._client, self._bounds = connect(self._resource, self._given, self._timeout)
            return self._client


def labels_of(result: Any, feature: str) -> Iterator[Label]:
    """Yield the labels of one feature of a `TagResult` or an `ImageAnalysis`.

    Raises:
        TypeError: the answer does not hold the feature at all.
        UsageError: a label lacks a name, or a score in [0, 1].
    """
    found = getattr(result, feature, None)
    if feature == "categories" and found is None:
        # Left out instead of empty, as recorded answers show: the rest must be there.
        if not (result.request_id and result.metadata):
            raise TypeError("it holds no categories, and nothing else that an answer has")
        return
    if found is None:
        raise TypeError(f"it holds no {feature}")
    if feature == "tags":
        yield from (Label(tag.name, tag.confidence) for tag in found)
    elif feature == "categories":
        for category in found:
            yield Label(category.name, category.score, parents_of(category.name))
    elif feature == "description":
        if found.captions is None:
            raise TypeError("its description holds no captions")
        yield from (Label(caption.text, caption.confidence) for caption in found.captions)
    else:
        scores = zip(ADULT, (found.adult_score, found.racy_score, found.gore_score), strict=True)
        # Of what is gory older models do not say.
        yield from (Label(name, n) for name, n in scores if name != "gory" or n is not None)


def _installed() -> bool:
    try:
        return find_spec("azure.cognitiveservices.vision.computervision") is not None
    except ModuleNotFoundError:  # not even azure
        return False
