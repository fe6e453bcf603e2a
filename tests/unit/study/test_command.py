"""`smoothapi study` and `smoothapi plan` as they are used; killed, they go on where they were."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from smoothapi import cli
from tests.unit.study.conftest import synthetic

COUNTING = '''
import os, threading, time
import numpy as np
lock = threading.Lock()

def counted(pixels):
    """Name the strongest colour, and leave a mark for each picture that was asked about."""
    with lock, open(os.environ["COUNT_FILE"], "ab") as marks:
        marks.write(b"x")
    time.sleep(0.004)
    return [(("red", "green", "blue")[int(np.argmax(pixels.reshape(-1, 3).mean(0)))], 0.9)]

counted.labeller_id = "counted/1"
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six pictures with labels, and a provider that counts in a file."""
    random = np.random.default_rng(5)
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    for number in range(6):
        base = np.full(3, 0.45)
        base[number % 3] += 0.01 * number
        pixels = np.clip(base + random.normal(0, 0.02, (16, 16, 3)), 0, 1) * 255
        Image.fromarray(pixels.astype(np.uint8)).save(photos / f"{number}.png")
        rows.append((f"{number}.png", ("red", "green", "blue")[number % 3]))
    (photos / "bad.jpg").write_bytes(b"no photo")
    with (photos / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label"), *rows])
    (tmp_path / "counting.py").write_text(COUNTING)
    (tmp_path / "smoothapi.toml").write_text(
        'home = "kept"\ndenoiser = "none"\n[providers.mock]\nlabeller = "counting:counted"\n'
    )
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "noise.key").write_bytes(bytes(range(32)))
    (tmp_path / "kept" / "noise.key").chmod(0o600)
    monkeypatch.setenv("SMOOTHAPI_CONFIG", str(tmp_path / "smoothapi.toml"))  # it names code
    monkeypatch.setenv("COUNT_FILE", str(tmp_path / "count"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("SMOOTHAPI_HOME")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paid(folder):
    file = folder / "count"
    return file.stat().st_size if file.exists() else 0


STUDY = ["study", "photos", "--sigma", "0.12,0.25", "--radius", "0.05,0.1", "--max-votes", "40,120"]


def test_study_writes_a_report_and_a_second_one_from_json_alone(folder, capsys):
    arguments = [*STUDY, "--truth", "photos/labels.csv", "--gallery", "2", "--out", "report"]
    assert cli.run([*arguments, "--dry-run"]) == 0
    assert paid(folder) == 0
    assert "Nothing was sent" in capsys.readouterr().out
    assert cli.run(arguments) == 0
    captured = capsys.readouterr()
    assert "6 photos, at most 120 votes each" in captured.out
    assert "bad.jpg" in captured.out
    made = {path.name for path in (folder / "report").iterdir()}
    assert made == {"report.html", "result.json", "figures.csv", "figures.json", "photos.csv"}
    before = paid(folder)
    assert cli.run(["study", "report", "report/result.json", "--out", "later"]) == 0
    assert paid(folder) == before
    for name in made:
        assert (folder / "later" / name).read_bytes() == (folder / "report" / name).read_bytes()
    with (folder / "report" / "figures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    figures = json.loads((folder / "report" / "figures.json").read_text())
    assert [float(row["agreeing"]) for row in rows] == [row["agreeing"] for row in figures]
    assert all(row["accuracy_high"] for row in rows if row["method"] == "sequential")


def test_other_targets_are_studied_and_reported(folder, capsys):
    arguments = ["study", "photos", "--sigma", "0.12", "--radius", "0.05", "--max-votes", "40"]
    for target in ("present:red:0.5", "top2"):
        assert cli.run([*arguments, "--target", target, "--json", "--out", "report"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["target"]["target"] == {"p": "presence", "t": "top-k"}[target[0]]
        assert any(o["label"] for cell in result["cells"] for o in cell["outcomes"])
        text = (folder / "report" / "report.html").read_text()
        assert ("presence of red" if target[0] == "p" else "among the best 2") in text


def test_a_budget_that_ends_it_is_exit_code_3_with_a_partial_report(folder, capsys):
    assert cli.run([*STUDY, "--budget", "100", "--json", "--out", "report"]) == 3
    captured = capsys.readouterr()
    assert paid(folder) <= 100
    assert json.loads(captured.out)["stopped"]
    assert "partial" in captured.err
    assert "partial study" in (folder / "report" / "report.html").read_text()
    capsys.readouterr()
    cli.run(["budget", "--json"])
    assert "study " in capsys.readouterr().out


def test_killed_it_goes_on_and_pays_for_what_is_missing_alone(folder, capsys):
    command = [sys.executable, "-c", "from smoothapi.cli import main; main()", *STUDY, "--json"]
    running = subprocess.Popen(
        command, cwd=folder, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while paid(folder) < 120 and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    killed = paid(folder)
    assert killed >= 120
    assert cli.run([*STUDY, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    again = paid(folder) - killed
    assert again == sum(cell["queries"] for cell in result["cells"])
    # All that was paid is found, but for what was on its way when the kill came: the 32
    # requests in flight, and as many answers that were about to be stored.
    found = sum(cell["cached"] for cell in result["cells"])
    plain = 6  # found once more at the second sigma
    assert found >= killed - 64
    used = sum(n for cell in result["cells"] for _, n in cell["votes"])
    assert used <= found + again <= used + 12 * 40 + plain
    # And the same study, never killed, comes to the same votes.
    whole = [cell["votes"] for cell in result["cells"]]
    (folder / "other").mkdir()
    shutil.copy(folder / "kept" / "noise.key", folder / "other" / "noise.key")
    assert cli.run([*STUDY, "--json", "--home", "other"]) == 0
    assert [cell["votes"] for cell in json.loads(capsys.readouterr().out)["cells"]] == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study"], "Missing argument"),
        (["study", "nowhere"], "'nowhere' does not exist"),
        (["study", "photos", "--sigma", "a"], "with commas"),
        (["study", "photos", "--truth", "photos/0.png"], "cannot be read"),
        (["study", "report", "smoothapi.toml", "--out", "x"], "JSON of a study"),
        (["plan", "--sigma", "0.25", "--p", "2"], "share of answers"),
        (["plan", "--p", "0.9", "--distribution", "smoothapi.toml"], "not both"),
        (["plan", "--radius", "2", "--sigma", "0.25"], "needs at least|no number of votes"),
        (["plan", "--radius", "largest"], "not a radius around the working image"),
        (["plan", "--radius", "0.5 native"], "add --photo-size"),
        (["plan", "--radius", "largest", "--photo-size", "40x30"], "one radius"),
        (["plan", "--photo-size", "40"], "such as 4000x3000"),
        (["plan", "--photo-size", "0x30"], "such as 4000x3000"),
        (["plan", "--photo-size", "40x30001"], "such as 4000x3000"),
        (["plan", "--photo-size", "20000x20000"], "would be refused"),
        (["plan", "--photo-size", "20000x20"], "would be refused"),
    ],
)
def test_what_cannot_work_says_so(folder, capsys, arguments, message):
    import re

    assert cli.run(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert paid(folder) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["study", "nowhere"], "UsageError"),
        (["study", "photos", "--truth", "photos/0.png"], "UsageError"),
        (["study", "photos", "--provider", "nobody"], "UnknownProviderError"),
        (["study", "photos", "--sigma", "9", "--dry-run"], "UsageError"),
        (["plan", "--sigma", "0.25", "--p", "2"], "UsageError"),
        (["plan", "--radius", "2", "--sigma", "0.25"], "UnreachableRadiusError"),
    ],
)
def test_with_json_an_error_is_an_object_on_stdout(folder, capsys, arguments, error):
    assert cli.run([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (said["schema"], said["error"]) == ("smoothapi.error/1", error)
    assert said["message"].split()[0] in captured.err
    assert said["attempts"] == 0
    assert cli.run(arguments) == 2
    assert capsys.readouterr().out == ""


def test_with_json_a_budget_that_allows_nothing_is_an_object_and_exit_code_3(folder, capsys):
    assert cli.run([*STUDY, "--budget", "1", "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["error"]) == ("smoothapi.error/1", "BudgetExceededError")
    assert said["attempts"] <= paid(folder) <= 1


def planned(capsys, *more):
    assert cli.run(["plan", "--p", "0.97", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_with_a_last_cap_takes_fewer_queries(folder, capsys, monkeypatch):
    del folder
    terms = ["--radius", "0.25", "--max-votes", "300", "--sigma", "0.25"]
    plain, final = (planned(capsys, *terms, *more)["rows"][0] for more in ([], ["--final"]))
    assert final["queries"] < plain["queries"]
    assert final["at_least"] < plain["at_least"]
    assert final["certified"] >= plain["certified"]
    assert final["at_most"] == plain["at_most"]
    monkeypatch.setenv("SMOOTHAPI_FINAL", "true")
    assert planned(capsys, *terms)["rows"] == [final]
    assert planned(capsys, *terms, "--no-final")["rows"] == [plain]


@pytest.mark.parametrize("radius", ["0.2", "0.6 native", "0.3/255 rms"])
def test_a_plan_for_photos_of_a_size_says_the_radius_in_every_unit(radius, folder, capsys):
    Image.new("RGB", (90, 60)).save(folder / "photo.png")
    command = ["--radius", radius, "--size", "20", "--sigma", "0.25", "--max-votes", "100"]
    plan = planned(capsys, *command, "--photo-size", "90x60")
    assert plan["photo_size"] == [90, 60]
    dry = ["certify", str(folder / "photo.png"), *command, "--dry-run", "--json"]
    assert cli.run(dry) == 0
    one = json.loads(capsys.readouterr().out)
    row = plan["rows"][0]
    assert row["radius"] == one["radius"]
    for name in ("radius_native", "radius_rms", "rms_steps"):
        assert plan[name] == one[name] > 0.0
    assert cli.run(["plan", "--p", "0.97", *command, "--photo-size", "90x60"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Photos of 90 x 60: radius {row['radius']:g} around the working image" in shown


def test_a_plan_says_nothing_of_photos_whose_size_it_does_not_know(folder, capsys):
    del folder
    plan = planned(capsys, "--radius", "0.2")
    assert [plan[name] for name in ("photo_size", "radius_native", "radius_rms")] == [None] * 3


@pytest.mark.parametrize("columns", [30, *range(40, 82, 2)])
def test_no_figure_of_a_plan_is_cut_where_there_is_little_room(
    columns, folder, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    command = ["plan", "--radius", "0.2", "--sigma", "0.25,0.5", "--photos", "10000"]
    rows = planned(capsys, *command[1:])["rows"]
    assert cli.run([*command, "--p", "0.97"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= columns for line in shown.splitlines())
    assert "…" not in shown
    words = shown.split()
    for row in rows:
        figures = f"{row['queries']:,} {row['per_photo']:,.1f} ${row['dollars']:,.2f}".split()
        assert all(figure in words for figure in [*figures, f"${row['dollars_at_most']:,.2f}"])
    for name in ("sigma", "certified", "queries", "dollars", "most"):
        assert name in words
    assert "100%" in [line.split()[-1] for line in shown.splitlines() if "█" in line]


def test_plan_says_what_it_assumes_and_prices_with_free_tier_and_steps(folder, capsys):
    with (folder / "smoothapi.toml").open("a") as stream:
        stream.write(
            "[prices.mock]\nper_thousand = 1.0\nas_of = '2026-11-01'\nfree_per_month = 1000\n"
            "steps = [[100000, 0.5]]\n"
        )
    plan = ["plan", "--radius", "0.25", "--sigma", "0.12,0.25", "--photos", "10000"]
    assert cli.run(plan) == 0
    text = capsys.readouterr().out
    assert "Nothing was sent" in text
    assert "█" in text
    assert "held out" in text.replace("\n", " ")
    assert "first 1,000 of a month free" in text
    assert cli.run([*plan, "--p", "0.97", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    row = data["rows"][1]
    queries = row["queries"]
    assert row["dollars"] == pytest.approx((99_000 * 1.0 + (queries - 100_000) * 0.5) / 1000)
    assert row["at_most"] == 10_000 * 1000
    assert data["distribution"] == "assumed: every photo has p = 0.97"
    (folder / "result.json").write_text(synthetic(10).to_json())
    assert cli.run([*plan, "--distribution", "result.json", "--json"]) == 0
    assert "holiday" in json.loads(capsys.readouterr().out)["distribution"]
    assert paid(folder) == 0
