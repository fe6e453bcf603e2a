"""A newcomer's first hour, from the wheel in a fresh environment: each step, and numbers that agree.

Slow: each command is a process of its own. `make newcomer`, and `.ci/run`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.browser.conftest import CHROMIUM

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
CAP = 60  # votes: too few for one of the photos
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Newcomer:
    """A folder, a home, and the commands of the installed wheel."""

    def __init__(self, folder):
        self.folder, self.bin = folder, folder / "venv" / "bin"
        home = folder / "home"
        home.mkdir()
        (home / "noise.key").write_bytes(bytes(range(32)))  # the same votes in every run
        (home / "noise.key").chmod(0o600)
        kept = {
            k: v
            for k, v in os.environ.items()
            if not re.match(r"SMOOTHAPI_|AWS_|GOOGLE_|AZURE_|VISION_", k)
        }
        self._environment = kept | {
            "SMOOTHAPI_HOME": str(home),
            "HOME": str(folder),
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }

    def run(self, *command, code=0):
        program = self.bin / command[0]
        done = subprocess.run(
            [program, *map(str, command[1:])],
            capture_output=True, text=True, check=False, cwd=self.folder, env=self._environment,
            stdin=subprocess.DEVNULL, timeout=240,
        )  # fmt: skip
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def smoothapi(self, *arguments, code=0):
        return self.run("smoothapi", *arguments, code=code)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """The wheel is installed alone; what it needs is borrowed from the environment of the tests."""
    folder = tmp_path_factory.mktemp("newcomer")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "dist", ROOT]
    subprocess.run(build, check=True, timeout=300)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = next((folder / "venv").glob("lib/python*/site-packages"))
    shutil.unpack_archive(next((folder / "dist").glob("*.whl")), site, "zip")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = Newcomer(folder)
    for name, call in {"smoothapi": "from smoothapi.cli import main; main()",
                       "pytest": "import pytest, sys; sys.exit(pytest.main())"}.items():  # fmt: skip
        script = found.bin / name
        script.write_text(f"#!{found.bin / 'python'}\n{call}\n")
        script.chmod(0o755)
    where = found.run("python", "-c", "import smoothapi; print(smoothapi.__file__)").stdout
    assert where.startswith(str(folder)), "the wheel is used, not the sources"
    photos = folder / "photos"
    photos.mkdir()
    for name in ("school_bus.jpg", "balloon.jpg"):
        shutil.copy(PHOTOS / name, photos)
    shutil.copy(PHOTOS / "school_bus.jpg", photos / "the_same_again.jpg")
    (photos / "broken.jpg").write_text("no photo")
    return found


@pytest.fixture(scope="module")
def settled(newcomer):
    """init and doctor have been there; a network is not needed for what follows."""
    newcomer.smoothapi("init")
    settings = newcomer.folder / "smoothapi.toml"
    written = tomllib.loads(settings.read_text())
    assert (written["provider"], written["denoiser"]) == ("mock", "default")
    checks = json.loads(newcomer.smoothapi("doctor", "--json", "--offline").stdout)
    assert checks["ok"], checks
    assert {"python", "home", "denoiser", "provider"} <= {c["name"] for c in checks["checks"]}
    settings.write_text(settings.read_text().replace('"default"', '"none"'))
    return newcomer


@pytest.fixture(scope="module")
def certified(settled):
    """What the folder came to: the command, and its rows by name of the photo."""
    done = settled.smoothapi("certify", "photos/", "--max-votes", CAP, "--out", "r.jsonl", code=2)
    rows = list(map(json.loads, (settled.folder / "r.jsonl").read_text().splitlines()))
    return done, {Path(row["photo"]).stem: row for row in rows}


def test_the_folder_is_certified_to_the_end(certified):
    done, rows = certified
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "balloon": "certified",
        "school_bus": "abstained",
        "the_same_again": "abstained",
        "broken": "failed",
    }
    assert "broken.jpg" in done.stderr
    said = re.search(r"(\d+) photos: (\d+) certified, (\d+) abstained, (\d+) failed", both(done))
    assert tuple(map(int, said.groups())) == (4, 1, 2, 1)


def test_what_was_sent_is_one_number_everywhere(certified, settled):
    done, rows = certified
    sent = sum(row["queries"] or 0 for row in rows.values())
    said = re.search(r"Sent now: ([\d,]+) queries \(\$([\d.]+)\)", both(done))
    assert int(said[1].replace(",", "")) == sent
    assert float(said[2]) == pytest.approx(sent / 1000)
    assert sum(row["cost"] for row in rows.values()) == pytest.approx(sent / 1000)
    assert rows["the_same_again"]["votes"] == rows["school_bus"]["votes"]
    # The picture that is there twice is paid for once, and all that was paid for is kept. A few
    # more than the votes were under way when the run was given up.
    votes = rows["school_bus"]["votes"] + rows["balloon"]["votes"]
    assert votes + 2 <= sent <= votes + 2 + 16
    assert json.loads(settled.smoothapi("cache", "info", "--json").stdout)["answers"] == sent


def test_the_abstention_s_own_advice_works_and_costs_nothing(certified, settled):
    _, rows = certified
    told = settled.smoothapi("certify", "photos/school_bus.jpg", "--max-votes", CAP, code=1).stdout
    assert f"{rows['school_bus']['votes']}:" in told
    advised = re.search(r"--radius ([\d.]+)", told)[1]
    assert float(advised) == rows["school_bus"]["largest_radius"]
    followed = settled.smoothapi(
        "certify", "photos/school_bus.jpg", "--max-votes", CAP, "--radius", advised, "--json"
    )
    certificate = json.loads(followed.stdout)
    assert (certificate["label"], certificate["radius"]) == ("school bus", float(advised))
    assert certificate["queries"] == 0


def test_all_of_it_verifies(certified, settled):
    _, rows = certified
    said = settled.smoothapi("verify", "r.jsonl").stdout
    certificates = sum(row["outcome"] != "failed" for row in rows.values())
    assert said.count("Verified: ") == certificates == 3


@pytest.fixture(scope="module")
def study(certified, settled):
    """A study of the same photos, from the stored answers alone."""
    done = settled.smoothapi(
        "study", "photos", "--sigma", "0.25", "--radius", "0.25", "--max-votes", CAP,
        "--budget", "1", "--out", "report",
    )  # fmt: skip
    assert "Sent now: 0 queries" in both(done)
    return done, settled.folder / "report"


def test_the_study_says_what_certify_said(certified, study):
    _, rows = certified
    _, report = study
    figure = sequential(report)
    pictures = [rows["school_bus"], rows["balloon"]]
    assert figure["photos"] == 2
    assert figure["certified"] == 0.5
    assert figure["mean_queries"] == pytest.approx(sum(row["votes"] for row in pictures) / 2)
    assert figure["queries_per_success"] == pytest.approx(sum(row["votes"] for row in pictures))
    assert figure["dollars_per_success"] == pytest.approx(figure["queries_per_success"] / 1000)
    with (report / "figures.csv").open() as file:
        [line] = (row for row in csv.DictReader(file) if row["method"] == "sequential")
    assert float(line["mean_queries"]) == figure["mean_queries"]


def test_the_report_in_a_browser_says_what_the_terminal_said(study):
    done, report = study
    figure = sequential(report)
    assert f"{figure['agreeing']:.0%}" in done.stdout
    assert re.search(rf"\b{figure['queries_per_success']:.0f}\b", done.stdout)
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000
        )
        page = browser.new_page(viewport={"width": 500, "height": 900})
        page.goto((report / "report.html").as_uri())
        headline = page.locator('[data-figure="headline"]').inner_text()
        shown = page.eval_on_selector_all(
            "#figures tbody tr [data-value]", "cells => cells.map(cell => cell.dataset.value)"
        )
        browser.close()
    assert headline == f"{figure['agreeing']:.0%}"
    values = {float(value) for value in shown if value}
    for name in ("agreeing", "mean_queries", "queries_per_success", "dollars_per_success"):
        assert any(value == pytest.approx(figure[name]) for value in values), name


def test_the_pytest_plugin_comes_with_the_wheel(settled):
    (settled.folder / "test_mine.py").write_text(
        "from smoothapi import Smoother\n"
        "from smoothapi.testing import assert_certified\n\n\n"
        "def test_mine(smoothapi_mock):\n"
        "    with Smoother(smoothapi_mock({'bus': 1.0}), size=32) as smoother:\n"
        f"        assert_certified(smoother.certify({str(PHOTOS / 'balloon.jpg')!r}), label='bus')\n"
    )
    assert (
        "1 passed" in settled.run("pytest", "-q", "-p", "no:cacheprovider", "test_mine.py").stdout
    )


def sequential(report):
    """The figures of the test that smoothapi uses, beside the fixed one's."""
    rows = json.loads((report / "figures.json").read_text())
    [figure] = (row for row in rows if row["method"] == "sequential")
    return figure


def both(done):
    return " ".join((done.stdout + done.stderr).split())
