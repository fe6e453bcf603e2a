"""`smoothapi init`: what it writes for whom, and what it asks."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from smoothapi import config, provider
from smoothapi.cli import run
from smoothapi.cli.init import init
from smoothapi.errors import UsageError
from smoothapi.provider import Credentials, ProviderInfo
from tests.conftest import ScriptedAdapter, invoke

SECRET = "0123456789abcdef0123456789abcdef"


class Cloud(ScriptedAdapter):
    def __init__(self, name, *, signed_in=True, region=None):
        super().__init__()
        self.name, self._signed_in = name, signed_in
        self.identity = {"operation": "label", "region": region}

    def credentials(self):
        if isinstance(self._signed_in, Exception):
            raise self._signed_in
        return Credentials(self._signed_in, "here")


@pytest.fixture
def clouds(monkeypatch):
    def use(*adapters):
        by_name = {adapter.name: adapter for adapter in adapters}
        infos = [ProviderInfo(name, "", adapter) for name, adapter in by_name.items()]
        infos.append(ProviderInfo("gone", "", None, "not installed", installed=False))
        make = provider.make_adapter
        monkeypatch.setattr(provider, "providers", lambda _: infos)
        monkeypatch.setattr(
            provider, "make_adapter", lambda name, **more: by_name.get(name) or make(name, **more)
        )
        return adapters

    return use


def written():
    return tomllib.loads(Path("smoothapi.toml").read_text())


def test_what_is_written_is_what_is_in_force(clouds):
    clouds(Cloud("acme", region="eu-west-1"))
    result = invoke("init")
    assert result.exit_code == 0
    assert "doctor" in result.stdout
    table = written()
    assert table["provider"] == "acme"
    assert table["budget"] == "$1"
    assert table["providers"] == {"acme": {"region": "eu-west-1"}}
    resolved = config.resolve()
    for name, value in table.items():
        assert getattr(resolved.settings, name) == value
    assert resolved.doubtful() == []  # nothing in it needs consent


def test_without_a_cloud_it_is_the_mock_which_works_offline(clouds):
    clouds(Cloud("acme", signed_in=False), Cloud("broken", signed_in=OSError("no")))
    assert invoke("init").exit_code == 0
    assert written()["provider"] == "mock"


def test_what_was_looked_at_is_closed(clouds):
    looked = clouds(Cloud("acme"), Cloud("other", signed_in=False))
    invoke("init")
    assert all(adapter.closed for adapter in looked)


def test_several_clouds_and_nobody_to_ask(clouds):
    clouds(Cloud("acme"), Cloud("other"))
    result = invoke("init")
    assert result.exit_code == 2
    assert "--provider acme" in result.stderr
    assert not Path("smoothapi.toml").exists()
    assert invoke("init", "--provider", "other", "--budget", "300").exit_code == 0
    assert (written()["provider"], written()["budget"]) == ("other", "300")


def test_a_file_that_is_here_stays_unless_forced():
    Path("smoothapi.toml").write_text("size = 96\n")
    result = invoke("init")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert Path("smoothapi.toml").read_text() == "size = 96\n"
    assert invoke("init", "--force").exit_code == 0
    assert written()["provider"] == "mock"


@pytest.mark.parametrize(
    "arguments", [("--budget", "lots"), ("--provider", "nobody"), ("--provider", "http")]
)
def test_what_cannot_be_used_is_not_written(arguments):
    assert invoke("init", *arguments).exit_code == 2
    assert not Path("smoothapi.toml").exists()


def test_a_folder_that_cannot_be_written_to(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("smoothapi.cli.init.create", refuse)
    result = invoke("init")
    assert result.exit_code == 2
    assert "Permission denied" in result.stderr


def test_no_secret_is_written(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert invoke("init", "--provider", "aws").exit_code == 0
    assert SECRET not in Path("smoothapi.toml").read_text()
    assert written()["providers"] == {"aws": {"region": "eu-west-1"}}


def test_on_a_terminal_it_asks_and_asks_again_where_the_answer_is_no_budget(clouds, monkeypatch):
    clouds(Cloud("acme"), Cloud("other"))
    monkeypatch.setattr("smoothapi.cli.init._on_a_terminal", lambda: True)
    result = CliRunner().invoke(init, input="other\nlots\n$3\n")
    assert result.exit_code == 0, result.output
    assert "Signed in: acme, other" in result.output
    assert (written()["provider"], written()["budget"]) == ("other", "$3")


def test_unreadable_settings_are_said(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_SIGMA", "much")
    with pytest.raises(UsageError):
        config.resolve()
    assert invoke("init").exit_code == 2


COMPLETION = {
    "bash": 'eval "$(_SMOOTHAPI_COMPLETE=bash_source smoothapi)"',
    "zsh": 'eval "$(_SMOOTHAPI_COMPLETE=zsh_source smoothapi)"',
    "fish": "_SMOOTHAPI_COMPLETE=fish_source smoothapi | source",
}


@pytest.mark.parametrize(("shell", "line"), COMPLETION.items())
def test_help_says_how_each_shell_completes_on_a_line_of_its_own(shell, line):
    assert f"{shell}: {line}" in map(str.strip, invoke("--help").stdout.splitlines())


@pytest.mark.parametrize("shell", COMPLETION)
def test_each_shell_gets_its_script_and_what_a_word_may_become(monkeypatch, capsys, shell):
    assert "_SMOOTHAPI_COMPLETE" in completed(monkeypatch, capsys, f"{shell}_source")
    monkeypatch.setenv("COMP_WORDS", "smoothapi cer" if shell != "fish" else "smoothapi")
    monkeypatch.setenv("COMP_CWORD", "1" if shell != "fish" else "cer")
    assert "certify" in completed(monkeypatch, capsys, f"{shell}_complete")


def completed(monkeypatch, capsys, instruction):
    monkeypatch.setenv("_SMOOTHAPI_COMPLETE", instruction)
    with pytest.raises(SystemExit) as ended:
        run([])
    assert ended.value.code == 0
    return capsys.readouterr().out
