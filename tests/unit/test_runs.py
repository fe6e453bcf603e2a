"""What was run, written down: `smoothapi runs`."""

from __future__ import annotations

import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

from smoothapi import Smoother, cli
from smoothapi.address import parse_home
from smoothapi.errors import FatalError
from smoothapi.history import RunLog
from smoothapi.session import Session
from smoothapi.store import Home, RunRecord
from smoothapi.store.local.runs import LocalRuns
from smoothapi.study import Study
from smoothapi.wrapping.certifier import Certifier
from smoothapi_adapters.mock import MockAdapter


def sure(_pixels):
    return [("bus", 0.9)]


sure.labeller_id = "sure/1"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home, and settings that name an offline labeller; the working folder has two photos."""
    (tmp_path / "labeller.py").write_text(
        "def sure(pixels):\n    return [('bus', 0.9)]\nsure.labeller_id = 'sure/1'\n"
    )
    (tmp_path / "smoothapi.toml").write_text(
        'provider = "mock"\ndenoiser = "none"\nradius = 0.1\nhome = "kept"\n'
        '[providers.mock]\nlabeller = "labeller:sure"\n'
    )
    monkeypatch.setenv("SMOOTHAPI_CONFIG", str(tmp_path / "smoothapi.toml"))
    monkeypatch.delenv("SMOOTHAPI_HOME", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        pixels = np.full((16, 16, 3), 90 + 20 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return Home(tmp_path / "kept")


def told(capsys, *arguments):
    assert cli.run(["runs", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_command_writes_down_what_came_of_it(home, capsys):
    assert cli.run(["certify", "0.png"]) == 0
    assert cli.run(["certify", "0.png", "1.png"]) == 0
    assert cli.run(["predict", "1.png"]) == 0
    study = [
        "study",
        ".",
        "--sigma",
        "0.25",
        "--radius",
        "0.1",
        "--max-votes",
        "40",
        "--gallery",
        "0",
    ]
    assert cli.run(study) == 0
    capsys.readouterr()
    runs = told(capsys)
    assert sorted(run["command"] for run in runs) == ["certify", "certify", "predict", "study"]
    assert all(run["outcome"] == "done" and run["ended"] and run["by"] for run in runs)
    by_counts = {json.dumps(run["counts"]) for run in runs if run["command"] == "certify"}
    assert by_counts == {'{"certified": 1}', '{"certified": 2}'}
    several = next(run for run in runs if run["counts"] == {"certified": 2})
    assert {photo["photo"] for photo in several["photos"]} == {"0.png", "1.png"}
    assert sum(photo["dollars"] for photo in several["photos"]) == pytest.approx(several["dollars"])
    assert [*told(capsys, "show", several["id"])] == [several]
    assert [*told(capsys, "show", several["id"][-6:])] == [several]


def test_what_a_run_cost_is_what_its_certificates_and_the_budget_say(home, capsys):
    assert cli.run(["certify", "0.png", "--json"]) == 0
    certificate = json.loads(capsys.readouterr().out)
    (run,) = told(capsys)
    assert run["dollars"] == pytest.approx(certificate["cost"])
    assert run["attempts"] == certificate["attempts"]
    assert run["photos"][0]["radius"] == certificate["radius"]
    assert run["settings"]["sigma"] == certificate["sigma"]


def test_a_run_that_an_error_ends_says_so_and_a_bad_photo_is_counted(home, capsys):
    (home.folder.parent / "bad.png").write_bytes(b"no photo")
    assert cli.run(["certify", "bad.png"]) == 2
    assert cli.run(["certify", "0.png", "--budget", "3"]) == 3
    capsys.readouterr()
    outcomes = {run["outcome"].partition(":")[0] for run in told(capsys)}
    assert outcomes == {"done", "BudgetExceededError"}


@pytest.mark.parametrize("columns", [40, 50, 60])
def test_where_a_table_has_no_room_a_run_is_a_few_lines(columns, home, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.run(["certify", "0.png"]) == 0
    assert cli.run(["certify", "1.png"]) == 0
    capsys.readouterr()
    later, earlier = told(capsys)
    assert cli.run(["runs"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line[1] for line in lines if line[0] == "run"] == [later["id"], earlier["id"]]
    assert lines.count(["command", "certify"]) == lines.count(["outcome", "1", "certified"]) == 2


def test_a_table_and_one_run_for_people_with_what_is_hostile_escaped(home, capsys):
    hostile = "a\x1b[31m.png"
    Image.new("RGB", (16, 16)).save(hostile)
    assert cli.run(["certify", hostile]) == 0
    capsys.readouterr()
    for arguments in ([], ["list"], ["show"]):
        assert cli.run(["runs", *arguments]) == 0
        shown = capsys.readouterr().out
        assert "certif" in shown
        assert "\x1b[31m" not in shown
    assert cli.run(["runs", "show", "nothing"]) == 2
    assert "No run has the id" in capsys.readouterr().err


def test_addresses_on_the_command_line_are_kept_without_what_opens_a_door(monkeypatch):
    from smoothapi.cli.terminal import command_line

    monkeypatch.setattr(
        "sys.argv",
        ["smoothapi", "certify", "https://me:secret@host/a.jpg?sig=secret",
         "--home=postgresql://me:secret@host/db", "--home", "postgresql://me:secret@host/db"],
    )  # fmt: skip
    line = command_line()
    assert "secret" not in line
    assert "https://host/a.jpg" in line
    assert "--home=postgresql://host/db" in line


def test_a_study_from_python_is_a_run_and_says_what_stopped_it(home):
    photos = {"a": np.full((16, 16, 3), 90, np.uint8), "b": np.full((16, 16, 3), 120, np.uint8)}
    options = {"sigmas": 0.25, "radii": 0.1, "max_votes": 40, "denoisers": "none", "gallery": 0}
    result = Study(photos, provider=MockAdapter(sure), home=home.folder, **options).run()
    (run,) = home.runs.latest(9)
    assert (run.command, run.outcome, run.counts["studied"]) == ("study", "done", 2)
    assert run.dollars == pytest.approx(result.dollars)
    assert run.settings["sigma"] == [0.25]


def test_a_wrapped_client_is_one_run_of_its_process(home):
    with Smoother(MockAdapter(sure), denoiser="none", home=home.folder) as smoother:
        certifier = Certifier(lambda _: smoother.session, "serve", by="anna")
        certifier._opened(smoother.session.adapter)
        certificate = smoother.certify(np.full((16, 16, 3), 90, np.uint8), radius=0.1)
        certifier._write_down("a.png", certificate)
        certifier._write_down("b.png", FatalError("no"))
        certifier.close()
    (run,) = home.runs.latest(9)
    assert (run.command, run.by, run.outcome) == ("serve", "anna", "done")
    assert run.counts == {"certified": 1, "failed": 1}


def test_a_home_that_cannot_keep_its_runs_certifies_all_the_same(home, caplog):
    home.folder.mkdir()
    (home.folder / "runs").write_text("in the way")
    with Smoother(MockAdapter(sure), denoiser="none", home=home.folder) as smoother:
        with RunLog(smoother.session, "certify") as log:
            log.failure("a", FatalError("no"))
        assert smoother.certify(np.full((16, 16, 3), 90, np.uint8), radius=0.1).label == "bus"
    assert caplog.text.count("not written down") == 1


def test_a_store_of_before_runs_is_no_reason_to_fail(home, monkeypatch):
    with Smoother(MockAdapter(sure), denoiser="none", home=home.folder) as smoother:
        monkeypatch.setattr(Home, "runs", None)
        with RunLog(smoother.session, "certify") as log:
            log.failure("a", FatalError("no"))
    assert isinstance(smoother.session, Session)


def test_only_the_first_photos_are_named_and_all_are_counted(home):
    with Smoother(MockAdapter(sure), denoiser="none", home=home.folder) as smoother:
        with RunLog(smoother.session, "certify") as log:
            for number in range(150):
                log.photo(f"{number}.png", "certified", dollars=0.5)
    (run,) = home.runs.latest(1)
    assert (len(run.photos), run.counts, run.dollars) == (100, {"certified": 150}, 75.0)


@pytest.mark.timeout(60)
def test_who_counts_a_photo_does_not_wait_for_the_store(home, monkeypatch):
    monkeypatch.setattr("smoothapi.history._EVERY", 0.0)
    keep, written = LocalRuns.keep, []
    begun, may = threading.Event(), threading.Event()

    def slow(self, run):
        written.append(run.counts)
        begun.set()
        may.wait(30)
        return keep(self, run)

    monkeypatch.setattr(LocalRuns, "keep", slow)
    with Smoother(MockAdapter(sure), denoiser="none", home=home.folder) as smoother:
        with RunLog(smoother.session, "certify") as log:
            for number in range(3):
                log.photo(f"{number}.png", "certified")
                begun.wait(30)
            assert written == [{"certified": 1}], "one at a time"
            may.set()
    (run,) = home.runs.latest(9)
    assert (run.outcome, run.counts) == ("done", {"certified": 3})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "smoothapi.run/1"}', '{"schema": 1}'])
def test_what_is_no_record_is_left_out_of_the_list(home, text, caplog):
    kept = home.runs.begin(RunRecord("certify"))
    (home.folder / "runs" / "20990101T000000-abcdef.json").write_text(text)
    assert home.runs.latest(5) == [kept]
    assert "cannot be read" in caplog.text


def test_homes_of_before_have_no_runs(tmp_path):
    assert parse_home(tmp_path)
    assert Home(tmp_path / "none").runs.latest(5) == []
    assert not (tmp_path / "none").exists()


def test_past_runs_are_forgotten_once_they_were_counted(home, capsys, monkeypatch):
    aged = Home(home.folder, clock=lambda: time.time() - 100 * 86_400)
    for _ in range(2):
        aged.runs.begin(RunRecord("certify"))
    assert cli.run(["certify", "0.png"]) == 0
    answers = len(home.answers)
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert cli.run(["runs", "clear", "--older-than", "90"]) == 130
    assert "Forget 2 runs that began more than 90 days ago?" in capsys.readouterr().out
    assert len(home.runs.latest(9)) == 3
    assert cli.run(["runs", "clear", "--older-than", "90", "--yes"]) == 0
    assert cli.run(["runs", "clear", "--older-than", "90"]) == 0  # nothing to ask about
    assert capsys.readouterr().out == "Forgot 2 runs.\nForgot 0 runs.\n"
    (run,) = home.runs.latest(9)
    assert (run.outcome, len(home.answers)) == ("done", answers)
    assert cli.run(["runs", "clear", "--yes"]) == 2
    assert "--older-than" in capsys.readouterr().err
    for age in ("nan", "inf", "-1", "1e12", "1e300"):
        assert cli.run(["runs", "clear", "--older-than", age, "--yes"]) == 2
        assert "write days, from 0" in capsys.readouterr().err


def test_a_run_that_another_process_forgot_just_now_is_no_error(home, monkeypatch):
    home.runs.begin(RunRecord("certify"))
    monkeypatch.setattr(type(home.runs), "_older", lambda self, days: ["20200101T000000-abcdef"])
    assert home.runs.clear(0.0) == 0
