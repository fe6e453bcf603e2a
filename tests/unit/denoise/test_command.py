from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from click.testing import CliRunner

from smoothapi.cli.denoiser import denoiser
from smoothapi.denoise.networks import DnCNN
from smoothapi.denoise.storage import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(denoiser, [str(a) for a in arguments])


TINY = ("--channels", "4,6", "--encoder-blocks", "1,1", "--decoder-blocks", "1", "--crop", 16)


def test_train_resume_and_eval(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ("train", "--data", photo_folder, "--hold-out", photo_folder, "--hold-out-count", 2,
               "--out", out, "--batch", 2, "--json", *TINY)  # fmt: skip
    first = run(*command, "--steps", 3)
    assert first.exit_code == 0, first.output
    assert "4 photos, 2 held out" in first.stderr
    assert json.loads(first.stdout.splitlines()[-1])["step"] == 3
    second = run(*command, "--steps", 5)
    assert second.exit_code == 0, second.output
    assert read_header(out / "weights.safetensors").about["steps"] == 5
    result = run("eval", photo_folder, "--weights", out / "weights.safetensors", "--sigma", 0.25,
                 "--size", 32, "--device", "cpu", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["photos"] == 6
    assert [row["sigma"] for row in report["rows"]] == [0.25]
    table = run("eval", photo_folder, "--weights", "none", "--sigma", 0.25, "--size", 32)
    assert table.exit_code == 0, table.output
    assert "PSNR" in table.stdout


def test_start_from_weights(photo_folder: Path, tmp_path: Path, tiny_file: Path) -> None:
    result = run("train", "--data", photo_folder, "--out", tmp_path / "r", "--start", tiny_file,
                 "--steps", 1, "--crop", 16, "--batch", 1)  # fmt: skip
    assert result.exit_code == 0, result.output
    config = read_header(tmp_path / "r" / "weights.safetensors").config
    assert config["channels"] == [4, 6]


def test_errors_are_lines_with_an_exit_code(photo_folder: Path, tmp_path: Path) -> None:
    endless = run("train", "--data", photo_folder, "--out", tmp_path / "r")
    assert endless.exit_code == 2
    assert "Say when training ends" in endless.stderr
    device = run("eval", photo_folder, "--weights", "none", "--device", "gpu0")
    assert device.exit_code == 2
    assert "There is no device" in device.stderr
    shape = run("train", "--data", photo_folder, "--out", tmp_path / "r", "--channels", "a,b")
    assert shape.exit_code == 2
    assert not (tmp_path / "r").exists()


def test_convert(tmp_path: Path) -> None:
    torch.save({"state_dict": DnCNN(3, 4).state_dict()}, tmp_path / "c.pth.tar")
    result = run("convert", tmp_path / "c.pth.tar", tmp_path / "c.safetensors")
    assert result.exit_code == 0, result.output
    assert "3 layers of 4 channels" in result.stderr
    refused = run("convert", tmp_path / "c.pth.tar", tmp_path / "c.bin")
    assert refused.exit_code == 2


def test_help_of_each_command() -> None:
    for name in ("train", "eval", "convert"):
        assert run(name, "--help").exit_code == 0
