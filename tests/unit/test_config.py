"""Settings: the order of the sources, where each value came from, and no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import EnvSettingsSource

from smoothapi import Smoother, config
from smoothapi.config import resolve
from smoothapi.errors import UsageError
from smoothapi.settings import Settings


def toml(text, file="smoothapi.toml"):
    Path(file).write_text(text)


def test_defaults():
    resolved = resolve()
    assert resolved.settings.sigma == 0.25
    assert resolved.settings.alpha == 0.001
    assert resolved.origins["sigma"] == "default"


def test_the_order_of_the_sources(monkeypatch):
    toml("[tool.smoothapi]\nsigma = 0.1\nalpha = 0.1\nsize = 100\nradius = 0.1\n", "pyproject.toml")
    assert resolve().settings.sigma == 0.1
    toml("sigma = 0.2\nalpha = 0.2\nsize = 200\n")
    monkeypatch.setenv("SMOOTHAPI_SIGMA", "0.3")
    monkeypatch.setenv("SMOOTHAPI_ALPHA", "0.3")
    resolved = resolve(sigma=0.4, alpha=None)
    settings = resolved.settings
    assert (settings.sigma, settings.alpha, settings.size, settings.radius) == (0.4, 0.3, 200, 0.1)
    assert [resolved.origins[n] for n in ("sigma", "alpha", "size", "radius", "codec")] == [
        "argument",
        "SMOOTHAPI_ALPHA",
        "smoothapi.toml",
        "pyproject.toml",
        "default",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"sigma": 0}, "sigma .*argument"),
        ({"sigma": 1.6}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 0.5}, "alpha"),
        ({"radius": -1}, "radius"),
        ({"radius": float("inf")}, "radius"),
        ({"max_votes": 0}, "max_votes"),
        ({"concurrency": 0}, "concurrency"),
        ({"codec": "webp"}, "codec"),
        ({"radius": -1}, r'radius = -1 \(from argument\): .* above 0, .* or "largest"\.$'),
        ({"sigma": 0}, r"sigma = 0 \(from argument\): it should be greater than 0\.$"),
        ({"sigmaa": 0.1}, r"not a setting\. Did you mean sigma\? There are: provider"),
    ],
)
def test_values_out_of_range_are_named_with_their_origin(arguments, complaint):
    with pytest.raises(UsageError, match=complaint):
        resolve(**arguments)


def test_a_bad_variable_is_named(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_SIGMA", "loud")
    with pytest.raises(UsageError, match="SMOOTHAPI_SIGMA"):
        resolve()


@pytest.mark.parametrize("text", ["sigma = ", "sigmaa = 0.2", "[sigma]\nx = 1"])
def test_a_bad_file_is_named(text):
    toml(text)
    with pytest.raises(UsageError, match=r"smoothapi\.toml"):
        resolve()


def test_a_broken_file_is_said_with_its_folder_and_line_and_what_to_do():
    toml("alpha = 0.01\nsigma = = 1\n")
    with pytest.raises(UsageError, match=r"at line 2.*Mend it there") as caught:
        resolve()
    assert str(Path.cwd()) in str(caught.value)


@pytest.mark.parametrize("value", ["SECRET", {"aws": "SECRET"}])
def test_options_of_providers_are_not_quoted(value):
    with pytest.raises(UsageError, match="providers") as caught:
        resolve(providers=value)
    assert "SECRET" not in str(caught.value)


def test_a_bad_table_in_pyproject_is_named():
    toml("[tool]\nsmoothapi = 3\n", "pyproject.toml")
    with pytest.raises(UsageError, match=r"pyproject\.toml"):
        resolve()


def test_secrets_are_masked_at_any_depth(monkeypatch):
    toml(
        '[providers.http]\napi_key = "s3cret"\nregion = "r"\npat = "s3cret"\nlist = [{token = "s3cret"}]\nurl = "https://u:s3cret@host/"\n[providers.http.headers]\nX-Token="s3cret"'
    )
    shown = {name: value for name, value, _ in resolve().rows()}["providers"]
    assert "s3cret" not in shown
    assert "region = r" in shown


def test_every_setting_is_shown():
    assert [name for name, _, _ in resolve().rows()] == list(Settings.model_fields)


def test_the_home_is_expanded():
    assert resolve(home="~/x").settings.home == Path.home() / "x"


def test_variables_of_settings_that_are_no_tables_are_read_as_pydantic_settings_reads_them(
    monkeypatch,
):
    given = {
        "PROVIDER": "aws",
        "sigma": "0.5",
        "Radius": "0.1 native",
        "BUDGET": "500",
        "PLAIN": "off",
        "HOME": "/tmp/{}",
        "RECORD": "answers.jsonl",
        "CODEC": "jpeg",
        "SIZE__X": "1",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"SMOOTHAPI_{name}", value)
    here = config._environment()
    source = EnvSettingsSource(Settings, env_prefix="SMOOTHAPI_", env_nested_delimiter="__")
    assert here == source() == {name.lower(): given[name] for name in list(given)[:-1]}


PATHS = ("classes", "denoiser", "home", "noise_key_file", "record")


def test_a_variable_of_a_path_that_is_empty_is_as_if_it_were_not_set(monkeypatch):
    toml('noise_key_file = "here.key"\nrecord = "here.jsonl"\nclasses = "here.toml"\n')
    for name in PATHS:
        monkeypatch.delenv(f"SMOOTHAPI_{name.upper()}", raising=False)
    without = resolve()
    for name in PATHS:
        monkeypatch.setenv(f"SMOOTHAPI_{name.upper()}", "")
    assert resolve() == without
    assert without.origins["noise_key_file"] == "smoothapi.toml"


def test_all_settings_that_are_paths_are_among_those():
    def may_be_a_path(name):
        field = Settings.model_fields[name]
        return "Path" in f"{field.annotation}{field.metadata}"

    assert set(filter(may_be_a_path, Settings.model_fields)) == {*PATHS} - {"denoiser"}


def test_an_empty_variable_of_another_setting_is_told(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_BUDGET", "")
    with pytest.raises(UsageError, match="budget"):
        Smoother("mock")
    monkeypatch.delenv("SMOOTHAPI_BUDGET")
    monkeypatch.setenv("SMOOTHAPI_SIGMA", "")
    with pytest.raises(UsageError, match="SMOOTHAPI_SIGMA"):
        resolve()


def test_tables_are_read_from_variables_beside_those_that_are_none(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_PROVIDERS", '{"aws": {"region": "eu-west-1"}}')
    monkeypatch.setenv("SMOOTHAPI_PROVIDERS__HTTP__TIMEOUT", "3")
    monkeypatch.setenv("SMOOTHAPI_SIGMA", "0.5")
    resolved = resolve()
    assert resolved.settings.providers == {"aws": {"region": "eu-west-1"}, "http": {"timeout": "3"}}
    assert resolved.settings.sigma == 0.5
    assert resolved.origins["providers"] == "SMOOTHAPI_PROVIDERS"
