"""Azure Computer Vision 3.2, through the SDK that is deprecated and still serves."""

from __future__ import annotations

import io
import threading
import warnings
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

    from azure.cognitiveservices.vision.computervision import ComputerVisionClient

    from smoothapi_adapters.sessions import BoundedHTTPAdapter

FEATURES = ("tags", "categories", "description", "adult")

_BLOCK = 65_536

# How JSON that is no object of theirs fails in the SDK's own reading of it.
_OF_PARSING = (ValueError, AttributeError, TypeError, KeyError)


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
        timeout: seconds for a request and its answer.
        client: a ready `ComputerVisionClient`: its endpoint, credentials, proxies and hooks are
            used, itself it is not changed and not closed.

    Raises:
        MissingExtraError: the SDK is not installed.
        UsageError: an option is out of range.
    """

    name = "azure"
    retires = common.RETIRES

    def __init__(
        self,
        *,
        features: str | Iterable[str] = "tags",
        model_version: str = "latest",
        language: str = "en",
        endpoint: str | None = None,
        key: str | None = None,
        timeout: float | str = 30.0,
        client: ComputerVisionClient | None = None,
    ) -> None:
        if not _installed():
            raise MissingExtraError(
                "The provider 'azure' needs azure-cognitiveservices-vision-computervision. "
                "Install it with: pip install 'smoothapi-vision[azure]'"
            )
        self._features = common.chosen_features(features, FEATURES)
        self._model_version = common.checked_pin(model_version)
        self._language = language
        self._timeout = common.checked_timeout(timeout)
        self._given = client
        self._account = (
            common.account(endpoint, key)
            if client is None
            else common.Account(client.config.endpoint.rstrip("/"), "", "the client that was given")
        )
        self._client: ComputerVisionClient | None = None
        self._connections: BoundedHTTPAdapter | None = None
        self._lock = threading.Lock()
        self.limits = Limits(
            max_bytes=3_999_999,  # "less than 4 megabytes"
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
        return f"AzureAdapter(features={','.join(self._features)!r})"

    def credentials(self) -> Credentials:
        """Look for endpoint and key in the options and the environment."""
        if self._given is not None:
            return Credentials(found=True, where="the client that was given")
        return self._account.credentials

    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Label one picture; errors as the contract says."""
        [payload] = payloads
        client: Any = self._ready()
        options: dict[str, Any] = {
            "language": self._language,
            "model_version": self._model_version,
            "raw": True,
            "timeout": self._timeout,
            "allow_redirects": False,
        }
        stream = io.BytesIO(payload)  # given as bytes, the SDK fails half-way through the request
        try:
            if self._features == ("tags",):
                raw = client.tag_image_in_stream(stream, **options)
            else:
                wanted = [name.capitalize() for name in self._features]
                raw = client.analyze_image_in_stream(stream, visual_features=wanted, **options)
        except Exception as error:  # noqa: BLE001  raised again, as ours where it is the SDK's
            self._refuse(error)
        return [self._answer(raw)]

    def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            self._connections.close()

    def _answer(self, raw: Any) -> Answer:
        """Return what the service said.

        Raises:
            TransientError: it is no analysis; `{}`, "" and null are none, `{"tags": []}` is one.
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
                f"Azure's answer is malformed: {self._account.clean(error)}.",
                request_id=str(request),
            ) from error

    def _ready(self) -> ComputerVisionClient:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> ComputerVisionClient:
        """Return a client of our own that sends each request once."""
        with warnings.catch_warnings():
            # The package is archived: what it does that is deprecated will stay so.
            warnings.simplefilter("ignore")
            from azure.cognitiveservices.vision.computervision import (  # noqa: PLC0415
                ComputerVisionClient,
            )
            from msrest.authentication import CognitiveServicesCredentials  # noqa: PLC0415
        from smoothapi_adapters.sessions import BoundedHTTPAdapter  # noqa: PLC0415

        make: Any = ComputerVisionClient
        client: ComputerVisionClient
        if self._given is None:
            self._account.required()
            signed = CognitiveServicesCredentials(self._account.key)
            client = make(self._account.endpoint, signed)
        else:
            theirs = self._given.config
            client = make(theirs.endpoint, theirs.credentials)
            for name in ("connection", "proxies", "hooks", "headers", "base_url"):
                setattr(client.config, name, getattr(theirs, name))
        client.config.retry_policy.policy.total = 0
        if self._given is not None:
            setup = self._given.config.session_configuration_callback
            if setup is not client.config.session_configuration_callback:
                # Its owner sets up sessions, for certificates of one's own, say.
                client.config.session_configuration_callback = setup
                return client
        self._connections = connections = BoundedHTTPAdapter(self._timeout)
        if self._given is None:
            client.config.connection.data_block_size = _BLOCK

        def mount(session: Any, *_: object, **more: Any) -> dict[str, Any]:
            """Give a thread's new session the connections that all threads share."""
            for scheme in ("https://", "http://"):
                if session.adapters.get(scheme) is not connections:
                    session.mount(scheme, connections)
            more.pop("msrest", None)
            return more

        client.config.session_configuration_callback = mount
        return client

    def _refuse(self, error: Exception) -> NoReturn:
        seen = None if self._connections is None else self._connections.last()
        mapped = mapped_error(error, self._account, seen)
        if mapped is None:
            raise error
        raise mapped from error


def labels_of(result: Any, feature: str) -> Iterator[Label]:
    """Yield the labels of one feature of a `TagResult` or an `ImageAnalysis`.

    Raises:
        TypeError: the answer does not hold the feature at all.
        UsageError: a label has no name, or no score in [0, 1].
    """
    found = getattr(result, feature, None)
    if feature == "categories" and found is None:
        # Left out where there are none, as recorded answers show: the rest must be there.
        if not (result.request_id and result.metadata):
            raise TypeError("it holds no categories, and nothing else that an answer has")
        return
    if found is None:
        raise TypeError(f"it holds no {feature}")
    if feature == "tags":
        yield from (Label(tag.name, tag.confidence) for tag in found)
    elif feature == "categories":
        for category in found:
            group, mark, rest = category.name.partition("_")
            yield Label(category.name, category.score, (group + mark,) if rest else ())
    elif feature == "description":
        if found.captions is None:
            raise TypeError("its description holds no captions")
        yield from (Label(caption.text, caption.confidence) for caption in found.captions)
    else:
        yield Label("adult", found.adult_score)
        yield Label("racy", found.racy_score)
        if found.gore_score is not None:  # older models do not say
            yield Label("gory", found.gore_score)


def mapped_error(error: Exception, owner: common.Account, seen: Any = None) -> ProviderError | None:
    """Return the error of ours that one of the SDK's stands for; None if it is not the SDK's.

    Args:
        error: what was raised.
        owner: whose key must not be shown.
        seen: the last response of this thread, for what fails before its status is looked at.
    """
    import requests  # noqa: PLC0415
    from azure.core.exceptions import DeserializationError, SerializationError  # noqa: PLC0415
    from msrest import exceptions as msrest  # noqa: PLC0415

    from smoothapi_adapters.sessions import of_requests  # noqa: PLC0415

    if isinstance(error, requests.RequestException):
        return of_requests(error, "Azure")
    if isinstance(error, msrest.HttpOperationError):
        response = error.response
        return common.of_status(response.status_code, response.text, response.headers, owner)
    if isinstance(error, msrest.ClientRequestError):
        inner = error.__context__ or error.inner_exception
        return (
            of_requests(inner, "Azure")
            if isinstance(inner, requests.RequestException)
            else TransientError("The connection to Azure failed.")
        )
    if isinstance(error, (msrest.ClientException, SerializationError)):
        kind = type(error).__name__
        return FatalError(f"The request to Azure could not be made ({kind}). {common.ADVICE}")
    if isinstance(error, (DeserializationError, *_OF_PARSING)):
        return _of_unread(error, owner, seen)
    return None


def _of_unread(error: Exception, owner: common.Account, seen: Any) -> ProviderError:
    """Return what an answer that cannot be read means: its status, if that was not OK."""
    # A page of HTML, say: the SDK reads the body before it looks at the status.
    if seen is not None and seen.status_code != 200:
        return common.of_status(seen.status_code, "", seen.headers, owner)
    return TransientError(f"Azure's answer is malformed ({type(error).__name__}).")


def _installed() -> bool:
    try:
        return find_spec("azure.cognitiveservices.vision.computervision") is not None
    except ModuleNotFoundError:  # not even azure
        return False
