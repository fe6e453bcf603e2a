"""Places that people really have: names that are no UTF-8, homes that are none, lost metadata."""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from PIL import Image

from smoothapi import Budget, Smoother, config, wrap
from smoothapi.errors import SmoothAPIError, StoreError, UnknownProviderError, UsageError
from smoothapi.provider import Price, make_adapter, provider_names, registry
from smoothapi.study import Shares, StudyResult
from tests.conftest import invoke

DONE = (0, 1)  # certified, or not: so few votes may not suffice
FAST = ["--sigma", "0.25", "--radius", "0.05", "--max-votes", "20"]
ODD = os.fsdecode(b"caf\xe9")


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A working folder whose name, and that of a photo in it, is no UTF-8."""
    here = tmp_path / ODD
    (here / "photos").mkdir(parents=True)
    pixels = np.full((24, 24, 3), (255, 128, 0), dtype=np.uint8)
    Image.fromarray(pixels).save(here / f"{ODD}.png", "PNG")
    Image.fromarray(pixels[:20]).save(here / "photos" / f"{ODD}.png", "PNG")
    monkeypatch.chdir(here)
    for name in [name for name in os.environ if name.startswith("SMOOTHAPI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    monkeypatch.setenv("SMOOTHAPI_SIZE", "16")
    return here


def test_every_command_takes_names_that_are_no_utf_8(odd):
    photo, home, record = f"{ODD}.png", f"home-{ODD}", f"{ODD}.jsonl"
    found = invoke("--home", home, "certify", photo, *FAST, "--record", record, "--json")
    assert found.exit_code in DONE, found.stderr
    assert json.loads(found.stdout)["image"]["name"] == "caf\\xe9.png"
    Path(f"{ODD}.json").write_text(found.stdout)
    assert invoke("certify", photo, *FAST, "--home", home).exit_code in DONE
    assert invoke("verify", f"{ODD}.json", "--photo", photo).exit_code == 0
    assert (
        invoke("certify", photo, *FAST, "--home", home, "--provider", f"replay:{record}").exit_code
        in DONE
    )
    assert invoke("--home", home, "cache", "export", f"out-{ODD}").exit_code in DONE
    assert invoke("--home", f"other-{ODD}", "cache", "import", f"out-{ODD}").exit_code == 0
    assert "other" in invoke("--home", f"other-{ODD}", "cache", "info").stdout
    assert invoke("--home", home, "config", "--json").exit_code == 0
    assert invoke("--home", home, "config").exit_code == 0
    missing = invoke("certify", f"no-{ODD}.png", *FAST, "--home", home, "--json")
    assert missing.exit_code == 2
    assert "no-caf" in json.loads(missing.stdout)["message"]


def test_a_study_of_such_names_has_its_report(odd, monkeypatch):
    argv = ["study", f"../{ODD}/photos", "--out", f"out-{ODD}", "--home", f"home-{ODD}", *FAST]
    monkeypatch.setattr(sys, "argv", ["smoothapi", *argv])
    found = invoke(*argv)
    assert found.exit_code == 0, found.stderr
    out = odd / f"out-{ODD}"
    assert sorted(file.name for file in out.iterdir()) == [
        "figures.csv",
        "figures.json",
        "photos.csv",
        "report.html",
        "result.json",
    ]
    result = StudyResult.load(out / "result.json")
    assert [photo.name for photo in result.photos] == ["caf\\xe9.png"]
    assert "caf\\xe9" in result.command
    for file in out.iterdir():
        assert file.stat().st_size
        file.read_text(encoding="utf-8")
    again = invoke("study", "report", out / "result.json", "--out", odd / "again")
    assert again.exit_code == 0
    assert (odd / "again" / "report.html").read_bytes() == (out / "report.html").read_bytes()


def test_labels_that_no_encoding_can_write_do_not_lose_a_paid_study(odd):
    from smoothapi import Study
    from smoothapi_adapters.mock import MockAdapter

    half = "half \ud83d\x1b[2J"
    study = Study(
        odd / "photos", provider=MockAdapter({half: 1.0}), sigmas=0.25, radii=0.05,
        max_votes=20, denoisers="none", home=odd / "home", size=16,
    )  # fmt: skip
    result = study.run()
    result.report(odd / "out")
    assert StudyResult.load(odd / "out" / "result.json").cells[0].plain == half
    assert b"\x1b" not in (odd / "out" / "report.html").read_bytes()


def test_a_report_that_cannot_be_written_leaves_the_old_one_whole(odd, monkeypatch):
    argv = ["study", "photos", "--out", "out", "--home", "home", *FAST]
    assert invoke(*argv).exit_code == 0
    before = {file.name: file.read_bytes() for file in (odd / "out").iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # not every file system can: no reason to fail
    assert invoke(*argv).exit_code == 0
    monkeypatch.setattr(Path, "replace", lambda *_: full(_))
    found = invoke(*argv)
    assert found.exit_code == 2
    assert "No space left" in found.stderr
    assert "kept" in found.stderr
    after = {file.name: file.read_bytes() for file in (odd / "out").iterdir()}
    assert after.keys() == before.keys()
    assert all(after.values())


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/none", "/dev/null"])
def test_where_no_report_can_be_is_said_before_anything_is_paid(out, odd):
    (odd / "file").touch()
    found = invoke("study", "photos", "--out", out, "--home", odd / "home", *FAST)
    assert found.exit_code == 2
    assert "sent" not in found.stderr.lower()
    assert not (odd / "home" / "answers").exists()


HOMES = {
    "a file": "file",
    "below a file": "file/home",
    "where nothing can be made": "/proc/none/home",
    "a device": "/dev/null",
    "of nobody": "~no-such-user/home",
    "too long": "x" * 5000,
    "with a NUL": "a\0b",
}


@pytest.mark.parametrize("name", HOMES)
def test_a_home_that_is_none_is_said(name, odd):
    (odd / "file").touch()
    with pytest.raises((StoreError, UsageError)) as caught:
        Smoother("mock", denoiser="none", home=HOMES[name])
    assert "home" in str(caught.value).lower() or "SMOOTHAPI_HOME" in str(caught.value)


def test_a_home_that_is_none_is_said_by_verify(odd):
    found = invoke("--home", "home", "certify", f"{ODD}.png", *FAST, "--json")
    (odd / "certificate.json").write_text(found.stdout)
    (odd / "file").touch()
    for home in HOMES.values():
        if "\0" in home:  # no argument has one
            continue
        assert invoke("verify", "certificate.json", "--home", home).exit_code in (2, 5)


def test_files_whose_names_no_file_can_have_are_said(odd, monkeypatch):
    from smoothapi_adapters.google.client import application_default
    from smoothapi_adapters.torch import TorchAdapter

    for name in ("x" * 5000, "/".join(["x" * 200] * 30)):
        for model in ({"model": f"{name}.onnx"}, {"model": "a:b", "weights": name}):
            with pytest.raises(UsageError, match="no file"):
                TorchAdapter(**model, labels=["bus"])
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", name)
        assert not application_default().found
        monkeypatch.setenv("SMOOTHAPI_CONFIG", f"/{name}")
        with pytest.raises(UsageError, match="no such file"):
            config.resolve()


@pytest.mark.parametrize(
    "make",
    [
        lambda number: Budget.parse(str(number)),
        lambda number: Budget.parse(f"${number}"),
        lambda number: Budget(attempts=number),
        lambda number: Budget(dollars=number),
        lambda number: Price.parse({"per_thousand": number}, "aws"),
        lambda number: Price.parse({"per_thousand": 1, "free_per_month": number}, "aws"),
        lambda number: Price.parse({"per_thousand": 1, "steps": [[number, 1]]}, "aws"),
        lambda number: Shares.from_dict(
            {"schema": "smoothapi.shares/1", "source": "", "counts": {"0.25": [[number, 10]]}}
        ),
        lambda number: make_adapter("mock", labels="bus", limits={"max_bytes": number}),
        lambda number: make_adapter("mock", labels="bus", model_changes={number: "v2"}),
    ],
)
@pytest.mark.parametrize("number", [math.inf, math.nan, "9" * 5000, "many", "\udcff"])
def test_numbers_that_are_none_are_refused_in_words(make, number):
    with pytest.raises(UsageError) as caught:
        make(number)
    assert len(str(caught.value)) < 600


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_is_said(odd):
    (odd / "home").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="SMOOTHAPI_HOME"):
        Smoother("mock", denoiser="none", home=odd / "home")


@pytest.mark.parametrize("known", ["raises", "~/.local/share/smoothapi"])
def test_a_user_without_a_home_is_told_to_name_one(known, odd, monkeypatch):
    """A container with an arbitrary user id: no HOME, no entry in the password file."""

    def user_data_dir(_):
        if known == "raises":
            raise RuntimeError("could not determine the home directory")
        return known

    monkeypatch.setattr(platformdirs, "user_data_dir", user_data_dir)
    for command in (["config"], ["certify", f"{ODD}.png"], ["cache", "info"], ["plan"]):
        found = invoke(*command)
        assert found.exit_code == 2
        assert "SMOOTHAPI_HOME" in found.stderr
    found = invoke("certify", f"{ODD}.png", *FAST, "--home", odd / "home")
    assert found.exit_code in DONE, found.stderr
    assert not (odd / "~").exists()


def test_a_working_folder_that_is_gone_is_no_internal_error(odd, monkeypatch):
    gone = odd / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for command in (["config"], ["certify", "a.png", "--home", odd / "home"], ["verify", "a.json"]):
        assert invoke(*command).exit_code in (0, 2, 5)
    monkeypatch.chdir(odd)


@pytest.fixture
def no_metadata(monkeypatch):
    """An installation from which *.dist-info was removed."""
    monkeypatch.setattr(registry, "entry_points", lambda group: [])


def test_what_comes_with_smoothapi_is_found_without_metadata(no_metadata, odd):
    assert "mock" in provider_names()
    assert make_adapter("mock").name == "mock"
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "AKIA" + "X" * 16, "aws_secret_access_key": "x" * 40}
    with wrap(boto3.client("rekognition", "eu-west-1", **keys), budget="5", home=odd / "home"):
        pass


def test_a_strangers_adapter_is_asked_for_where_it_cannot_be_found(no_metadata):
    with pytest.raises(UnknownProviderError, match=r"metadata.*Smoother\(AcmeAdapter\(\)\)"):
        make_adapter("acme")


def test_what_is_built_in_is_what_is_registered():
    from importlib.metadata import entry_points

    for group, points in registry._BUILT_IN.items():
        ours = [p for p in entry_points(group=group) if p.value.startswith("smoothapi_adapters")]
        assert {point.name: point.value for point in ours} == dict(points)


def test_a_class_is_not_taken_for_an_adapter(odd):
    from smoothapi_adapters.mock import MockAdapter

    with pytest.raises(UsageError, match=r"class MockAdapter: make an adapter of it"):
        Smoother(MockAdapter, home=odd / "home")


def test_a_study_without_metadata_knows_no_versions(odd, monkeypatch):
    from smoothapi import Study

    # Whatever finds distributions: the package importlib_metadata has a finder of its own.
    nothing = classmethod(lambda cls, *_, **__: iter(()))
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", nothing)
    options = {"sigmas": 0.25, "radii": 0.05, "max_votes": 20, "denoisers": "none", "size": 16}
    result = Study("photos", home="home", **options).run()
    assert (result.versions["torch"], len(result.cells)) == ("unknown", 1)


@pytest.mark.timeout(120)
def test_a_process_without_metadata_starts(odd):
    program = (
        "import importlib.metadata as m\n"
        "m.MetadataPathFinder.find_distributions = classmethod(lambda cls, *a, **k: iter(()))\n"
        "from smoothapi.cli import run\n"
        "run(['--version'])\n"
        "from smoothapi.provider import make_adapter\n"
        "print(make_adapter('mock').name)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.stdout.split()[-1:] == ["mock"], ran.stderr


SETTINGS = {
    "no UTF-8": b'provider = "\xff"',
    "UTF-16": 'provider = "mock"'.encode("utf-16"),
    "deep": b"sigma = " + b"[" * 200_000,
    "400 digits": b"max_votes = 1" + b"0" * 400,
    "hexadecimal": b"max_votes = 0x" + b"f" * 6000,
    "nan": b"sigma = nan",
    "inf": b"deadline = inf",
    "a date": b"radius = 1979-05-27",
    "twice": b"sigma = 0.1\nsigma = 0.2",
    "a table": b"[sigma]\na = 1",
    "NUL": b'home = "a\\u0000b"\nclasses = "a\\u0000b"\nsize = -1',
    "unknown": b"sigmma = 0.1",
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("file", ["smoothapi.toml", "pyproject.toml"])
def test_hostile_settings_are_refused_in_words(file, name, odd):
    head = b"[tool.smoothapi]\n" if file == "pyproject.toml" else b""
    content = (
        SETTINGS[name].replace(b"[sigma]", b"[tool.smoothapi.sigma]") if head else SETTINGS[name]
    )
    (odd / file).write_bytes(head + content)
    found = invoke("config")
    assert found.exit_code == 2
    assert len(found.stderr) < 1500


@pytest.mark.parametrize(
    "value", ["[" * 200_000, "{", "\udcff", '{"aws": 5}', '{"aws": [[]]}', "1" * 5000]
)
def test_hostile_variables_are_refused_in_words(value, odd, monkeypatch):
    for name in ("PROVIDERS", "PRICES", "SIGMA", "MAX_VOTES"):
        with monkeypatch.context() as patch:
            patch.setenv(f"SMOOTHAPI_{name}", value)
            with pytest.raises(SmoothAPIError):
                config.resolve()


def test_settings_may_begin_with_a_byte_order_mark(odd):
    (odd / "smoothapi.toml").write_bytes(b"\xef\xbb\xbfsigma = 0.5")
    assert config.resolve().settings.sigma == 0.5


def test_config_as_json_has_the_types_of_json(odd):
    (odd / "smoothapi.toml").write_text(
        '[providers.aws]\nregion = "eu-west-1"\nkey = "s3cr3t"\ntimeout = 2.5\n[prices.aws]\nper_thousand = 1.0\n'
    )
    values = {
        name: fact["value"] for name, fact in json.loads(invoke("config", "--json").stdout).items()
    }
    assert (values["alpha"], values["concurrency"], values["plain"]) == (0.001, 8, True)
    assert values["budget"] is values["classes"] is values["record"] is None
    assert values["providers"] == {
        "aws": {"region": "eu-west-1", "key": "********", "timeout": 2.5}
    }
    assert values["prices"] == {"aws": {"per_thousand": 1.0}}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["certfy", "a.png"], "'certify'"),
        (["Certify", "a.png"], "'certify'"),
        (["cache", "exprot"], "'export'"),
        (["budget", "rest"], "'reset'"),
        (["providers", "chek"], "'check'"),
        (["denoiser", "evl"], "'eval'"),
        (["frobnicate"], "There are: init, doctor, certify, predict"),
    ],
)
def test_a_mistyped_command_gets_the_nearest(command, said, odd):
    found = invoke(*command)
    assert found.exit_code == 2
    assert said in found.stderr


@pytest.mark.parametrize(
    "command",
    [["cache", "info"], ["budget"], ["budget", "reset", "x"], ["config"], ["providers"], ["plan"],
     ["cache", "verify"], ["predict", f"{ODD}.png"], ["study", "photos", "--dry-run", *FAST]],
    ids=lambda command: " ".join(command[:3]),
)  # fmt: skip
def test_home_stands_before_or_behind_any_command(command, odd):
    before = invoke("--home", "home", *command)
    behind = invoke(*command, "--home", "home")
    codes = (2,) if "reset" in command else (0, 1)  # no budget has the name, in either home
    assert before.exit_code == behind.exit_code in codes, before.stderr + behind.stderr
    if "reset" in command:
        assert "No budget has the name 'x'" in before.stderr == behind.stderr
    nearer = invoke("--home", "/dev/null", *command, "--home", "home")
    assert nearer.exit_code == before.exit_code


def test_where_there_is_no_home_to_name_it_is_said(odd):
    found = invoke("study", "report", "x", "--home", "home")
    assert found.exit_code == 2
    assert "has no --home: leave it out" in found.stderr


def test_an_import_says_which_line_is_no_answer(odd):
    for line in (
        b"\xff\n",
        b'{"schema": 1, "asked": {"a": 1e999}}\n',
        b"[" * 200_000,
        b'{"schema": 1}\n',
    ):
        (odd / "given").write_bytes(b"\n".join((line, b"")))
        found = invoke("--home", "home", "cache", "import", "given")
        assert found.exit_code == 2, line[:20]
        assert "Line 1 of 'given'" in found.stderr
