"""Who is let in, what each may spend and see, and how many are served at a time."""

from __future__ import annotations

import base64
import json
import logging
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from smoothapi.dispatch import Run
from smoothapi.encode import Codec
from smoothapi.errors import StoppedError, UsageError
from smoothapi.gateway import Records, app, certifiers, read_config
from smoothapi.gateway.rate import Rates
from smoothapi.gateway.records import GatewayCaller
from smoothapi.services import serve
from smoothapi.store import Budget, Home
from tests.contract.tls import authority
from tests.unit.gateway.conftest import CERTIFY, KITS, RAW, call, post, tables
from tests.unit.wrapping.conftest import PHOTO, PIXELS, digest, labeller

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def records(tmp_path):
    made = Records(Home(tmp_path / "home").records)
    yield made
    made.close()


def shown(name, token):
    """Return the headers in which a provider's SDK shows a key."""
    signed = f"AWS4-HMAC-SHA256 Credential={token}/20261128/us-east-1/rekognition/aws4_request"
    return {
        "aws": {"authorization": f"{signed}, SignedHeaders=host, Signature=0"},
        "google": {"x-goog-api-key": token},
        "clarifai": {"authorization": f"Key {token}"},
    }.get(name, {"ocp-apim-subscription-key": token})


def test_a_token_lets_in_where_the_sdk_puts_its_key(kit, service, start, records):
    token = records.add_token("radiology")
    name = kit.service
    gateway = start(name, service, callers="tokens")
    for headers in (shown(name, token), {"x-smoothapi-token": token}):
        assert post(gateway.url, name, headers=headers).status_code == 200
    before = service.requests
    wrong = token[:-1] + ("1" if token.endswith("0") else "0")
    for headers in ({}, shown(name, wrong), shown(name, "sgw_1"), shown(name, "")):
        refused = post(gateway.url, name, headers=headers)
        assert refused.status_code in {400, 401, 403}
        assert refused.headers["x-smoothapi-outcome"] == "refused"
    assert service.requests == before


def test_boto3_takes_a_token_for_its_key_and_a_stranger_for_a_wrong_one(aws, start, records):
    import boto3
    from botocore.exceptions import ClientError

    gateway = start("aws", aws, callers="tokens")

    def client(token):
        return boto3.client(
            "rekognition",
            endpoint_url=gateway.url,
            region_name="us-east-1",
            aws_access_key_id=token,
            aws_secret_access_key="any",
            aws_session_token=None,
        )

    found = client(records.add_token("team")).detect_labels(Image={"Bytes": PHOTO})
    assert [label["Name"] for label in found["Labels"]] == ["Bus", "Vehicle"]
    with pytest.raises(ClientError, match="security token included in the request is invalid"):
        client("AKIASTRANGER").detect_labels(Image={"Bytes": PHOTO})


def test_a_token_that_was_removed_lets_nobody_in_from_then_on(aws, start, records):
    token = records.add_token("team")
    gateway = start("aws", aws, callers="tokens")
    assert post(gateway.url, "aws", headers={"x-smoothapi-token": token}).status_code == 200
    assert records.remove_token("team")
    assert post(gateway.url, "aws", headers={"x-smoothapi-token": token}).status_code == 400


def test_of_a_token_only_a_hash_is_kept(records, tmp_path):
    token = records.add_token("team")
    secret = token.rpartition("_")[2].encode()
    files = [file.read_bytes() for file in (tmp_path / "home").iterdir()]
    assert files
    assert all(secret not in data and bytes.fromhex(secret.decode()) not in data for data in files)
    assert (tmp_path / "home" / "gateway.db").stat().st_mode & 0o077 == 0


def test_names_are_taken_once_and_values_checked(records):
    records.add_token("team", budget="$5/month", per_second=2)
    for changes in (
        {"name": "team"},
        {"name": "a b"},
        {"name": "anyone"},
        {"name": "x", "budget": "$5"},
        {"name": "x", "budget": "much"},
        {"name": "x", "per_second": 0},
    ):
        with pytest.raises(UsageError):
            records.add_token(**changes)
    [caller] = records.callers()
    assert (caller.name, str(caller.budget)) == ("team", "$5 a month, 'gateway-caller-team'")


def test_each_caller_has_a_budget_of_its_own_and_all_have_one_together(aws, start, records):
    poor, rich = records.add_token("poor", budget="3/month"), records.add_token("rich")
    gateway = start("aws", aws, callers="tokens", provider={"budget": "1000/day"})
    broke = post(gateway.url, "aws", headers={"x-smoothapi-token": poor})
    assert broke.json()["__type"] == "LimitExceededException"
    assert broke.headers["x-smoothapi-outcome"] == "budget"
    assert aws.requests == 0, "nothing is sent that could not be enough"
    fine = post(gateway.url, "aws", headers={"x-smoothapi-token": rich})
    assert fine.headers["x-smoothapi-outcome"] == "certified"


def test_a_budget_is_never_passed_by_all_callers_together(aws, start, records):
    tokens = [records.add_token(f"team{i}") for i in range(4)]
    gateway = start("aws", aws, callers="tokens", provider={"budget": "30/day"})
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda t: post(gateway.url, "aws", headers={"x-smoothapi-token": t}), tokens)
        )
    assert aws.requests <= 30
    assert {reply.status_code for reply in replies} <= {200, 400}


@pytest.mark.parametrize(
    ("otherwise", "labels"), [("plain", ["Bus", "Vehicle", "Van"]), ("none", [])]
)
def test_what_ends_first_gives_what_the_deployment_chose(otherwise, labels, aws, start):
    gateway = start("aws", aws, provider={"budget": "3/day"}, certify={"otherwise": otherwise})
    found = post(gateway.url, "aws")
    assert [label["Name"] for label in found.json()["Labels"]] == labels
    assert found.headers["x-smoothapi-outcome"] == "budget"
    identity = found.headers["x-smoothapi-certificate"]
    kept = requests.get(f"{gateway.url}/smoothapi/certificates/{identity}", timeout=20).json()
    assert kept["certified"] is False
    assert "budget" in kept["why"]


def test_a_certificate_is_shown_to_its_caller_and_to_operators(aws, start, records):
    mine, other = records.add_token("mine"), records.add_token("other")
    operator = records.add_token("boss", operator=True)
    gateway = start("aws", aws, callers="tokens")
    done = post(gateway.url, "aws", headers={"x-smoothapi-token": mine})
    url = f"{gateway.url}/smoothapi/certificates/{done.headers['x-smoothapi-certificate']}"
    assert requests.get(url, timeout=20).status_code == 401
    assert (
        requests.get(url, headers={"authorization": f"Bearer {other}"}, timeout=20).status_code
        == 404
    )
    found = requests.get(url, headers={"authorization": f"Bearer {mine}"}, timeout=20).json()
    assert (found["caller"], found["provider"], found["outcome"]) == ("mine", "aws", "certified")
    assert found["certificate"]["claims"]
    assert requests.get(url, auth=("x", operator), timeout=20).json() == found
    nothing = f"{gateway.url}/smoothapi/certificates/{'0' * 32}"
    assert requests.get(nothing, auth=("x", operator), timeout=20).status_code == 404


OF_SESSIONS = ("smoothapi-send", "smoothapi-prepare", "smoothapi-write")


@pytest.mark.timeout(120)
def test_callers_who_come_and_go_leave_neither_threads_nor_files_behind(
    aws, start, records, tmp_path, monkeypatch
):
    kept = 2
    monkeypatch.setattr(certifiers, "KEPT", kept)
    few = {"alpha": 0.2, "radius": 0.001, "max_votes": 8}
    gateway = start("aws", aws, callers="tokens", certify=few)

    def ask(number, token):
        before = aws.requests
        photo = base64.b64encode(Codec().encode(PIXELS + number)).decode()
        body = json.dumps({"Image": {"Bytes": photo}}).encode()
        found = post(gateway.url, "aws", headers={"x-smoothapi-token": token}, body=body)
        assert found.status_code == 200, found.text
        assert aws.requests > before + 1, "votes that were sent, by threads"

    def held():
        """Return how many threads of sessions there are, files of the home, and sockets."""
        threads = sum(one.name.startswith(OF_SESSIONS) for one in threading.enumerate())
        opened = []
        for link in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed just now
                opened.append(str(link.readlink()))
        files = sum(one.startswith(str(tmp_path)) for one in opened)
        return threads, files, sum(one.startswith("socket:") for one in opened)

    tokens = [records.add_token(f"caller-{number}") for number in range(16)]
    threads, _, sockets = held()
    ask(0, tokens[0])
    # A session has up to two threads more than requests, one that prepares, and one that writes.
    # Of their connections both ends are here, and of the caller's; callers share them.
    at_once = CERTIFY["concurrency"]
    most = [
        threads + kept * (at_once + 2 + 2),
        held()[1] + 3 * (kept + 2),
        sockets + 2 * (2 * at_once + 2),
    ]
    for number, token in enumerate(tokens[1:], 1):
        ask(number, token)
        ends = time.monotonic() + 30.0
        # They are closed in threads of their own; those of a file that is in use stay open, for the
        # next one, as many as there were at once.
        while any(one > bound for one, bound in zip(held(), most, strict=True)):
            assert time.monotonic() < ends, (held(), most)
            time.sleep(0.05)
    ask(31, tokens[0])  # whose session was closed meanwhile


def test_a_caller_at_work_keeps_its_session_however_many_come_meanwhile(monkeypatch):
    monkeypatch.setattr(certifiers, "KEPT", 2)
    made = []

    class Closing:
        def __init__(self):
            self.closed = threading.Event()
            made.append(self)

        def close(self):
            self.closed.set()

    open_ = certifiers.Certifiers()
    with open_.using("long", Closing) as long:
        for number in range(5):
            with open_.using(number, Closing):
                pass
        with open_.using("long", Closing) as same:
            assert same is long
        assert not long.closed.is_set()
        assert all(one.closed.wait(30) for one in made[1:5])
        assert not made[5].closed.is_set(), "it came last"
    open_.close()
    assert all(one.closed.is_set() for one in made)
    with pytest.raises(StoppedError), open_.using("long", Closing):
        pass


def test_a_rate_holds_by_caller():
    now = [100.0]
    rates = Rates(lambda: now[0])
    team = GatewayCaller("team", Budget(), per_second=2.0)
    assert [rates.take(team) for _ in range(3)] == [True, True, False]
    assert rates.take(GatewayCaller("other", Budget(), per_second=0.5))
    assert not rates.take(GatewayCaller("other", Budget(), per_second=0.5))
    now[0] += 0.5
    assert [rates.take(team), rates.take(team)] == [True, False]
    assert all(rates.take(GatewayCaller("free", Budget())) for _ in range(100))


class Held:
    """A labeller that answers nobody before it is told to."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, pixels):
        self.begun.set()
        assert self.go.wait(30)
        return labeller(pixels)


@pytest.fixture
def held():
    labelling = Held()
    yield labelling
    labelling.go.set()


@pytest.mark.parametrize("name", list(KITS))
def test_a_full_queue_throttles_in_the_providers_words_and_says_when(name, held, start):
    with serve(name, held) as service, ThreadPoolExecutor(1) as pool:
        gateway = start(name, service, workers=1, queue=0, retry_after=7)
        first = pool.submit(post, gateway.url, name)
        assert held.begun.wait(30)
        full = post(gateway.url, name)
        assert full.headers["x-smoothapi-outcome"] == "full"
        assert full.headers["retry-after"] == "7"
        assert full.status_code in {400, 429}
        held.go.set()
        assert first.result().headers["x-smoothapi-outcome"] == "certified"
        assert post(gateway.url, name).status_code == 200


def test_those_who_wait_are_served_in_turn_and_their_pictures_are_bounded(held, start):
    most = {"workers": 1, "queue": 2, "waiting_bytes": 2**20}
    with serve("aws", held) as service, ThreadPoolExecutor(3) as pool:
        gateway = start("aws", service, **most)
        first = pool.submit(post, gateway.url, "aws")
        assert held.begun.wait(30)
        second = pool.submit(post, gateway.url, "aws")
        long = post(gateway.url, "aws", body=b" " * (2**20 + 1))
        assert long.headers["x-smoothapi-outcome"] == "full"
        held.go.set()
        for one in (first, second):
            assert one.result().headers["x-smoothapi-outcome"] == "certified"


def test_too_long_a_body_is_refused_in_the_providers_words(aws, start):
    gateway = start("aws", aws)
    found = post(gateway.url, "aws", body=b" " * (8 * 2**20 + 1))
    assert found.status_code == 413
    assert found.json()["__type"] == "RequestEntityTooLargeException"


def test_a_picture_of_15_megabytes_streams_in_and_is_certified(start):
    # A chunk of the picture's that no decoder reads: as long as a scan, and decoded in no time.
    padding = bytes(15 * 10**6)
    kind = b"smOb" + padding
    chunk = struct.pack(">I", len(padding)) + kind + struct.pack(">I", zlib.crc32(kind))
    end = PHOTO.index(b"IEND") - 4
    long = PHOTO[:end] + chunk + PHOTO[end:]
    with serve("azure4", labeller) as service:
        gateway = start("azure4", service)
        pieces = (long[at : at + 65_536] for at in range(0, len(long), 65_536))
        found = post(gateway.url, "azure4", body=pieces)  # chunked: its length is not known
        assert found.headers["x-smoothapi-outcome"] == "certified", found.text
        assert metrics_of(gateway)["smoothapi_gateway_held_bytes"] == 0
        refused = post(gateway.url, "azure4", body=bytes(20 * 2**20 + 2))
        assert refused.headers["x-smoothapi-outcome"] == "refused"
        assert 400 <= refused.status_code < 500


def metrics_of(gateway):
    rows = requests.get(f"{gateway.url}/metrics", timeout=20).text.splitlines()
    pairs = (row.rpartition(" ") for row in rows if not row.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_tls_is_spoken_with_the_certificate_of_the_configuration(aws, start, tmp_path):
    with authority(tmp_path, "127.0.0.1") as (pem, _):
        files = {"tls_certificate": pem, "tls_key": str(tmp_path / "127.0.0.1.key")}
        gateway = start("aws", aws, **files)
        assert gateway.url.startswith("https://127.0.0.1:")
        path, headers, body = RAW["aws"]
        found = requests.post(
            gateway.url + path, headers=headers, data=body, verify=pem, timeout=20
        )
        assert found.headers["x-smoothapi-outcome"] == "certified"
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{gateway.url}/healthz", timeout=20)
        with requests.Session() as idle:  # it keeps its connection, and says no goodbye
            assert idle.get(f"{gateway.url}/healthz", verify=pem, timeout=20).ok
            began = time.monotonic()
            gateway.__exit__()
            assert time.monotonic() - began < gateway.grace / 2


def test_a_deadline_counts_the_time_in_the_queue(start):
    def slow(pixels):
        if digest(pixels) != digest(PIXELS):
            time.sleep(0.02)
        return labeller(pixels)

    with serve("aws", slow) as service:
        gateway = start(
            "aws", service, certify={"within": 0.05, "otherwise": "plain", "concurrency": 1}
        )
        found = post(gateway.url, "aws")
        assert found.headers["x-smoothapi-outcome"] == "deadline"
        assert [label["Name"] for label in found.json()["Labels"]] == ["Bus", "Vehicle", "Van"]


def test_stopping_finishes_what_is_under_way_and_says_not_ready(held, start):
    with serve("aws", held) as service, ThreadPoolExecutor(1) as pool:
        gateway = start("aws", service)
        assert requests.get(f"{gateway.url}/readyz", timeout=20).status_code == 200
        assert requests.get(f"{gateway.url}/healthz", timeout=20).status_code == 200
        call_ = pool.submit(post, gateway.url, "aws")
        assert held.begun.wait(30)
        ending = threading.Thread(target=gateway.__exit__)
        ending.start()
        while (ready := call(gateway.app, "GET", "/readyz").status) == 200:  # it has not begun
            time.sleep(0.01)
        assert ready == 503
        held.go.set()
        assert call_.result().headers["x-smoothapi-outcome"] == "certified"
        ending.join(30)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{gateway.url}/healthz", timeout=5)


def test_a_configuration_is_taken_up_while_calls_are_under_way(held, tmp_path):
    with serve("aws", held) as service, ThreadPoolExecutor(1) as pool:
        gateway = app(tables("aws", service.url, tmp_path))
        path, headers, body = RAW["aws"]
        first = pool.submit(call, gateway, "POST", path, headers, body)
        assert held.begun.wait(30)
        changed = tables("aws", service.url, tmp_path, certify={"score": 0.965})
        gateway.reload(read_config(changed))
        with pytest.raises(UsageError):
            gateway.reload(read_config({**changed, "gateway": {"workers": 0}}))
        held.go.set()
        assert first.result().headers["x-smoothapi-outcome"] == "certified"
        again = call(gateway, "POST", path, headers, body)
        assert [label["Name"] for label in again.json()["Labels"]] == ["Bus"]
        gateway.close()


def test_a_response_that_is_paid_for_is_given_though_its_record_cannot_be_kept(aws, tmp_path):
    gateway = app(tables("aws", aws.url, tmp_path))
    path, headers, body = RAW["aws"]
    gateway.gateway.records.kept._sql.execute("DROP TABLE certificates")
    found = call(gateway, "POST", path, headers, body)
    gateway.close()
    assert found.status == 200
    assert found.headers["x-smoothapi-outcome"] == "certified"
    assert "x-smoothapi-certificate" not in found.headers


def over_its_grace(service, start, tmp_path):
    """Return a way to call an application behind a server with hardly any grace, and its end."""
    server = start("aws", service, grace=0.05)
    return lambda *_: post(server.url, "aws"), server.__exit__


def that_is_closed(service, start, tmp_path):
    """Return a way to call an application without a server, and its end."""
    mounted = app(tables("aws", service.url, tmp_path))
    return lambda *what: call(mounted, "POST", *what), mounted.close


@pytest.mark.parametrize("ending", [over_its_grace, that_is_closed])
def test_a_call_that_the_end_cuts_short_is_worth_sending_again(
    ending, held, start, tmp_path, monkeypatch
):
    stop, stopped = Run.stop, threading.Event()

    def stopping(*given):
        stop(*given)
        stopped.set()

    monkeypatch.setattr(Run, "stop", stopping)
    with serve("aws", held) as service, ThreadPoolExecutor(1) as pool:
        ask, end = ending(service, start, tmp_path)
        under_way = pool.submit(ask, *RAW["aws"])
        assert held.begun.wait(30)
        ends = threading.Thread(target=end)
        ends.start()
        assert stopped.wait(30)
        held.go.set()
        found = under_way.result()
        ends.join(30)
    assert found.status_code == 503
    assert found.headers["x-smoothapi-outcome"] == "stopped"
    assert found.headers["retry-after"] == "1"


@pytest.mark.parametrize("error", [RuntimeError("key=SECRET"), SystemExit("key=SECRET")])
def test_what_nobody_foresaw_leaves_no_caller_waiting_frees_its_place_and_shows_no_words(
    error, aws, tmp_path, monkeypatch, caplog
):
    gateway = app(tables("aws", aws.url, tmp_path, workers=1, queue=0))

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(gateway.gateway, "answer", fails)
        answer = call(gateway, "POST", *RAW["aws"])
    assert answer.status_code == 500
    assert "could not answer a request: RuntimeError" in caplog.text
    assert "SECRET" not in answer.body.decode() + "".join(
        one.getMessage() for one in caplog.records if one.levelno > logging.DEBUG
    )
    assert call(gateway, "POST", *RAW["aws"]).headers["x-smoothapi-outcome"] == "certified"
    gateway.close()
