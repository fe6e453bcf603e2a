from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import smoothapi.denoise
from smoothapi import cli
from smoothapi.cli.denoiser import train
from smoothapi.denoise.networks import DnCNN
from smoothapi.denoise.storage import read_header
from smoothapi.denoise.training.recipe import Recipe
from smoothapi.denoise.training.train import Trainer
from tests.conftest import invoke

if TYPE_CHECKING:
    from click.testing import Result


def run(*arguments: object) -> Result:
    return invoke("denoiser", *arguments)


WEIGHTS = Path(smoothapi.denoise.__file__).parent / "weights"
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


def test_pack_and_train_on_the_device(photo_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "photos.bin"
    packed = run("pack", photo_folder, path, "--short-side", 32, "--hold-out", photo_folder,
                 "--hold-out-count", 2)  # fmt: skip
    assert packed.exit_code == 0, packed.output
    assert "4 photos" in packed.stderr
    surrogate = tmp_path / "mine.py"
    surrogate.write_text(
        "from torch import nn\n"
        "from smoothapi.denoise.training.surrogates import Classifier\n"
        "def look():\n"
        "    return Classifier('look', nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU()), 16, False)\n"
    )
    command = ("train", "--data", path, "--data", photo_folder, "--source-weight", "photos=0.5",
               "--photos-on", "device", "--out", tmp_path / "run", "--batch", 2, "--upright",
               "--objective", "both", "--surrogate", f"{surrogate}:look", "--feature-weight", 0.5,
               "--labels-from", 0.5, "--labels-sigma", 0.5, "--hold", 0.3, "--burst", 15,
               "--device", "cpu", "--no-compile", *TINY)  # fmt: skip
    first = run(*command, "--steps", 4)
    assert first.exit_code == 0, first.output
    assert "10 photos" in first.stderr
    assert "pictures/s" in first.stderr
    recipe = read_header(tmp_path / "run" / "weights.safetensors").about["recipe"]
    assert recipe["crops"]["weights"] == [["photos", 0.5]]
    assert {k: recipe[k] for k in ("labels_from", "labels_sigma", "hold", "burst")} == {
        "labels_from": 0.5, "labels_sigma": 0.5, "hold": 0.3, "burst": 15.0}  # fmt: skip
    again = run(*command, "--steps", 6)
    assert again.exit_code == 0, again.output
    for weight in ("photos", "=1", "photos=much"):
        wrong = run(*command, "--source-weight", weight)
        assert wrong.exit_code == 2
        assert "is not NAME=WEIGHT" in wrong.stderr


def test_errors_are_lines_with_an_exit_code(photo_folder: Path, tmp_path: Path) -> None:
    endless = run("train", "--data", photo_folder, "--out", tmp_path / "r")
    assert endless.exit_code == 2
    assert "Say when training ends" in endless.stderr
    device = run("eval", photo_folder, "--weights", "none", "--device", "gpu0")
    assert device.exit_code == 2
    assert "Unknown device" in device.stderr
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
    for name in ("train", "pack", "eval", "convert"):
        assert run(name, "--help").exit_code == 0


def test_training_that_is_stopped_says_where_it_stands(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    command = [str(word) for word in ("denoiser", "train", "--data", photo_folder, "--out", out,
               "--batch", 1, "--steps", 2, *TINY)]  # fmt: skip

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stopped)
        assert cli.run(command) == 130
    said = capsys.readouterr().err
    assert "Stopped. There was no checkpoint yet" in said
    assert cli.run(command) == 0
    command[command.index("--steps") + 1] = "3"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stopped)
        assert cli.run(command) == 130
    said += capsys.readouterr().err
    assert f"continues from the last checkpoint, {out / 'checkpoint.safetensors'}" in said
    assert "answers" not in said


@pytest.mark.parametrize(
    ("works_on", "command", "said"),
    [
        (
            "training.evaluate.evaluate",
            ("eval", "photos", "--weights", "none"),
            "Stopped. Nothing of what was measured is kept: the same command begins anew.",
        ),
        (
            "training.packs._shrunk",
            ("pack", "photos", "there.bin"),
            "Stopped. Nothing was written: the same command begins anew.",
        ),
        (
            "training.convert.write_weights",
            ("convert", "c.pth.tar", "there.safetensors"),
            "Stopped. Nothing was written: the same command begins anew.",
        ),
    ],
)
def test_what_keeps_nothing_says_so_when_it_is_stopped(
    works_on: str, command: tuple[str, ...], said: str, photo_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": DnCNN(3, 4).state_dict()}, "c.pth.tar")
    written = ("there.bin", "there.json", "there.safetensors")
    for name in written:
        Path(name).write_text("of before")
    before = sorted(Path().iterdir())

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"smoothapi.denoise.{works_on}", stopped)
    folder = str(photo_folder)
    assert cli.run(["denoiser", *(folder if w == "photos" else w for w in command)]) == 130
    assert capsys.readouterr().err.strip() == said
    assert sorted(Path().iterdir()) == before
    assert {Path(name).read_text() for name in written} == {"of before"}


@pytest.mark.parametrize("which", ["default", "small"])
def test_the_commands_of_the_model_cards_run(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They parse, make a recipe, and what takes surrogates names some."""
    monkeypatch.chdir(tmp_path)
    for folder in ("DATA/photos", "DATA/labelled_photos", "runs/pixel"):
        Path(folder).mkdir(parents=True)
    for file in ("DATA/more_photos.bin", "runs/pixel/weights.safetensors"):
        Path(file).touch()
    card = json.loads((WEIGHTS / f"{which}.json").read_text())
    for stage in card["stages"]:
        words = shlex.split(stage["command"])
        assert words[:3] == ["smoothapi", "denoiser", "train"]
        given = train.make_context("train", words[3:]).params
        names = {field.name for field in fields(Recipe)}
        recipe = Recipe(**{name: value for name, value in given.items() if name in names})
        assert bool(given["surrogates"]) == (recipe.objective != "pixel")


def test_a_model_card_is_what_its_figures_come_to() -> None:
    for which, name in (("default", "MODEL_CARD.md"), ("small", "MODEL_CARD_SMALL.md")):
        card = json.loads((WEIGHTS / f"{which}.json").read_text())
        text = (WEIGHTS / name).read_text()
        shown = " ".join(text.replace("\\\n", " ").split())
        for stage in card["stages"]:
            assert stage["command"] in shown
        for network, ms in card["speed"]["ms"].items():
            assert f"| {network} | {ms:.1f} |" in shown
        assert card["sha256"] == read_header(WEIGHTS / card["file"]).sha256
