"""What would make a study look better, or worse, than it is."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from smoothapi.certify import TopK
from smoothapi.errors import PermanentError
from smoothapi.study import StudyResult, band, choices
from smoothapi.study.collect import MODEL_CHANGED, UNDECIDED
from smoothapi.study.figures import figures
from smoothapi.study.plans import votes_left
from smoothapi.study.report import View
from smoothapi_adapters.mock import MockAdapter
from tests.unit.study.conftest import synthetic


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
    study = make(
        photos, adapter=MockAdapter(refuses_noise_on_bright_ones), sigmas=0.12, max_votes=80
    )
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
        assert figure.measure == "certified"
        assert figure.queries_per_success == figure.mean_queries


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
        max_votes=200,
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
    view = View(replace(result, cells=(*cells, *result.cells[4:])))
    [rows] = view.context()["projections"]
    assert rows["rows"][0].queries / rows["rows"][0].photos > (200 + cheap / 2) / 2 > 100


def _switching(after):
    """A model that is replaced after so many noisy copies of the grey photo that it wavers on."""
    from smoothapi.answer import Answer, Label

    class Switching(MockAdapter):
        asked = 0
        counting = threading.Lock()

        def ask(self, payloads):
            found = []
            for answer in super().ask(payloads):
                wavering = isinstance(answer, Answer) and answer.labels[0].name == "maybe"
                with self.counting:
                    Switching.asked += wavering
                    late = wavering and Switching.asked > after
                found.append(Answer((Label("maybe", 0.9),), "v2") if late else answer)
            return found

    return Switching


def test_photos_whose_model_changed_in_the_middle_are_counted_as_not_certified(make, tmp_path):
    """They are those that take many votes: without them the share would be of the easy ones."""
    photos = {f"{n}": grey(60, n) for n in range(6)} | {"slow": grey(200, 0)}

    def sure(pixels):
        return [("maybe" if pixels.mean() > 150 else "dark", 0.9)]

    adapter = _switching(after=10)(sure)
    # One request at a time: else the first fifteen votes can all be of the new model, and decide.
    study = make(
        photos, adapter=adapter, sigmas=0.12, radii=(0.02, 0.1), max_votes=80, concurrency=1
    )
    result = study.run()
    assert not result.stopped
    [problem] = result.problems
    assert (problem.photo, problem.kind) == ("slow", "undecided")
    assert result.left_out == 0
    assert len(result.photos) == 7
    reasons = {o.reason for c in result.cells if c.photo == "slow" for o in c.outcomes}
    assert reasons == {MODEL_CHANGED}
    for figure in figures(result):
        if figure.method == "sequential":
            assert figure.photos == 7
            assert figure.certified.share == 6 / 7
            assert figure.abstained == {MODEL_CHANGED: 1}
            assert figure.undecided == 1
            assert figure.certified.low == band(6, 7).low
            assert figure.certified.high == band(7, 7).high
    page = result.report(tmp_path / "report").read_text()
    assert "model changed before the test could decide" in page
    assert "1 photo was left undecided" in page
    again = StudyResult.from_json(result.to_json())
    assert again == result


def test_a_fixed_sample_that_was_not_completed_is_measured_and_not_certified(make):
    photos = {f"{n}": grey(60, n) for n in range(6)} | {"slow": grey(200, 0)}

    def sure(pixels):
        return [("maybe" if pixels.mean() > 150 else "dark", 0.9)]

    adapter = _switching(after=10)(sure)
    study = make(
        photos, adapter=adapter, sigmas=0.12, radii=0.1, max_votes=80, complete=True, concurrency=1
    )
    [fixed] = [f for f in figures(study.run()) if f.method == "fixed"]
    assert not fixed.estimated
    assert fixed.certified.share == 6 / 7
    assert fixed.mean_queries == fixed.median_queries == 80


def _cut(result, sigma, votes):
    """The study as it would be had photos that take more than `votes` ended there."""
    return replace(
        result,
        cells=tuple(
            replace(
                cell,
                outcomes=tuple(
                    replace(o, label=None, reason=UNDECIDED, votes=votes, agrees=None)
                    if cell.sigma == sigma and o.votes > votes
                    else o
                    for o in cell.outcomes
                    if o.method == "sequential"
                ),
            )
            for cell in result.cells
        ),
    )


def test_queries_of_a_study_cut_short_are_not_those_of_truncated_votes():
    """With most photos at some votes fewer, the cost of a photo stays what it was."""
    whole = synthetic(60, pictures=0)
    for figure in figures(_cut(whole, 0.25, 60)):
        [full] = [
            f
            for f in figures(whole)
            if (f.sigma, f.radius, f.max_votes, f.method)
            == (figure.sigma, figure.radius, figure.max_votes, figure.method)
        ]
        if figure.undecided:
            assert figure.sigma == 0.25
            # All that is known of them is that they take more than 60 and at most the cap.
            assert figure.mean_queries >= full.mean_queries
            assert figure.mean_queries <= figure.max_votes
            assert figure.certified.share <= full.certified.share <= figure.certified.high
        elif figure.method == "sequential":
            assert figure == full


def test_the_sigma_whose_photos_were_cut_short_does_not_win_by_it():
    whole = synthetic(60, pictures=0)
    for before, after in zip(
        choices(whole, 200).values(),
        choices(_cut(whole, 0.25, 30), 200).values(),
        strict=True,
    ):
        if before.chosen is not None and before.chosen.sigma == 0.12:
            assert after.chosen.sigma == 0.12


def test_a_study_without_any_decision_is_reported_as_one(tmp_path):
    page = _cut(_cut(synthetic(6), 0.12, 1), 0.25, 1).report(tmp_path / "r").read_text()
    assert "6 photos were left undecided" in page
    assert 'data-figure="headline">0%' in page
