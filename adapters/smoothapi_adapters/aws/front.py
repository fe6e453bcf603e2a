"""Rekognition's JSON 1.1, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from smoothapi.errors import FatalError, UsageError
from smoothapi.files import parse_json
from smoothapi.wires.aws import Aws
from smoothapi.wires.wire import Refusal, from_base64
from smoothapi.wrapping import Call, Item, Remote
from smoothapi_adapters._common import options as read
from smoothapi_adapters._common.bounds import POOL
from smoothapi_adapters._common.relay import (
    Relay,
    RelayedCall,
    Signature,
    Told,
    read_body,
    uncertifiable,
)
from smoothapi_adapters.aws.adapter import AwsAdapter
from smoothapi_adapters.aws.client import find_credentials
from smoothapi_adapters.aws.errors import mapped
from smoothapi_adapters.aws.signing import Signer
from smoothapi_adapters.aws.wrap import Asked, asked_of, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.errors import ProviderError
    from smoothapi.gateway.front import Incoming, SignedBy
    from smoothapi.provider import Credentials
    from smoothapi.wires.wire import Reply, Request
    from smoothapi.wrapping import Verdict

_TARGET = "RekognitionService."
_METHODS = {
    "DetectLabels": "detect_labels",
    "DetectModerationLabels": "detect_moderation_labels",
    "DetectCustomLabels": "detect_custom_labels",
}
_OF_OTHER_FEATURES = {"IMAGE_PROPERTIES"}
_OPTIONS = ("region", "profile", "endpoint", "timeout", "per_second")
_UNSIGNED = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")


class RekognitionFront:
    """Certifies DetectLabels, DetectModerationLabels and DetectCustomLabels.

    Requests are signed anew (Signature Version 4): a caller's signature holds for the gateway's
    address alone, and the secret that made it is not sent. So only the gateway's own credentials
    can be used, found as boto3 finds them. A caller's access key id is its token of the gateway.

    Args:
        options: region, profile, endpoint, timeout and per_second, as for `AwsAdapter`.
        signed_by: "gateway".
    """

    name = "aws"

    def __init__(self, options: Mapping[str, Any], signed_by: SignedBy) -> None:
        if signed_by != "gateway":
            raise UsageError(
                "Requests to AWS are signed with a secret that callers do not send, so their "
                'credentials cannot be handed on: leave signed_by = "gateway" for aws.'
            )
        read.known("aws", options, _OPTIONS)
        AwsAdapter(**options).close()  # refuses what is out of range
        self.wire = Aws()
        timeout = read.timeout(options.get("timeout", 30.0))
        self._profile = options.get("profile")
        try:
            session = boto3.session.Session(profile_name=self._profile)
            self._client: Any = session.client(
                "rekognition",
                region_name=options.get("region"),
                endpoint_url=options.get("endpoint") or None,
                config=Config(
                    retries={"total_max_attempts": 1, "mode": "standard"},
                    connect_timeout=min(10.0, timeout),
                    read_timeout=timeout,
                    max_pool_connections=POOL,
                ),
            )
            self._credentials = session.get_credentials()
        except (BotoCoreError, ValueError) as error:
            raise UsageError(str(mapped(error, self._looked_for))) from error
        self._timeout, self._per_second = timeout, options.get("per_second")
        endpoint, region = self._client.meta.endpoint_url, self._client.meta.region_name
        self._relay = Relay("AWS", endpoint, timeout=timeout)
        self._signer = Signer(endpoint, region, "rekognition")

    def owns(self, request: Request) -> bool:
        """Whether it is a POST to / that names an operation of Rekognition."""
        target = request.headers.get("x-amz-target", "")
        return request.path == "/" and target.startswith(_TARGET)

    def operation(self, request: Request) -> str:
        """Return what X-Amz-Target names."""
        return request.headers.get("x-amz-target", "").removeprefix(_TARGET)

    def shown(self, request: Request) -> str:
        """Return the access key id."""
        _, _, signed = request.headers.get("authorization", "").partition("Credential=")
        return signed.partition("/")[0]

    def stranger(self, shown: str) -> Refusal:
        """Return what AWS says of an access key id that there is not."""
        if not shown:
            return Refusal(
                400, "MissingAuthenticationTokenException", "Missing Authentication Token"
            )
        return Refusal(
            400,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks, as `wrap` reads it from keywords."""
        named = " ".join(v for n, v in incoming.headers if n.lower() == "x-amz-target").lower()
        if not any(one.lower() in named for one in _METHODS):
            return None
        operation = self.operation(incoming.request)
        method = _METHODS.get(operation)
        if method is None or incoming.request.method != "POST" or " " in named:
            known = ", ".join(_METHODS)
            raise uncertifiable(f"They are those of {known}: POST one, as X-Amz-Target names it.")
        keywords = read_body(incoming.request.body)
        if not isinstance(keywords, dict):
            raise uncertifiable("The body of this call cannot be read: it is no object of JSON.")
        if operation == "DetectLabels" and _only_others(keywords.get("Features")):
            return None
        image = keywords.get("Image")
        if isinstance(image, dict) and "Bytes" in image:
            keywords["Image"] = {**image, "Bytes": from_base64(image["Bytes"]) or b""}
        asked = self._asked(method, keywords)
        if isinstance(asked, Remote):
            photo = incoming.fetch(asked)
            if photo is None:
                return asked
            content = base64.b64encode(photo).decode("ascii")
            body = json.dumps({**keywords, "Image": {"Bytes": content}}).encode()
            incoming = incoming.with_body(body)
            asked = self._asked(method, {**keywords, "Image": {"Bytes": photo}})
        if not isinstance(asked, Asked):
            raise uncertifiable(
                f"What this {operation} asks cannot be read: give the picture's bytes in base64 as "
                "Image.Bytes and nothing besides, MinConfidence as a number from 0 to 100, and the "
                "rest as in AWS's reference."
            )
        own = RelayedCall(
            asked.votes,
            lambda: self._send(incoming, identity=True),
            means=self._means,
            read=asked.votes.read,
            who="AWS",
        )

        def written(told: Told, verdict: Verdict) -> Reply:
            write(told.json, asked.rows, verdict)
            return told.written()

        return Call([Item(asked.photo, own, asked.votes, asked.score, written)])

    def _asked(self, method: str, keywords: Mapping[str, Any]) -> Asked | Remote | None:
        return asked_of(
            self._client,
            method,
            keywords,
            timeout=self._timeout,
            per_second=self._per_second,
        )

    def relay(self, incoming: Incoming) -> Reply:
        """Sign a request anew, and send it on."""
        return self._send(incoming)

    def close(self) -> None:
        """Close the connections."""
        self._relay.close()
        self._client.close()

    def _send(self, incoming: Incoming, *, identity: bool = False) -> Reply:
        request = incoming.request
        _, mark, query = incoming.target.partition("?")
        signature = self._signature(request, query)
        kept = [(n, v) for n, v in incoming.headers if n.lower() not in _UNSIGNED]
        target = f"/{mark}{query}"  # its path is what `owns` takes, however it was written
        return self._relay.send(
            request.method, target, kept, request.body, signature, identity=identity
        )

    def _signature(self, request: Request, query: str) -> Signature:
        try:
            found = self._credentials and self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise mapped(error, self._looked_for) from error
        if not found:
            raise FatalError(
                f"Credentials for AWS were not found: {self._looked_for().where}.", sent=False
            )
        signed = self._signer.headers(found, request.method, query, request.headers, request.body)
        return Signature(signed, secrets=tuple(filter(None, (found.secret_key, found.token))))

    def _means(self, reply: Reply) -> ProviderError | None:
        if reply.status == 200:
            return None
        headers = {name.lower(): value for name, value in reply.headers}
        try:
            data = parse_json(reply.body)
        except ValueError:
            data = None
        said = data if isinstance(data, dict) else {}
        code = said.get("__type") or said.get("code") or headers.get("x-amzn-errortype", "")
        metadata = {
            "HTTPStatusCode": reply.status,
            "RequestId": headers.get("x-amzn-requestid", ""),
            "HTTPHeaders": headers,
        }
        words = said.get("message") or said.get("Message") or ""
        error = {"Code": str(code), "Message": words}
        return mapped(
            ClientError({"Error": error, "ResponseMetadata": metadata}, "Detect"),
            self._looked_for,
        )

    def _looked_for(self) -> Credentials:
        return find_credentials(self._profile)


def _only_others(features: object) -> bool:
    """Whether only features are asked for that are no labels."""
    return (
        bool(features)
        and isinstance(features, list)
        and all(isinstance(one, str) and one in _OF_OTHER_FEATURES for one in features)
    )
