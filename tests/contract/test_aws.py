"""Rekognition through the real boto3, against a server that speaks its protocol strictly."""

from __future__ import annotations

import json
import threading

import boto3
import numpy as np
import pytest
from botocore.config import Config

from smoothapi.answer import Label
from smoothapi.certify.labels import top1
from smoothapi.encode import Codec
from smoothapi.errors import FatalError, ThrottledError, TransientError
from smoothapi.services import by_colour, serve
from smoothapi.services.faults import Fault
from smoothapi.testing import AdapterContract
from smoothapi.testing.contract import unused_port
from smoothapi.testing.watch import told
from smoothapi_adapters.aws import AwsAdapter
from tests.contract.provider_service import ANSWERS, PNG
from tests.waiting import PATIENCE, seconds_for

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEBYaDIEXAMPLETOKEN0123456789abcdefghijklmnopqrstuvwxyz"
ARN = "arn:aws:rekognition:eu-west-1:123456789012:project/parts/version/parts.2/1700000000000"


@pytest.fixture(autouse=True)
def _keys(monkeypatch, tmp_path):
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def service():
    with serve("aws", by_colour, key=KEY) as service:
        yield service


class TestAws(AdapterContract):
    # LimitExceededException is a limit of requests under way: it passes.
    meant = {Fault.quota: (ThrottledError,)}
    loggers_with_pictures = ("botocore",)
    operation = "labels"

    def options(self):
        return {
            "operation": self.operation,
            **({"project_version_arn": ARN} if self.operation == "custom" else {}),
        }

    @pytest.fixture
    def make(self, service):
        return lambda: AwsAdapter(endpoint=service.url, **self.options())

    @pytest.fixture
    def secrets(self):
        # Of the session token, which is worth nothing without it, botocore's own DEBUG log tells.
        return [SECRET]

    @pytest.fixture
    def sent(self, service):
        return lambda: len(service.received)

    @pytest.fixture
    def unreachable(self):
        return AwsAdapter(endpoint=f"http://127.0.0.1:{unused_port()}", **self.options())

    @pytest.fixture
    def faulty(self):
        services = []

        def make(fault):
            services.append(serve("aws", by_colour, faults=f"@1- {fault}", late=600.0, drip=3.0))
            timeout = seconds_for(fault)
            return AwsAdapter(endpoint=services[-1].url, timeout=timeout, **self.options())

        yield make
        for service in services:
            service.close()

    @pytest.fixture
    def without_credentials(self, service, monkeypatch):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name)
        return AwsAdapter(endpoint=service.url, **self.options())


class TestAwsModeration(TestAws):
    operation = "moderation"
    # The same code as for labels.
    test_each_fault_becomes_the_right_error = None
    test_importing_it_opens_no_connection = None
    test_threads_get_their_own_answers = None
    test_nothing_secret_is_logged = None


class TestAwsCustom(TestAwsModeration):
    operation = "custom"


@pytest.mark.parametrize(
    ("mode", "fault"), [("legacy", "500"), ("standard", "429"), ("adaptive", "reset")]
)
def test_a_given_clients_retries_are_off_for_us_and_on_for_its_owner(mode, fault):
    with serve("aws", by_colour, faults=f"@1- {fault}") as service:
        client = boto3.client(
            "rekognition",
            endpoint_url=service.url,
            config=Config(retries={"mode": mode, "max_attempts": 1}),
        )
        with pytest.raises(TransientError):
            AwsAdapter(client=client).ask([PNG])
        assert len(service.received) == 1
        with pytest.raises(Exception, match=r"HTTP|error|onnection"):
            client.detect_labels(Image={"Bytes": PNG})
        assert len(service.received) == 3  # its owner's client still tries twice


def test_what_the_server_receives():
    with serve("aws", by_colour) as service:
        for operation, more in {
            "labels": {},
            "moderation": {},
            "custom": {"project_version_arn": ARN},
        }.items():
            adapter = AwsAdapter(operation, endpoint=service.url, **more)
            adapter.ask([PNG])
            adapter.close()
        labels, moderation, custom = service.received
    assert (labels.operation, dict(labels.parameters)) == (
        "DetectLabels", {"MinConfidence": 55.0, "MaxLabels": 100},
    )  # fmt: skip
    assert (moderation.operation, dict(moderation.parameters)) == (
        "DetectModerationLabels", {"MinConfidence": 50.0},
    )  # fmt: skip
    assert (custom.operation, dict(custom.parameters)) == (
        "DetectCustomLabels",
        {"MinConfidence": 50.0, "MaxResults": 100, "ProjectVersionArn": ARN},
    )
    assert {"authorization", "x-amz-target", "x-amz-date"} <= set(labels.headers_seen)
    assert labels.sizes == ((96, 96),)


def test_labels_keep_order_parents_categories_version_and_request():
    def backend(_):
        return [
            Label("Bus", 0.8, ("Vehicle", "Transportation"), ("Vehicles",)),
            Label("Person", 0.97),
            Label("Blur", 0.2),
        ]

    with serve("aws", backend) as service:
        adapter = AwsAdapter(endpoint=service.url)
        [answer] = adapter.ask([PNG])
        adapter.close()
    assert [label.name for label in answer.labels] == ["Bus", "Person"]  # as it came, from 55 %
    assert answer.labels[0].parents == ("Vehicle", "Transportation")
    assert answer.labels[0].categories == ("Vehicles",)
    assert answer.model_version
    assert answer.request_id


def test_an_empty_list_is_an_answer():
    with serve("aws", lambda _: []) as service:
        adapter = AwsAdapter(endpoint=service.url)
        [answer] = adapter.ask([PNG])
        adapter.close()
    assert answer.labels == ()


@pytest.mark.parametrize(
    "body",
    ["{}", "", "null", "[]", "<html>busy</html>", '{"Labels": null}', '{"Labels": "bus"}',
     '{"Labels": {"Name": "bus"}}', '{"Labels": [null]}', '{"Labels": [3]}', '{"Labels": [{}]}',
     '{"Labels": [{"Name": "bus", "Confidence": NaN}]}', '{"Labels": [{"Name": "bus"}]}',
     '{"Labels": [{"Name": "bus", "Confidence": "97"}]}',
     '{"Labels": [{"Name": "bus", "Confidence": 970}]}',
     '{"Labels": [{"Name": "", "Confidence": 97}]}', '{"__type": "X", "Message": "no"}'],
)  # fmt: skip
def test_malformed_under_status_200_is_tried_again_and_never_an_empty_answer(body):
    with serve("aws", replies=lambda _: body.encode()) as service:
        adapter = AwsAdapter(endpoint=service.url)
        with pytest.raises(TransientError, match="not stored"):
            adapter.ask([PNG])
        adapter.close()
        assert len(service.received) == 1


def test_recorded_real_answers_through_the_wire():
    files = sorted(ANSWERS.glob("*.rekognition.json"))
    if not files:
        pytest.skip("the recorded answers are not here")
    assert len(files) == 23
    pictures = {Codec().encode(np.full((80, 80, 3), n, np.uint8)): f for n, f in enumerate(files)}
    with serve("aws", replies=lambda data: pictures[data].read_bytes()) as service:
        adapter = AwsAdapter(endpoint=service.url)
        for picture, file in pictures.items():
            rows = json.loads(file.read_text())["Labels"]
            [answer] = adapter.ask([picture])
            best = max(row["Confidence"] for row in rows)
            assert top1(answer) == min(row["Name"] for row in rows if row["Confidence"] == best)
            assert len(answer.labels) == len(rows)
        adapter.close()


def test_the_session_token_is_in_nothing_that_we_say():
    with serve("aws", by_colour, key=KEY, faults="@2- 403") as service:
        adapter = AwsAdapter(endpoint=service.url)
        adapter.ask([PNG])
        with pytest.raises(FatalError) as caught:
            adapter.ask([PNG])
        said = [
            repr(adapter),
            repr(adapter.identity),
            repr(adapter.credentials()),
            *told(caught.value),
        ]
        adapter.close()
    assert not any(secret in text for text in said for secret in (SECRET, TOKEN, KEY))


def test_a_wrong_key_is_fatal_and_its_message_holds_no_key(service):
    adapter = AwsAdapter(endpoint=service.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG1")
        with pytest.raises(FatalError, match="UnrecognizedClientException") as caught:
            adapter.ask([PNG])
    assert "AKIA" not in str(caught.value)
    adapter.close()


def test_256_threads_share_one_client_without_throwing_connections_away(service, caplog):
    adapter = AwsAdapter(endpoint=service.url)
    ready = threading.Barrier(64)
    answers = []

    def ask():
        ready.wait(PATIENCE)
        answers.extend(adapter.ask([PNG]) for _ in range(2))

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    adapter.close()
    assert len(answers) == len(service.received) == 128
    assert not [r for r in caplog.records if "pool is full" in r.getMessage()]
    assert adapter._client()._endpoint.http_session._session._max_pool_connections == 256


def test_motos_opinion_of_the_wiring():
    """moto, written by others, accepts the calls: names, targets and shapes are right."""
    from moto import mock_aws

    with mock_aws():
        adapter = AwsAdapter(region="us-east-1")
        [answer] = adapter.ask([PNG])
        adapter.close()
    assert answer.labels[0].name == "Mobile Phone"
    assert answer.labels[0].parents
    assert answer.model_version
