"""What a folder's settings may decide without their user's consent, and how consent is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi import Smoother, config, wrap
from smoothapi.config import resolve
from smoothapi.errors import UsageError
from smoothapi.provider import adapter_options, doubtful_options, provider_names
from smoothapi.provider.consent import is_own_host
from smoothapi.services import serve
from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.azure import AzureAdapter
from smoothapi_adapters.clarifai import ClarifaiAdapter
from smoothapi_adapters.google import GoogleAdapter
from tests.conftest import invoke

SECRET = "the-key-of-the-user"
KEYS = {
    "VISION_KEY": SECRET,
    "VISION_ENDPOINT": "https://mine.cognitiveservices.azure.com",
    "CLARIFAI_PAT": SECRET,
    "AWS_ACCESS_KEY_ID": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "TOKEN": SECRET,
}
FULLWIDTH, IDEOGRAPHIC, DOTLESS = "\uff0e", "\u3002", "\u0131"
FILES = {
    "smoothapi.toml": lambda text: text,
    "pyproject.toml": lambda text: (
        "[tool.smoothapi]\n" + text.replace("[providers", "[tool.smoothapi.providers")
    ),
}


def folder_says(text, file="smoothapi.toml"):
    Path(file).write_text(FILES[file](text))


@pytest.fixture
def photo():
    Image.fromarray(np.full((60, 60, 3), 128, np.uint8)).save("a.png")
    return "a.png"


def keys_of_the_user(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["azure", "azure4", "clarifai", "aws"])
def test_no_key_of_the_users_goes_where_the_folder_says(name, file, photo, monkeypatch):
    keys_of_the_user(monkeypatch)
    with serve(name, lambda _: [("bus", 0.9)], key=SECRET) as thief:
        more = 'region = "us-east-1"\n' if name == "aws" else ""
        folder_says(f'[providers.{name}]\nendpoint = "{thief.url}"\n{more}', file)
        command = ["certify", photo, "--provider", name, "--max-votes", "20", "--radius", "largest",
                   "--denoiser", "none"]  # fmt: skip
        refused = invoke(*command)
        assert refused.exit_code == 2
        assert "smoothapi config trust" in refused.stderr
        assert f"providers.{name}.endpoint" in refused.stderr
        assert invoke("providers", "check", name, "--yes").exit_code == 2
        with pytest.raises(UsageError, match="config trust"):
            Smoother(name)
        assert not thief.received
        assert invoke("config", "trust").exit_code == 0
        went = invoke(*command)
        assert went.exit_code in (0, 1), went.stderr
        assert thief.received


def refused_options(name, **options):
    resolved = resolve(providers={name: options})
    file = config.SettingsFile(Path("/f"), "0", trusted=False)
    return doubtful_options(name, config.Resolved(resolved.settings, {}, {"providers": file}))


@pytest.mark.parametrize(
    ("name", "options", "doubtful"),
    [
        ("http", {"url": "https://e.example", "headers": {"A": "env:TOKEN"}}, ["headers"]),
        ("http", {"url": "https://e.example?key=env:TOKEN", "labels": "x"}, ["url"]),
        ("http", {"url": "https://e.example?key=%65nv%3ATOKEN", "labels": "x"}, ["url"]),
        ("http", {"headers": '{"A": "\\u0065nv:TOKEN"}'}, ["headers"]),
        ("http", {"template": {"a": [{"env:TOKEN": "{picture}"}]}}, ["template"]),
        ("http", {"url": "https://e.example", "ca": "ca.pem"}, ["ca"]),
        ("http", {"allow_plain_http": True}, ["allow_plain_http"]),
        ("http", {"url": "https://e.example", "headers": {"A": "of the file"}}, []),
        ("clarifai", {"ca": "ca.pem"}, ["ca"]),
        ("clarifai", {"endpoint": "https://e.example", "pat": "of the file"}, []),
        ("clarifai", {"endpoint": "https://e.example", "pat": "  "}, ["endpoint"]),
        ("clarifai", {"endpoint": "https://e.example", "pat": "env:TOKEN"}, ["pat"]),
        ("azure", {"endpoint": "https://e.example", "key": 5}, ["endpoint"]),
        ("azure", {"endpoint": "https://e.example", "credential": "default"}, ["endpoint"]),
        ("azure4", {"endpoint": "https://e.example", "key": "of the file"}, []),
        ("google", {"endpoint": "e.example"}, ["endpoint"]),
        ("google", {"endpoint": "eu-vision.googleapis.com", "transport": "rest"}, []),
        ("google", {"credentials": "key.json"}, ["credentials"]),
        ("aws", {"region": "eu-west-1", "profile": "x"}, []),
        ("aws", {"first_year": True}, ["first_year"]),
        ("torch", {"model": "torchvision.models:resnet18"}, ["model"]),
        ("torch", {"model": "model.pt", "weights": "w.pt"}, ["model", "weights"]),
        ("torch", {"preprocess": "os:system", "size": 64}, ["preprocess"]),
        ("mock", {"labeller": "os:system"}, ["labeller"]),
        ("mock", {"labeller": "probabilities:bus 100%", "faults": "3x429"}, []),
        ("mock", {"labeller": {"bus": 1.0}}, []),
    ],
)
def test_options_that_lead_elsewhere_or_run_code_need_consent(name, options, doubtful):
    assert refused_options(name, **options) == doubtful


@pytest.mark.parametrize("given", ["/etc/passwd", ["Weapn"]])
@pytest.mark.parametrize(
    ("name", "option"),
    [("torch", "labels")]
    + [(n, "vocabulary") for n in ("aws", "google", "azure", "azure4", "clarifai", "http")],
)
def test_which_labels_there_are_is_not_for_a_folder_to_say(name, option, given):
    """It could name any file to be read, or state a misspelt label: never seen, and not said so."""
    assert refused_options(name, **{option: given}) == [option]


@pytest.mark.parametrize("name", provider_names())
def test_an_option_that_nobody_thought_of_needs_consent(name):
    for option in ("proxy", "base_url", "verify", "session", "client", "price_list", "transport_"):
        assert refused_options(name, **{option: "x"}) == [option]


def test_all_options_of_a_strangers_adapter_need_consent(monkeypatch):
    class Stranger:
        pass

    class Point:
        name, value = "acme", "acme:Acme"

        def load(self):
            return Stranger

    monkeypatch.setattr("smoothapi.provider.registry._find", lambda name: Point())
    assert refused_options("acme", url="https://e.example") == ["url"]


HOSTS = {
    AwsAdapter: [
        "https://rekognition.eu-west-1.amazonaws.com",
        "https://rekognition-fips.us-gov-west-1.amazonaws.com",
        "https://rekognition.cn-north-1.amazonaws.com.cn",
        "https://rekognition.us-east-1.api.aws",
        "https://vpce-1.rekognition.us-east-1.vpce.amazonaws.com",
    ],
    GoogleAdapter: [
        "vision.googleapis.com",
        "https://eu-vision.googleapis.com:443",
        "https://us-vision.googleapis.com/",
    ],
    AzureAdapter: [
        "https://mine.cognitiveservices.azure.com/",
        "HTTPS://Mine.CognitiveServices.Azure.com",
        "https://westeurope.api.cognitive.microsoft.com",
        "https://mine.cognitiveservices.azure.us",
        "https://mine.cognitiveservices.azure.cn",
    ],
    ClarifaiAdapter: ["https://api.clarifai.com"],
}


@pytest.mark.parametrize(("kind", "url"), [(kind, url) for kind in HOSTS for url in HOSTS[kind]])
def test_the_providers_own_hosts_need_no_consent(kind, url):
    assert is_own_host(url, kind.safe_options.hosts)


@pytest.mark.parametrize("kind", HOSTS)
def test_what_only_looks_like_a_providers_host_needs_consent(kind):
    for good in HOSTS[kind]:
        host = good.lower().rpartition("//")[2].rstrip("/").removesuffix(":443")
        tail = host.partition(".")[2]
        looks = [
            f"http://{host}",
            f"https://{host}.",
            f"https://{host}.evil.example",
            f"https://evil{host}.example",
            f"https://{host}@evil.example",
            f"https://evil.example@{host}",
            f"https://user:{host}@evil.example/",
            f"https://evil.example/{host}",
            f"https://evil.example?{host}",
            f"https://evil.example#.{host}",
            f"https://evil.example\\.{host}",
            f"https://evil.example\\@{host}",
            f"https://{host}:8443",
            f"https://{host}:",
            f"https://{host}:443:1",
            f"https://{host.replace('.', FULLWIDTH)}",
            f"https://{host.replace('.', IDEOGRAPHIC)}",
            f"https://{host.replace('i', DOTLESS, 1)}{DOTLESS}",
            f"https://{host.replace('.', '%2e')}",
            f"https://{host}\n.evil.example",
            f"https://{host}\t",
            f" https://{host}",
            f"https://ev_il.{host}",
            f"https://a.b.{host}",
            f"https://{tail}",
            f"https://.{tail}",
            f"https://-.{tail}",
            f"//{host}",
            f"https:{host}",
            f"https:///{host}",
            f"ftp://{host}",
            f"https://[{host}]",
            f"evil.example://{host}",
        ]
        for url in [*looks, None, 5, ["https://x"], ""]:
            assert not is_own_host(url, kind.safe_options.hosts), url


@pytest.mark.parametrize(
    "url",
    [
        "https://rekognition.amazonaws.com.s3.amazonaws.com",
        "https://rekognition.s3.us-east-1.amazonaws.com",
        "https://rekognition.s3.amazonaws.com",
        "https://rekognition.s3-us-west-2.amazonaws.com",
        "https://rekognition.elb.amazonaws.com",
        "https://ec2-1-2-3-4.compute-1.amazonaws.com",
        "https://x.execute-api.us-east-1.amazonaws.com",
        "https://vpce-1.vpce-svc-1.us-east-1.vpce.amazonaws.com",
        "https://evil.azurewebsites.net",
        "https://evil.westeurope.cloudapp.azure.com",
        "https://evil-cognitiveservices.azure.com",
        "https://storage.googleapis.com",
        "https://evil.p.googleapis.com",
        "https://evilvision.googleapis.com",
        "https://evil-vision.googleapis.com",
    ],
)
def test_hosts_that_the_provider_lets_to_anybody_need_consent(url):
    assert not any(is_own_host(url, kind.safe_options.hosts) for kind in HOSTS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('home = "h"', "home"),
        ('denoiser = "./d.safetensors"', "denoiser"),
        ('denoiser = "/abs/d.safetensors"', "denoiser"),
        ('record = "/tmp/answers"', "record"),
        ('provider = "replay:answers.jsonl"', "provider"),
        ("[prices.mock]\nper_thousand = 0", "prices"),
    ],
)
@pytest.mark.parametrize("file", FILES)
def test_settings_that_could_forge_a_result_need_consent(text, name, file, monkeypatch):
    if name == "home":
        monkeypatch.delenv("SMOOTHAPI_HOME")
    folder_says(text.replace("[prices", "[tool.smoothapi.prices") if "py" in file else text, file)
    with pytest.raises(UsageError, match=f"sets {name}, and nobody vouches"):
        Smoother(denoiser=None)
    assert resolve().doubtful() == [name]


def test_what_is_given_instead_needs_no_consent(tmp_path):
    folder_says('home = "h"\ndenoiser = "d.safetensors"\nprovider = "replay:x"\n')
    with Smoother("mock", denoiser="none", home=tmp_path / "h"):
        pass


def test_harmless_settings_need_no_consent(photo):
    folder_says(
        'denoiser = "none"\nsigma = 0.2\nmax_votes = 20\nclasses = "c.toml"\nradius = "largest"\n'
        '[providers.mock]\nlabeller = "probabilities:bus 100%"\n'
        '[providers.azure4]\nendpoint = "https://mine.cognitiveservices.azure.com"\n'
    )
    Path("c.toml").write_text('bus = ["bus"]\n')
    assert invoke("certify", photo, "--no-plain").exit_code in (0, 1)


@pytest.mark.parametrize("command", [["budget"], ["cache", "info"]])
def test_a_home_of_the_folders_is_not_opened(command, monkeypatch):
    monkeypatch.delenv("SMOOTHAPI_HOME")
    folder_says('home = "h"')
    refused = invoke(*command)
    assert refused.exit_code == 2
    assert "sets home" in refused.stderr
    assert not Path("h").exists()


def test_wrap_refuses_before_any_call():
    import boto3

    folder_says('denoiser = "d.safetensors"')
    client = boto3.client("rekognition", region_name="us-east-1")
    with pytest.raises(UsageError, match="config trust"):
        wrap(client, budget="10")


ENDPOINT = '[providers.azure]\nendpoint = "https://e.example"\n'


def is_refused():
    try:
        adapter_options("azure", resolve())
    except UsageError:
        return True
    return False


def test_consent_is_for_one_content_at_one_place(tmp_path, monkeypatch):
    folder_says(ENDPOINT)
    assert is_refused()
    done = invoke("config", "trust")
    assert done.exit_code == 0
    assert "providers.azure.endpoint" in done.stdout
    assert str(Path("smoothapi.toml").absolute()) in done.stdout
    assert not is_refused()
    text = Path("smoothapi.toml").read_text()
    folder_says(ENDPOINT + "# more\n")
    assert is_refused()
    folder_says(ENDPOINT)
    assert not is_refused()
    monkeypatch.chdir(tmp_path)
    folder_says(text)
    assert is_refused()


def test_consent_can_be_taken_back():
    folder_says(ENDPOINT)
    invoke("config", "trust")
    assert not is_refused()
    assert invoke("config", "trust", "--revoke").exit_code == 0
    assert is_refused()


def test_consent_follows_the_file_and_not_a_link_to_it(tmp_path, monkeypatch):
    folder_says(ENDPOINT)
    invoke("config", "trust")
    real = Path.cwd()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.chdir(tmp_path / "link")
    assert not is_refused()
    other = tmp_path / "other"
    other.mkdir()
    (other / "smoothapi.toml").write_text(ENDPOINT)
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(other)
    monkeypatch.chdir(tmp_path / "link")
    assert is_refused()


@pytest.mark.parametrize("content", ["", "[", "[]", '{"schema": 1}', "[" * 100_000, "\udcff"])
def test_a_damaged_list_is_no_consent(content):
    folder_says(ENDPOINT)
    invoke("config", "trust")
    kept = Path(os.environ["SMOOTHAPI_HOME"], "trusted.json")
    assert json.loads(kept.read_text())["files"]
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_bytes(content.encode(errors="surrogateescape"))
    assert is_refused()
    assert invoke("config", "trust").exit_code == 0
    assert not is_refused()


@pytest.mark.parametrize("home", [None, "h"])
def test_a_folder_cannot_bring_its_consent_along(home, tmp_path, monkeypatch):
    # Without a home, platformdirs returns a relative path, which is one in the folder itself.
    here = Path.cwd()
    real = os.environ["SMOOTHAPI_HOME"]
    folder_says(f'home = "{here}/h"\n{ENDPOINT}')
    invoke("config", "trust")
    listed = Path(real, "trusted.json").read_bytes()
    Path(real, "trusted.json").unlink()
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _: "~none/smoothapi")
    monkeypatch.setattr(Path, "expanduser", lambda self: self)
    for place in ("h", "~none/smoothapi"):
        Path(place).mkdir(parents=True)
        Path(place, "trusted.json").write_bytes(listed)
    if home is None:
        monkeypatch.delenv("SMOOTHAPI_HOME")
    else:
        monkeypatch.setenv("SMOOTHAPI_HOME", home)
    assert is_refused()
    told = invoke("config", "trust")
    assert told.exit_code == 2
    assert "SMOOTHAPI_HOME" in told.stderr


def test_a_file_that_the_user_names_needs_no_consent(tmp_path, monkeypatch):
    folder_says("sigma = 0.5\n" + ENDPOINT)
    mine = tmp_path / "mine.toml"
    mine.write_text(ENDPOINT.replace("e.example", "mine.example"))
    monkeypatch.setenv("SMOOTHAPI_CONFIG", str(mine))
    assert adapter_options("azure", resolve())["endpoint"] == "https://mine.example"
    resolved = resolve()
    assert resolved.settings.sigma == 0.25
    assert resolved.origins["providers"] == str(mine)
    monkeypatch.setenv("SMOOTHAPI_CONFIG", "smoothapi.toml")
    with pytest.raises(UsageError, match="absolute"):
        resolve()
    monkeypatch.setenv("SMOOTHAPI_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="no such file"):
        resolve()


def test_config_says_what_is_trusted(capsys):
    folder_says("alpha = 0.01\n" + ENDPOINT)
    said = json.loads(invoke("config", "--json").stdout)
    assert said["providers"]["trusted"] is said["alpha"]["trusted"] is False
    assert "trusted" not in said["sigma"]
    table = invoke("config").stdout
    assert "not trusted" in table
    assert "providers.azure.endpoint" in table
    invoke("config", "trust")
    assert json.loads(invoke("config", "--json").stdout)["providers"]["trusted"] is True
    assert "trusted" not in invoke("config").stdout


def test_there_must_be_a_file_to_trust():
    told = invoke("config", "trust")
    assert told.exit_code == 2
    assert "no smoothapi.toml" in told.stderr


def test_providers_are_listed_where_one_is_refused():
    folder_says(ENDPOINT)
    rows = {row["name"]: row for row in json.loads(invoke("providers", "--json").stdout)}
    assert "config trust" in rows["azure"]["problem"]
    assert rows["azure4"]["usable"]


def test_code_of_a_folder_is_not_run(photo):
    folder_says('[providers.mock]\nlabeller = "evil:label"\n')
    Path("evil.py").write_text("open('ran', 'w').close()\n")
    for command in (["certify", photo], ["providers"], ["config"]):
        line = [sys.executable, "-m", "smoothapi", *command]
        subprocess.run(line, check=False, capture_output=True, timeout=120)
    assert not Path("ran").exists()
