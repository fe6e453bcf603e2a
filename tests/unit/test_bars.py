"""Progress of photos on stderr: what a bar says, and what is said where there is no terminal."""

from __future__ import annotations

import io
import re
import sys
import threading
from types import SimpleNamespace

import pytest

from smoothapi import ManyProgress, Progress
from smoothapi.cli import bars
from tests.waiting import until


class _Stderr(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def says(self, part: str) -> bool:
        return part in " ".join(self.getvalue().split())


@pytest.fixture
def session():
    """Whose denoiser is loaded."""
    return SimpleNamespace(variants=SimpleNamespace(denoiser=SimpleNamespace(loading=False)))


def a_terminal(monkeypatch, columns=100):
    """Put one in place of stderr; in a test, as pytest puts its own there after each fixture."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    stderr = _Stderr(terminal=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    return stderr


def a_file(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # colours there are none of a bar's business
    stderr = _Stderr(terminal=False)
    monkeypatch.setattr(sys, "stderr", stderr)
    return stderr


def of_many(**changed):
    given = {
        "done": 3, "certified": 1, "abstained": 1, "failed": 1, "under_way": 2, "votes": 90,
        "queries": 93, "cached": 0, "cost": 0.093, "seconds": 1.0,
    }  # fmt: skip
    return ManyProgress(**{**given, **changed})


def test_one_bar_counts_all_photos_and_dollars_and_says_the_time_left(session, monkeypatch):
    terminal = a_terminal(monkeypatch)
    with bars.progress_of_many(9, session) as advance:
        advance(of_many())
    assert terminal.says("photos")
    assert terminal.says("3 of 9: 1 certified, 1 abstained, 1 failed, $0.09")
    assert terminal.says("--:--")  # not known after a moment


def shown(terminal):
    """Return the lines that a bar last drew."""
    said = re.split(r"\r|\n(?=\x1b)", terminal.getvalue())
    drawn = [re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", part) for part in said]
    return [part for part in drawn if part.strip()][-1].splitlines()


@pytest.mark.parametrize("columns", [50, 60, 69, 80, 200])
def test_no_count_of_many_photos_is_cut_where_there_is_little_room(columns, session, monkeypatch):
    terminal = a_terminal(monkeypatch, columns)
    with bars.progress_of_many(100_000, session) as advance:
        advance(of_many(done=12_345, certified=9_876, abstained=2_345, failed=124, cost=123.45))
    lines = shown(terminal)
    assert all(len(line) <= columns for line in lines)
    text = " ".join(lines)
    parts = ["12,345 of 100,000:", "9,876 certified,", "2,345 abstained,", "124 failed,", "$123.45"]
    for part in parts:
        for word in part.split():
            assert word in text.split()
    assert "--:--" in text
    assert "…" not in text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("columns", [50, 60, 80, 200])
def test_of_one_photo_the_name_is_cut_before_any_count(columns, session, monkeypatch):
    terminal = a_terminal(monkeypatch, columns)
    monkeypatch.setattr(bars, "_UNSEEN", 0.0)
    with bars.progress("a/very/long/name/of/a/photo/in/many/folders.jpg", session) as advance:
        advance(Progress(940, 60, 1000, 1041, 0, 1.041))
        until(lambda: terminal.says("940/1000 votes, 1041 sent, $1.0410 0:00:00"))
    assert terminal.says("a/ver")


@pytest.mark.timeout(60)
def test_the_bar_of_one_photo_counts_its_votes_and_its_name_is_no_markup(session, monkeypatch):
    terminal = a_terminal(monkeypatch)
    with bars.progress("[bold]\x1b[31mbus.jpg", session) as advance:
        advance(Progress(40, 8, 1000, 41, 0, 0.041))
        until(lambda: terminal.says("40/48 votes, 41 sent, $0.0410"))
    assert terminal.says("[bold]")
    assert "\x1b[31m" not in terminal.getvalue()


def test_one_photo_that_takes_no_while_has_no_bar(session, monkeypatch):
    terminal = a_terminal(monkeypatch)
    monkeypatch.setattr(bars, "_UNSEEN", 60.0)
    with bars.progress("bus.jpg", session) as advance:
        advance(Progress(40, 8, 1000, 0, 41, 0.0))
    assert terminal.getvalue() == ""


def test_a_bar_does_not_come_after_what_it_is_of(session, monkeypatch):
    """rich took so long to load that another Ctrl-C ended the waiting for it."""
    terminal = a_terminal(monkeypatch)
    bar = bars._Bar(bars._of_votes, "bus.jpg", session.variants.denoiser, {})
    bar.ended.set()
    bar.show()
    assert terminal.getvalue() == ""


@pytest.mark.timeout(60)
def test_a_second_ctrl_c_leaves_no_bar(session, monkeypatch):
    terminal = a_terminal(monkeypatch)
    monkeypatch.setattr(bars, "_UNSEEN", 0.0)

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), bars.progress("bus.jpg", session):
        until(lambda: terminal.says("bus.jpg"))
        monkeypatch.setattr(threading.Thread, "join", interrupted)
    monkeypatch.undo()
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l") >= 0


@pytest.mark.timeout(60)
def test_a_bar_that_comes_late_says_all_that_was_told_before(session, monkeypatch):
    terminal = a_terminal(monkeypatch)
    monkeypatch.setattr(bars, "_UNSEEN", 0.05)
    with bars.progress("bus.jpg", session) as advance:
        advance(Progress(40, 8, 1000, 41, 0, 0.041))
        until(lambda: terminal.says("bus.jpg"))
        assert terminal.says("40/48 votes, 41 sent, $0.0410")


@pytest.mark.timeout(60)
def test_a_bar_says_that_the_denoiser_is_loaded_and_then_what_is_worked_on(session, monkeypatch):
    terminal = a_terminal(monkeypatch)
    session.variants.denoiser.loading = True
    with bars.progress("bus.jpg", session):
        until(lambda: terminal.says("loading the denoiser"))
        session.variants.denoiser.loading = False
        terminal.truncate(0)
        until(lambda: terminal.says("bus.jpg"))


def test_in_a_log_there_is_a_line_now_and_then_and_no_bar(session, monkeypatch):
    log_file = a_file(monkeypatch)
    now = [0.0]
    monkeypatch.setattr(bars, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with bars.progress_of_many(None, session) as advance:
        for second in range(0, 80, 5):
            now[0] = second
            advance(of_many(done=second, failed=0))
    assert log_file.getvalue().splitlines() == [
        "photos 35: 1 certified, 1 abstained, $0.09",
        "photos 70: 1 certified, 1 abstained, $0.09",
    ]


def test_in_a_log_one_photo_says_nothing(session, monkeypatch):
    log_file = a_file(monkeypatch)
    with bars.progress("bus.jpg", session) as advance:
        advance(Progress(40, 8, 1000, 41, 0, 0.041))
    assert log_file.getvalue() == ""
