"""Every example runs, offline, as a user would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
MOST_LINES = 50

# What each must say; the rest of its text may change.
SAYS = {
    "01": ["monarch: certified at L2 radius 0.25", "same: True"],
    "02": [
        "Balloon: at least 98.0%, certified",
        "Aircraft: at least 92.0%",
        "certified at L2 radius",
        "requests arrived",
    ],
    "03": [
        "school_bus.jpg, plain: blocked (requests: 1, $0.001)",
        "balloon.jpg, plain: let through (requests: 1, $0.001)",
        "school_bus.jpg, certified: blocked (",
        "balloon.jpg, certified: let through (",
    ],
    "04": ["names: abstained", "own: bus: certified at L2 radius 0.25"],
    "05": ["At least ", "(0 requests)", "certified at", "second time: 0 queries"],
    "06": ["Killed after 15 votes.", "monarch: certified", "answers were there"],
    "07": ["Recorded: balloon: certified", "Replayed: balloon: certified", "A miss: "],
    "08": ["certified at L2 radius"],
    "09": ["monarch: certified at L2 radius 0.05", "Cleaned by blur-1"],
    "10": [
        "Before\nplain: 0.505, kept",
        "< 0.25",
        "decision flips; the certified decision holds",
    ],
}


def run(script, cwd):
    """Run an example; none is about the default denoiser, which the tutorial's test runs."""
    environment = {**os.environ, "SMOOTHAPI_DENOISER": "small"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem[:2] == "10" else [])
        for path in EXAMPLES
    ],
)
def test_example(script, tmp_path):
    before = beside()
    said = run(script, tmp_path)
    assert beside() == before, "examples write nothing beside themselves"
    for text in SAYS[script.stem[:2]]:
        assert text in said
    if script.stem.startswith("06"):
        now, before = numbers(said)
        assert before >= 15
        assert now > 0


def beside():
    return {
        path for path in FOLDER.rglob("*") if not {"__pycache__", ".pytest_cache"} & set(path.parts)
    }


def numbers(said):
    last = said.strip().splitlines()[-1].split()
    return int(last[0]), int(last[last.index("answers") - 1])


def test_there_are_at_most_ten_and_each_is_short():
    assert [path.stem[:2] for path in EXAMPLES] == sorted(SAYS)
    for path in EXAMPLES:
        most = MOST_LINES if path.stem[:2] != "10" else 110  # an attack, a service and a picture
        assert len(path.read_text().splitlines()) <= most, path
