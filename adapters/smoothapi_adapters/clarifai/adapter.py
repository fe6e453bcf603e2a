"""Clarifai's pretrained and custom classifiers, over its v2 REST interface.

No SDK: Clarifai's drags in a lot and retries ten times by itself.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from smoothapi.answer import Answer, Label
from smoothapi.errors import FatalError, ProviderError, TransientError, UsageError
from smoothapi.provider import Credentials, Limits, Mask, SafeOptions, Vocabulary, masked
from smoothapi_adapters._common import options
from smoothapi_adapters._common.client import (
    HttpClient,
    HttpResponse,
    Secrets,
    check_header,
    refuse_unsafe,
)
from smoothapi_adapters._common.endpoints import is_exposed, origin, split_url
from smoothapi_adapters._common.errors import error_of_status
from smoothapi_adapters.clarifai.errors import error_of_code, said_of, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal
    from pathlib import Path

    import requests

ENDPOINT = "https://api.clarifai.com"
VARIABLES = ("CLARIFAI_PAT", "CLARIFAI_API_KEY")
OK, MIXED, FAILED = 10000, 10010, 10020

_MOST_CONCEPTS = 200
_BATCH = 128


class ClarifaiAdapter:
    """A Clarifai model that names concepts.

    Credentials are looked for in: `pat`, `api_key`, CLARIFAI_PAT, CLARIFAI_API_KEY.

    Args:
        model: the model's id.
        version: id of a version to pin; without one the latest answers, and a certificate ends if
            it changes.
        user: whose model it is.
        app: the app that it is in.
        max_concepts: most labels of an answer, 1 to 200.
        min_value: lowest score of a label, in [0, 1].
        pat: personal access token.
        api_key: key of an app; used as a token is.
        batch: most pictures in a request, 1 to 128.
        per_second: most pictures a second. Clarifai allows 15 requests.
        price: dollars for 1,000 pictures; an assumption, since prices depend on the plan.
        price_date: when that was assumed.
        timeout: seconds for a request.
        vocabulary: the labels that the service can give, where you know them: a list, or a file
            (.txt, .json, .csv); a label asked for by name that is not among them is refused.
        endpoint: where the API is.
        ca: file or folder of certificates to trust instead of the usual ones.
        client: a `requests.Session` of yours, whose proxies and certificates are used.

    Raises:
        UsageError: an option is out of range.
    """

    name = "clarifai"
    safe_options = SafeOptions(
        names=frozenset(
            {"model", "version", "user", "app", "max_concepts", "min_value"}
            | {"batch", "per_second", "timeout"}
        ),
        endpoint="endpoint",
        hosts=("api.clarifai.com",),
        credentials=frozenset({"pat", "api_key"}),
    )

    def __init__(
        self,
        *,
        model: str = "general-image-recognition",
        version: str | None = None,
        user: str = "clarifai",
        app: str = "main",
        max_concepts: int | str = 20,
        min_value: float | str = 0.0,
        pat: str | None = None,
        api_key: str | None = None,
        batch: int | str = 128,
        per_second: float | str = 15.0,
        price: float | str | Decimal = "1.20",
        price_date: str = "2026-11-22",
        timeout: float | str = 60.0,
        vocabulary: Sequence[str] | str | Path | None = None,
        endpoint: str = ENDPOINT,
        ca: str | None = None,
        client: requests.Session | None = None,
    ) -> None:
        self._model, self._version, self._user, self._app = model, version, user, app
        for option, value in (("model", model), ("user", user), ("app", app)):
            options.text(option, value)
        self._max_concepts = options.whole("max_concepts", max_concepts, 1, _MOST_CONCEPTS)
        self._min_value = options.share("min_value", min_value)
        self._endpoint, query = split_url("endpoint", endpoint)
        if query or is_exposed(self._endpoint):
            raise UsageError("endpoint= is an https URL without a query: a key is sent there.")
        self.limits = Limits(
            batch=options.whole("batch", batch, 1, _BATCH),
            max_bytes=20 * 2**20,
            max_request_bytes=96 * 2**20,  # 128 MiB as base64
            max_side=65_500,
            per_second=options.above_zero("per_second", per_second),
            least_score=self._min_value,
        )
        self.price = options.price(price, price_date)
        self._timeout = options.timeout(timeout)
        self._vocabulary = options.vocabulary(vocabulary)
        self._given = {name: v for name, v in (("pat", pat), ("api_key", api_key)) if v}
        for name, value in self._given.items():
            check_header(name, value, UsageError)
        if client is not None:
            refuse_unsafe(client, self._endpoint)
        self._ca, self._client = ca, client
        self._lock = threading.Lock()
        self._connection: HttpClient | None = None

    def __repr__(self) -> str:
        return f"ClarifaiAdapter(model={self._model!r}, user={self._user!r}, app={self._app!r})"

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """The model, its pinned version, and what is asked of it."""
        identity: dict[str, str | int | float | bool | None] = {
            "operation": "concepts",
            "user": self._user,
            "app": self._app,
            "model": self._model,
            "version": self._version,
            "max_concepts": self._max_concepts,
            "min_value": self._min_value,
        }
        if origin(self._endpoint) != ENDPOINT:
            identity["endpoint"] = self._endpoint
        return identity

    def vocabulary(self) -> Vocabulary:
        """Return the labels given; each model has its own concepts, which are not known here."""
        return self._vocabulary or Vocabulary()

    def credentials(self) -> Credentials:
        """Look for a token or a key."""
        found = self._key()
        if found is None:
            return Credentials(False, f"not in {' or '.join(VARIABLES)}, pat= or api_key=")
        return Credentials(True, found[0])

    def endpoint(self) -> str:
        """Return where requests go."""
        return origin(self._endpoint)

    def mask(self) -> Mask:
        """Return what masks the token, and what a session that was given signs with."""
        return Mask([]) if self._connection is None else self._connection.mask

    @masked
    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Ask for the concepts of up to 128 pictures in one request."""
        client = self._connected()
        config = {"max_concepts": self._max_concepts, "min_value": self._min_value}
        inputs = [
            {"data": {"image": {"base64": base64.b64encode(payload).decode()}}}
            for payload in payloads
        ]
        body = {"inputs": inputs, "model": {"output_info": {"output_config": config}}}
        response = client.send(
            "POST",
            self._url,
            headers={"Accept": "application/json", "Content-Type": "application/json"},
            body=json.dumps(body).encode(),
        )
        return outcomes(response, len(payloads), client.mask)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def key(self) -> str:
        """Return the token or key that requests are signed with.

        Raises:
            FatalError: none was found, or what was found can be none.
        """
        found = self._key()
        if found is None:
            raise FatalError(
                f"Clarifai needs a personal access token, which was not found: "
                f"{self.credentials().where}. Make one at clarifai.com, under Security.",
                sent=False,
            )
        check_header(found[0], found[1], FatalError)
        return found[1]

    @property
    def _url(self) -> str:
        parts = ["users", self._user, "apps", self._app, "models", self._model]
        parts += ["versions", self._version] if self._version else []
        path = "/".join(quote(part, safe="") for part in parts)
        return f"{self._endpoint.rstrip('/')}/v2/{path}/outputs"

    def _key(self) -> tuple[str, str] | None:
        """Return where a key is and what it is."""
        for name, value in self._given.items():
            return f"{name}=", value
        for name in VARIABLES:
            if value := os.environ.get(name, "").strip():
                return name, value
        return None

    def _connected(self) -> HttpClient:
        with self._lock:
            if self._connection is None:
                secrets = Secrets({"Authorization": f"Key {self.key()}"})
                self._connection = HttpClient(
                    "Clarifai", secrets, timeout=self._timeout, ca=self._ca, client=self._client
                )
            return self._connection


def outcomes(response: HttpResponse, count: int, mask: Mask) -> list[Answer | ProviderError]:
    """Return what is said of each picture; raise what is said of them all.

    Args:
        response: of Clarifai.
        count: how many pictures the request held.
        mask: of what no error may show.
    """
    try:
        data = response.json("Clarifai")
    except TransientError:
        if (error := error_of_status(response, "Clarifai")) is not None:
            raise error from None
        raise
    data = data if isinstance(data, dict) else {}
    status = data.get("status")
    code, said = said_of(status, mask)
    request_id = shown(status.get("req_id") if isinstance(status, dict) else None)
    request_id = request_id or shown(response.headers.get("x-clarifai-request-id"))
    outputs = data.get("outputs")
    if code in (OK, MIXED, FAILED) and isinstance(outputs, list) and len(outputs) == count:
        return [_outcome(output, request_id, mask) for output in outputs]
    if code not in (None, OK, MIXED, FAILED):
        raise error_of_code(code, said, response, request_id)
    if (error := error_of_status(response, "Clarifai", said, request_id=request_id)) is not None:
        raise error
    raise TransientError(
        f"Clarifai answered {count} pictures with JSON that has not one output for each.",
        request_id=request_id,
    )


def _outcome(output: Any, request_id: str, mask: Mask) -> Answer | ProviderError:
    """Return the answer in one output, or the error that its status tells."""
    code, said = said_of(output.get("status") if isinstance(output, dict) else None, mask)
    if code not in (None, OK):
        return error_of_code(code, said, None, request_id)
    labels: tuple[Label, ...] | None
    try:
        # A list without elements may be left out of JSON that is made of protocol buffers.
        labels = tuple(_label(concept) for concept in output["data"].get("concepts", []))
        version = output.get("model", {}).get("model_version", {}).get("id")
    except (AttributeError, KeyError, TypeError, UsageError):
        labels = version = code = None
    if code is None or labels is None:
        return TransientError(
            "Clarifai's output is malformed: it lacks a status, or concepts with name and value.",
            request_id=request_id,
        )
    return Answer(labels, shown(version), request_id)


def _label(concept: dict[str, Any]) -> Label:
    value = concept["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return Label(concept.get("name") or concept["id"], value)
