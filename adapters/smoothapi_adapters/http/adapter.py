"""Any service behind HTTP: what it is sent and where its labels are is said by options.

In smoothapi.toml::

    [providers.http]
    url = "https://vision.example.com/v1/label"
    headers = { Authorization = "Bearer env:VISION_TOKEN" }
    body = "base64-json"
    template = { image = "{picture}" }
    labels = "predictions[*].{name: label, score: score}"
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import jmespath
import urllib3

from smoothapi.answer import Answer
from smoothapi.errors import FatalError, PermanentError, ProviderError, TransientError, UsageError
from smoothapi.provider import Credentials, Limits, Mask, SafeOptions, Vocabulary, masked
from smoothapi.text import printable
from smoothapi_adapters._common import options
from smoothapi_adapters._common.client import (
    HttpClient,
    Secrets,
    check_header,
    media_type,
    refuse_unsafe,
)
from smoothapi_adapters._common.endpoints import is_exposed, origin, split_url
from smoothapi_adapters._common.errors import detail_of, error_of_status, said_in
from smoothapi_adapters.http.labels import MisfitError, labels_in
from smoothapi_adapters.http.request import (
    Template,
    filled,
    is_secret,
    read_headers,
    read_table,
    references,
    without_secrets,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal
    from pathlib import Path

    import requests

    from smoothapi_adapters.http.request import NamedValues

BODIES = ("multipart", "base64-json", "raw")
_METHODS = ("POST", "PUT", "PATCH")


class HttpAdapter:
    """A service that takes pictures over HTTP and answers with JSON.

    Values of `headers`, `query`, `form` and `template` may hold `env:NAME`, which stands for a
    variable of the environment. Such values, and literal ones whose names say that they are
    secrets, are added when a request is written and are shown nowhere.

    Paths are JMESPath expressions (jmespath.org).

    Args:
        url: where pictures are sent; redirects are not followed. `endpoint` is the same.
        labels: path to the labels of one picture: objects with `name` and `score` (and, if there
            are, `parents` and `categories`), pairs, one object of names and scores, or one name.
        name: what the service is called, in certificates, budgets and on the command line.
        method: POST, PUT or PATCH.
        headers: sent with each request.
        query: added to the URL.
        body: "multipart" (a file in `field`, beside the fields of `form`), "base64-json"
            (`template` with the picture's base64 in the place of "{picture}"; "{type}" is its
            media type), or "raw" (the picture's bytes alone).
        field: name of the file field of a multipart body.
        form: further fields of a multipart body.
        template: of a JSON body. With `batch`, the list around the place has one element, which
            is repeated for each picture.
        answers: path to the list of the pictures' answers, in order; needed with `batch`. Paths
            to labels start from its elements.
        scale: the highest score: 1, or 100 for percentages.
        model_version: path to the model's version in the whole answer.
        request_id: path to the request's id, or "header:NAME".
        refused: path that finds something if the service refuses the picture for good.
        failed: path that finds something if the service failed although the status is 200.
        batch: most pictures in a request.
        max_bytes: largest picture.
        max_request_bytes: most bytes of pictures in a request.
        min_side: shortest side; smaller pictures are enlarged.
        max_side: longest side.
        formats: codecs that it takes.
        per_second: most pictures a second.
        price: dollars for 1,000 pictures.
        price_date: date of that price (ISO).
        timeout: seconds for a request.
        vocabulary: the labels that the service can give, where you know them: a list, or a file
            (.txt, .json, .csv); a label asked for by name that is not among them is refused.
        ca: file or folder of certificates to trust instead of the usual ones.
        allow_plain_http: send secrets to another machine without TLS.
        client: a `requests.Session` of yours, whose proxies, certificates and auth are used.

    Raises:
        UsageError: an option is missing, malformed, or contradicts another.
    """

    safe_options = SafeOptions(
        # The URL too: it is paired with what stands beside it alone, unless that is `env:NAME`.
        names=frozenset(
            {"url", "endpoint", "labels", "name", "method", "headers", "query", "body", "field"}
            | {"form", "template", "answers", "scale", "model_version", "request_id", "refused"}
            | {"failed", "batch", "max_bytes", "max_request_bytes", "min_side", "max_side"}
            | {"formats", "per_second", "price", "price_date", "timeout"}
        )
    )

    def __init__(
        self,
        url: str | None = None,
        *,
        labels: str | None = None,
        endpoint: str | None = None,
        name: str = "http",
        method: str = "POST",
        headers: NamedValues | None = None,
        query: NamedValues | None = None,
        body: str = "multipart",
        field: str = "image",
        form: NamedValues | None = None,
        template: Any = None,
        answers: str | None = None,
        scale: float | str = 1.0,
        model_version: str | None = None,
        request_id: str = "header:x-request-id",
        refused: str | None = None,
        failed: str | None = None,
        batch: int | str = 1,
        max_bytes: int | str = 4_000_000,
        max_request_bytes: int | str | None = None,
        min_side: int | str = 1,
        max_side: int | str = 10_000,
        formats: Sequence[str] | str = ("png", "jpeg"),
        per_second: float | str | None = None,
        price: float | str | Decimal = "0",
        price_date: str = "",
        timeout: float | str = 30.0,
        vocabulary: Sequence[str] | str | Path | None = None,
        ca: str | None = None,
        allow_plain_http: bool | str = False,
        client: requests.Session | None = None,
    ) -> None:
        url = url or endpoint
        if not url or not labels:
            raise UsageError(
                "The provider 'http' needs a url and a path to the labels, such as "
                'labels="predictions[*].{name: label, score: score}". Write both in '
                "[providers.http] of smoothapi.toml."
            )
        self.name = options.short_name(name)
        self._url, in_url = split_url("url", url)
        self._method = options.one_of("method", str(method).upper(), _METHODS)
        self._body = options.one_of("body", body, BODIES)
        self._field = field
        self._headers = read_headers(headers)
        self._query = (*in_url, *read_table("query", query).items())
        self._form = read_table("form", form)
        self._template = Template({"image": "{picture}"} if template is None else template)
        self._timeout = options.timeout(timeout)
        self._vocabulary = options.vocabulary(vocabulary)
        self._scale = options.above_zero("scale", scale)
        self.limits = Limits(
            batch=options.count("batch", batch),
            max_bytes=options.count("max_bytes", max_bytes),
            max_request_bytes=None
            if max_request_bytes is None
            else options.count("max_request_bytes", max_request_bytes),
            min_side=options.count("min_side", min_side),
            max_side=options.count("max_side", max_side),
            formats=options.formats(formats),
            per_second=None if per_second is None else options.above_zero("per_second", per_second),
        )
        if self.limits.min_side > self.limits.max_side:
            raise UsageError("No picture has sides from min_side to max_side.")
        if (self.limits.max_request_bytes or self.limits.max_bytes) < self.limits.max_bytes:
            raise UsageError("max_request_bytes must leave room for one picture of max_bytes.")
        self.price = options.price(price, price_date)
        in_header = request_id.startswith("header:")
        self._id_header = request_id.removeprefix("header:") if in_header else ""
        self._labels = labels
        paths = {
            "labels": labels,
            "answers": answers,
            "model_version": model_version,
            "refused": refused,
            "failed": failed,
            "request_id": None if in_header else request_id,
        }
        self._paths = {option: _compiled(option, text) for option, text in paths.items() if text}
        self._check_body()
        self._settings = {
            "method": self._method,
            "headers": without_secrets({k.lower(): v for k, v in self._headers.items()}),
            "query": [(k, without_secrets(v, k)) for k, v in self._query],
            "field": field,
            "form": without_secrets(self._form),
            "template": without_secrets(self._template.value),
            "paths": [answers, model_version, refused, failed],
        }
        if client is not None:
            refuse_unsafe(client, self._url)
        self._ca, self._client = ca, client
        self._plain_http = options.switch("allow_plain_http", allow_plain_http)
        self._lock = threading.Lock()
        self._connection: HttpClient | None = None
        self._understood = False

    def __repr__(self) -> str:
        return f"HttpAdapter({self._url!r}, name={self.name!r})"

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """URL, paths and a hash of the options beside; nothing secret."""
        settings = json.dumps(self._settings, sort_keys=True)
        return {
            "operation": "label",
            "url": self._url,
            "body": self._body,
            "labels": self._labels,
            "scale": self._scale,
            "settings": hashlib.sha256(settings.encode()).hexdigest()[:16],
        }

    def vocabulary(self) -> Vocabulary:
        """Return the labels given; without them any label is possible."""
        return self._vocabulary or Vocabulary()

    def credentials(self) -> Credentials:
        """Say whether the variables that the options name are set."""
        names = self._references()
        if not names:
            return Credentials(True, "the options name no variable of the environment")
        missing = [name for name in names if not os.environ.get(name, "").strip()]
        if missing:
            return Credentials(False, f"not in the environment: {', '.join(missing)}")
        return Credentials(True, f"the environment: {', '.join(names)}")

    def endpoint(self) -> str:
        """Return where requests go."""
        return origin(self._url)

    def mask(self) -> Mask:
        """Return what masks the secrets, and what a session that was given signs with."""
        return Mask([]) if self._connection is None else self._connection.mask

    @masked
    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Send the pictures in one request."""
        client = self._connected()
        content_type, body = self._packed(payloads)
        query = urlencode([pair for pair in self._query if not is_secret(*pair)])
        public = {k: v for k, v in self._headers.items() if not is_secret(k, v)}
        response = client.send(
            self._method,
            self._url + (f"?{query}" if query else ""),
            headers={"Accept": "application/json", "Content-Type": content_type, **public},
            body=body,
        )
        who, mask = self._who, client.mask
        request_id = _shown(response.headers.get(self._id_header)) if self._id_header else ""
        error = error_of_status(response, who, detail_of(response, mask), request_id=request_id)
        if error is not None:
            raise error
        data = response.json(who)
        request_id = request_id or _shown(self._find("request_id", data))
        if (error := self._reported(data, mask, request_id)) is not None:
            raise error
        version = _shown(self._find("model_version", data))
        return [
            self._outcome(part, version, mask, request_id)
            for part in self._parts(data, len(payloads), request_id)
        ]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    @property
    def _who(self) -> str:
        return f"{self.name} ({origin(self._url)})"

    def _check_body(self) -> None:
        """Refuse what cannot go together."""
        if self._body != "raw" and "content-type" in map(str.lower, self._headers):
            raise UsageError(f"The header Content-Type of a {self._body} body is the adapter's.")
        if self.limits.batch == 1:
            return
        if "answers" not in self._paths:
            raise UsageError(
                f"batch={self.limits.batch} needs answers=, the path to the list of the pictures' "
                "answers."
            )
        if self._body == "raw":
            raise UsageError("A raw body is one picture. Leave batch at 1, or choose another body.")
        if self._body == "base64-json" and not self._template.repeats:
            raise UsageError(
                f"With batch={self.limits.batch}, '{{picture}}' in the template must be in a list "
                'of one element, to be repeated: template = {instances = [{b64 = "{picture}"}]}.'
            )

    def _references(self) -> list[str]:
        return references(self._headers, self._query, self._form, self._template.value)

    def _connected(self) -> HttpClient:
        """Return the way to the service; made at the first question, since it needs secrets."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> HttpClient:
        found = self.credentials()
        if not found.found:
            raise FatalError(
                f"{self._who} needs a secret that is {found.where}. Set it.", sent=False
            )
        secrets = self._secrets()
        for name, value in secrets.headers.items():
            check_header(name, value, FatalError)
        if not (self._plain_http or secrets.empty) and is_exposed(self._url):
            raise FatalError(
                f"{self._who} would be sent secrets without TLS, for anybody on the way to "
                "read. Use https, or, in a network of your own, allow_plain_http = true.",
                sent=False,
            )
        return HttpClient(
            self._who, secrets, timeout=self._timeout, ca=self._ca, client=self._client
        )

    def _secrets(self) -> Secrets:
        """Read what must not be shown from the environment."""
        return Secrets(
            headers={
                name: filled(text) for name, text in self._headers.items() if is_secret(name, text)
            },
            query=tuple(
                (name, filled(text)) for name, text in self._query if is_secret(name, text)
            ),
            others=tuple(os.environ[name].strip() for name in self._references()),
        )

    def _packed(self, payloads: Sequence[bytes]) -> tuple[str, bytes]:
        """Return a request's media type and body."""
        if self._body == "raw":
            return media_type(payloads[0]), payloads[0]
        if self._body == "multipart":
            fields: list[Any] = [(name, filled(text)) for name, text in self._form.items()]
            for number, payload in enumerate(payloads):
                kind = media_type(payload)
                filename = f"{number}.{kind.rpartition('/')[2]}"
                fields.append((self._field, (filename, payload, kind)))
            body, content_type = urllib3.encode_multipart_formdata(fields)
            return content_type, body
        coded = [(base64.b64encode(p).decode(), media_type(p)) for p in payloads]
        return "application/json", json.dumps(self._template.filled(coded)).encode()

    def _find(self, option: str, data: Any) -> Any:
        """Return what a path finds; None if it finds nothing, cannot be followed, or is not set."""
        if option not in self._paths:
            return None
        try:
            return self._paths[option].search(data)
        except (jmespath.exceptions.JMESPathError, TypeError, ValueError, RecursionError):
            return None

    def _reported(self, data: Any, mask: Mask, request_id: str) -> ProviderError | None:
        """Return the failure that the service itself reports with a status of success."""
        for option, kind in (("refused", PermanentError), ("failed", TransientError)):
            found = self._find(option, data)
            if found not in (None, False, "", [], {}):
                shown = mask.quoted(found, 200) if isinstance(found, str) else said_in(found, mask)
                return kind(
                    f"{self._who} answered with an error{f': {shown}' if shown else ''}.",
                    request_id=request_id,
                )
        return None

    def _parts(self, data: Any, count: int, request_id: str) -> list[Any]:
        """Return the answer's part for each picture."""
        if "answers" not in self._paths:
            return [data]
        parts = self._find("answers", data)
        if not isinstance(parts, list) or len(parts) != count:
            got = f"{len(parts)} answers" if isinstance(parts, list) else "no list"
            what = f"the path answers= finds {got} for {count} pictures"
            raise self._misfit(what, data, request_id)
        return parts

    def _outcome(
        self, part: Any, version: str, mask: Mask, request_id: str
    ) -> Answer | ProviderError:
        if "answers" in self._paths and (error := self._reported(part, mask, request_id)):
            return error
        try:
            labels = labels_in(self._find("labels", part), self._scale)
        except MisfitError as misfit:
            return self._misfit(str(misfit), part, request_id)
        self._understood = True
        return Answer(labels, version, request_id)

    def _misfit(self, what: str, data: Any, request_id: str) -> ProviderError:
        """Return the error for JSON that does not fit the paths.

        As long as no answer has fitted, the paths are likelier to be wrong than the service, and
        trying again would only cost. Later it is the service, for a moment.
        """
        if self._understood:
            return TransientError(
                f"{self._who} answered with other JSON than before: {what}.", request_id=request_id
            )
        has = (
            f"an object with {', '.join(map(repr, sorted(data)[:10])) or 'nothing'}"
            if isinstance(data, dict)
            else "a list"
            if isinstance(data, list)
            else "neither an object nor a list"
        )
        return FatalError(
            f"{self._who} answers with JSON that does not fit the options: {what}. It is "
            f"{printable(has)[:300]}. Correct the path; the question was sent, and may be billed.",
            request_id=request_id,
        )


def _shown(value: Any) -> str:
    """Return a version or an id as text, fit to be shown; "" if nothing was found."""
    if value is None or isinstance(value, (bool, dict, list)):
        return ""
    return printable(str(value))[:200]


def _compiled(option: str, text: str) -> Any:
    try:
        return jmespath.compile(options.text(option, text))
    except jmespath.exceptions.JMESPathError as error:
        raise UsageError(
            f"{option}={text!r} is not a JMESPath expression ({type(error).__name__}). "
            "Write one such as predictions[*].{name: label, score: score}."
        ) from error
