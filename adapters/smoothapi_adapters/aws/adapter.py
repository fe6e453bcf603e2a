"""Amazon Rekognition through boto3: DetectLabels, DetectModerationLabels, DetectCustomLabels."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from smoothapi.answer import Answer, Label
from smoothapi.errors import PermanentError, UsageError
from smoothapi.provider import (
    Credentials,
    Limits,
    Mask,
    Price,
    SafeOptions,
    Vocabulary,
    check_client,
    masked,
)
from smoothapi_adapters._common import options
from smoothapi_adapters._common.bounds import POOL
from smoothapi_adapters._common.endpoints import origin, read_endpoint
from smoothapi_adapters._common.reaching import unsent
from smoothapi_adapters.aws.client import find_credentials, secrets_of, sending_once
from smoothapi_adapters.aws.errors import malformed, mapped
from smoothapi_adapters.aws.vocabulary import moderation_labels, object_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from botocore.client import BaseClient

_AS_OF = "2026-11-01"
_OF_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")

# Assumed on 2026-11-01 from the published default quotas; accounts can have others: `per_second`.
_FAST_REGIONS = ("us-east-1", "us-west-2")
_PER_SECOND_FAST, _PER_SECOND = 50.0, 5.0

# A picture of labels or moderation, assumed on 2026-11-01 for US regions.
_PER_THOUSAND = Decimal("1.00")
_STEPS = ((1_000_000, Decimal("0.80")),)
_FREE_PER_MONTH = 1000  # in an account's first year only
# Custom models are paid by the hour. Assumed on 2026-11-01: $4.00, used once a second.
_CUSTOM_PER_THOUSAND = Decimal("1.12")

MODEL_THRESHOLD = "model"
"""As `min_confidence` of custom labels: the thresholds that the model's training calculated."""


@dataclass(frozen=True, slots=True)
class _Operation:
    """How one of the three operations is called and read.

    Attributes:
        method: of the client.
        labels: key of the answer's list.
        version: key of the answer's model version; "" where answers tell none.
        arn: parameter that takes a project version; "" where none is taken.
        cap: parameter that limits the number of labels; "" where there is no limit.
        min_confidence: what the service would assume, in percent.
    """

    method: str
    labels: str
    version: str
    arn: str
    cap: str
    min_confidence: float


_OPERATIONS = {
    "labels": _Operation("detect_labels", "Labels", "LabelModelVersion", "", "MaxLabels", 55.0),
    "moderation": _Operation(
        "detect_moderation_labels",
        "ModerationLabels",
        "ModerationModelVersion",
        "ProjectVersion",
        "",
        50.0,
    ),
    "custom": _Operation(
        "detect_custom_labels", "CustomLabels", "", "ProjectVersionArn", "MaxResults", 50.0
    ),
}


class AwsAdapter:
    """Amazon Rekognition.

    Credentials, region and endpoint are found as boto3 finds them, in this order: `client`; the
    profile given here; AWS_* variables; the default profile of the shared files (with roles, SSO
    and credential_process); the roles of a container or an instance.

    Args:
        operation: "labels", "moderation" or "custom".
        project_version_arn: the model version of "custom"; for "moderation" an adapter of yours.
        min_confidence: least confidence in percent, 0 to 100, that labels come with; by default
            what the service says it assumes (55 for labels, 50 for moderation), and 50 for
            custom labels, where "model" leaves it to the thresholds of the model's training.
        max_labels: most labels of an answer; moderation has no such limit.
        region: AWS region, such as "eu-west-1".
        profile: profile of the shared configuration files.
        endpoint: URL to call instead of the region's.
        timeout: seconds to wait for an answer, and at most 10 of them for a connection.
        per_second: pictures a second; by default 50 in us-east-1 and us-west-2, and 5 elsewhere
            (assumed).
        vocabulary: the labels that the service can give, where you know them: a list, or a file
            (.txt, .json, .csv); a label asked for by name that is not among them is refused.
        first_year: whether the account is in its first year, when 1,000 pictures a month are
            free. Not assumed, since a budget in dollars would then allow too much.
        client: a boto3 Rekognition client to use instead of one of our own. It stays yours: it is
            not changed and not closed, but calls through it are not repeated by botocore.

    Raises:
        UsageError: an option is unknown or out of range.

    The price is that of US regions; set `prices.aws` where yours is another. Custom labels are
    paid by the hour that a model runs, so their price is an assumption.
    """

    name = "aws"
    safe_options = SafeOptions(
        names=frozenset(
            {"operation", "project_version_arn", "min_confidence", "max_labels"}
            | {"region", "profile", "timeout", "per_second"}
        ),
        endpoint="endpoint",
        hosts=(
            # Names beside these, such as those of S3 or of load balancers, anybody can have.
            "rekognition.{region}.amazonaws.com",
            "rekognition-fips.{region}.amazonaws.com",
            "*.rekognition.{region}.vpce.amazonaws.com",
            "rekognition.{region}.api.aws",
            "rekognition-fips.{region}.api.aws",
            "rekognition.{region}.amazonaws.com.cn",
            "rekognition.{region}.api.amazonwebservices.com.cn",
            "rekognition.{region}.amazonaws.eu",
        ),
    )

    def __init__(
        self,
        operation: str = "labels",
        *,
        project_version_arn: str | None = None,
        min_confidence: float | str | None = None,
        max_labels: int | str = 100,
        region: str | None = None,
        profile: str | None = None,
        endpoint: str | None = None,
        timeout: float | str = 30.0,
        per_second: float | str | None = None,
        first_year: bool | str = False,
        vocabulary: Sequence[str] | str | Path | None = None,
        client: BaseClient | None = None,
    ) -> None:
        self._operation = options.one_of("operation", operation, tuple(_OPERATIONS))
        self._how = _OPERATIONS[operation]
        self._arn = _checked_arn(operation, project_version_arn)
        self._confidence = _checked_confidence(operation, min_confidence)
        self._max_labels = options.whole("max_labels", max_labels, 1, 10**6)
        self._timeout = options.timeout(timeout)
        self._per_second = (
            None if per_second is None else options.above_zero("per_second", per_second)
        )
        self._region, self._profile = _checked_region(region), profile
        self._endpoint = read_endpoint(endpoint, "http://127.0.0.1:8000", signed=True) or None
        self._free = _FREE_PER_MONTH if options.switch("first_year", first_year) else 0
        self._vocabulary = options.vocabulary(vocabulary)
        self._mask = Mask([])
        self._given = client
        self._own: BaseClient | None = None
        self._session: boto3.session.Session | None = None
        self._lock, self._making = threading.Lock(), threading.Lock()
        if client is not None:
            if region is not None or profile is not None or endpoint is not None:
                raise UsageError(
                    "The client given has its own region, credentials and endpoint: leave "
                    "region, profile and endpoint out."
                )
            _check_service(client)
            self._own = sending_once(client, self._timeout)

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """Operation, options, and where it is served: model versions differ between regions."""
        identity: dict[str, str | int | float | bool | None] = {
            "operation": self._operation,
            "min_confidence": self._confidence,
        }
        if self._how.cap:
            identity["max_labels"] = self._max_labels
        if self._arn:
            identity["project_version_arn"] = self._arn
        identity["region"], url = self._place
        place = urlsplit(url)
        if url and not (place.hostname or "").endswith(_OF_AWS):
            # An emulator's answers must never be taken for the service's.
            identity["endpoint"] = place.netloc.rpartition("@")[2]
        return identity

    @property
    def limits(self) -> Limits:
        """One picture a request, 80 to 10,000 pixels, 5 MiB; for custom labels 4,096 and 4 MB."""
        per_second = self._per_second
        if per_second is None:
            fast = self._place[0] in _FAST_REGIONS and self._operation != "custom"
            per_second = _PER_SECOND_FAST if fast else _PER_SECOND
        custom = self._operation == "custom"
        return Limits(
            batch=1,
            max_bytes=4_000_000 if custom else 5 * 2**20,
            min_side=80,
            max_side=4096 if custom else 10_000,
            formats=("png", "jpeg"),
            per_second=per_second,
            least_score=0.0 if isinstance(self._confidence, str) else self._confidence / 100.0,
        )

    @property
    def price(self) -> Price:
        """By picture and month; for custom labels an estimate from the price of an hour."""
        if self._operation == "custom":
            return Price(_CUSTOM_PER_THOUSAND, _AS_OF)
        return Price(_PER_THOUSAND, _AS_OF, self._free, _STEPS)

    def vocabulary(self) -> Vocabulary:
        """Return the labels of moderation, which are all, or those that AWS lists of objects.

        Of objects its model may have others: the list is closed by the option `vocabulary` alone.
        A custom model's labels are not known here, nor is what answers at an endpoint of another's.
        """
        if self._vocabulary is not None:
            return self._vocabulary
        if self._operation == "custom" or "endpoint" in self.identity:
            return Vocabulary()
        if self._operation == "labels":
            return object_labels()
        # An adapter of one's own was trained on one model or the other.
        return moderation_labels(any_version=bool(self._arn))

    def credentials(self) -> Credentials:
        """Look where boto3 looks, but run no command and ask no server."""
        if self._given is not None:
            return Credentials(found=True, where="the client given")
        return find_credentials(self._profile)

    def endpoint(self) -> str:
        """Return where requests go, as boto3 finds it; "" without a region."""
        return origin(self._place[1]) if self._place[1] else ""

    def mask(self) -> Mask:
        """Return what masks the keys and the session token, as far as they were looked up."""
        self._mask = self._mask.knowing(secrets_of(self._own))
        return self._mask

    @masked
    def ask(self, payloads: Sequence[bytes]) -> list[Answer]:
        """Send one picture.

        Raises:
            TransientError, ThrottledError, PermanentError, FatalError: see `errors`.
        """
        [payload] = payloads
        if not payload:
            raise PermanentError("The payload is empty.")
        parameters = {"Image": {"Bytes": payload}, **self._parameters()}
        return [self.read(self.send(self._how.method, parameters))]

    def send(self, method: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Call a method of the client once, and return its response; raises as `ask` does."""
        client = self._client()
        try:
            response: Mapping[str, Any] = getattr(client, method)(**parameters)
        except (ClientError, BotoCoreError) as error:
            raise unsent(mapped(error, self.credentials), error, "AWS") from error
        except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
            # botocore's parser met another type, or depth, than its model promises.
            raise malformed(f"botocore cannot read it: {type(error).__name__}") from error
        return response

    def read(self, response: Mapping[str, Any]) -> Answer:
        """Return the answer that one of the operation's responses holds.

        An empty list is an answer; a missing list, or a label without a name or a score from 0
        to 100, is a malformed response.

        Raises:
            TransientError: the response is malformed.
        """
        request_id = _request_id(response)
        rows = response.get(self._how.labels)
        if not isinstance(rows, list):
            raise malformed(f"it has no list {self._how.labels}", request_id)
        try:
            labels = _labels(rows)
            version = str(response.get(self._how.version) or "") if self._how.version else ""
            return Answer(labels, version or _version_of(self._arn), request_id)
        except (
            UsageError,
            KeyError,
            TypeError,
            ValueError,
            ArithmeticError,
            AttributeError,
        ) as error:
            raise malformed("a label lacks a name, or a score from 0 to 100", request_id) from error

    def close(self) -> None:
        """Release connections; a client that was given stays open."""
        if self._given is None and self._own is not None:
            self._own.close()

    def __repr__(self) -> str:
        return f"<AwsAdapter {self._operation} {self._place[0] or 'no region'}>"

    def _parameters(self) -> dict[str, Any]:
        """Return all but the picture; what the service would assume is said."""
        parameters: dict[str, Any] = {}
        if self._confidence != MODEL_THRESHOLD:
            parameters["MinConfidence"] = self._confidence
        if self._how.cap:
            parameters[self._how.cap] = self._max_labels
        if self._arn:
            parameters[self._how.arn] = self._arn
        return parameters

    def _client(self) -> BaseClient:
        """Return the client, made when it is first needed.

        Raises:
            FatalError: boto3 cannot make one: no region, no such profile, no credentials.
        """
        with self._lock:
            if self._own is None:
                config = Config(
                    retries={"total_max_attempts": 1, "mode": "standard"},
                    connect_timeout=min(10.0, self._timeout),
                    read_timeout=self._timeout,
                    max_pool_connections=POOL,
                )
                try:
                    self._own = sending_once(self._make(config=config), self._timeout)
                except (BotoCoreError, ValueError) as error:
                    raise unsent(mapped(error, self.credentials), error, "AWS") from error
            return self._own

    def _make(self, **more: Any) -> BaseClient:
        # A session of our own, behind a lock: none of boto3's may be shared by threads.
        with self._making:
            if self._session is None:
                self._session = boto3.session.Session(profile_name=self._profile)
            client: BaseClient = self._session.client(
                "rekognition", region_name=self._region, endpoint_url=self._endpoint, **more
            )
        return client

    @cached_property
    def _place(self) -> tuple[str | None, str]:
        """Region and URL as boto3 finds them; where they are not found, asking will say so."""
        try:
            # With keys given, boto3 does not look for any: that could ask an instance's server.
            client = self._given or self._make(aws_access_key_id="-", aws_secret_access_key="-")  # noqa: S106
        except (BotoCoreError, ValueError):
            return self._region, ""
        place = client.meta.region_name, str(client.meta.endpoint_url)
        if client is not self._given:
            client.close()
        return place


def _labels(rows: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    """Return a response's labels in its order, each with its parents, nearest first."""
    above = {row["Name"]: [parent["Name"] for parent in row.get("Parents") or ()] for row in rows}
    within = {row["Name"]: row["ParentName"] for row in rows if row.get("ParentName")}
    return tuple(
        Label(
            row["Name"],
            _percent(row["Confidence"]) / 100.0,
            _line(row["Name"], within) or _nearest_first(above[row["Name"]], above),
            tuple(category["Name"] for category in row.get("Categories") or ()),
        )
        for row in rows
    )


def _percent(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("a confidence is a number")
    return float(value)


def _line(name: str, within: Mapping[str, str]) -> tuple[str, ...]:
    """Return the parents of a moderation label: each names only the one above it."""
    line: list[str] = []
    while (name := within.get(name, "")) and name not in line:
        line.append(name)
    return tuple(line)


def _nearest_first(parents: Sequence[str], above: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Order parents, of which each label names all: the more of them lie below, the farther."""
    return tuple(
        sorted(parents, key=lambda name: sum(name in above.get(other, ()) for other in parents))
    )


def _request_id(response: Mapping[str, Any]) -> str:
    metadata = response.get("ResponseMetadata")
    return str(metadata.get("RequestId") or "") if isinstance(metadata, dict) else ""


def _version_of(arn: str) -> str:
    """Return the part of a project version's ARN that names the version and its time."""
    return arn.partition("/version/")[2]


def _check_service(client: Any) -> None:
    check_client(client, wanted='boto3.client("rekognition")')
    try:
        service = client.meta.service_model.service_name
    except AttributeError:
        service = type(client).__name__
    if service != "rekognition":
        raise UsageError(
            f'client is for {service!r}; labels are what boto3.client("rekognition") gives.'
        )


def _checked_region(region: str | None) -> str | None:
    """Return the region; it becomes a part of the host that is called."""
    if region and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", str(region)):
        raise UsageError(f"region={region!r} is not the name of a region, such as 'eu-west-1'.")
    return region


def _checked_arn(operation: str, arn: str | None) -> str:
    if operation == "custom" and not arn:
        raise UsageError(
            'operation="custom" needs project_version_arn, the ARN of the trained model version.'
        )
    if operation == "labels" and arn:
        raise UsageError('project_version_arn is for operation="custom" or "moderation".')
    if arn and not re.fullmatch(r"arn:[a-z\d-]+:rekognition:\S{1,2000}/version/\S+", arn):
        raise UsageError(
            f"project_version_arn={arn!r} is not the ARN of a project version. Expected "
            "arn:aws:rekognition:REGION:ACCOUNT:project/NAME/version/NAME/NUMBER."
        )
    return arn or ""


def _checked_confidence(operation: str, value: float | str | None) -> float | str:
    if value is None:
        return _OPERATIONS[operation].min_confidence
    if value == MODEL_THRESHOLD and operation == "custom":
        return MODEL_THRESHOLD
    return options.number("min_confidence", value, 0.0, 100.0)
