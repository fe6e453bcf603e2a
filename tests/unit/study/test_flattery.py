"""What would make a study look better, or worse, than it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smoothapi.certify import TopK
from smoothapi.errors import PermanentError
from smoothapi.study.collect import UNDECIDED
from smoothapi.study.figures import figures
from smoothapi.study.plans import votes_left
from smoothapi.study.report import _View
from smoothapi_adapters.mock import MockAdapter


def grey(brightness, number):
    return np.full((16, 16, 3), brightness + number, np.uint8)


def test_photos_that_the_service_fails_on_under_noise_are_counted(make):
    """Else the share would be of those photos that it can answer."""

    def refuses_noise_on_bright_ones(pixels):
        if pixels.mean() > 130 and pixels.std() > 8:
            raise PermanentError("The picture cannot be read.")
        return [("dark", 0.9)]

    photos = {f"dark {n}": grey(90, n) for n in range(8)}
    photos |= {f"bright {n}": grey(160, n) for n in range(2)}  # a third one could stop the study
    study = make(photos, adapter=MockAdapter(refuses_noise_on_bright_ones), sigmas=0.12, caps=80)
    result = study.run()
    assert {problem.photo for problem in result.problems} == {f"bright {n}" for n in range(2)}
    for figure in figures(result):
        assert figure.photos == 10
        if not figure.estimated:
            assert figure.certified.share == figure.agreeing.share == 0.8
            assert figure.undecided + sum(figure.abstained.values()) >= 2
        else:
            assert figure.certified.share < 0.82


def test_where_no_answer_can_agree_certificates_are_what_counts(make):
    """One answer has one first place: it says nothing about the best two."""
    study = make(
        {f"{n}": grey(90, n) for n in range(4)},
        adapter=MockAdapter(lambda _: [("dark", 0.9)]),
        sigmas=0.12,
        target=TopK(2),
    )
    result = study.run()
    assert {o.agrees for cell in result.cells for o in cell.outcomes} == {None}
    for figure in figures(result):
        assert figure.certified.share == 1.0
        assert not figure.compared
        assert figure.queries_per_success == figure.queries_per_certified


def test_a_study_cut_short_does_not_plan_as_if_the_cheap_photos_were_all():
    """Half take 20 votes, half 1,000; the study ended when each had 20 or 100."""
    left = votes_left([20] * 50, [100] * 50 + [0] * 100, 1000)
    assert left[0] == 900
    assert left[-1] == pytest.approx(0.5 * 20 + 0.5 * 1000)


def test_votes_left_are_right_on_average_wherever_photos_are_cut_off():
    random = np.random.default_rng(7)
    totals = np.minimum(random.geometric(0.01, 4000) + 10, 500)
    cuts = random.integers(0, 700, 4000)
    decided = totals[totals <= cuts].tolist()
    begun = np.minimum(cuts, 499)[totals > cuts]
    left = votes_left(decided, begun.tolist(), 500)
    assert sum(left) == pytest.approx((totals[totals > cuts] - begun).sum(), rel=0.06)


def test_projections_do_not_take_photos_cut_short_for_cheap_ones(make):
    """Certain photos take few votes; the others were at 30 of at most 200 when money ended."""
    result = make(
        {f"{n}": grey(90, n) for n in range(8)},
        adapter=MockAdapter(lambda _: [("dark", 0.9)]),
        sigmas=0.25,
        caps=200,
    ).run()
    cheap = max(cell.total_votes for cell in result.cells)
    cells = [
        replace(
            cell,
            outcomes=tuple(
                replace(o, reason=UNDECIDED, label=None, votes=30) for o in cell.outcomes
            ),
        )
        for cell in result.cells[:4]
    ]
    view = _View(replace(result, cells=(*cells, *result.cells[4:])))
    [rows] = view.context()["projections"]
    assert rows["rows"][0].queries / rows["rows"][0].photos > (200 + cheap / 2) / 2 > 100
