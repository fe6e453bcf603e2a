"""A study buys each vote once, and makes of the votes what `certify` would."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi import Budget, Presence, Smoother
from smoothapi.certify import Top1, fixed_certify
from smoothapi.errors import BudgetExceededError, FatalError, ImageError, UsageError
from smoothapi.study import Rules, Shares, StudyResult
from smoothapi.study.collect import Collector
from smoothapi.study.folder import find_photos, read_truth
from smoothapi_adapters.mock import MockAdapter
from tests.unit.study.conftest import HOSTILE, maker, some_pictures, strongest


@dataclass
class Whole:
    """A study that has been run; tests that need no other share it, and its home."""

    make: object
    pictures: dict
    home: Path
    adapter: MockAdapter
    result: StudyResult
    billed: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    home, pictures = tmp_path_factory.mktemp("whole"), some_pictures()
    make = maker(home)
    study = make(pictures)
    result = study.run()
    return Whole(make, pictures, home, study.adapter, result, study.adapter.billed)


def test_outcomes_are_those_of_certify_at_every_radius_and_cap(whole):
    result, adapter, bought = whole.result, whole.adapter, whole.adapter.billed
    assert len(result.cells) == 24
    reasons = set()
    for sigma in (0.12, 0.25):
        for cap in (40, 80):
            with Smoother(
                adapter, sigma=sigma, max_votes=cap, denoiser="none", home=whole.home
            ) as smoother:
                for cell in [cell for cell in result.cells if cell.sigma == sigma][::2]:
                    for radius in (0.05, 0.1):
                        certificate = smoother.certify(whole.pictures[cell.photo], radius)
                        outcome = cell.outcome(radius, cap)
                        assert outcome.label == certificate.label
                        assert outcome.reason == certificate.reason
                        assert outcome.votes == certificate.total_votes
                        assert outcome.agrees == certificate.plain_agrees
                        reasons.add(outcome.reason)
    assert adapter.billed == bought  # certify found every vote in the store
    assert {"certified", "unlikely"} <= reasons


def test_no_vote_is_bought_twice_and_the_second_run_is_free(whole):
    first = whole.result
    plain = len(whole.pictures)
    assert whole.billed == sum(cell.queries for cell in first.cells)
    again = whole.make(whole.pictures, adapter=whole.adapter, max_votes=40, radii=0.1).run()
    assert whole.adapter.billed == whole.billed == first.queries
    assert again.queries == 0
    # Beyond the votes used: what was under way when a photo was decided.
    assert first.queries <= sum(cell.total_votes for cell in first.cells) * 1.5 + plain


def test_fixed_samples_are_those_of_the_paper_where_all_votes_are_bought(make, pictures, whole):
    result = make(dict(list(pictures.items())[::2]), complete=True, selection=10).run()
    for cell in result.cells:
        assert cell.total_votes >= 80
        votes = [label for label, n in cell.votes for _ in range(n)]
        for cap in (40, 80):
            delta = 1e-6  # less than what makes a difference, more than arithmetic takes off
            decision = fixed_certify(
                votes[:10], votes[10:cap], sigma=cell.sigma, alpha=0.001, delta=delta
            )
            for radius in (0.05, 0.1):
                outcome = cell.outcome(radius, cap, "fixed")
                assert outcome.certified == (decision.radius >= radius)
                assert outcome.votes == cap
    lazy = whole.result
    assert any(cell.outcome(0.05, 80, "fixed") is None for cell in lazy.cells)


def test_bad_photos_and_duplicates_are_said_and_end_nothing(make, pictures):
    pictures |= {"copy.png": pictures["05.png"], "broken.jpg": b"nothing", "empty.png": b""}
    result = make(pictures, radii=0.05, max_votes=40).run()
    kinds = {problem.photo: problem.kind for problem in result.problems}
    assert kinds == {"broken.jpg": "unreadable", "empty.png": "unreadable", "copy.png": "duplicate"}
    assert len(result.photos) == 12
    with pytest.raises(ImageError, match="None of the 1 photos"):
        make({"broken.jpg": b"nothing"}).run()


def test_a_photo_that_the_provider_refuses_is_a_problem_of_its_own(make, pictures):
    def picky(pixels):
        if pixels.shape[0] == 24:
            raise RuntimeError
        return strongest(pixels)

    class Picky(MockAdapter):
        def ask(self, payloads):
            from smoothapi.errors import PermanentError

            try:
                return super().ask(payloads)
            except RuntimeError:
                raise PermanentError("no such pictures here") from None

    picky.labeller_id = "picky/1"
    pictures["refused.png"] = np.full((24, 24, 3), 90, np.uint8)
    result = make(pictures, adapter=Picky(picky), sigmas=0.12, radii=0.05, max_votes=40).run()
    assert [problem.photo for problem in result.problems] == ["refused.png"]
    assert "no such pictures" in result.problems[0].why
    assert len(result.photos) == 12
    assert not result.stopped


def test_the_budget_ends_a_study_with_a_partial_result_and_holds_over_restarts(make, pictures):
    # A few cells at a time: none of the last photo before those of eight others have ended.
    study = make(pictures, budget=Budget(attempts=150), photos_at_once=4)
    result = study.run()
    assert "budget" in result.stopped.lower()
    assert study.adapter.billed <= 150
    assert 0 < len(result.photos) < 12
    # The limit is the study's: a second call has not got another 150.
    again = make(pictures, adapter=study.adapter, budget=Budget(attempts=150))
    bought = study.adapter.billed
    assert len(again.run().photos) >= len(result.photos)
    assert study.adapter.billed == bought
    more = make(pictures, adapter=study.adapter, budget=Budget(attempts=100_000)).run()
    assert not more.stopped
    assert len(more.photos) == 12
    with pytest.raises(BudgetExceededError):
        make(pictures, adapter=MockAdapter(strongest, labeller_id="other"), budget="1").run()


def test_what_the_budget_cuts_short_is_undecided(make, pictures):
    """Ten votes certify at none of the radii, and these give no reason to give up."""
    sure = MockAdapter({"bus": 1.0})
    result = make(pictures, adapter=sure, budget=Budget(attempts=10), photos_at_once=1).run()
    assert "budget" in result.stopped.lower()
    assert {o.reason for cell in result.cells for o in cell.outcomes} == {"undecided"}


def test_a_provider_that_refuses_all_ends_it(make, pictures):
    adapter = MockAdapter(strongest, quota=100)
    result = make(pictures, adapter=adapter, photos_at_once=1).run()
    assert result.stopped
    assert adapter.billed == 100
    with pytest.raises(FatalError):
        make(pictures, adapter=MockAdapter(strongest, labeller_id="none left", quota=0)).run()


def test_a_pilot_is_the_beginning_of_the_study(make, pictures):
    study = make(pictures)
    pilot = study.run(pilot=4)
    assert len(pilot.photos) == 4
    assert pilot.photos_found == 12
    before = study.adapter.billed
    whole = make(pictures, adapter=study.adapter).run()
    assert {photo.name for photo in pilot.photos} <= {photo.name for photo in whole.photos}
    kept = {cell.photo for cell in pilot.cells}
    assert all(cell.queries == 0 for cell in whole.cells if cell.photo in kept)
    assert study.adapter.billed == before + whole.queries


def test_a_plan_sends_nothing_and_brackets_what_is_sent(make, pictures):
    study = make(pictures)
    shares = Shares("assumed", {0.12: ((20, 20), (12, 20)), 0.25: ((18, 20), (9, 20))})
    plan = study.plan(shares=shares)
    assert study.adapter.requests == 0
    assert plan.at_most == 24 * 80 + 24  # the plain call, once for each sigma until it is stored
    assert 0 < plan.expected < plan.at_most
    assert plan.dollars_at_most == pytest.approx(plan.at_most / 1000)
    study.run(pilot=9)
    after = make(pictures, adapter=study.adapter).plan()
    assert all(row.basis.startswith("measured on 9") for row in after.rows)
    before = study.adapter.billed
    make(pictures, adapter=study.adapter).run()
    assert study.adapter.billed - before <= after.at_most
    assert make(pictures, adapter=study.adapter).plan().at_most == 0


def test_calibration_is_half_and_has_nothing_to_do_with_order(whole):
    one = whole.result
    other = whole.make(dict(reversed(whole.pictures.items())), adapter=whole.adapter).run()
    assert sum(photo.calibration for photo in one.photos) == 6
    assert {p.name: p.calibration for p in one.photos} == {
        p.name: p.calibration for p in other.photos
    }


def test_results_go_to_json_and_to_pandas(whole):
    import pandas as pd

    pictures = whole.pictures
    labels = dict.fromkeys(pictures, "red|green")
    result = whole.make(pictures, adapter=whole.adapter, truth=labels, gallery=2).run()
    assert StudyResult.from_json(result.to_json()) == result
    assert len(result.pictures) == 2
    frame = pd.DataFrame(result.records())
    assert len(frame) == 12 * 2 * 2 * 2 + sum(
        outcome.method == "fixed" for cell in result.cells for outcome in cell.outcomes
    )
    assert frame["right"].isin([True, False]).all()
    assert set(frame["photo"]) == set(pictures)
    assert HOSTILE in set(frame["photo"])
    broken = json.loads(result.to_json())
    for change in ({"schema": "other/1"}, {"cells": [{"photo": "x"}]}, {"rules": {}}):
        with pytest.raises(UsageError):
            StudyResult.from_dict(broken | change)
    first = json.loads(
        result.to_json().replace('"max_votes": [', '"caps": [').replace('"max_votes":', '"cap":')
    )
    assert StudyResult.from_dict(first | {"schema": "smoothapi.study/1"}) == result
    lost = broken["pictures"][0] | {"photo": next(iter(pictures)), "sigma": 7.0}
    with pytest.raises(UsageError, match="belongs to no cell"):
        StudyResult.from_dict(broken | {"pictures": [lost]})
    broken["pictures"][0]["noisy"] = '"><script>'
    with pytest.raises(UsageError, match="base64"):
        StudyResult.from_dict(broken)


def test_other_targets_and_classes(make, pictures):
    target = Presence("red", 0.5)
    result = make(pictures, target=target, radii=0.05, max_votes=40).run()
    assert {o.method for cell in result.cells for o in cell.outcomes} == {"sequential"}
    assert any(o.certified for cell in result.cells for o in cell.outcomes)
    warm = make(pictures, classes={"warm": ["red", "green"], "cold": ["blue"]}).run()
    labels = {o.label for cell in warm.cells for o in cell.outcomes}
    assert labels <= {"warm", "cold", None}
    with pytest.raises(UsageError, match="classes"):
        make(pictures, classes={"a": ["b"]}, target=target)


def test_denoisers_and_providers_are_compared_on_the_same_photos(make, pictures):
    def inverted(pixels):
        return strongest(255 - pixels)

    inverted.labeller_id = "inverted/1"
    result = make(
        pictures,
        provider={"a": MockAdapter(strongest), "b": MockAdapter(inverted)},
        denoisers={"none": "none", "again": "none"},
        sigmas=0.12, radii=0.05, max_votes=40,
    ).run()  # fmt: skip
    assert [facts.name for facts in result.providers] == ["a", "b"]
    assert len(result.cells) == 12 * 4
    by_way = {(c.provider, c.denoiser, c.photo): c.votes for c in result.cells}
    for name in pictures:
        assert by_way["a", "none", name] == by_way["a", "again", name]  # one fingerprint, one vote


def test_a_recording_is_studied_with_neither_provider_nor_denoiser(make, pictures, tmp_path):
    recording = tmp_path / "answers.jsonl"
    few = dict(list(pictures.items())[8:])
    with Smoother(
        MockAdapter(strongest), sigma=0.12, max_votes=40, denoiser="none", record=recording
    ) as smoother:
        certificates = {name: smoother.certify(photo, 0.05) for name, photo in few.items()}
    result = make(
        few, provider=f"replay:{recording}", sigmas=0.12, radii=0.05, max_votes=40, gallery=2
    ).run()
    assert not result.problems
    assert result.queries == 0
    for cell in result.cells:
        assert cell.outcome(0.05, 40).label == certificates[cell.photo].label
        assert cell.total_votes == certificates[cell.photo].total_votes


def test_ctrl_c_ends_it_and_nothing_paid_is_lost(make, pictures):
    interrupted, asked = threading.Event(), count()

    def until_interrupted(pixels):
        if next(asked) >= 200:
            assert interrupted.wait(60)
        return strongest(pixels)

    until_interrupted.labeller_id = "until interrupted/1"
    study = make(pictures, adapter=MockAdapter(until_interrupted))

    def interrupt(progress):
        if progress.votes > 20:
            interrupted.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(interrupt)
    paid = study.adapter.billed
    assert paid > 0
    whole = make(pictures, adapter=study.adapter).run()
    assert whole.queries > 0  # it had not come to its end
    assert sum(cell.cached for cell in whole.cells) >= paid - 12
    assert study.adapter.billed == paid + whole.queries


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmas": (0.1, 2.0)}, "noise levels"),
        ({"max_votes": (1,)}, "max_votes"),
        ({"max_votes": (50.5,)}, "whole"),
        ({"radii": ()}, "radii"),
        ({"radii": "far"}, "numbers"),
        ({"selection": 40}, "candidate"),
        ({"photos_at_once": 0}, "photos_at_once"),
        ({"provider": []}, "at least one provider"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(make, pictures, options, message):
    with pytest.raises(UsageError, match=message):
        make(pictures, **options)


def test_folders(tmp_path):
    for name in ("a.jpg", "sub/b.PNG", ".hidden/c.jpg", "notes.txt", "sub/.d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = find_photos(tmp_path)
    assert [name for name, _ in found.photos] == ["a.jpg", "sub/b.PNG"]
    assert found.passed_over == 1
    twice = find_photos([tmp_path / "a.jpg", tmp_path / "a.jpg", Image.new("RGB", (4, 4))])
    assert [name for name, _ in twice.photos] == ["a.jpg", "a.jpg (2)", "photo 3"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="No photos were found"):
        find_photos(tmp_path / "none")
    with pytest.raises(UsageError, match="does not exist"):
        find_photos(tmp_path / "gone")


def test_label_files(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufefffile,wnid,name\na.jpg,n1,tabby|cat\nsub\\b.jpg,n2, bus \nc.jpg,n3,\n")
    assert read_truth(path) == {"a.jpg": ("tabby", "cat"), "sub/b.jpg": ("bus",)}
    path.write_text("file,label,name\na.jpg,cat,dog\n")
    assert read_truth(path) == {"a.jpg": ("cat",)}
    path.write_text("file,label\na.jpg,cat\na.jpg,dog\n")
    with pytest.raises(UsageError, match="and again"):
        read_truth(path)
    path.write_text("picture;was\n")
    with pytest.raises(UsageError, match="need a header"):
        read_truth(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_truth(tmp_path / "gone.csv")


def test_never_more_in_flight_than_could_still_be_needed():
    rules = Rules((0.1, 0.25), (50, 200), 0.001)
    collector = Collector(rules, Top1(), sigma=0.25, delta=0.0, stop=threading.Event())
    unbroken = collector.needed()
    for _ in range(unbroken):
        assert not collector.done
        collector.add("bus")
    assert collector.done
    assert collector.decided
    stop = threading.Event()
    stopped = Collector(rules, Top1(), sigma=0.25, delta=0.0, stop=stop)
    stopped.add("bus")
    stop.set()
    assert stopped.needed() == 0
    assert {o.reason for o in stopped.outcomes(None)} == {"undecided"}
    hopeless = Collector(
        Rules((1.0,), (50,), 0.001), Top1(), sigma=0.25, delta=0.0, stop=threading.Event()
    )
    assert hopeless.needed() == 0
    assert [o.reason for o in hopeless.outcomes(None)] == ["unreachable"]


def test_an_abstention_says_what_its_votes_certify_at_a_smaller_radius(make, tmp_path):
    """As `certify` does: in the outcome, the report and the rows of photos.csv."""
    photo, asked = np.full((16, 16, 3), 90, dtype=np.uint8), count()

    def at_first(pixels):
        del pixels
        return [("bus" if next(asked) < 40 else "van", 0.9)]

    at_first.labeller_id = "at-first/1"
    study = make(
        {"a.png": photo},
        adapter=MockAdapter(at_first),
        sigmas=(0.25,), radii=(0.1, 0.3), max_votes=(200,), gallery=1, concurrency=1,
    )  # fmt: skip
    result = study.run()
    (cell,) = result.cells
    certified, abstained = (cell.outcome(radius, 200) for radius in (0.1, 0.3))
    assert (certified.label, abstained.label) == ("bus", None)
    assert abstained.largest_label == "bus"
    assert 0.25 / 8 <= abstained.largest_radius < 0.3
    with Smoother(
        study.adapter, sigma=0.25, max_votes=200, denoiser="none", home=tmp_path / "study-home"
    ) as smoother:
        assert smoother.certify(photo, 0.3).largest_radius == abstained.largest_radius
    page = result.report(tmp_path / "report").read_text()
    assert re.search(r"abstained, [^<;]+; bus is certified at 0\.\d+", page)
    rows = {row["radius"]: row for row in result.records() if row["method"] == "sequential"}
    assert rows[0.3]["largest_radius"] == abstained.largest_radius
    assert rows[0.3]["largest_label"] == "bus"
