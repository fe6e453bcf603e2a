"""Ctrl-C, and what a supervisor or a closed terminal sends, to a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from smoothapi.store import Home
from smoothapi.store.local.answers import AnswerStore

SETTINGS = """
provider = "mock"
denoiser = "none"
concurrency = 4
plain = false
[providers.mock]
labeller = "probabilities:bus 100%"
latency = LATENCY
"""


def stored(home):
    store = AnswerStore(home / "answers")
    try:
        return len(store)
    finally:
        store.close()


def photo_in(file, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def wait_for_answers(home, process):
    end = time.monotonic() + 60.0
    while stored(home) < 5 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "presses"),
    [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGHUP, 1)],
)
def test_what_ends_a_command_keeps_what_came_and_the_same_command_goes_on(
    tmp_path, number, presses
):
    home = tmp_path / "home"
    photo_in(tmp_path / "photo.png")
    main = "from smoothapi.cli import main; main()"
    command = [sys.executable, "-c", main, "certify", "photo.png", "--home", str(home)]
    command += ["--budget", "900/day", "--record", "answers.jsonl"]
    environment = {**os.environ, "SMOOTHAPI_DEBUG": "1"}
    environment.pop("SMOOTHAPI_HOME")

    def start(latency):
        (tmp_path / "smoothapi.toml").write_text(SETTINGS.replace("LATENCY", str(latency)))
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    process = start(0.3 * presses)
    wait_for_answers(home, process)
    for _ in range(presses):
        process.send_signal(number)
        time.sleep(0.05)
    out, err = process.communicate(timeout=60.0)
    assert process.returncode == 128 + number, err
    with Home(home) as opened:
        [account] = opened.accounts()
        assert account.reserved == 0
    recorded = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(recorded) == stored(home) + 1
    assert "continues where this one ended" in err
    assert "Traceback" not in err + out
    sent, kept = err.count("attempt provider=mock outcome=answered"), stored(home)
    assert 5 <= kept < 50
    # A second signal may come between an answer's way to the disk and the word on it.
    assert kept - 4 * (presses - 1) <= sent <= kept
    if presses == 2:
        assert "under way" in err.split("Stopped.")[0]

    process = start(0.0)
    out, err = process.communicate(timeout=60.0)
    assert process.returncode == 0, err
    assert f"{kept} answered from the store" in out


HANGS = """
import itertools, threading
numbers = itertools.count()
def label(picture):
    if next(numbers) >= 5:
        threading.Event().wait()
    return "bus"
"""
STUDY = ["study", "photos", "--out", "out", "--sigma", "0.25", "--max-votes", "400"]
ADAPT = ["denoiser", "adapt", "mock", "--photos", "photos", "--out", "out.json", "--size", "32",
         "--denoiser", "small", "--device", "cpu"]  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("command", "numbers"),
    [
        (STUDY, [signal.SIGTERM]),
        (STUDY, [signal.SIGINT, signal.SIGINT]),
        (ADAPT, [signal.SIGHUP]),
        (ADAPT, [signal.SIGINT, signal.SIGINT]),
    ],
)
def test_what_asks_about_many_photos_ends_likewise(tmp_path, command, numbers):
    home = tmp_path / "home"
    (tmp_path / "photos").mkdir()
    for number in range(30 if command is ADAPT else 3):
        photo_in(tmp_path / "photos" / f"{number}.png", number)
    (tmp_path / "smoothapi.toml").write_text(SETTINGS.replace("LATENCY", "0.3"))
    environment = {name: value for name, value in os.environ.items() if name != "SMOOTHAPI_HOME"}
    if len(numbers) > 1:  # two of Ctrl-C leave behind what never answers
        (tmp_path / "hangs.py").write_text(HANGS)
        environment["SMOOTHAPI_PROVIDERS__MOCK__LABELLER"] = "hangs:label"
    main = "from smoothapi.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", main, *command, "--home", str(home), "--budget", "900/day"],
        cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_for_answers(home, process)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.5)  # two that come while the process does not run are one
        out, err = process.communicate(timeout=60.0)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + numbers[0], err
    assert "Traceback" not in err + out
    assert "continues where this one ended" in err
    with Home(home) as opened:
        for account in opened.accounts():
            assert account.reserved == 0
            assert account.attempts >= stored(home) >= 5
