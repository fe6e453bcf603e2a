"""Rekognition without a server: each error of botocore, each shape, credentials without asking."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import boto3
import botocore.exceptions
import botocore.session
import pytest
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker
from botocore.stub import Stubber
from botocore.validate import ParamValidator

from smoothapi.answer import Answer
from smoothapi.certify.labels import top1
from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Credentials, make_adapter
from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.aws.client import sending_once
from smoothapi_adapters.aws.errors import FATAL, PERMANENT, THROTTLED, TRANSIENT, mapped

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ARN = "arn:aws:rekognition:eu-west-1:123456789012:project/parts/version/parts.2/1700000000000"
PICTURE = b"\x89PNG picture"
SERVICE = botocore.session.get_session().get_service_model("rekognition")
OPERATIONS = {
    "labels": "DetectLabels",
    "moderation": "DetectModerationLabels",
    "custom": "DetectCustomLabels",
}
ANSWERS = Path(__file__).parents[4] / "shared" / "data" / "answers"


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch, tmp_path):
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def client(**config):
    return boto3.client(
        "rekognition",
        region_name="eu-west-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(**config),
    )


def options(operation):
    return {
        "operation": operation,
        **({"project_version_arn": ARN} if operation == "custom" else {}),
    }


def stubbed(operation="labels", **more):
    adapter = AwsAdapter(client=client(), **options(operation), **more)
    return adapter, Stubber(adapter._own)


def refusal(code, status=400, message="no", headers=None):
    return botocore.exceptions.ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "RequestId": "r-9",
                "HTTPHeaders": headers or {},
            },
        },
        "DetectLabels",
    )


def meaning(error):
    return mapped(error, lambda: Credentials(found=False, where="looked in the usual places"))


# What is sent


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_sent_fits_botocores_model_and_says_every_threshold(operation):
    adapter = AwsAdapter(client=client(), **options(operation))
    sent = {"Image": {"Bytes": PICTURE}, **adapter._parameters()}
    shape = SERVICE.operation_model(OPERATIONS[operation]).input_shape
    assert not ParamValidator().validate(sent, shape).has_errors()
    said = set(sent) - {"Image"}
    assert (
        said
        == {
            "labels": {"MinConfidence", "MaxLabels"},
            "moderation": {"MinConfidence"},
            "custom": {"MinConfidence", "MaxResults", "ProjectVersionArn"},
        }[operation]
    )
    for value in (sent["MinConfidence"], sent.get("MaxLabels", 1), sent.get("MaxResults", 1)):
        assert value in adapter.identity.values() or value == 1
    with Stubber(adapter._own) as stub:  # the stub refuses any other parameters
        stub.add_response(
            adapter._how.method,
            {adapter._how.labels: []},
            {"Image": {"Bytes": PICTURE}, **adapter._parameters()},
        )
        assert adapter.ask([PICTURE]) == [
            Answer((), "parts.2/1700000000000" if operation == "custom" else "")
        ]


def test_a_custom_models_own_thresholds_are_left_to_it():
    adapter = AwsAdapter("custom", project_version_arn=ARN, min_confidence="model", client=client())
    assert "MinConfidence" not in adapter._parameters()
    assert adapter.identity["min_confidence"] == "model"


def test_an_adapter_of_the_callers_for_moderation():
    adapter = AwsAdapter("moderation", project_version_arn=ARN, client=client())
    assert adapter._parameters() == {"MinConfidence": 50.0, "ProjectVersion": ARN}
    assert adapter.identity["project_version_arn"] == ARN


@pytest.mark.parametrize(
    "changed",
    [{"min_confidence": 60}, {"max_labels": 5}, {"region": "us-east-1"}, {"operation": "moderation"},
     {"endpoint": "http://127.0.0.1:1"}, {"operation": "custom", "project_version_arn": ARN}],
)  # fmt: skip
def test_what_changes_answers_is_in_the_identity(changed):
    plain = {"region": "eu-west-1"}
    assert AwsAdapter(**plain).identity != AwsAdapter(**{**plain, **changed}).identity


def test_what_changes_no_answer_is_not():
    one = AwsAdapter(region="eu-west-1")
    other = AwsAdapter(region="eu-west-1", timeout=3, per_second=1, first_year=True)
    assert one.identity == other.identity
    assert "endpoint" not in one.identity


def test_an_endpoints_password_is_in_no_identity(monkeypatch):
    adapter = AwsAdapter(region="eu-west-1", endpoint="http://me:hunter2@127.0.0.1:99")
    assert adapter.identity["endpoint"] == "127.0.0.1:99"
    assert "hunter2" not in repr(adapter) + json.dumps(adapter.identity)
    monkeypatch.setenv("AWS_ENDPOINT_URL_REKOGNITION", "http://127.0.0.1:98")
    assert AwsAdapter(region="eu-west-1").identity["endpoint"] == "127.0.0.1:98"


def test_options_as_text():
    texts = make_adapter(
        "aws", min_confidence="60", max_labels="7", timeout="5", per_second="2.5", first_year="true"
    )
    assert texts._parameters() == {"MinConfidence": 60.0, "MaxLabels": 7}
    assert texts.limits.per_second == 2.5
    assert texts.price.free_per_month == 1000


@pytest.mark.parametrize(
    "bad",
    [{"operation": "faces"}, {"operation": "custom"}, {"min_confidence": 101}, {"max_labels": 0},
     {"max_labels": 1.5}, {"min_confidence": "model"}, {"timeout": 0}, {"timeout": "soon"},
     {"project_version_arn": ARN}, {"operation": "custom", "project_version_arn": "mine"},
     {"region": "us-east-1.evil.example/"}, {"region": "x/y"}, {"region": "evil.example#"},
     {"region": "me@evil"}, {"region": "eu-west-1\n"}, {"region": 5.5}, {"endpoint": "'http://a.b'"},
     {"first_year": "maybe"}, {"endpoint": "localhost"}, {"min_confidence": float("nan")}],
)  # fmt: skip
def test_impossible_options(bad):
    with pytest.raises(UsageError):
        AwsAdapter(**bad)


def test_a_client_is_for_rekognition_and_brings_its_place():
    with pytest.raises(UsageError, match="'s3'"):
        AwsAdapter(client=boto3.client("s3", region_name="eu-west-1"))
    with pytest.raises(UsageError, match="leave region"):
        AwsAdapter(client=client(), region="us-east-1")
    with pytest.raises(UsageError, match="'object'"):
        AwsAdapter(client=object())


def test_limits_prices_and_paces():
    for operation, (bytes_, side) in {
        "labels": (5 * 2**20, 10_000),
        "moderation": (5 * 2**20, 10_000),
        "custom": (4_000_000, 4096),
    }.items():
        adapter = AwsAdapter(region="us-east-1", **options(operation))
        limits = adapter.limits
        assert (limits.batch, limits.max_bytes, limits.min_side, limits.max_side) == (
            1, bytes_, 80, side,
        )  # fmt: skip
        assert limits.formats == ("png", "jpeg")
        assert adapter.price.as_of
        assert adapter.price.free_per_month == 0  # a budget must hold after the first year, too
    assert AwsAdapter(region="us-east-1").limits.per_second == 50
    assert AwsAdapter(region="eu-west-1").limits.per_second == 5
    assert AwsAdapter(client=client()).limits.per_second == 5
    price = AwsAdapter(region="us-east-1", first_year=True).price
    assert price.of(1000) == 0
    assert price.of(1000, 1000) == 1
    assert price.of(1000, 1_000_000) == Decimal("0.8")


# What comes back


@pytest.mark.parametrize(
    "file", sorted(ANSWERS.glob("*.rekognition.json")), ids=lambda f: f.name.split(".")[0]
)
def test_recorded_real_answers_parse(file):
    recorded = json.loads(file.read_text())
    adapter, stub = stubbed()
    with stub:
        stub.add_response("detect_labels", recorded)
        [answer] = adapter.ask([PICTURE])
    rows = recorded["Labels"]
    assert [label.name for label in answer.labels] == [row["Name"] for row in rows]
    assert [label.score for label in answer.labels] == [row["Confidence"] / 100 for row in rows]
    best = max(row["Confidence"] for row in rows)
    assert top1(answer) == min(row["Name"] for row in rows if row["Confidence"] == best)


def test_there_are_all_23_recorded_answers():
    if not ANSWERS.exists():
        pytest.skip("the recorded answers are not here")
    assert len(list(ANSWERS.glob("*.rekognition.json"))) == 23


def test_parents_nearest_first_and_categories():
    rows = [
        {"Name": "Vulture", "Confidence": 97.0, "Categories": [{"Name": "Animals and Pets"}],
         "Parents": [{"Name": "Animal"}, {"Name": "Bird"}]},
        {"Name": "Bird", "Confidence": 97.0, "Parents": [{"Name": "Animal"}]},
        {"Name": "Animal", "Confidence": 97.0, "Parents": []},
        {"Name": "Kite", "Confidence": 60.0, "Parents": [{"Name": "Toy"}, {"Name": "Sport"}]},
    ]  # fmt: skip
    adapter, stub = stubbed()
    with stub:
        stub.add_response("detect_labels", {"Labels": rows, "LabelModelVersion": "3.0"})
        [answer] = adapter.ask([PICTURE])
    assert [label.parents for label in answer.labels] == [
        ("Bird", "Animal"), ("Animal",), (), ("Toy", "Sport"),
    ]  # fmt: skip
    assert answer.labels[0].categories == ("Animals and Pets",)
    assert answer.model_version == "3.0"
    assert top1(answer) == "Vulture"


def test_the_hierarchy_of_moderation_even_if_it_goes_in_a_circle():
    rows = [
        {"Name": "Weapons", "Confidence": 90.0, "ParentName": "Violence"},
        {"Name": "Violence", "Confidence": 90.0, "ParentName": ""},
        {"Name": "Gun", "Confidence": 80.0, "ParentName": "Weapons"},
        {"Name": "A", "Confidence": 70.0, "ParentName": "B"},
        {"Name": "B", "Confidence": 70.0, "ParentName": "A"},
    ]
    adapter, stub = stubbed("moderation")
    with stub:
        stub.add_response(
            "detect_moderation_labels", {"ModerationLabels": rows, "ModerationModelVersion": "7.0"}
        )
        [answer] = adapter.ask([PICTURE])
    assert [label.parents for label in answer.labels] == [
        ("Violence",), (), ("Weapons", "Violence"), ("B", "A"), ("A", "B"),
    ]  # fmt: skip
    assert answer.model_version == "7.0"


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"Labels": None},
        {"Labels": "bus"},
        {"Labels": {"Name": "bus"}},
        {"Labels": [None]},
        {"Labels": ["bus"]},
        {"Labels": [{"Confidence": 90.0}]},
        {"Labels": [{"Name": "bus"}]},
        {"Labels": [{"Name": "", "Confidence": 90.0}]},
        {"Labels": [{"Name": 7, "Confidence": 90.0}]},
        {"Labels": [{"Name": "bus", "Confidence": "90"}]},
        {"Labels": [{"Name": "bus", "Confidence": True}]},
        {"Labels": [{"Name": "bus", "Confidence": float("nan")}]},
        {"Labels": [{"Name": "bus", "Confidence": float("inf")}]},
        {"Labels": [{"Name": "bus", "Confidence": 100.5}]},
        {"Labels": [{"Name": "bus", "Confidence": -1.0}]},
        {"Labels": [{"Name": "bus", "Confidence": 90.0, "Parents": [{}]}]},
        {"Labels": [{"Name": "bus", "Confidence": 90.0, "Parents": 3}]},
    ],
)
def test_malformed_is_not_empty(response):
    adapter = AwsAdapter(client=client())
    response["ResponseMetadata"] = {"RequestId": "r-1"}
    with pytest.raises(TransientError, match="status 200") as caught:
        adapter.read(response)
    assert caught.value.request_id == "r-1"
    assert adapter.read({"Labels": []}) == Answer(())


def test_an_empty_payload_is_not_sent():
    with pytest.raises(PermanentError, match="empty"):
        AwsAdapter(region="eu-west-1").ask([b""])


# Errors


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (o, shape.name)
        for o in OPERATIONS.values()
        for shape in SERVICE.operation_model(o).error_shapes
    ],
)
def test_every_error_of_the_service_model_has_a_meaning(operation, code):
    expected = {
        "AccessDeniedException": FatalError,
        "HumanLoopQuotaExceededException": FatalError,
        "ImageTooLargeException": PermanentError,
        "InternalServerError": TransientError,
        "InvalidImageFormatException": PermanentError,
        "InvalidParameterException": PermanentError,
        "InvalidS3ObjectException": PermanentError,
        "LimitExceededException": ThrottledError,
        "ProvisionedThroughputExceededException": ThrottledError,
        "ResourceNotFoundException": FatalError,
        "ResourceNotReadyException": FatalError,
        "ThrottlingException": ThrottledError,
    }
    error = meaning(refusal(code))
    assert type(error) is expected[code]
    assert "not known" not in str(error)
    assert code in str(error)
    assert error.request_id == "r-9"


def test_the_lists_of_codes_hold_botocores_and_do_not_overlap():
    assert set(ThrottledRetryableChecker._THROTTLED_ERROR_CODES) == THROTTLED
    assert set(TransientRetryableChecker._TRANSIENT_ERROR_CODES) <= TRANSIENT | THROTTLED
    groups = [THROTTLED, TRANSIENT, PERMANENT, frozenset(FATAL)]
    assert sum(map(len, groups)) == len(frozenset().union(*groups))
    for group, kind in zip(
        groups, (ThrottledError, TransientError, PermanentError, FatalError), strict=True
    ):
        assert all(type(meaning(refusal(code))) is kind for code in group)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, FatalError), (401, FatalError), (403, FatalError), (404, FatalError), (302, FatalError),
     (408, TransientError), (413, PermanentError), (415, PermanentError), (422, PermanentError),
     (425, TransientError), (429, ThrottledError), (500, TransientError), (502, TransientError),
     (503, TransientError), (504, TransientError), (None, FatalError), ("500", FatalError)],
)  # fmt: skip
@pytest.mark.parametrize("code", ["SomethingNewException", "", None])
def test_unknown_codes_go_by_the_status(code, status, kind):
    assert type(meaning(refusal(code, status))) is kind


def test_codes_with_a_namespace():
    assert type(meaning(refusal("com.amazon#ThrottlingException:http://x"))) is ThrottledError


@pytest.mark.parametrize(
    "response", [{}, None, {"Error": None}, {"Error": {}, "ResponseMetadata": None}]
)
def test_an_error_that_says_nothing(response):
    error = botocore.exceptions.ClientError({}, "DetectLabels")
    error.response = response
    assert type(meaning(error)) is FatalError


def test_retry_after_is_handed_on():
    error = meaning(refusal("ThrottlingException", headers={"retry-after": "7"}))
    assert error.retry_after == 7
    assert (
        meaning(refusal("InternalServerError", 500, headers={"retry-after": "3"})).retry_after == 3
    )


KINDS = {
    name: kind
    for name, kind in vars(botocore.exceptions).items()
    if inspect.isclass(kind)
    and issubclass(kind, Exception)
    and not issubclass(kind, (botocore.exceptions.ClientError, Warning))
}
B = botocore.exceptions
LATER = {
    "HTTPClientError", "ConnectionError", "EndpointConnectionError", "ConnectionClosedError",
    "ReadTimeoutError", "ConnectTimeoutError", "ProxyConnectionError", "ResponseStreamingError",
    "IncompleteReadError", "ChecksumError", "FlexibleChecksumError", "SSLError",
}  # fmt: skip


class _Anything(dict):
    def __missing__(self, key):
        return f"some {key} http://user:hunter2@proxy {SECRET} {PICTURE!r}"


def made(kind):
    """Return an exception of botocore whose text is full of what must not be passed on."""
    error = kind.__new__(kind)
    text = getattr(kind, "fmt", "").format_map(_Anything()) or f"{SECRET} hunter2"
    Exception.__init__(error, text)
    return error


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_exception_of_botocore_has_a_meaning(name):
    error = meaning(made(KINDS[name]))
    if name in LATER:
        assert type(error) is TransientError
    elif name == "CapacityNotAvailableError":
        assert type(error) is ThrottledError
    else:
        assert type(error) is FatalError
    assert name in str(error)
    assert not any(secret in str(error) for secret in (SECRET, "hunter2", "picture'", "http://"))


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (B.NoCredentialsError(), FatalError, "usual places"),
        (B.PartialCredentialsError(provider="env", cred_var="x"), FatalError, "usual places"),
        (B.TokenRetrievalError(provider="sso", error_msg="expired"), FatalError, "sso login"),
        (B.UnauthorizedSSOTokenError(), FatalError, "Sign in again"),
        (B.SSOTokenLoadError(error_msg="x"), FatalError, "Sign in again"),
        (B.CredentialRetrievalError(provider="custom-process", error_msg="x"), FatalError, "Sign in"),
        (B.NoRegionError(), FatalError, "AWS_DEFAULT_REGION"),
        (B.ProfileNotFound(profile="prod"), FatalError, "usual places"),
        (B.SSLError(endpoint_url="https://x", error="CERTIFICATE_VERIFY_FAILED certificate"), FatalError, "AWS_CA_BUNDLE"),
        (B.SSLError(endpoint_url="https://x", error="EOF occurred"), TransientError, "SSLError"),
        (B.ParamValidationError(report=f"Invalid: {PICTURE!r}"), FatalError, "options"),
        (ResponseParserError("body"), TransientError, "ResponseParserError"),
        (B.ProxyConnectionError(proxy_url="http://me:hunter2@p"), TransientError, "HTTPS_PROXY"),
    ],
)  # fmt: skip
def test_what_to_do_is_said(error, kind, says):
    assert type(meaning(error)) is kind
    assert says in str(meaning(error))


def test_messages_hold_no_secret_and_no_picture():
    token = "FwoGZXIvYXdzE" + "A" * 60
    told = str(
        meaning(
            refusal(
                "SignatureDoesNotMatch",
                403,
                f"The Canonical String should have been 'x-amz-security-token:{token}' for {KEY}",
            )
        )
    )
    assert token not in told
    assert KEY not in told
    told = str(
        meaning(refusal("InvalidParameterException", 400, f"{KEY} {token} {SECRET}\n\x1b[2J"))
    )
    assert "***" in told
    assert not any(secret in told for secret in (KEY, token, SECRET, "\x1b", "\n"))
    assert len(str(meaning(refusal("InvalidParameterException", 400, "no " * 999)))) < 400


@pytest.mark.parametrize(
    "code", ["ThrottlingException", "InvalidImageFormatException", "AccessDeniedException", "Novel"]
)
def test_errors_come_through_the_client(code):
    adapter, stub = stubbed()
    with stub:
        stub.add_client_error("detect_labels", code, "no", 400)
        with pytest.raises(ProviderError) as caught:
            adapter.ask([PICTURE])
    assert type(caught.value) is type(meaning(refusal(code)))
    assert f"An error occurred ({code})" in str(caught.value.__cause__)


def test_a_botocore_built_otherwise_is_refused():
    class Other:
        meta = client().meta

    with pytest.raises(UsageError, match="retries cannot be switched off"):
        sending_once(Other(), 1.0)


def test_a_client_given_is_not_changed_and_not_closed():
    given = client()
    before = {**vars(given)}, {**vars(given.meta)}, given._endpoint.http_session
    closed = []
    given.close = lambda: closed.append(1)
    adapter = AwsAdapter(client=given)
    adapter.close()
    del given.close
    assert (vars(given), vars(given.meta), given._endpoint.http_session) == before
    assert not closed


# Credentials


def no_sockets(monkeypatch):
    def refuse(*_):
        raise AssertionError("something was sent")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")


def test_credentials_are_looked_for_without_asking_anyone(monkeypatch):
    no_sockets(monkeypatch)
    found = AwsAdapter(region="eu-west-1").credentials()
    assert not found.found
    assert "AWS_ACCESS_KEY_ID" in found.where
    assert "~/.aws/credentials" in found.where


CONFIG = {
    "[profile a]\nrole_arn = arn:aws:iam::1:role/x\ncredential_source = Ec2InstanceMetadata": "a role",
    "[profile a]\ncredential_process = touch RAN": "credential_process",
    "[profile a]\nsso_session = s\n[sso-session s]\nsso_start_url = https://x": "single sign-on",
    f"[profile a]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}": "profile 'a'",
}


@pytest.mark.parametrize("config", CONFIG)
def test_profiles_are_found_and_neither_run_nor_asked(config, monkeypatch, tmp_path):
    no_sockets(monkeypatch)
    (tmp_path / "config").write_text(config.replace("RAN", str(tmp_path / "ran")))
    found = AwsAdapter(region="eu-west-1", profile="a").credentials()
    assert found.found
    assert CONFIG[config] in found.where
    assert SECRET not in found.where
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        ({"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}, "AWS_* variables"),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "arn"},
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/creds"}, "container"),
    ],
)
def test_variables_are_found(variables, where, monkeypatch):
    no_sockets(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = AwsAdapter(region="eu-west-1").credentials()
    assert found.found
    assert where in found.where
    assert KEY not in found.where


def test_half_credentials_and_unknown_profiles_are_not_found(monkeypatch):
    assert "ProfileNotFound" in AwsAdapter(profile="nobody").credentials().where
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    found = AwsAdapter(region="eu-west-1").credentials()
    assert not found.found
    assert "AWS_SECRET_ACCESS_KEY" in found.where


def test_without_credentials_asking_says_where_they_were_looked_for():
    adapter = AwsAdapter(region="eu-west-1")
    with pytest.raises(FatalError, match="AWS_ACCESS_KEY_ID") as caught:
        adapter.ask([PICTURE])
    assert "NoCredentialsError" in str(caught.value)


@pytest.mark.parametrize(("bad", "says"), [({}, "region"), ({"profile": "nobody"}, "nobody")])
def test_without_a_place_it_can_be_listed_and_asking_says_what_is_missing(bad, says):
    adapter = AwsAdapter(**bad)
    assert (adapter.limits.per_second, adapter.identity["region"]) == (5, None)
    assert "no region" in repr(adapter)
    with pytest.raises(FatalError, match=says):
        adapter.ask([PICTURE])
    adapter.close()


def test_the_region_of_a_profile(tmp_path):
    (tmp_path / "config").write_text("[profile fast]\nregion = us-west-2\n")
    adapter = AwsAdapter(profile="fast")
    assert adapter.identity["region"] == "us-west-2"
    assert adapter.limits.per_second == 50


def test_a_botocore_that_lacks_the_newest_errors_will_do():
    """aioboto3 comes with botocore 1.40."""
    script = (
        "import boto3, botocore.exceptions as e; del e.LoginError, e.UnknownTokenProviderError;"
        "import smoothapi_adapters.aws.errors"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
