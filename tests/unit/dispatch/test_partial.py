"""Runs that buy what the budget allows, and closing that goes on whatever fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi import Budget, BudgetExceededError, Retry, Smoother, parts
from smoothapi.cli import run
from tests.conftest import ScriptedAdapter, answer

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
FAST = Retry(attempts=4, base=0.001, cap=0.002)


def made(adapter, **options):
    # Of several at once, one may give back what it has reserved when another is refused.
    return Smoother(adapter, denoiser="none", retry=FAST, concurrency=1, **options)


@pytest.mark.parametrize("batch", [1, 16])
def test_a_partial_run_buys_what_the_budget_allows_and_resumes(batch):
    adapter = ScriptedAdapter(batch=batch)
    with made(adapter, budget=Budget(attempts=13), partial=True) as s:
        with pytest.raises(BudgetExceededError, match="12 votes are kept") as caught:
            s.certify(PHOTO)
    assert adapter.sent == caught.value.attempts == 13
    assert "continues" in str(caught.value)
    rest = ScriptedAdapter(batch=batch)
    with made(rest, partial=True) as s:
        resumed = s.certify(PHOTO)
    assert resumed.label == "bus"
    assert resumed.cached == 13
    assert rest.sent == resumed.total_votes + 1 - 13
    assert set(adapter.attempts).isdisjoint(rest.attempts)


def test_without_it_such_a_run_is_refused_before_the_first_query():
    adapter = ScriptedAdapter()
    with made(adapter, budget=Budget(attempts=13)) as s:
        with pytest.raises(BudgetExceededError, match="partial"):
            s.certify(PHOTO)
    assert adapter.sent == 0


def test_partial_on_the_command_line_and_as_a_setting(monkeypatch, capsys):
    adapter = ScriptedAdapter()
    monkeypatch.setattr(parts, "make_adapter", lambda name, **_: adapter)
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    monkeypatch.setenv("SMOOTHAPI_CONCURRENCY", "1")
    Image.fromarray(PHOTO).save("photo.png")
    assert run(["certify", "photo.png", "--budget", "5"]) == 3
    assert adapter.sent == 0
    assert run(["certify", "photo.png", "--budget", "5", "--partial"]) == 3
    assert adapter.sent == 5
    assert "4 votes are kept" in capsys.readouterr().err
    Path("smoothapi.toml").write_text("partial = true\n")
    assert run(["certify", "photo.png", "--budget", "2"]) == 3
    assert adapter.sent == 7
    assert "6 votes are kept" in capsys.readouterr().err
    assert run(["certify", "photo.png", "--budget", "200"]) == 0


def test_closing_goes_on_when_a_step_fails():
    class Stuck(ScriptedAdapter):
        def close(self):
            super().close()
            raise OSError("connection already gone")

    adapter = Stuck(lambda *_: answer())
    s = made(adapter)
    closed = []
    home = s.session.dispatcher.store
    parts = {"answers": home.answers, "database": home.database}
    for name, part in parts.items():
        really = part.close
        part.close = lambda name=name, really=really: (closed.append(name), really())
    with pytest.raises(OSError, match="already gone"):
        s.close()
    assert adapter.closed
    assert closed == ["database", "answers"]
    s.close()  # once is enough
