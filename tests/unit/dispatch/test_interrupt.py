"""Ctrl-C, and what a supervisor or a closed terminal sends, to a real process."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest
from PIL import Image

from smoothapi.store import Home
from smoothapi.store.local.answers import AnswerStore
from tests.unit.dispatch.harness import Program

SETTINGS = """
provider = "mock"
denoiser = "none"
concurrency = 4
plain = false
"""
# One at a time: five are answered at once, what is asked next when there is a file of this name.
GATE = """
import itertools, os, sys, time
numbers = itertools.count()
def label(picture):
    number = next(numbers)
    if number >= 9:
        time.sleep(0.3)
    elif number >= 5:
        sys.stderr.write("held\\n")
        sys.stderr.flush()
    while number >= 5 and not os.path.exists("open"):
        time.sleep(0.01)
    return "bus"
"""
MAIN = [sys.executable, "-c", "from smoothapi.cli import main; main()"]


def stored(home):
    store = AnswerStore(home / "answers")
    try:
        return len(store)
    finally:
        store.close()


def photo_in(file, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def begun(folder, arguments):
    """Begin a command that asks a mock; it goes on to its end once there is a file "open"."""
    (folder / "smoothapi.toml").write_text(SETTINGS)
    (folder / "gate.py").write_text(GATE)
    environment = {**os.environ, "SMOOTHAPI_DEBUG": "1"}
    environment["SMOOTHAPI_PROVIDERS__MOCK__LABELLER"] = "gate:label"
    environment["SMOOTHAPI_PROVIDERS__MOCK__LABELLER_ID"] = "gate"
    environment.pop("SMOOTHAPI_HOME", None)
    return Program([*MAIN, *arguments], cwd=folder, env=environment)


ANSWERED = "attempt provider=mock outcome=answered"


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
    command = ["certify", "photo.png", "--home", str(home)]
    command += ["--budget", "900/day", "--record", "answers.jsonl"]
    with begun(tmp_path, command) as program:
        program.wait_for_words(ANSWERED, times=5)
        program.wait_for_words("held")
        program.send_signal(number)
        program.wait_for_words("queries under way: their answers are paid for")
        if presses == 1:
            (tmp_path / "open").touch()
        else:
            program.send_signal(number)
        code, err = program.end()
        assert code == 128 + number, err
        assert "Traceback" not in err + program.out
    with Home(home) as opened:
        assert sum(account.reserved for account in opened.accounts()) == 0
    kept = stored(home)
    recorded = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(recorded) == kept + 1
    assert "continues where this one ended" in err
    # Those that were under way are awaited, but after a second signal.
    assert err.count(ANSWERED) == kept
    assert kept == 5 if presses == 2 else 6 <= kept <= 9
    assert ("Ended with" in err.split("Stopped.")[0]) == (presses == 2)

    (tmp_path / "open").touch()
    with begun(tmp_path, command) as program:
        code, err = program.end()
        assert code == 0, err
        assert f"{kept} answered from the store" in program.out


STUDY = ["study", "photos", "--out", "out", "--sigma", "0.25", "--max-votes", "400"]
ADAPT = ["denoiser", "adapt", "mock", "--photos", "photos", "--out", "out.json", "--size", "32",
         "--denoiser", "small", "--device", "cpu"]  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.timeout(250)
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
    with begun(tmp_path, [*command, "--home", str(home), "--budget", "900/day"]) as program:
        program.wait_for_words(ANSWERED, times=5)
        program.wait_for_words("held")
        for number in numbers:
            program.send_signal(number)
            time.sleep(0.5)
        if len(numbers) == 1:
            (tmp_path / "open").touch()
        while not program.ends_within(20.0):  # two that come while it does not run are one
            program.send_signal(numbers[-1])
        code, err = program.end()
        assert code == 128 + numbers[0], err
        assert "Traceback" not in err + program.out
    assert "continues where this one ended" in err
    with Home(home) as opened:
        for account in opened.accounts():
            assert account.reserved == 0
        assert sum(account.attempts for account in opened.accounts()) >= stored(home) >= 5
