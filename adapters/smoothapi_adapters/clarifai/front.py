"""Clarifai's v2 REST interface, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import requests

from smoothapi.errors import FatalError, ProviderError
from smoothapi.provider import Mask
from smoothapi.wires.clarifai import Clarifai
from smoothapi.wires.wire import Refusal, Reply, from_base64
from smoothapi.wrapping import Call, Item, Passed, Remote
from smoothapi_adapters._common import options as read_option
from smoothapi_adapters._common.client import HttpResponse
from smoothapi_adapters._common.relay import Relay, Signature, Told, own_call
from smoothapi_adapters._common.sessions import connections
from smoothapi_adapters.clarifai.adapter import (
    ENDPOINT,
    FAILED,
    MIXED,
    OK,
    ClarifaiAdapter,
    outcomes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.answer import Answer
    from smoothapi.gateway.front import Incoming, SignedBy
    from smoothapi.wires.wire import Request
    from smoothapi.wrapping import Verdict

_OUTPUTS = re.compile(
    r"/v2/users/(?P<user>[^/]+)/apps/(?P<app>[^/]+)/models/(?P<model>[^/]+)"
    r"(/versions/(?P<version>[^/]+))?/outputs"
)
_OPTIONS = ("endpoint", "pat", "api_key", "price", "price_date", "per_second", "timeout", "ca")
_MOST_CONCEPTS, _LARGEST = 50, 200


class ClarifaiFront:
    """Certifies the concepts of models' outputs, for paths that name a user and an app.

    Inputs are sent one by one. Noisy copies are asked about with room for at least 50 concepts;
    `select_concepts` concerns the caller's own call.

    Args:
        options: endpoint, pat, api_key, price, price_date, per_second, timeout and ca, as for
            `ClarifaiAdapter`.
        signed_by: "caller" hands on the caller's token.
    """

    name = "clarifai"

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        read_option.known("clarifai", options, _OPTIONS)
        self._signed_by = signed_by
        self._options = dict(options)
        self._adapter = ClarifaiAdapter(**options)
        self.wire = Clarifai()
        timeout = read_option.timeout(options.get("timeout", 60.0))
        endpoint, ca = options.get("endpoint", ENDPOINT), options.get("ca")
        self._relay = Relay("Clarifai", endpoint, timeout=timeout, ca=ca)
        self._session = requests.Session()
        self._session.auth = lambda request: request  # keeps .netrc out
        mounted = connections()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, mounted)

    def owns(self, request: Request) -> bool:
        """Whether the path begins with Clarifai's version."""
        return request.path.startswith("/v2/")

    def operation(self, request: Request) -> str:
        """Return the last part of the path, such as "outputs"."""
        return request.path.rpartition("/")[2]

    def shown(self, request: Request) -> str:
        """Return the token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme in {"Key", "Bearer"} else ""

    def stranger(self, shown: str) -> Refusal:
        """Return what Clarifai says of a token that there is not."""
        if not shown:
            return Refusal(
                401, "11009", "API key not found", details="Send 'Authorization: Key ...'."
            )
        return Refusal(401, "11008", "Invalid API key or Invalid API key/application pair")

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks."""
        path = _OUTPUTS.fullmatch(incoming.target.partition("?")[0])
        if path is None or incoming.request.method != "POST":
            return None
        names = {name: unquote(value) for name, value in path.groupdict().items() if value}
        try:
            data = json.loads(incoming.request.body)
            rows = [_Row(row) for row in data["inputs"]]
            config = _config(data)
            most = int(config.get("max_concepts") or 20)
            lowest = float(config.get("min_value") or 0.0)
            asking = [self._votes(incoming, names, most, lowest) for _ in rows]
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError, OverflowError):
            return None
        if not rows or not all(row.photo or row.remote for row in rows):
            return None
        for row in rows:
            row.fetch(incoming, alone=len(rows) == 1)
        if not any(row.photo or row.refused for row in rows):
            return rows[0].remote
        items: list[Item | Passed] = []
        for row, votes in zip(rows, asking, strict=True):
            part = incoming
            if len(rows) > 1 or row.remote is not None:
                part = incoming.with_body(json.dumps({**data, "inputs": [row.written]}).encode())
            if row.refused:
                items.append(Passed(partial(self._refused, row.refused), row.remote))
            elif not row.photo:
                items.append(Passed(partial(self._send, part, identity=True), row.remote))
            else:
                own = own_call(
                    votes,
                    partial(self._send, part, identity=True),
                    means=_means,
                    is_refused=lambda data: isinstance(_meaning(data), ProviderError),
                    read=_read,
                    who="Clarifai",
                )
                items.append(Item(row.photo, own, votes, lowest or None, _write))
        return Call(items, join=None if len(items) == 1 else _joined)

    def _refused(self, why: str) -> Reply:
        """Return the reply about one input that is refused, as Clarifai words it."""
        return self.wire.refuse_input(self.wire.unanswerable(why))

    def relay(self, incoming: Incoming) -> Reply:
        """Send a request on, signed."""
        return self._send(incoming)

    def close(self) -> None:
        """Close the connections."""
        self._relay.close()
        self._adapter.close()
        self._session.close()

    def _votes(
        self, incoming: Incoming, names: Mapping[str, str], most: int, lowest: float
    ) -> ClarifaiAdapter:
        options = {**self._options, **names}
        if self._signed_by == "caller":
            options = {**options, "api_key": None, "pat": self.shown(incoming.request)}
        room = min(_LARGEST, max(_MOST_CONCEPTS, most))
        return ClarifaiAdapter(**options, max_concepts=room, min_value=lowest, client=self._session)

    def _send(self, incoming: Incoming, *, identity: bool = False) -> Reply:
        headers, signature = incoming.headers, Signature()
        if self._signed_by == "gateway":
            headers = tuple((n, v) for n, v in headers if n.lower() != "authorization")
            key = self._adapter.key()
            signature = Signature({"Authorization": f"Key {key}"}, secrets=(key,))
        request = incoming.request
        return self._relay.send(
            request.method, incoming.target, headers, request.body, signature, identity=identity
        )


class _Row:
    """One input of a request.

    Args:
        written: as JSON.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not an input with an image.

    Attributes:
        written: as it is sent on.
        photo: its picture, empty if that is not here.
        remote: where its picture was, if that was elsewhere.
        refused: why it is refused by itself, "" if it is not.
    """

    def __init__(self, written: Any) -> None:
        picture = written["data"]["image"]
        self.written = written
        self.photo = from_base64(picture.get("base64")) or b""
        self.remote: Remote | None = None
        self.refused = ""
        url = picture.get("url")
        if url and not picture.get("base64"):
            instead = "Fetch it and give its bytes as image.base64"
            self.remote = Remote("a picture at a URL", instead, str(url))

    def fetch(self, incoming: Incoming, *, alone: bool) -> None:
        """Have its picture here, if that is elsewhere and may be fetched.

        Raises:
            UsageError: it may not, or cannot, and it is the only one.
        """
        photo, self.refused = incoming.fetch_of_batch(self.remote, alone=alone)
        if photo:
            self.photo = photo
            data = {**self.written["data"], "image": {"base64": _text(photo)}}
            self.written = {**self.written, "data": data}


def _text(photo: bytes) -> str:
    return base64.b64encode(photo).decode("ascii")


def _config(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a request says of how many concepts it wants, and from which score on."""
    model = data.get("model") or {}
    config: Mapping[str, Any] = {}
    for holder in (model, model.get("model_version") or {}):  # of newer and of older requests
        config = (holder.get("output_info") or {}).get("output_config") or config
    return config


def _meaning(data: dict[str, Any], reply: Reply | None = None) -> Answer | ProviderError:
    status = 200 if reply is None else reply.status
    headers = {} if reply is None else {name.lower(): value for name, value in reply.headers}
    body = json.dumps(data).encode() if reply is None else reply.body
    try:
        [outcome] = outcomes(HttpResponse(status, headers, body), 1, Mask([]))
    except ProviderError as error:
        return error
    return outcome


def _read(data: dict[str, Any]) -> Answer:
    outcome = _meaning(data)
    if isinstance(outcome, ProviderError):
        raise outcome
    return outcome


def _means(reply: Reply) -> ProviderError | None:
    if reply.status == 200:
        return None
    outcome = _meaning({}, reply)
    if isinstance(outcome, ProviderError):
        return outcome
    return FatalError(f"Clarifai answered with status {reply.status}, and as if with 200.")


def _write(told: Told, verdict: Verdict) -> Reply:
    found = told.json["outputs"][0]["data"]
    rows = found.get("concepts", [])
    kept = [row for row in rows if verdict.keeps(_name(row))]
    for row in kept:
        score = verdict.score(_name(row))
        if score is not None:
            row["value"] = score
        if verdict.mark:
            row["certified"] = verdict.certified(_name(row))
    if rows:
        found["concepts"] = kept
    return told.written()


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("name") or row["id"])


def _joined(replies: list[Reply]) -> Reply:
    """Return the replies about single inputs as one, as Clarifai answers for several."""
    data = [_object(reply) for reply in replies]
    whole = next((one for one in data if not _outputs(one)), None)
    if whole is not None:  # said of the whole request, such as that the token is wrong
        return replies[data.index(whole)]
    codes = [one["status"].get("code") for one in data]
    outputs = [output for one in data for output in one["outputs"]]
    status, first = data[0]["status"], replies[0]
    if any(code != OK for code in codes):
        failed = all(code != OK for code in codes)
        words = ("Failure", "all inputs failed") if failed else ("Mixed Success", "see outputs")
        status = {**status, "code": FAILED if failed else MIXED}
        status |= {"description": words[0], "details": words[1]}
        first = replace(first, status=400 if failed else 200)
    return Told(first, {**data[0], "status": status, "outputs": outputs}).written()


def _object(reply: Reply) -> dict[str, Any]:
    """Return the JSON of a reply, empty if it is none of Clarifai's."""
    try:
        data = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) and isinstance(data.get("status"), dict) else {}


def _outputs(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("outputs"), list) and bool(data["outputs"])
