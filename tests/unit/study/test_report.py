"""What the report shows of a comparison; how it looks and works is tested in a browser."""

from __future__ import annotations

import pytest

from smoothapi.study.gallery import _worth_showing
from smoothapi.study.report import _dollars
from tests.unit.study.conftest import synthetic

pytest.importorskip("matplotlib")


def test_the_gallery_shows_the_way_that_certified_most():
    result = synthetic(20, denoisers=("none", "default"))
    shown = _worth_showing(result, 6)
    assert {cell.denoiser for cell in shown} == {"default"}
    assert {cell.sigma for cell in shown} == {0.25}
    assert len({cell.outcome(0.25, 200).reason for cell in shown}) > 1


def test_plots_say_whose_they_are_where_several_are_compared(tmp_path):
    several = synthetic(20, denoisers=("none", "default")).report(tmp_path / "a").read_text()
    alone = synthetic(8).report(tmp_path / "b").read_text()
    assert several.count("<figcaption>aws, denoiser default. ") == 5
    assert "<figcaption>aws, denoiser" not in alone
    assert "aws, denoiser none · sigma 0.25" in several


def test_dollars_in_a_column_have_the_same_digits():
    assert [_dollars(v) for v in (0.058, 0.16, 1.5, 0.0)] == [
        "$0.0580",
        "$0.1600",
        "$1.50",
        "$0.00",
    ]
