"""What a configuration may say, and what is said of one that cannot work."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl

import pytest
import yaml
from click.testing import CliRunner

from smoothapi.cli import run
from smoothapi.errors import SmoothAPIError, StoreError, UsageError
from smoothapi.files import parse_toml
from smoothapi.gateway import app, read_config
from smoothapi.gateway.config import SETTLING, GatewayConfig
from smoothapi.gateway.front import GROUP, Incoming, make_front
from smoothapi.gateway.server import GatewayServer
from smoothapi.keyring import own_keys
from smoothapi.provider import registry
from smoothapi.wires.wire import Request
from tests.unit.gateway.conftest import RAW, options_of, post, tables

PACED = ("aws", "azure", "azure4", "clarifai", "google")
LEAST = {"providers": {"aws": {"budget": "$20/day"}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"providers": {}}, "names no provider"),
        ({"providers": {"aws": {}}}, "providers.aws.budget: it is missing"),
        ({"providers": {"aws": {"budget": "$20"}}}, "of a day or a month"),
        ({"providers": {"aws": {"budget": "many/day"}}}, "Cannot read the budget 'many/day'"),
        ({"providers": {"aws": {"budget": "5/week"}}}, 'of a day or a month: "5/day"'),
        (
            {"providers": {"aws": {"budget": "$1/day", "passthrough": "DetectFaces"}}},
            r"providers.aws.passthrough: give a list of operations, such as \[",
        ),
        ({"providers": {"aws": {"budget": "$1/day", "fetch": "s3://x"}}}, "fetch: give a list"),
        ({"certify": {"classes": "/nowhere/classes.toml"}}, "cannot be read: No such file"),
        ({"providers": {"aws": {"budget": "$1/day", "budgets": 1}}}, "there is no such key"),
        ({"gateway": {"prot": 1}}, "gateway.prot: there is no such key"),
        ({"gateway": {"port": 70_000}}, "gateway.port"),
        ({"gateway": {"host": "0.0.0.0"}}, "unencrypted"),
        ({"gateway": {"host": "10.1.2.3", "callers": "anyone"}}, "spend your money"),
        ({"gateway": {"tls_key": "x"}}, "both"),
        ({"certify": {"radius": -1}}, r"radius = -1.0 \(from \[certify\]"),
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
        *((name, {"per_second": 0}, {}, "per_second") for name in PACED),
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


@pytest.mark.parametrize("name", PACED)
def test_the_pace_of_the_options_holds_for_all_that_a_call_sends(name):
    options = {**options_of(name, "http://127.0.0.1:9"), "per_second": 3}
    front = make_front(name, options, "gateway")
    target, headers, body = RAW[name]
    path, _, query = target.partition("?")
    request = Request("POST", path, query=dict(parse_qsl(query)), headers=headers, body=body)
    try:
        [item] = front.read(Incoming(request, target, tuple(headers.items()))).items
    finally:
        front.close()
    assert item.votes.limits.per_second == item.own.limits.per_second == 3


@pytest.mark.parametrize(
    ("certify", "own", "reaches"),
    [
        ({"radius": 0.25, "max_votes": 40}, {}, False),
        ({"radius": 0.25}, {"max_votes": 40}, False),
        ({"radius": 0.25}, {"sigma": 0.03}, False),
        ({"radius": 0.25, "max_votes": 48}, {}, True),
        ({"radius": "0.5 native", "max_votes": 40}, {}, True),  # each photo decides
        ({"radius": "largest", "max_votes": 40}, {}, True),
    ],
)
def test_a_radius_that_no_photo_could_reach_is_refused_before_anybody_calls(
    certify, own, reaches, tmp_path
):
    given = {
        "certify": {"home": str(tmp_path), **certify},
        "providers": {"aws": {"budget": "$1/day", "certify": own}},
    }
    if reaches:
        assert read_config(given).certified("aws").session["radius"] == certify["radius"]
        return
    with pytest.raises(UsageError, match=r"\[providers.aws\] can certify nothing: radius 0.25"):
        read_config(given)


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_noise_key_that_cannot_be_used_is_said_before_anything_is_served(content, tmp_path):
    key = tmp_path / "noise.key"
    if content is not None:
        key.write_bytes(content)
        key.chmod(0o600)
    given = tables("aws", "http://127.0.0.1:9", tmp_path, certify={"noise_key_file": str(key)})
    with pytest.raises(StoreError, match=r"noise\.key"):
        app(given)


def test_a_gateway_with_another_noise_key_than_its_databases_is_not_begun(
    database, noise_key_file, tmp_path
):
    other = tmp_path / "other.key"
    own_keys(other)
    for key in (noise_key_file, other):
        given = {"noise_key_file": str(key)}
        wanted = tables("aws", "http://127.0.0.1:9", database, certify=given)
        if key == noise_key_file:
            app(wanted).close()
            continue
        with pytest.raises(StoreError, match="holds answers of"):
            app(wanted)


def test_another_home_is_not_taken_up_by_a_gateway_that_runs(tmp_path):
    gateway = app(tables("aws", "http://127.0.0.1:9", tmp_path / "home"))
    before = gateway.gateway
    with pytest.raises(UsageError, match=r"Start it again to change the home"):
        gateway.reload(read_config(tables("aws", "http://127.0.0.1:9", tmp_path / "other")))
    assert gateway.gateway is before
    assert not (tmp_path / "other").exists()
    gateway.close()


def test_a_denoiser_that_cannot_be_loaded_is_not_taken_up(tmp_path):
    gateway = app(tables("aws", "http://127.0.0.1:9", tmp_path))
    before = gateway.gateway
    missing = {"denoiser": str(tmp_path / "missing.safetensors")}
    with pytest.raises(SmoothAPIError, match=r"missing\.safetensors"):
        gateway.reload(read_config(tables("aws", "http://127.0.0.1:9", tmp_path, certify=missing)))
    assert gateway.gateway is before
    gateway.close()


def test_what_was_read_again_gives_its_grace_and_opens_no_address_to_anyone(tmp_path, caplog):
    def configured(**gateway):
        return read_config(tables("aws", "http://127.0.0.1:9", tmp_path, **gateway))

    now = [configured(grace=9.0)]
    proxied = configured(host="0.0.0.0", behind_proxy=True, callers="tokens", grace=5.0)
    server = GatewayServer(proxied, configure=lambda: now[0])
    try:
        server.reload()
        assert "listens there until it is started again" in caplog.text
        assert server.grace == 5.0
        now[0] = configured(grace=7.0, callers="tokens")
        server.reload()
        assert server.grace == 7.0
        assert server.app.gateway.config is now[0]
    finally:
        server.close()


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


def test_a_home_that_is_named_goes_over_the_configurations_and_its_records_stay(
    written, tmp_path, capsys
):
    kept = tmp_path / "tokens.db"
    with Path(written).open("a") as file:
        file.write(f'\n[gateway]\nrecords = "{kept}"\n')
    where = ["--config", written, "--home", str(tmp_path / "elsewhere")]
    assert run(["serve", "token", "add", "team", *where]) == 0
    assert run(["serve", "token", "list", "--config", written]) == 0
    assert "team" in capsys.readouterr().out
    assert run(["serve", "token", "list", "--config", f"{written}.not", *where[2:]]) == 2
    assert "There is no configuration" in capsys.readouterr().err


def test_a_configuration_is_checked_while_a_gateway_serves_it(written, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, Path(written).open("a") as file:
        file.write(f"\n[gateway]\nport = {taken.getsockname()[1]}\n")
        file.flush()
        assert run(["serve", "aws", "--config", written, "--check"]) == 0
        file.write('tls_certificate = "/nowhere.pem"\ntls_key = "/nowhere.key"\n')
        file.flush()
        assert run(["serve", "aws", "--config", written, "--check"]) == 2
    assert "TLS cannot be spoken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cut", "said"),
    [(0, "calls under way were finished"), (1, "1 call under way could not be finished")],
)
def test_the_command_says_whether_calls_under_way_were_finished(
    cut, said, written, capsys, monkeypatch
):
    def ends(server, ready):
        server.cut = cut

    monkeypatch.setattr(GatewayServer, "run", ends)
    assert run(["serve", "token", "add", "team", "--config", written]) == 0
    assert run(["serve", "aws", "--config", written, "--port", "0"]) == 0
    assert said in capsys.readouterr().err


def test_the_command_serves_the_fronts_of_others(tmp_path, capsys, monkeypatch):
    class Acme:
        name, wire = "acme", SimpleNamespace(max_body=1000)

        def __init__(self, options, signed_by):
            pass

        def close(self):
            pass

    monkeypatch.setitem(sys.modules, "acme_front", SimpleNamespace(Acme=Acme))
    point = EntryPoint("acme", "acme_front:Acme", GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] * (group == GROUP))
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[certify]\nhome = "{tmp_path}"\ndenoiser = "none"\n[providers.acme]\nbudget = "5/day"\n'
    )
    assert run(["serve", "acme", "--config", str(file), "--check"]) == 0
    assert "can be used" in capsys.readouterr().out
    assert run(["serve", "--help"]) == 0
    assert "acme" in capsys.readouterr().out


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
    said = {"host": "0.0.0.0", "behind_proxy": True}  # as both say in their command
    config = read_config({**tables, "gateway": {**tables.get("gateway", {}), **said}})
    assert config.gateway.records is None  # tokens and certificates are all replicas' own
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
