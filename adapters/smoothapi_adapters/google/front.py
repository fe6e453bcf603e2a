"""Google Vision's REST interface, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import requests
from google.api_core import exceptions as api
from google.auth import exceptions
from google.cloud import vision

from smoothapi.errors import FatalError, TransientError, UsageError
from smoothapi.files import parse_json
from smoothapi.wires.google import Google, refusal
from smoothapi.wires.google_grpc import parsed_json
from smoothapi.wires.wire import to_reply
from smoothapi.wrapping import Call, Item, Passed
from smoothapi_adapters._common import options as read_option
from smoothapi_adapters._common.kept import Kept
from smoothapi_adapters._common.relay import (
    Relay,
    RelayedCall,
    Signature,
    Told,
    plain_path,
    read_body,
    uncertifiable,
)
from smoothapi_adapters.google.adapter import PER_SECOND, GoogleAdapter
from smoothapi_adapters.google.batch import (
    Together,
    could_label,
    label_feature,
    remote_of,
    to_certify,
)
from smoothapi_adapters.google.client import sign_in
from smoothapi_adapters.google.errors import mapped_error
from smoothapi_adapters.google.wrap import CallersClient, read_labels, times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.errors import ProviderError
    from smoothapi.gateway.front import Incoming, SignedBy
    from smoothapi.wires.wire import Refusal, Reply, Request
    from smoothapi.wrapping import Remote, Verdict

_ANNOTATE = re.compile(
    r"/v1/(?P<parent>projects/[^/]+(/locations/[^/]+)?/)?images:annotate", re.ASCII
)
_OWN = re.compile(r"/v1(p\d+beta\d+)?/", re.ASCII)
_LABELLING = re.compile(r":(asyncbatch)?annotate")  # of pictures and files, in any version
_HOST = "https://vision.googleapis.com"
_OPTIONS = (
    "endpoint", "api_key", "credentials", "quota_project", "transport", "timeout", "per_second",
)  # fmt: skip
_KEYS = ("authorization", "x-goog-api-key", "x-goog-user-project")


class ImageAnnotatorFront:
    """Certifies the label annotations of v1's images:annotate, with a project in the path or none.

    Labels that are asked for in another way (another version, asynchronously, of a file) are
    refused. Pictures of a batch that are to be certified are sent one by one, which costs the same;
    all others go together where the operator lets them pass, and one that may not be sent is
    refused by itself. What other features find stays as Google said it.

    Args:
        options: endpoint, api_key, credentials, quota_project, transport (of the noisy copies; REST
            by default), timeout and per_second, as for `GoogleAdapter`.
        signed_by: "caller" hands on the caller's key or bearer token.
    """

    name = "google"

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        read_option.known("google", options, _OPTIONS)
        adapter = GoogleAdapter(**{"transport": "rest", **options})
        self._connection = adapter.connection
        self._per_second = read_option.above_zero(
            "per_second", options.get("per_second", PER_SECOND)
        )
        self._signed_by = signed_by
        self.wire = Google()
        self._relay = Relay(
            "Google", self._connection.endpoint or _HOST, timeout=self._connection.timeout
        )
        self._clients: Kept[str, Any] = Kept(self._client, lambda client: client.transport.close())

    def owns(self, request: Request) -> bool:
        """Whether the path begins with a version of Google's."""
        return bool(_OWN.match(request.path))

    def operation(self, request: Request) -> str:
        """Return the last part of the path, such as "images:annotate"."""
        return request.path.rpartition("/")[2]

    def shown(self, request: Request) -> str:
        """Return the API key or the bearer token."""
        key = request.query.get("key") or request.headers.get("x-goog-api-key")
        if key:
            return key
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def stranger(self, shown: str) -> Refusal:
        """Return what Google says of a key that there is not."""
        if not shown:
            return refusal(
                "PERMISSION_DENIED",
                "Method doesn't allow unregistered callers (callers without established identity). "
                "Please use API Key or other form of API consumer identity to call this API.",
            )
        return refusal(
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
            "cookie or other valid authentication credential.",
        )

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks, as `wrap` reads it from the SDK's."""
        request = incoming.request
        if not _LABELLING.search(plain_path(request.path)):
            return None
        data = read_body(request.body)
        try:
            rows = [_Row(row) for row in data["requests"]]
        except (ValueError, TypeError, KeyError):
            raise uncertifiable(
                "The body of this call cannot be read: it is no JSON in the form of Google's "
                "reference, a list of requests with a list of features each."
            ) from None
        if not any(row.could_label for row in rows):
            return None
        if request.method != "POST" or not _ANNOTATE.fullmatch(request.path):
            raise uncertifiable(
                "They are those of POST /v1/images:annotate, with or without a project in the "
                "path: ask there, or name features other than LABEL_DETECTION."
            )
        for row in rows:
            row.prepare(incoming, alone=len(rows) == 1)
        if not any(to_certify(row.asked) or row.refused for row in rows):
            return next(filter(None, (row.remote for row in rows)), None)
        return self._call(incoming, data, rows)

    def _call(self, incoming: Incoming, data: dict[str, Any], rows: Sequence[_Row]) -> Call:
        """Return the call about pictures of which at least one is certified, or refused."""
        request = incoming.request
        whole = vision.BatchAnnotateImagesRequest(
            parent=str(data.get("parent") or self._parent(request.path)),
            labels=data.get("labels") if isinstance(data.get("labels"), dict) else {},
        )
        given = {"timeout": self._connection.timeout}
        client = CallersClient(
            self._clients[self._signing(request)], whole, given, self._per_second
        )

        def part(written: list[Any]) -> Incoming:
            return incoming.with_body(json.dumps({**data, "requests": written}).encode())

        def sent(written: list[Any]) -> list[Reply]:
            return _parts(self._send(part(written), identity=True), len(written))

        together = Together(sent)
        items: list[Item | Passed] = []
        for row in rows:
            if row.refused:
                told = partial(_refused_part, row.refused)
                items.append(Passed(told, row.remote, refused=True))
            elif not to_certify(row.asked):
                items.append(together.passed(row.written, row.remote))
            else:
                as_it_came = len(rows) == 1 and row.remote is None
                own = incoming if as_it_came else part([row.written])
                items.append(self._item(own, row.asked, client))
        return Call(items, join=None if len(items) == 1 else _joined)

    def relay(self, incoming: Incoming) -> Reply:
        """Send a request on, signed."""
        return self._send(incoming)

    def close(self) -> None:
        """Close the connections."""
        self._relay.close()
        self._clients.close()

    def _item(
        self, incoming: Incoming, request: vision.AnnotateImageRequest, client: CallersClient
    ) -> Item:
        feature: Any = label_feature(request)
        votes = client.votes(feature)
        own = RelayedCall(
            votes,
            partial(self._send, incoming, identity=True),
            means=_means,
            is_refused=_is_refused,
            read=_read,
            who="Google",
            price=times(votes.price, len(request.features)),
        )
        return Item(request.image.content, own, votes, None, _write)

    def _send(self, incoming: Incoming, *, identity: bool = False) -> Reply:
        request = incoming.request
        headers, target = incoming.headers, incoming.target
        signature = Signature()
        if self._signed_by == "gateway":
            headers = tuple((n, v) for n, v in headers if n.lower() not in _KEYS)
            target = _without_key(target)
            signature = self._signature(request.method, target)
        return self._relay.send(
            request.method, target, headers, request.body, signature, identity=identity
        )

    def _signature(self, method: str, target: str) -> Signature:
        key = self._connection.api_key
        if key:
            return Signature({"X-Goog-Api-Key": key}, secrets=(key,))
        from google.auth.transport.requests import Request as Asking  # noqa: PLC0415  0.1 s

        headers: dict[str, str] = {}
        credentials = self._clients[""].transport._credentials  # noqa: SLF001  no other way in
        try:
            credentials.before_request(  # refreshes what has expired
                Asking(), method, f"{self._relay.endpoint}{target}", headers
            )
        except exceptions.GoogleAuthError as error:
            raise mapped_error(error) or FatalError("Signing in failed.") from None
        token = headers.get("authorization", "").removeprefix("Bearer ")
        return Signature(headers, secrets=(token,) if token else ())

    def _signing(self, request: Request) -> str:
        """Return what the client for noisy copies signs with; "" is the gateway's own."""
        if self._signed_by == "gateway":
            return ""
        bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
        return f"{'bearer' if bearer else 'key'} {self.shown(request)}"

    def _client(self, signing: str) -> Any:
        kind, _, secret = signing.partition(" ")
        connection = self._connection
        if kind == "key":
            connection = replace(connection, api_key=secret, credentials=None)
        elif kind == "bearer":
            from google.oauth2.credentials import Credentials  # noqa: PLC0415

            made: Any = Credentials
            connection = replace(connection, api_key="", credentials=made(secret))
        elif not connection.api_key and connection.credentials is None:
            signed_in = sign_in(connection.quota_project)
            connection = replace(connection, credentials=signed_in)
        try:
            client, _ = connection.open()
        except (ValueError, UsageError) as error:
            raise FatalError(
                f"No client for Google can be made ({type(error).__name__}).", sent=False
            ) from None
        return client

    @staticmethod
    def _parent(path: str) -> str:
        found = _ANNOTATE.fullmatch(path)
        return (found["parent"] or "").rstrip("/") if found else ""


class _Row:
    """One request of a batch.

    Args:
        written: as JSON.

    Raises:
        ValueError, TypeError: it is not an AnnotateImageRequest.

    Attributes:
        written: as it is sent on.
        asked: the same as Google's message.
        could_label: whether Google could answer it with labels.
        remote: where its picture was, if that was elsewhere.
        refused: why it is refused by itself, "" if it is not.
    """

    def __init__(self, written: Any) -> None:
        if not isinstance(written, dict):  # protobuf would make a message of text, too
            raise TypeError("no object")
        message = vision.AnnotateImageRequest.pb()()
        parsed = parsed_json(written, message)
        self.written = written
        self.asked: vision.AnnotateImageRequest = vision.AnnotateImageRequest.wrap(parsed)
        self.could_label = could_label(self.asked)
        self.remote = remote_of(self.asked, "Fetch it and give its bytes as image.content")
        self.refused = ""

    def prepare(self, incoming: Incoming, *, alone: bool) -> None:
        """Have its picture here, if that is elsewhere and may be fetched; refuse what may not pass.

        Raises:
            UsageError: it is refused, and is the only one.
        """
        photo, self.refused = incoming.fetch_of_batch(self.remote, alone=alone)
        if photo is not None:
            self.asked.image = vision.Image(content=photo)
            content = base64.b64encode(photo).decode("ascii")
            self.written = {**self.written, "image": {"content": content}}
        if self.refused or to_certify(self.asked):
            return
        if not self.could_label:
            self.refused = incoming.not_passed
        elif self.remote is None or photo is not None:
            refusal = uncertifiable(self._why_not())
            if alone:
                raise refusal
            self.refused = str(refusal)

    def _why_not(self) -> str:
        """Say why no labels of it can be certified."""
        if label_feature(self.asked) is None:
            return (
                "It cannot be read what this request asks for: give each of its features a type "
                'of Google\'s reference, such as "LABEL_DETECTION".'
            )
        return (
            "This request holds no picture that can be read: give its bytes in base64 as "
            "image.content."
        )


def _part(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the one picture's part of a response."""
    parts = data.get("responses")
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        raise TransientError(
            "Google's answer is malformed: it has not one response for one picture."
        )
    part: dict[str, Any] = parts[0]
    return part


def _read(data: Mapping[str, Any]) -> Answer:
    message = vision.AnnotateImageResponse.pb()()
    try:
        parsed_json(_part(data), message)
    except ValueError:
        raise TransientError(
            "Google's answer is malformed: it is not an AnnotateImageResponse."
        ) from None
    return read_labels(vision.AnnotateImageResponse.wrap(message))


def _write(told: Told, verdict: Verdict) -> Reply:
    part = _part(told.json)
    rows = part.get("labelAnnotations") or []
    kept = [row for row in rows if verdict.keeps(row["description"])]
    for row in kept:
        score = verdict.score(row["description"])
        if score is not None:
            row["score"] = score
        if verdict.mark:
            said = "certified" if verdict.certified(row["description"]) else "uncertified"
            row.setdefault("properties", []).append({"name": "smoothapi", "value": said})
    if rows:
        part["labelAnnotations"] = kept
        if not kept:  # protobuf's JSON leaves empty lists out
            del part["labelAnnotations"]
    return told.written()


def _parts(reply: Reply, count: int) -> list[Reply]:
    """Return the reply about several pictures as one for each; an error stands for each."""
    if reply.status != 200:
        return [reply] * count
    try:
        data = parse_json(reply.body)
        return [Told(reply, {**data, "responses": [one]}).written() for one in data["responses"]]
    except (ValueError, TypeError, KeyError):
        raise TransientError("Google's answer is malformed: it has no responses.") from None


def _refused_part(why: str) -> Reply:
    """Return the reply about one picture that is refused, as Google words it."""
    error = {"code": 3, "message": why}  # INVALID_ARGUMENT, as a number of gRPC
    return to_reply(200, {"responses": [{"error": error}]})


def _joined(replies: list[Reply]) -> Reply:
    """Return the replies about single pictures as one; the first that is an error, if there is."""
    refused = next((reply for reply in replies if reply.status != 200), None)
    if refused is not None:
        return refused
    data = [json.loads(reply.body) for reply in replies]
    responses = [part for one in data for part in one.get("responses", [])]
    return Told(replies[0], {**data[0], "responses": responses}).written()


def _means(reply: Reply) -> ProviderError | None:
    if reply.status == 200:
        return None
    response = requests.Response()
    response.status_code = reply.status
    response.headers.update(reply.headers)
    response._content = reply.body  # noqa: SLF001  where requests itself puts what it has read
    response.request = requests.Request("POST", _HOST).prepare()
    untyped: Any = api
    try:
        error = untyped.from_http_response(response)
    except (AttributeError, TypeError, RecursionError):  # it is not worded as Google does
        error = untyped.from_http_status(reply.status, "an error in words that are not Google's")
    return mapped_error(error)


def _is_refused(data: Mapping[str, Any]) -> bool:
    """Whether the one picture's part of a response is an error."""
    error = _part(data).get("error")
    return isinstance(error, dict) and bool(error.get("code"))


def _without_key(target: str) -> str:
    path, _, query = target.partition("?")
    pairs = query.split("&") if query else []
    kept = [pair for pair in pairs if unquote_plus(pair.partition("=")[0]) != "key"]
    return f"{path}?{'&'.join(kept)}" if kept else path
