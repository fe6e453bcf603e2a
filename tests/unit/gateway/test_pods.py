"""Several gateways of one service, which share a database: what one bought is all of theirs."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from smoothapi.encode import Codec
from tests.unit.gateway.conftest import post
from tests.unit.wrapping.conftest import PIXELS

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def pods(aws, start, database, noise_key_file, tmp_path):
    """Return a function that starts two, with one budget."""

    def begin(budget):
        shared = {
            "home": database,
            "certify": {"noise_key_file": str(noise_key_file)},
            "provider": {"budget": budget},
        }
        return [start("aws", aws, records=str(tmp_path / f"{n}.db"), **shared) for n in range(2)]

    return begin


def test_what_one_gateway_bought_another_finds(aws, pods):
    first, second = pods("1000/day")
    one = post(first.url, "aws")
    sent = aws.requests
    other = post(second.url, "aws")
    assert one.headers["x-smoothapi-outcome"] == "certified"
    assert other.json()["Labels"] == one.json()["Labels"]
    assert aws.requests == sent + 1, "the caller's own call, and no vote"


def test_one_budget_holds_for_all_gateways_together(aws, pods):
    gateways = pods("40/day")

    def ask(number):
        photo = base64.b64encode(Codec().encode(PIXELS + number)).decode()
        body = json.dumps({"Image": {"Bytes": photo}}).encode()
        return post(gateways[number % 2].url, "aws", body=body)

    with ThreadPoolExecutor(4) as pool:
        outcomes = [reply.headers["x-smoothapi-outcome"] for reply in pool.map(ask, range(8))]
    assert 0 < aws.requests <= 40
    assert set(outcomes) >= {"budget"}
    assert set(outcomes) <= {"budget", "certified", "abstained"}


def test_a_gateway_has_as_many_connections_as_one_process_whoever_calls(
    aws, start, postgres, noise_key_file
):
    url = postgres.new_database()
    gateway = start(
        "aws", aws, home=url, callers="tokens", certify={"noise_key_file": str(noise_key_file)}
    )
    records = gateway.app.gateway.records
    for token in [records.add_token(f"caller-{number}") for number in range(6)]:
        found = post(gateway.url, "aws", headers={"x-smoothapi-token": token})
        assert found.headers["x-smoothapi-outcome"] == "certified"
    for _ in range(600):  # one of the beginning may still be on its way out
        [(connections,)] = postgres.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'smoothapi'",
            url,
        )
        if connections <= 4:
            break
        time.sleep(0.05)
    assert 0 < connections <= 4
