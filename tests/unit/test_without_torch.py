"""Where torch is not installed: what works all the same, and what says how to get it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from smoothapi import MissingExtraError, Smoother, denoise
from smoothapi.provider import make_adapter
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import invoke

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photos" / "school_bus.jpg"
LOCAL = r"pip install 'smoothapi-vision\[local\]'"


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch):
    """To Python a module that is None is one that cannot be found."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.fixture
def certificate(tmp_path):
    with Smoother(MockAdapter({"bus": 0.99, "van": 0.01}), denoiser="none", size=32) as smoother:
        certified = smoother.certify(PHOTO, radius=0.25)
    file = tmp_path / "certificate.json"
    file.write_text(certified.to_json())
    return file


def test_certificates_are_verified(certificate):
    assert invoke("verify", certificate, "--photo", PHOTO).exit_code == 0
    assert invoke("verify", certificate, "--home", Path("smoothapi").resolve()).exit_code == 0


def test_a_recording_is_replayed():
    mock = MockAdapter({"bus": 0.99, "van": 0.01})
    with Smoother(mock, denoiser="none", size=32, record="answers.jsonl") as smoother:
        recorded = smoother.certify(PHOTO, radius=0.25)
    with Smoother("replay:answers.jsonl", size=32) as smoother:
        assert smoother.certify(PHOTO, radius=0.25).votes == recorded.votes


def test_what_is_kept_can_be_read(certificate):
    commands = ("budget", "cache info", "config", "providers", "denoiser train --help")
    for command in commands:
        result = invoke(*command.split())
        assert result.exit_code == 0, f"{command}: {result.stderr}"


@pytest.mark.parametrize("spec", ["default", "small"])
def test_a_network_says_how_to_get_torch_before_anything_is_sent(spec):
    mock = MockAdapter({"bus": 1.0})
    with pytest.raises(MissingExtraError, match=LOCAL):
        Smoother(mock, denoiser=spec).certify(PHOTO)
    with pytest.raises(MissingExtraError, match=LOCAL):
        denoise.load(spec)
    assert mock.requests == 0


@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_plain_smoothing_takes_the_cpu(device):
    runtime = denoise.load("none", device=device)
    assert (runtime.device, runtime.precision) == ("cpu", "fp32")
    assert runtime.variants(np.zeros((1, 4, 4, 3)), 0.25).shape == (1, 4, 4, 3)


@pytest.mark.parametrize(
    "command",
    [
        ["certify", PHOTO, "--provider", "mock"],
        ["denoiser", "train", "--data", PHOTO.parent, "--out", "run"],
        ["denoiser", "eval", PHOTO.parent],
        ["denoiser", "convert", PHOTO, "out.safetensors"],
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
def test_commands_end_with_what_to_install(command):
    result = invoke(*command)
    assert result.exit_code == 2
    assert re.search(r"pip install 'smoothapi-vision\[(local|demo)\]'", unfolded(result.stderr))


def test_a_model_of_torch_says_how_to_get_it():
    with pytest.raises(MissingExtraError, match=LOCAL):
        make_adapter("torch", model="model.onnx")


def test_doctor_says_how_to_get_it():
    result = invoke("doctor", "--json", "--offline")
    denoiser = next(c for c in json.loads(result.stdout)["checks"] if c["name"] == "denoiser")
    assert denoiser["state"] == "problem"
    assert re.search(LOCAL, denoiser["said"])


def test_a_plan_takes_a_price_of_the_settings_for_a_provider_that_is_not_installed():
    command = ("plan", "--radius", "0.25", "--photos", "100", "--json")
    refused = invoke(*command)
    assert refused.exit_code == 2
    assert "[prices.mock]" in unfolded(refused.stderr)
    Path("smoothapi.toml").write_text("[prices.mock]\nper_thousand = 2.5\n")
    assert invoke(*command).exit_code == 2  # a folder may not say what is paid by itself
    assert invoke("config", "trust").exit_code == 0
    planned = invoke(*command)
    assert planned.exit_code == 0, planned.stderr
    assert json.loads(planned.stdout)["price_per_thousand"] == 2.5


@pytest.fixture(scope="module")
def extras():
    """{extra: all that it brings, by way of others too}; "" is what every installation has."""
    direct: dict[str, set[str]] = {}
    for need in importlib.metadata.requires("smoothapi-vision") or []:
        name, _, marker = need.partition(";")
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", marker)
        direct.setdefault(extra[1] if extra else "", set()).add(name.strip().lower())

    def brought(extra):
        found = set(direct.get(extra, ()))
        for name in list(found):
            for inner in re.findall(r"^smoothapi-vision\[([^]]*)\]", name):
                found |= set().union(*map(brought, inner.split(",")))
        return found

    return {extra: {re.split(r"[^\w-]", n)[0] for n in brought(extra)} for extra in direct}


def test_only_those_who_make_variants_install_torch(extras):
    with_torch = {extra for extra, names in extras.items() if "torch" in names}
    assert with_torch == {
        "all", "aws", "aws-async", "azure", "azure-async", "azure-identity", "clarifai",
        "demo", "dev", "google", "http", "local", "onnx", "serve",
    }  # fmt: skip


def unfolded(text):
    return " ".join(text.split())
