"""Callers of a gateway have an answer in time, whatever its database does."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.postgres import Away
from tests.unit.gateway.conftest import post

pytest.importorskip("psycopg")

pytestmark = pytest.mark.timeout(120)

FAR_BEYOND = 45.0  # seconds; statements are made again for 60, and `post` waits for 50


@pytest.fixture(params=["refusing", "silent"])
def away(request, postgres, database):
    away = Away(postgres, database, request.param)
    yield away
    away.close()


@pytest.mark.parametrize("otherwise", ["plain", "raise"])
def test_a_caller_has_an_answer_in_time_while_the_database_is_away(
    otherwise, away, aws, start, noise_key_file, monkeypatch
):
    certify = {"noise_key_file": str(noise_key_file), "otherwise": otherwise, "within": 60.0}
    gateway = start("aws", aws, home=away.url, callers="tokens", certify=certify)
    shown = {"x-smoothapi-token": gateway.app.gateway.records.add_token("team")}
    found = post(gateway.url, "aws", headers=shown)
    assert found.headers["x-smoothapi-outcome"] == "certified"
    assert len(found.headers["x-smoothapi-certificate"]) == 32
    sent, plain = aws.requests, {label["Name"] for label in found.json()["Labels"]}
    served = gateway.app.gateway.served["aws"]
    hasty = replace(served, policy=replace(served.policy, within=1.0))
    monkeypatch.setitem(gateway.app.gateway.served, "aws", hasty)
    monkeypatch.setattr("smoothapi.gateway.gateway._FOR_RECORDS", 0.5)
    away.goes()
    began = time.monotonic()
    given = post(gateway.url, "aws", headers=shown)
    assert time.monotonic() - began < FAR_BEYOND
    away.returns()
    assert given.headers["x-smoothapi-outcome"] == "deadline"
    if otherwise == "raise":
        assert given.status_code == 503
        assert "retry-after" in given.headers
        assert aws.requests == sent
    else:
        assert {label["Name"] for label in given.json()["Labels"]} >= plain
        assert given.headers.get("x-smoothapi-certificate", "-") == "-"
        assert aws.requests == sent + 1
