"""A gateway before a provider that does what no service should: callers are answered in time."""

from __future__ import annotations

import gc
import json
import threading
import time

import pytest

from smoothapi.gateway import app
from tests.faults.hostile import BEHAVIOURS, Hostile
from tests.unit.gateway.conftest import OTHER, RAW, call, tables

SECRET = "s3cr3ts3cr3ts3cr3ts3cr3ts3cr3t12"
LIMIT = 0.4  # seconds of an exchange
PATIENCE = 30.0  # seconds, however busy this machine is: what hangs takes for ever
SECRETS = {
    "aws": {},  # in the environment
    "google": {"api_key": SECRET},
    "azure": {"key": SECRET},
    "azure4": {"key": SECRET},
    "clarifai": {"pat": SECRET},
}
ASKED = [*((name, RAW) for name in SECRETS), ("azure4", OTHER)]  # certified, and passed through


@pytest.fixture(scope="module")
def hostile():
    with Hostile() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(hostile, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, SECRET)
        patch.setenv("SMOOTHAPI_ATTEMPTS", "1")
        patch.setenv("SMOOTHAPI_DEADLINE", "1")
        whole = {"providers": {}}
        for name, secret in SECRETS.items():
            made = tables(
                name,
                hostile.url,
                tmp_path_factory.getbasetemp() / "hostile-home",
                options={"timeout": LIMIT, **secret},
                provider={"passthrough": True, "budget": "unlimited"},
                certify={"within": 0.8},  # a provider that failed is left alone for longer
            )
            whole = {**made, "providers": {**whole["providers"], **made["providers"]}}
        gateway = app(whole)
        yield gateway
        gateway.close()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_callers_are_answered_in_time_and_told_no_secret(behaviour, hostile, gateway):
    hostile.become(BEHAVIOURS[behaviour])
    found = {}

    def ask(at):
        name, what = ASKED[at]
        path, headers, body = what[name]
        found[at] = call(gateway, "POST", path, headers, body)

    threads = [threading.Thread(target=ask, args=(at,), daemon=True) for at in range(len(ASKED))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.1, PATIENCE - (time.monotonic() - began)))
    gc.collect()  # what was left open says so in the test that left it
    assert len(found) == len(ASKED), "still waiting"
    for at, reply in found.items():
        name, what = ASKED[at]
        assert 200 <= reply.status < 600
        assert SECRET not in reply.body.decode(errors="replace") + str(reply.headers), name
        if what is RAW:
            assert reply.headers["x-smoothapi-outcome"] not in {"certified", "failed"}, name
            if reply.headers["x-smoothapi-outcome"] == "provider":
                assert json.loads(reply.body), name
