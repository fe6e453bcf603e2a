"""Assertions that say why they fail."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from smoothapi import Absence, Smoother
from smoothapi.testing import assert_abstained, assert_certified
from smoothapi_adapters.mock import MockAdapter

PHOTO = np.full((8, 8, 3), 90, dtype=np.uint8)


def certificate(chances, *, predict=False, target="top1", **options):
    options = {"radius": 0.1, "max_votes": 200, **options}
    with Smoother(MockAdapter(chances, seed=2), denoiser="none", size=8, **options) as smoother:
        return smoother.predict(PHOTO) if predict else smoother.certify(PHOTO, target=target)


def test_what_holds_passes():
    sure = certificate({"bus": 0.97, None: 0.03})
    assert_certified(sure)
    assert_certified(sure, label="bus", radius=0.1, alpha=0.001)
    assert_certified(sure, radius=0.05, alpha=0.01)
    unsure = certificate({"bus": 0.5, "van": 0.5})
    assert_abstained(unsure)
    assert_abstained(unsure, reason=unsure.reason)


def fails(check, *arguments, **expected):
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **expected)
    return str(caught.value)


def test_a_share_too_small_says_how_far_it_would_reach():
    text = fails(
        assert_certified,
        certificate({"bus": 0.7, "van": 0.25, None: 0.05}, radius=0.25),
        label="bus",
    )
    assert "expected 'bus' certified\n" in text
    assert "found abstained (" in text
    assert "for 'bus'" in text
    assert "for 'van'" in text
    assert "at sigma 0.25 needs more than 84.1%" in text
    assert "endless votes reach 0." in text


def test_too_few_votes_says_to_allow_more():
    text = fails(assert_certified, certificate({"bus": 0.9, "van": 0.1}, radius=0.25, max_votes=70))
    assert "raise max_votes (now 70)" in text


@pytest.mark.parametrize(
    ("chances", "options", "expected"),
    [
        ({"bus": 0.9, "van": 0.1}, {"radius": 0.25, "max_votes": 70}, {}),
        ({"bus": 0.7, "van": 0.3}, {"radius": 0.25}, {}),
        ({"bus": 0.6, "van": 0.4}, {"target": Absence("bus", 0.5)}, {}),
        ({"bus": 0.97, "van": 0.03}, {}, {"radius": 0.2}),
    ],
    ids=["too few votes", "too small a share", "another target", "a larger radius"],
)
def test_no_hint_breaks_what_final_promised(chances, options, expected):
    given = certificate(chances, final=True, **options)
    hint = fails(assert_certified, given, **expected).partition("hint ")[2]
    assert "choose max_votes and radius before" in hint
    for ruled_out in ("raise max_votes", "lower the radius", "ask for 0.2"):
        assert ruled_out not in hint


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"label": "van"}, "'van' got "),
        ({"radius": 0.2}, "radius=0.1 was asked for: ask for 0.2"),
        ({"alpha": 1e-6}, "give alpha=1e-06 to the Smoother"),
        ({"label": "b\x1b[31m"}, "'b\N{REPLACEMENT CHARACTER}[31m'"),
    ],
)
def test_each_expectation_is_checked_and_explained(expected, says):
    text = fails(assert_certified, certificate({"bus": 0.97, "van": 0.03}), **expected)
    assert says in text
    assert "found 'bus' at an L2 radius of 0.1, confidence 99.9%" in text


def test_the_largest_radius_may_be_too_small():
    text = fails(assert_certified, certificate({"bus": 1.0}, radius="largest"), radius=3.0)
    assert "the largest that these votes give" in text


def test_no_label_at_all_and_a_prediction_and_another_target():
    assert "no variant got a label" in fails(assert_certified, certificate({None: 1.0}))
    assert "certify(), not predict()" in fails(
        assert_certified, certificate({"bus": 1.0}, predict=True)
    )
    other = certificate({"bus": 0.6, "van": 0.4}, target=Absence("bus", 0.5))
    assert "the score that the target asks for" in fails(assert_certified, other)


def test_abstaining_is_checked_and_explained():
    sure = certificate({"bus": 1.0})
    text = fails(assert_abstained, sure)
    assert "expected no label\n" in text
    assert "found 'bus' at an L2 radius of 0.1" in text
    none = certificate({None: 1.0})
    text = fails(assert_abstained, none, reason="cap")
    assert f"the reason was {none.reason!r}" in text


def test_they_need_neither_pytest_nor_torch():
    script = """
import sys
from smoothapi.testing import assert_certified
assert not {"torch", "pytest"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
