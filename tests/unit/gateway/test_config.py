"""What a configuration may say, and what is said of one that cannot work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from smoothapi.cli import run
from smoothapi.errors import SmoothAPIError, UsageError
from smoothapi.files import parse_toml
from smoothapi.gateway import app, read_config
from smoothapi.gateway.config import SETTLING, GatewayConfig
from tests.unit.gateway.conftest import post, tables

LEAST = {"providers": {"aws": {"budget": "$20/day"}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"providers": {}}, "names no provider"),
        ({"providers": {"aws": {}}}, "providers.aws.budget: it is missing"),
        ({"providers": {"aws": {"budget": "$20"}}}, "of a day or a month"),
        ({"providers": {"aws": {"budget": "many/day"}}}, "Cannot read the budget"),
        ({"providers": {"aws": {"budget": "$1/day", "budgets": 1}}}, "there is no such key"),
        ({"gateway": {"prot": 1}}, "gateway.prot: there is no such key"),
        ({"gateway": {"port": 70_000}}, "gateway.port"),
        ({"gateway": {"host": "0.0.0.0"}}, "unencrypted"),
        ({"gateway": {"host": "10.1.2.3", "callers": "anyone"}}, "spend your money"),
        ({"gateway": {"tls_key": "x"}}, "both"),
        ({"certify": {"radius": -1}}, "radius"),
        ({"certify": {"score": 80}}, "score"),
        ({"certify": {"otherwise": "open"}}, "certify.otherwise"),
        ({"certify": {"codec": "gif"}}, "codec"),
        ({"certify": {"budget": "$1"}}, "there is no such key"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_served(changes, said, tmp_path):
    certify = {"home": str(tmp_path), **changes.pop("certify", {})}
    with pytest.raises(UsageError, match=said):
        read_config({**LEAST, "certify": certify, **changes})


def test_an_address_that_others_reach_needs_tls_or_a_proxy(tmp_path):
    certify = {"home": str(tmp_path)}
    proxied = {"host": "0.0.0.0", "behind_proxy": True}
    assert read_config({**LEAST, "certify": certify, "gateway": proxied}).gateway.behind_proxy
    for host in ("127.0.0.1", "::1", "localhost"):
        read_config({**LEAST, "certify": certify, "gateway": {"host": host, "callers": "anyone"}})


def test_a_providers_table_goes_before_the_common_one(tmp_path):
    config = read_config(
        {
            "certify": {"home": str(tmp_path), "score": 0.7, "otherwise": "plain", "final": True},
            "providers": {
                "aws": {"budget": "$1/day", "certify": {"score": 0.9, "sigma": 0.5}},
                "azure": {"budget": "unlimited"},
            },
        }
    )
    assert config.certified("aws").policy.score == 0.9
    assert config.certified("azure").policy.score == 0.7
    assert config.certified("aws").policy.otherwise == "plain"
    assert config.certified("aws").session["sigma"] == 0.5
    assert config.certified("aws").session["final"]
    assert config.budgets("azure") == []
    assert [str(budget) for budget in config.budgets("aws")] == ["$1 a day, 'gateway-aws'"]


@pytest.mark.parametrize(
    ("name", "options", "provider", "said"),
    [
        ("aws", {"regoin": "x"}, {}, "Did you mean 'region'"),
        ("aws", {"min_confidence": 5}, {}, "comes with each call"),
        ("aws", {}, {"signed_by": "caller"}, "cannot be handed on"),
        ("azure", {"key": "k"}, {"signed_by": "caller"}, "leave key"),
        ("google", {"transport": "smoke"}, {}, "transport"),
        ("clarifai", {"endpoint": "http://example.com"}, {}, "https"),
        ("nobody", {}, {}, "does not speak"),
    ],
)
def test_options_of_a_provider_are_checked_at_the_start(name, options, provider, said, tmp_path):
    given = tables(name, "http://127.0.0.1:9", tmp_path, options=options, provider=provider)
    if name == "nobody":
        given["providers"][name]["options"] = {}
    with pytest.raises(SmoothAPIError, match=said):
        app(given)


def test_a_secret_in_the_configuration_is_not_shown(tmp_path):
    config = read_config(tables("azure", "http://127.0.0.1:9", tmp_path))
    assert isinstance(config, GatewayConfig)
    assert "gateways-own-key" not in repr(config)


@pytest.fixture
def written(tmp_path):
    (tmp_path / "gateway.toml").write_text(
        f'[certify]\nhome = "{tmp_path}/home"\ndenoiser = "none"\n\n'
        '[providers.aws]\nbudget = "$20/day"\n\n[providers.aws.options]\nregion = "us-east-1"\n'
    )
    return str(tmp_path / "gateway.toml")


def test_tokens_are_made_listed_and_removed_from_the_command_line(written, capsys):
    where = ["--config", written]
    added = ["serve", "token", "add", "team", "--budget", "$50/month", "--json", *where]
    assert run(added) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    assert token.startswith("sgw_")
    assert run(["serve", "token", "list", *where]) == 0
    listed = capsys.readouterr().out
    assert "team: $50 a month" in listed
    assert token not in listed
    assert run(["serve", "token", "remove", "team", *where]) == 0
    assert run(["serve", "token", "remove", "team", *where]) == 2
    assert "Nobody named 'team'" in capsys.readouterr().err


def test_the_command_checks_a_configuration_and_wants_a_token_before_it_serves(written, capsys):
    assert run(["serve", "aws", "--config", written, "--check"]) == 0
    assert run(["serve", "aws", "--config", written, "--port", "0"]) == 2
    assert "smoothapi serve token add NAME" in capsys.readouterr().err
    assert run(["serve", "google", "--config", written]) == 2
    assert "[providers.google]" in capsys.readouterr().err
    assert run(["serve", "aws", "--config", f"{written}.not"]) == 2
    assert "There is no configuration" in capsys.readouterr().err


@pytest.mark.timeout(120)
def test_the_command_serves_reads_its_file_again_and_ends_in_good_order(written, tmp_path, aws):
    def write(score):
        file.write_text(
            text.replace('region = "us-east-1"', f'region = "us-east-1"\nendpoint = "{aws.url}"')
            + '[gateway]\nport = 0\ncallers = "anyone"\n\n'
            + f"[providers.aws.certify]\nscore = {score}\nradius = 0.05\nmax_votes = 40\n"
        )

    file = Path(written)
    text = file.read_text()
    write(0.5)
    command = [sys.executable, "-m", "smoothapi", "serve", "aws", "--config", written, "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            ready = json.loads(process.stdout.readline())
            first = post(ready["url"], "aws").json()
            assert [label["Name"] for label in first["Labels"]] == ["Bus", "Vehicle"]
            access = json.loads(process.stderr.readline())
            assert (access["provider"], access["outcomes"]) == ("aws", ["certified"])
            write(0.965)
            process.send_signal(signal.SIGHUP)
            assert "read again" in process.stderr.readline()
            second = post(ready["url"], "aws").json()
            assert [label["Name"] for label in second["Labels"]] == ["Bus"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


DEPLOY = Path(__file__).parents[3] / "deploy"


@pytest.mark.parametrize("file", ["gateway.toml", "kubernetes.yaml"])
def test_the_configurations_to_deploy_can_be_used(file):
    text = (DEPLOY / file).read_text()
    if file.endswith(".yaml"):
        [told] = [one for one in yaml.safe_load_all(text) if one["kind"] == "ConfigMap"]
        text = told["data"]["gateway.toml"]
    tables = parse_toml(text)
    tables["gateway"] |= {"host": "0.0.0.0", "behind_proxy": True}  # as both say in their command
    config = read_config(tables)
    assert str(config.gateway.records) == "/data/gateway.db"
    assert config.settings.noise_key_file is not None
    assert "postgresql" in str(config.settings.home)


def test_what_is_deployed_waits_for_calls_under_way_and_shows_no_secret():
    manifests = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    [pod] = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Deployment"]
    [container] = pod["containers"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    probes = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")
    }
    assert probes == {"liveness": "/healthz", "readiness": "/readyz"}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["gateway"]
    read_only = container["securityContext"]["readOnlyRootFilesystem"]
    assert read_only is compose["read_only"] is True
    # What the image runs is `smoothapi serve`: the arguments are those of a provider's command.
    assert container["args"] == compose["command"]
    [told] = [one for one in manifests if one["kind"] == "ConfigMap"]
    grace = parse_toml(told["data"]["gateway.toml"])["gateway"]["grace"]
    assert 5 + grace + SETTLING < pod["terminationGracePeriodSeconds"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_the_commands_help_names_the_providers_and_the_tokens():
    from smoothapi.cli.serve import serve

    told = CliRunner().invoke(serve, ["--help"]).output
    for word in ("aws", "clarifai", "token"):
        assert word in told
