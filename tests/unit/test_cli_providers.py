"""`smoothapi providers`: the list, which sends nothing, and `check`, which sends one picture."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi import provider
from smoothapi.answer import Answer, Label
from smoothapi.cli import run
from smoothapi.cli.providers import trial_picture
from smoothapi.errors import FatalError, PermanentError, TransientError
from smoothapi.provider import Credentials, Limits
from smoothapi.services import by_colour, serve
from smoothapi_adapters.azure import resource
from tests.conftest import ScriptedAdapter

SECRET = "0123456789abcdef0123456789abcdef"
BUILT_IN = {"aws", "azure", "azure4", "clarifai", "google", "http", "mock", "torch"}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch, tmp_path):
    for name in (*resource.ENDPOINT_VARIABLES, *resource.KEY_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setattr("smoothapi_adapters.google.client._PRODUCT", tmp_path / "none")


@pytest.fixture
def adapter(monkeypatch):
    """The one that `check` finds, whatever it is called."""

    def use(script=None, **options):
        adapter = ScriptedAdapter(script, **options)
        monkeypatch.setattr(provider, "make_adapter", lambda name, **_: adapter)
        return adapter

    return use


def listed(capsys):
    assert run(["providers", "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_all_that_are_built_in_are_listed(capsys):
    rows = listed(capsys)
    assert set(rows) >= BUILT_IN
    google = rows["google"]
    assert google["usable"]
    assert google["installed"]
    assert google["credentials"] is False
    assert "GOOGLE_APPLICATION_CREDENTIALS" in google["where"]
    assert (google["per_thousand"], google["free_per_month"]) == (1.5, 0)
    assert google["steps"] == [[5_000_000, 1.0]]
    assert (google["batch"], google["per_second"]) == (16, 30.0)
    assert google["price_as_of"].startswith("20")
    assert rows["azure"]["retires"] == rows["azure4"]["retires"] == "2028-09-25"
    assert rows["mock"]["credentials"] is None
    assert rows["http"]["usable"] is False
    assert rows["http"]["problem"]


def test_the_table_says_the_same_to_people(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SMOOTHAPI_PROVIDERS__GOOGLE__FREE_TIER", "true")
    assert run(["providers"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in BUILT_IN)
    for part in ("no credentials", "first 1,000 a month free", "16 pictures", "30 a second",
                 "sides 50 to 16,000", "$1.50", "needs no credentials", "not usable",
                 "ends on 2028-09-25"):  # fmt: skip
        assert part in out


def test_the_table_fits_80_columns_with_no_word_cut_off(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["providers"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert all(f"│ {name} " in out for name in BUILT_IN)


def test_options_of_the_settings_count_and_secrets_are_not_shown(capsys):
    Path("smoothapi.toml").write_text(
        f'[providers.azure]\nendpoint = "https://a.example"\nkey = "{SECRET}"\n'
        f'[providers.google]\napi_key = "{SECRET}"\n'
        "[prices.azure]\nper_thousand = 0.65\n"
    )
    assert run(["providers"]) == 0
    assert SECRET not in capsys.readouterr().out
    assert run(["providers", "--json"]) == 0
    out = capsys.readouterr().out
    assert SECRET not in out
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["azure"]["credentials"] is rows["google"]["credentials"] is True
    assert rows["azure"]["per_thousand"] == 0.65


def test_what_is_not_installed_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr("smoothapi_adapters.google.adapter._installed", lambda: False)
    row = listed(capsys)["google"]
    assert (row["installed"], row["usable"], row["per_thousand"]) == (False, False, None)
    assert "smoothapi-vision[google]" in row["problem"]
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["providers"]) == 0
    assert "not installed" in capsys.readouterr().out


def test_a_strangers_broken_adapter_does_not_hide_the_rest(capsys, monkeypatch):
    class Broken(ScriptedAdapter):
        name = "broken\x1b[2J"

        def credentials(self):
            raise RuntimeError("oops")

        def close(self):
            raise RuntimeError("oops")

    found = provider.ProviderInfo
    rows = [found("broken\x1b[2J", "x", Broken()), found("good", "x", ScriptedAdapter())]
    monkeypatch.setattr(provider, "providers", lambda options=None: rows)
    assert run(["providers"]) == 0
    out = capsys.readouterr().out
    assert "oops" in out
    assert "good" in out
    assert "\x1b[2J" not in out


def test_the_list_sends_nothing(capsys):
    import socket

    from smoothapi.testing.watch import no_network

    assert socket
    with no_network() as attempts:
        assert run(["providers", "--json"]) == 0
    assert not attempts


def test_check_sends_one_picture_once_and_says_what_it_cost(adapter, capsys):
    reply = Answer((Label("van", 0.25), Label("\x1b[2Jbus", 0.75)), "v7", "request-9")
    used = adapter(lambda payload, attempt: reply)
    assert run(["providers", "check", "scripted", "--yes"]) == 0
    out = capsys.readouterr().out
    for part in ("bus 0.750", "van 0.250", "v7", "request-9", "$0.0010"):
        assert part in out
    assert out.index("bus") < out.index("van")
    assert "\x1b[2J" not in out
    assert (used.sent, used.closed) == (1, True)
    [payload] = used.attempts
    with Image.open(io.BytesIO(payload)) as picture:
        assert picture.size == (224, 224)
        assert np.array_equal(np.asarray(picture), trial_picture())


def test_check_as_json(adapter, capsys):
    adapter(lambda payload, attempt: Answer((Label("bus", 0.75),), "v7", "r"))
    assert run(["providers", "check", "scripted", "--yes", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["labels"] == [{"name": "bus", "score": 0.75}]
    assert (result["model_version"], result["request_id"]) == ("v7", "r")
    assert result["cost"] == 0.001
    assert result["seconds"] >= 0
    assert result["schema"] == "smoothapi.check/1"


def test_no_labels_are_a_valid_answer(adapter, capsys):
    adapter(lambda payload, attempt: Answer(()))
    assert run(["providers", "check", "scripted", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "valid answer" in out
    assert "names none" in out


@pytest.mark.parametrize("error", [FatalError, PermanentError, TransientError])
@pytest.mark.parametrize("raised", [True, False])
def test_a_refusal_exits_with_4_after_one_attempt(error, raised, adapter, capsys):
    def script(payload, attempt):
        if raised:
            raise error("no way")
        return error("no way")

    used = adapter(script)
    assert run(["providers", "check", "scripted", "--yes"]) == 4
    err = capsys.readouterr().err
    assert "no way" in err
    assert "Sent until then: 1 ($0.0010)" in err
    assert used.sent == 1
    assert used.closed
    adapter(script)
    assert run(["providers", "check", "scripted", "--yes", "--json"]) == 4
    said = json.loads(capsys.readouterr().out)
    assert (said["error"], said["attempts"], said["cost"]) == (error.__name__, 1, 0.001)


@pytest.mark.parametrize("outcome", [[], None, [3], RuntimeError("x")])
def test_an_adapter_that_breaks_its_contract_is_named(outcome, adapter, capsys, monkeypatch):
    used = adapter()

    def ask(payloads):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(used, "ask", ask)
    assert run(["providers", "check", "scripted", "--yes"]) == 4
    assert "defect of the adapter" in capsys.readouterr().err


def test_without_credentials_nothing_counts_as_sent(adapter, capsys, monkeypatch):
    def script(payload, attempt):
        raise FatalError("no credentials")

    used = adapter(script)
    monkeypatch.setattr(
        ScriptedAdapter, "credentials", lambda self: Credentials(False, "here"), raising=False
    )
    assert used.credentials().where == "here"
    assert run(["providers", "check", "scripted", "--yes"]) == 4
    assert "Sent until then" not in capsys.readouterr().err


def test_what_costs_money_is_asked_about_first(adapter, capsys, monkeypatch):
    used = adapter()
    assert run(["providers", "check", "scripted"]) == 2  # pytest's stdin is no terminal
    assert "--yes" in capsys.readouterr().err
    for said, code, sent in (("n\n", 1, 0), ("\n", 1, 0), ("y\n", 0, 1)):
        terminal = io.StringIO(said)
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", terminal)
        assert run(["providers", "check", "scripted"]) == code
        assert used.sent == sent
    assert "$0.0010" in capsys.readouterr().err


def test_what_costs_nothing_is_not_asked_about(adapter):
    assert run(["providers", "check", "scripted"]) == 2
    used = adapter(price="0")
    assert run(["providers", "check", "scripted"]) == 0
    assert used.sent == 1


def test_a_photo_is_sent_as_the_provider_takes_it(adapter, capsys):
    Image.new("RGB", (400, 300), (200, 30, 30)).save("photo.png")
    used = adapter()
    used.limits = Limits(min_side=300, formats=("jpeg",))
    assert run(["providers", "check", "scripted", "--yes", "--photo", "photo.png"]) == 0
    [payload] = used.attempts
    with Image.open(io.BytesIO(payload)) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) == 300
    assert run(["providers", "check", "scripted", "--yes", "--photo", "gone.png"]) == 2
    assert used.sent == 1


def test_noise_too_large_for_png_goes_as_jpeg_and_else_not_at_all(adapter, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    Image.fromarray(noise).save("noise.png")
    used = adapter()
    used.limits = Limits(max_bytes=145_000)
    assert run(["providers", "check", "scripted", "--yes", "--photo", "noise.png"]) == 0
    [payload] = used.attempts
    assert payload[:2] == b"\xff\xd8"
    for limits in (Limits(max_bytes=10_000), Limits(max_side=100)):
        used.limits = limits
        assert run(["providers", "check", "scripted", "--yes", "--photo", "noise.png"]) == 2
        assert "takes up to" in capsys.readouterr().err
    assert used.sent == 1


def test_an_unknown_name_is_a_usage_error(capsys):
    assert run(["providers", "check", "gogle", "--yes"]) == 2
    assert "google" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["azure", "azure4", "google"])
def test_a_real_sdk_is_asked_once_even_where_the_service_fails(name, capsys):
    with serve(name, by_colour, key=SECRET, faults="1x503") as service:
        secret = "api_key" if name == "google" else "key"
        more = 'transport = "rest"\n' if name == "google" else ""
        Path("smoothapi.toml").write_text(
            f'[providers.{name}]\nendpoint = "{service.url}"\n{secret} = "{SECRET}"\n{more}'
        )
        assert run(["providers", "check", name, "--yes"]) == 4
        assert len(service.received) == 1
        assert run(["providers", "check", name, "--yes", "--json"]) == 0
        assert len(service.received) == 2
        assert service.billed == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["labels"]
    assert SECRET not in out + err
