"""The compose file that ships names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smoothapi.address import DatabaseAddress, parse_home
from smoothapi.settings import Settings

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "examples" / "several_machines" / "compose.yaml"
PAGE = ROOT / "docs" / "how-to" / "several_machines.md"


def test_the_compose_file_gives_each_worker_home_key_and_password():
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    environment = services["worker"]["environment"]
    given = {
        name.removeprefix("SMOOTHAPI_").lower() for name in environment if "SMOOTHAPI_" in name
    }
    assert given <= set(Settings.model_fields)
    home = parse_home(environment["SMOOTHAPI_HOME"])
    assert isinstance(home, DatabaseAddress)
    assert not home.secrets
    assert "PGPASSWORD" in environment
    assert "@postgres/" in home.url  # the other service's name
    assert environment["SMOOTHAPI_NOISE_KEY_FILE"] == "/run/secrets/noise_key"
    assert services["worker"]["secrets"] == ["noise_key"]


def test_the_page_names_only_settings_that_there_are():
    text = PAGE.read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"SMOOTHAPI_([A-Z_]+)", text)}
    assert named <= set(Settings.model_fields)
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    spec = yaml.safe_load(block)["spec"]["template"]["spec"]
    assert spec["volumes"][0]["secret"]["defaultMode"] & 0o007 == 0
