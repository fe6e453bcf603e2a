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
from smoothapi.files import parse_json
from smoothapi.provider import Mask
from smoothapi.wires.clarifai import Clarifai
from smoothapi.wires.wire import Refusal, Reply, from_base64
from smoothapi.wrapping import Call, Item, Passed, Remote
from smoothapi_adapters._common import options as read_option
from smoothapi_adapters._common.client import HttpResponse
from smoothapi_adapters._common.relay import (
    Relay,
    RelayedCall,
    Signature,
    Told,
    plain_path,
    read_body,
    uncertifiable,
)
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
    from collections.abc import Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.gateway.front import Incoming, SignedBy
    from smoothapi.wires.wire import Request
    from smoothapi.wrapping import Verdict

_OUTPUTS = re.compile(
    r"/v2/users/(?P<user>[^/]+)/apps/(?P<app>[^/]+)/models/(?P<model>[^/]+)"
    r"(/versions/(?P<version>[^/]+))?/outputs"
)
_OPTIONS = ("endpoint", "pat", "api_key", "price", "price_date", "per_second", "timeout", "ca")
_LABELLING = re.compile(r"/(outputs|results)(/|$)")  # of models, and of workflows
_MOST_CONCEPTS, _LARGEST = 50, 200
_OF_READING = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
_UNREADABLE = (
    "The body of this call cannot be read: it is no JSON in the form of Clarifai's reference, a "
    "list of inputs with their data."
)


class ClarifaiFront:
    """Certifies the concepts of models' outputs, for paths that name a user and an app.

    Other paths that label pictures, of workflows say, are refused. Inputs are sent one by one, and
    one that may not be sent is refused by itself. Noisy copies are asked about with room for at
    least 50 concepts; `select_concepts` concerns the caller's own call.

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
        if not _LABELLING.search(plain_path(incoming.request.path)):
            return None
        path = _OUTPUTS.fullmatch(incoming.target.partition("?")[0])
        data = read_body(incoming.request.body)
        try:
            rows = [_Row(row) for row in data["inputs"]]
        except _OF_READING:
            raise uncertifiable(_UNREADABLE) from None
        if not any(row.could_label for row in rows):
            return None
        if path is None or incoming.request.method != "POST":
            raise uncertifiable(
                "They are those of POST /v2/users/USER/apps/APP/models/MODEL/outputs, and of "
                ".../versions/VERSION/outputs: ask there."
            )
        names = {name: unquote(value) for name, value in path.groupdict().items() if value}
        try:
            config = _config(data)
            most = int(config.get("max_concepts") or 20)
            lowest = float(config.get("min_value") or 0.0)
            asking = [self._votes(incoming, names, most, lowest) for _ in rows]
        except _OF_READING:
            raise uncertifiable(_UNREADABLE) from None
        return self._call(incoming, data, rows, asking, lowest or None)

    def _call(
        self,
        incoming: Incoming,
        data: Mapping[str, Any],
        rows: Sequence[_Row],
        asking: Sequence[ClarifaiAdapter],
        lowest: float | None,
    ) -> Call | Remote | None:
        """Return the call about inputs; the place of a picture if all is to be sent as it is."""
        for row in rows:
            row.prepare(incoming, alone=len(rows) == 1)
        if not any(row.photo or row.refused for row in rows):
            return next(filter(None, (row.remote for row in rows)), None)
        items: list[Item | Passed] = []
        for row, votes in zip(rows, asking, strict=True):
            part = incoming
            if len(rows) > 1 or row.remote is not None:
                part = incoming.with_body(json.dumps({**data, "inputs": [row.written]}).encode())
            if row.refused:
                told = partial(self._refused, row.refused)
                items.append(Passed(told, row.remote, refused=True))
            elif not row.photo:
                items.append(Passed(partial(self._send, part, identity=True), row.remote))
            else:
                own = RelayedCall(
                    votes,
                    partial(self._send, part, identity=True),
                    means=_means,
                    is_refused=lambda data: isinstance(_meaning(data), ProviderError),
                    read=_read,
                    who="Clarifai",
                )
                items.append(Item(row.photo, own, votes, lowest, _write))
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
        ValueError, TypeError, KeyError, AttributeError: it is not an input with data.

    Attributes:
        written: as it is sent on.
        could_label: whether there is a picture in it, wherever.
        photo: its picture, empty if that is not here.
        remote: where its picture was, if that was elsewhere.
        refused: why it is refused by itself, "" if it is not.
    """

    def __init__(self, written: Any) -> None:
        if not written["data"].keys():
            raise ValueError("no data")
        self.written = written
        self.could_label = _holds_picture(written)
        picture = written["data"].get("image") or {}
        self.photo = b""
        self.remote: Remote | None = None
        self.refused = ""
        url, text = picture.get("url"), picture.get("base64")
        if url and not text:
            instead = "Fetch it and give its bytes as image.base64"
            self.remote = Remote("a picture at a URL", instead, str(url))
        elif not url:  # of both, the one that Clarifai reads need not be the one that is certified
            self.photo = from_base64(text) or b""

    def prepare(self, incoming: Incoming, *, alone: bool) -> None:
        """Have its picture here, if that is elsewhere and may be fetched; refuse what may not pass.

        Raises:
            UsageError: it is refused, and is the only one.
        """
        photo, self.refused = incoming.fetch_of_batch(self.remote, alone=alone)
        if photo:
            self.photo = photo
            data = {**self.written["data"], "image": {"base64": _text(photo)}}
            self.written = {**self.written, "data": data}
        if self.refused or self.photo:
            return
        if not self.could_label:
            self.refused = incoming.not_passed
        elif self.remote is None or photo is not None:
            refusal = uncertifiable(
                "This input holds no picture that can be read: give its bytes in base64 as "
                "data.image.base64, and no URL besides."
            )
            if alone:
                raise refusal
            self.refused = str(refusal)


def _holds_picture(written: Any) -> bool:
    """Whether there is an image in an input, be it of a part or a frame."""
    left = [written]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if any(name.lower() == "image" and value is not None for name, value in one.items()):
                return True
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return False


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
        data = parse_json(reply.body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) and isinstance(data.get("status"), dict) else {}


def _outputs(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("outputs"), list) and bool(data["outputs"])
