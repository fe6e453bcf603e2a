"""Rekognition's JSON 1.1, as the gateway speaks it (`smoothapi.gateway`)."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from smoothapi.errors import FatalError, UsageError
from smoothapi.wires.aws import Aws
from smoothapi.wires.wire import Refusal, from_base64
from smoothapi.wrapping import Call, Item, Remote
from smoothapi_adapters._common import options as read
from smoothapi_adapters._common.bounds import POOL
from smoothapi_adapters._common.relay import Relay, Signature, Told, own_call
from smoothapi_adapters.aws.adapter import AwsAdapter
from smoothapi_adapters.aws.client import find_credentials
from smoothapi_adapters.aws.errors import mapped
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
        self._relay = Relay("AWS", self._client.meta.endpoint_url, timeout=timeout)

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
        method = _METHODS.get(self.operation(incoming.request))
        if method is None or incoming.request.method != "POST":
            return None
        try:
            keywords = json.loads(incoming.request.body)
        except (ValueError, RecursionError):
            return None
        image = keywords.get("Image") if isinstance(keywords, dict) else None
        if isinstance(image, dict) and "Bytes" in image:
            keywords["Image"] = {**image, "Bytes": from_base64(image["Bytes"]) or b""}
        if not isinstance(keywords, dict):
            return None
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
            return asked
        own = own_call(
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
        signature = self._signature(request, incoming.target)
        kept = [(n, v) for n, v in incoming.headers if n.lower() not in _UNSIGNED]
        return self._relay.send(
            request.method, incoming.target, kept, request.body, signature, identity=identity
        )

    def _signature(self, request: Request, target: str) -> Signature:
        try:
            found = self._credentials and self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise mapped(error, self._looked_for) from error
        if not found:
            raise FatalError(
                f"Credentials for AWS were not found: {self._looked_for().where}.", sent=False
            )
        names = ("content-type", "x-amz-target")
        signed = AWSRequest(
            method=request.method,
            url=f"{self._relay.endpoint}{target}",
            data=request.body,
            headers={name: request.headers[name] for name in names if name in request.headers},
        )
        SigV4Auth(found, "rekognition", self._client.meta.region_name).add_auth(signed)
        own = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
        return Signature(
            {name: signed.headers[name] for name in own if name in signed.headers},
            secrets=tuple(filter(None, (found.secret_key, found.token))),
        )

    def _means(self, reply: Reply) -> ProviderError | None:
        if reply.status == 200:
            return None
        headers = {name.lower(): value for name, value in reply.headers}
        try:
            data = json.loads(reply.body)
        except (ValueError, RecursionError):
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
