"""What operators see of a gateway: metrics, the page, the access log, events."""

from __future__ import annotations

import base64
import json
import logging
import re
from dataclasses import asdict

import opentelemetry.metrics
import pytest
import requests
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from smoothapi import telemetry
from smoothapi.errors import TransientError
from smoothapi.events import Served
from smoothapi.gateway import Records
from smoothapi.gateway.metrics import OpenTelemetryMetrics
from smoothapi.gateway.page import page
from smoothapi.services import serve
from smoothapi.store import Home, Record
from tests.unit.gateway.conftest import AWS_KEYS, CONTENT, KITS, post
from tests.unit.wrapping.conftest import PIXELS, digest, labeller, png

pytestmark = pytest.mark.timeout(60)

OF, BY_TEAM = "smoothapi_gateway_", '{caller="team",provider="aws"}'
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m"


def metrics(gateway, **options):
    text = requests.get(f"{gateway.url}/metrics", timeout=20, **options).text
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def test_metrics_tell_of_requests_pictures_and_money(aws, start):
    gateway = start("aws", aws)
    post(gateway.url, "aws")
    post(gateway.url, "aws", body=b"{}")
    found = metrics(gateway)
    for name, more, value in (
        ("requests_total", {"status": "200"}, 1),
        ("requests_total", {"status": "400"}, 1),
        ("pictures_total", {"outcome": "certified"}, 1),
        ("plain_label_total", {"certified": "yes"}, 1),
        ("certified_attempts_total", {}, aws.requests),
    ):
        labels = sorted({"caller": "anyone", "provider": "aws", **more}.items())
        shown = ",".join(f'{label}="{of}"' for label, of in labels)
        assert found[f"smoothapi_gateway_{name}{{{shown}}}"] == value
    [spent] = [v for name, v in found.items() if 'budget_attempts{budget="gateway-aws"' in name]
    assert spent >= aws.requests
    assert found["smoothapi_gateway_working"] == found["smoothapi_gateway_held_bytes"] == 0


def test_metrics_and_the_page_are_for_operators(aws, start, tmp_path):
    records = Records(Home(tmp_path / "home").records)
    caller, operator = records.add_token("team"), records.add_token("boss", operator=True)
    records.close()
    gateway = start("aws", aws, callers="tokens")
    for path in ("/metrics", "/smoothapi/"):
        url = gateway.url + path
        assert requests.get(url, timeout=20).status_code == 401
        assert requests.get(url, auth=("", caller), timeout=20).status_code == 403
        assert requests.get(url, auth=("", operator), timeout=20).status_code == 200


def test_the_page_tells_of_the_latest_pictures_and_loads_nothing(aws, start):
    gateway = start("aws", aws)
    done = post(gateway.url, "aws")
    found = requests.get(f"{gateway.url}/smoothapi/", timeout=20)
    assert done.headers["x-smoothapi-certificate"] in found.text
    assert "all callers of aws" in found.text
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert not re.search(r"(src|href)=\"(https?:)?//", found.text)
    assert "<script" not in found.text


def cells(html, heading):
    """Return row -> column -> text of the table under a heading."""
    table = html.partition(f'<h2 id="{heading}">')[2].partition("</table>")[0]
    rows = [
        [
            re.sub("<[^>]+>", "", cell).strip()
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in table.split("<tr>")[1:]
    ]
    names = [f"{name} {at}" if rows[0].count(name) > 1 else name for at, name in enumerate(rows[0])]
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows[1:]}


@pytest.mark.usefixtures("soon_given_up")
def test_the_page_and_prometheus_tell_the_same_numbers(start):
    other = PIXELS[::-1]
    down = []

    def labelling(pixels):
        if down and digest(pixels) != digest(other):  # a noisy copy
            raise TransientError("not now")
        return [("Bus", 0.97)]

    with serve("aws", labelling) as service:
        gateway = start("aws", service, certify={"otherwise": "plain"})
        for _ in range(2):  # the first is certified, and so is the second: of what is kept
            assert post(gateway.url, "aws").headers["x-smoothapi-outcome"] == "certified"
        down.append(True)
        content = base64.b64encode(png(other)).decode()
        failed = post(gateway.url, "aws", body=json.dumps({"Image": {"Bytes": content}}))
        assert failed.headers["x-smoothapi-outcome"] == "provider"
        found = metrics(gateway)
        html = requests.get(f"{gateway.url}/smoothapi/", timeout=20).text
    shown = cells(html, "health")["aws"]
    counted = {"certified": shown["Certified"], "provider": shown["Ended by the provider"]}
    assert counted == {"certified": "2", "provider": "1"}
    for outcome, count in counted.items():
        labels = f'caller="anyone",outcome="{outcome}",provider="aws"'
        assert found[f"smoothapi_gateway_pictures_total{{{labels}}}"] == float(count)
    money = cells(html, "money")
    for budget, whose in (
        ("gateway-aws", "all callers of aws"),
        ("gateway-caller-anyone", "anyone"),
    ):
        row = money[whose]
        labels = f'budget="{budget}",period="{row["Period"]}"'
        assert found[f"smoothapi_gateway_budget_attempts{{{labels}}}"] == int(row["Attempts"])
        dollars = found[f"smoothapi_gateway_budget_dollars{{{labels}}}"]
        assert f"${dollars:,.4f}" == row["Dollars"]


def test_what_comes_from_outside_is_escaped_on_the_page():
    finding = {"labels": [{"name": HOSTILE, "certified": True}]}
    record = Record("0" * 32, "a<b", "aws", HOSTILE, "certified", "", finding)
    other = Record("1" * 32, "a<b", "aws", "x", "provider", HOSTILE, finding)
    html, _ = page(
        providers=["aws"], hour={("aws", "a<b", "provider"): 2}, latest=[record, other],
        accounts=[], load={"working": 0, "waiting": 0, "held": 0}, now=0.0,
    )  # fmt: skip
    text = html.decode()
    assert "&lt;script&gt;" in text
    for raw in ("<script>", "a<b", "\u202e", "\x1b"):
        assert raw not in text
    assert "failed for 2 of 2" in text


@pytest.mark.parametrize("name", list(KITS))
def test_the_access_log_and_events_hold_no_picture_and_no_key(name, start, caplog):
    seen = []
    telemetry.HOOKS += (seen.append,)
    shown = {
        "authorization": "Key shown-by-the-caller",
        "ocp-apim-subscription-key": "shown-by-the-caller",
    }
    try:
        with caplog.at_level(logging.DEBUG), serve(name, labeller) as service:
            gateway = start(name, service)
            if name == "google":
                shown = {"x-goog-api-key": "shown-by-the-caller"}
            post(gateway.url, name, headers=shown)
    finally:
        telemetry.HOOKS = telemetry.HOOKS[:-1]
    [access] = [record for record in caplog.records if record.name == "smoothapi.access"]
    assert f"provider={name} " in access.getMessage()
    assert " outcome=certified " in access.getMessage()
    assert "\n" not in access.getMessage()
    [served] = [event for event in seen if isinstance(event, Served)]
    assert (served.provider, served.outcome, served.status) == (name, "certified", 200)
    smoothapis = "".join(r.getMessage() for r in caplog.records if r.name.startswith("smoothapi"))
    for secret in ("shown-by-the-caller", CONTENT[:40], *AWS_KEYS.values(), "gateways-own"):
        assert secret not in smoothapis


def test_an_operation_forges_no_line_of_the_access_log(upstream, start, caplog):
    gateway = start("aws", upstream)
    with caplog.at_level(logging.INFO, "smoothapi.access"):
        post(
            gateway.url,
            "aws",
            headers={"x-amz-target": "RekognitionService.A caller=boss\x85\u00ff"},
        )
    [access] = [record for record in caplog.records if record.name == "smoothapi.access"]
    assert len(access.getMessage().split(" ")) == 9
    assert json.dumps(access.getMessage())


def test_a_name_without_end_for_an_operation_does_not_fill_the_log(upstream, start, caplog):
    gateway = start("aws", upstream)
    with caplog.at_level(logging.INFO, "smoothapi.access"):
        post(gateway.url, "aws", headers={"x-amz-target": f"RekognitionService.{'x' * 9_000}"})
    [record] = [record for record in caplog.records if record.name == "smoothapi.access"]
    [access] = record.args
    assert max(len(json.dumps(asdict(access))), len(record.getMessage())) < 500


def test_opentelemetry_is_told_the_same_by_caller_and_provider(aws, start, tmp_path, monkeypatch):
    reader = InMemoryMetricReader()
    metering = MeterProvider([reader])
    monkeypatch.setattr(opentelemetry.metrics, "get_meter", metering.get_meter)
    records = Records(Home(tmp_path / "home").records)
    token, operator = records.add_token("team"), records.add_token("boss", operator=True)
    records.close()
    gateway = start("aws", aws, callers="tokens")
    shown = {"x-smoothapi-token": token}
    post(gateway.url, "aws", headers=shown)
    post(gateway.url, "aws", headers=shown, body=b"{}")
    [resource] = reader.get_metrics_data().resource_metrics
    found = {
        (metric.name, *sorted(dict(point.attributes).values())): point
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name.startswith("smoothapi.gateway.")
    }
    told = metrics(gateway, auth=("", operator))
    for name, more, value in (
        ("requests", ["200"], 1),
        ("requests", ["400"], 1),
        ("pictures", ["certified"], 1),
        ("plain_label", ["yes"], 1),
        ("certified_attempts", [], aws.requests),
        ("certified_dollars", [], told[f"{OF}certified_dollars_total{BY_TEAM}"]),
    ):
        key = (f"smoothapi.gateway.{name}", *sorted(["aws", "team", *more]))
        assert found[key].value == pytest.approx(value), name
    assert found["smoothapi.gateway.seconds", "aws", "team"].count == 2
    assert found["smoothapi.gateway.queued_seconds", "aws"].count == 2
    assert found["smoothapi.gateway.working",].value == 0
    metering.shutdown()


def test_an_exporter_that_fails_costs_no_caller_an_answer(aws, start, monkeypatch, caplog):
    gateway = start("aws", aws)
    monkeypatch.setattr(OpenTelemetryMetrics, "count", lambda *_: 1 / 0)
    assert post(gateway.url, "aws").headers["x-smoothapi-outcome"] == "certified"
    assert "could not be counted" in caplog.text
