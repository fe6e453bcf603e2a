from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.torch
import torch

from smoothapi.denoise import load, sources
from smoothapi.denoise.storage import (
    SHIPPED,
    load_network,
    read_header,
    read_model_card,
    write_tensors,
    write_weights,
)
from smoothapi.errors import DenoiserError

from .harness import random_unet, save

if TYPE_CHECKING:
    from pathlib import Path


def test_round_trip_keeps_every_bit(tiny_file: Path) -> None:
    network = load_network(read_header(tiny_file))
    assert not network.training
    for name, value in random_unet().state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_same_weights_make_the_same_file(tiny_file: Path, tmp_path: Path) -> None:
    # Otherwise a fingerprint, and with it the cache, would depend on chance.
    for index in range(8):
        again = save(random_unet(), tmp_path / f"{index}.safetensors")
        assert again.read_bytes() == tiny_file.read_bytes()
    assert safetensors.torch.load_file(tiny_file).keys() == random_unet().state_dict().keys()


def test_half_file_loads_as_float32(tmp_path: Path) -> None:
    from smoothapi.denoise.networks import describe

    network, path = random_unet(), tmp_path / "half.safetensors"
    architecture, config = describe(network)
    write_weights(path, network.state_dict(), architecture=architecture, config=config, half=True)
    state = load_network(read_header(path)).state_dict()
    assert {v.dtype for v in state.values()} == {torch.float32}
    assert {v.dtype for v in safetensors.torch.load_file(path).values()} == {torch.float16}


@pytest.mark.parametrize("keep", [0, 4, 9, 200, -1])
def test_truncated_files_are_refused(tiny_file: Path, keep: int) -> None:
    tiny_file.write_bytes(tiny_file.read_bytes()[:keep])
    with pytest.raises(DenoiserError):
        read_header(tiny_file)


def test_appended_bytes_are_refused(tiny_file: Path) -> None:
    tiny_file.write_bytes(tiny_file.read_bytes() + b"x")
    with pytest.raises(DenoiserError, match="cut short or added to"):
        read_header(tiny_file)


def test_text_is_not_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("these are no weights, however long the text may be")
    with pytest.raises(DenoiserError, match="not a safetensors file"):
        read_header(path)


def test_missing_file_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(DenoiserError, match="'default', 'small', 'none'"):
        read_header(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["a.pth", "a.pth.tar", "a.pt", "renamed.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_by_name_and_by_content(
    tmp_path: Path, name: str, *, zipped: bool
) -> None:
    path = tmp_path / name
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DenoiserError, match="smoothapi denoiser convert"):
        read_header(path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (__import__("os").mkdir, (str(tmp_path / "ran"),))

    path = tmp_path / "planted.safetensors"
    path.write_bytes(pickle.dumps(Planted()))
    with pytest.raises(DenoiserError):
        read_header(path)
    assert not (tmp_path / "ran").exists()


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_tensors(path, {"a": torch.zeros(2)}, {"kind": "other"})
    with pytest.raises(DenoiserError, match="not a denoiser of smoothapi"):
        read_header(path)


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    config = {"layers": 3, "channels": 4}
    write_weights(path, {"a": torch.zeros(2)}, architecture="dncnn", config=config)
    with pytest.raises(DenoiserError, match="do not fit"):
        load_network(read_header(path))


def test_a_file_that_changed_after_its_fingerprint_is_refused(tiny_file: Path) -> None:
    header = read_header(tiny_file)
    content = bytearray(tiny_file.read_bytes())
    content[-1] ^= 1
    tiny_file.write_bytes(content)
    with pytest.raises(DenoiserError, match="changed after"):
        load_network(header)


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for filler in range(64):
        about = {"note": "x" * 8 * filler}
        write_weights(path, {"a": torch.zeros(2)}, architecture="x", config={}, about=about)
        if path.read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no header of such a length was written")
    assert read_header(path).about == about


def test_damaged_model_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DenoiserError, match="model card"):
        read_model_card("default", tmp_path)
    (tmp_path / "default.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(DenoiserError, match="model card"):
        read_model_card("default", tmp_path)


@pytest.mark.parametrize("which", SHIPPED)
def test_shipped_weights_are_those_of_the_card_and_fit_into_the_wheel(which: str) -> None:
    card = read_model_card(which)
    header = read_header(card.path)
    assert header.sha256 == card.sha256
    assert header.architecture == "unet"
    assert card.path.stat().st_size < 32e6


@pytest.fixture
def own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small weights, in the place of those that ship."""
    card = read_model_card("small")
    path = tmp_path / card.path.name
    path.write_bytes(card.path.read_bytes())
    monkeypatch.setattr(sources, "read_model_card", lambda _: replace(card, path=path))
    return path


def test_shipped_weights_that_are_damaged_are_named_but_never_used(own_copy: Path) -> None:
    sound = load("small", device="cpu")
    content = bytearray(own_copy.read_bytes())
    content[-1] ^= 1
    own_copy.write_bytes(content)
    damaged = load("small", device="cpu")
    assert damaged.fingerprint == sound.fingerprint  # as the card says: its answers are no others
    for _ in range(2):
        with pytest.raises(DenoiserError, match=r"model card says .* the installation is damaged"):
            damaged.variants(np.zeros((1, 8, 8, 3), np.float32), 0.25)
    assert not damaged.loaded


@pytest.mark.parametrize("keep", [0, 4, 9, 200, -1])
def test_shipped_weights_that_were_cut_short_are_refused_at_once(own_copy: Path, keep: int) -> None:
    own_copy.write_bytes(own_copy.read_bytes()[:keep])
    with pytest.raises(DenoiserError, match=r"cut short|no safetensors file"):
        load("small", device="cpu")


def test_shipped_weights_that_are_missing_are_said(own_copy: Path) -> None:
    own_copy.unlink()
    with pytest.raises(DenoiserError, match="cannot be read: No such file"):
        load("small", device="cpu")


def test_the_shipped_denoisers_are_two() -> None:
    assert len({load(which).fingerprint for which in SHIPPED}) == 2
    assert load("small", device="cpu", precision="fp32").name == "smoothapi-unet-1.0"


def test_the_small_one_has_the_fingerprint_that_it_had_as_the_default() -> None:
    # Answers that were stored behind it still fit.
    identity = read_model_card("small")
    assert identity.sha256.startswith("b86ddd36855ab60c")


def test_header_needs_no_torch(tiny_file: Path) -> None:
    code = (
        "import sys, smoothapi.denoise as d\n"
        f"r = d.load({str(tiny_file)!r}, device='cpu')\n"
        "assert len(r.fingerprint) == 16 and not r.loaded\n"
        "n = d.load(None); n.fingerprint\n"
        "d.load('default').fingerprint\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
