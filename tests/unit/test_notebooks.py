"""What a notebook draws, and the progress bar for Python."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from smoothapi import Budget, ManyProgress, ProgressBar, Smoother
from smoothapi.errors import UsageError
from smoothapi_adapters.mock import MockAdapter
from tests.unit.study.conftest import synthetic

EVIL = "<script>alert(1)</script>"
GREY = np.full((16, 16, 3), 90, np.uint8)


class Tags(HTMLParser):
    """What elements a text has; complains of what is not closed."""

    VOID = frozenset({"img", "br"})

    def __init__(self, text):
        super().__init__()
        self.seen, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def named(self, tag):
        return [attrs for name, attrs in self.seen if name == tag]


def always(label):
    def labeller(_pixels):
        return [(label, 0.9)]

    labeller.labeller_id = f"always {label}/1"
    return labeller


@pytest.fixture
def smoother(tmp_path):
    with Smoother(
        MockAdapter(always(EVIL)), denoiser="none", radius=0.1, home=tmp_path / "home"
    ) as smoother:
        yield smoother


def test_a_certificate_is_drawn_with_bars_of_its_votes_and_with_the_photo_by_look(smoother):
    certificate = smoother.certify(GREY)
    page = Tags(certificate._repr_html_())
    assert not page.named("script")
    assert [row["style"] for row in page.named("div") if "width:100.0%" in row["style"]]
    look = smoother.look(GREY, certificate)
    drawn = Tags(look._repr_html_())
    assert [img["src"].partition(",")[0] for img in drawn.named("img")] == [
        "data:image/webp;base64"
    ] * 3
    assert not drawn.named("script")
    assert (look.photo == GREY).all()
    assert look.noisy.shape == look.denoised.shape == GREY.shape
    assert (look.noisy != GREY).any()
    assert not Tags(smoother.look(GREY)._repr_html_()).named("table")


def test_a_certificate_of_another_photo_is_not_shown_beside_this_one(smoother):
    certificate = smoother.certify(GREY)
    with pytest.raises(UsageError, match="of another photo"):
        smoother.look(GREY + 1, certificate)


def test_an_abstention_shows_none_certified_and_no_radius_of_0(tmp_path):
    coin = MockAdapter({"bus": 0.5, "van": 0.5}, seed=3)
    with Smoother(coin, denoiser="none", radius=0.1, max_votes=40, home=tmp_path) as smoother:
        abstention = smoother.certify(GREY)
    assert abstention.abstained
    drawn = abstention._repr_html_()
    assert "none certified" in drawn
    assert ">0 around" not in drawn
    assert "abstained" in drawn


def test_plans_budgets_and_studies_are_tables(smoother):
    plan = smoother.plan(GREY)
    least, most = plan.costs
    assert f"${least:.4f} to ${most:.4f}" in plan._repr_html_()
    assert "$2" in Budget(dollars=2, per="day", name=EVIL)._repr_html_()
    result = synthetic(4, pictures=0)
    for drawn in (plan, Budget(dollars=2, name=EVIL), result):
        page = Tags(drawn._repr_html_())
        assert page.named("table")
        assert not page.named("script")
        # A long value beside it may not break a name in two.
        assert all("nowrap" in of["style"] for of in page.named("th") if "left" in of["style"])


def test_the_bar_is_drawn_in_place_in_a_notebook_and_says_how_far_it_is(monkeypatch):
    drawn = []
    handle = SimpleNamespace(update=drawn.append)

    class ZMQInteractiveShell:
        pass

    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = ZMQInteractiveShell
    display.HTML = str
    display.display = lambda html, display_id: (drawn.append(html), handle)[1]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with ProgressBar() as bar:
        bar(SimpleNamespace(votes=3, needed=7, cost=0.5))
        bar(ManyProgress(4, 1, 2, 1, 0, 9, 9, 0, 0.25, 1.0))
    assert "starting" in drawn[0]
    assert "3 of 10 votes, $0.5000" in drawn[1]
    assert "1 certified, 2 abstained" in drawn[-1]
    for html in drawn:
        assert Tags(html).named("progress")


def test_without_a_terminal_the_bar_is_silent(capfd):
    with ProgressBar() as bar:
        bar(SimpleNamespace(votes=3, needed=7, cost=0.5))
    assert capfd.readouterr() == ("", "")
