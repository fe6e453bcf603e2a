"""A provider's taste is found within the budget, once paid for; who has none keeps the default."""

from __future__ import annotations

import json

import numpy as np
import pytest

from smoothapi import Smoother, denoise
from smoothapi.denoise.knobs import Knobs
from smoothapi.errors import BudgetExceededError, FatalError, UsageError
from smoothapi.image import load_image
from smoothapi.study import Study
from tests.conftest import with_noise_key

from .harness import NOISY, SHARP, SOFT, Taste, likes_sharp


def indifferent(name="any"):
    return Taste(lambda rough: 0.3 + (rough * 1000 % 1.0) * 0.4, name)


def test_who_prefers_sharpened_pictures_gets_them(tuned, weights):
    result = tuned.result
    assert result.adaptation.knobs == SHARP
    assert result.queries == tuned.sent <= 400
    assert result.stopped == ""
    held = result.held_out
    assert held.photos == 16
    assert held.after >= held.before
    assert "sharpened by 3" in tuned.card.read_text()
    runtime = denoise.load(tuned.file, device="cpu")
    assert runtime.name.startswith(f"tiny@{result.adaptation.sha256[:8]}+mock-")
    assert runtime.fingerprint != denoise.load(weights, device="cpu").fingerprint


def test_who_does_not_care_or_prefers_them_as_they_are_keeps_the_default(make, weights, tmp_path):
    for number, adapter in enumerate(
        (indifferent(), Taste(lambda rough: 1 - abs(rough - 38) / 80, "as it is"))
    ):
        result = make(adapter, settings=(SHARP, SOFT, NOISY)).run()
        assert result.adaptation.knobs.neutral
        assert result.adaptation.photos == frozenset()
        assert result.held_out is None  # nothing to compare, so nothing is paid for it
        path = tmp_path / f"{number}.json"
        result.write(path)
        same, plain = denoise.load(path, device="cpu"), denoise.load(weights, device="cpu")
        assert (same.name, same.fingerprint) == (plain.name, plain.fingerprint)


def test_a_dry_run_sends_nothing_and_says_at_most_what_is_sent(make, tuned):
    adapter = likes_sharp()
    plan = make(adapter).plan()
    assert tuned.result.queries <= plan.queries <= 400
    assert plan.dollars == pytest.approx(plan.queries / 1000)
    assert plan.stored == 0
    assert make(adapter, home=tuned.home).plan().stored > 0
    assert adapter.sent == 0


@pytest.mark.parametrize("budget", ["120", "200", "$0.15"])
def test_the_budget_is_never_passed_and_what_it_bought_is_used(make, budget):
    adapter = likes_sharp()
    make(adapter, budget=budget).run()
    assert adapter.sent <= (int(budget) if budget.isdigit() else 150)


def test_a_run_that_is_broken_off_goes_on_and_pays_for_nothing_twice(make):
    class Breaking(Taste):
        left = iter(range(100))

        def ask(self, payloads):
            with self.lock:
                closed = next(self.left, None) is None
            if closed:
                raise FatalError("the account was closed")
            return super().ask(payloads)

    broken = Breaking(lambda rough: rough / 150, "sharp")
    with pytest.raises(FatalError):
        make(broken, budget="210").run()
    assert broken.sent == 100
    adapter = likes_sharp()
    result = make(adapter, budget="210").run()  # the same tuning: its account goes on
    assert broken.sent + adapter.sent <= 210
    assert not broken.asked & adapter.asked
    assert result.cached > 0
    assert result.adaptation.knobs == SHARP


def test_a_second_run_costs_nothing_and_says_the_same(make, tuned):
    adapter, first = likes_sharp(), tuned.result
    second = make(adapter, home=tuned.home).run()
    assert adapter.sent == second.queries == 0
    assert second.adaptation == first.adaptation
    assert second.held_out == first.held_out
    assert second.tried == first.tried


def test_the_default_s_variants_are_those_of_certificates_and_the_adapted_one_s_are_not(
    tuned, photos, weights
):
    adapter = likes_sharp()
    shown = tuned.result.adaptation.photos
    used = [photo for photo in photos.values() if load_image(photo, size=18).digest in shown]
    held = [photo for photo in photos.values() if load_image(photo, size=18).digest not in shown]
    options = {
        "sigma": 0.25,
        "size": 18,
        "plain": False,
        "home": tuned.home,
        "device": "cpu",
        "max_votes": 30,
    }
    with Smoother(adapter, denoiser=weights, **options) as plain:
        assert plain.predict(used[0]).cached == 1  # bought as the neutral setting's
    with Smoother(adapter, denoiser=tuned.file, **options) as smoother:
        certificate = smoother.predict(used[0])
        assert certificate.cached == 0  # the answers that chose the setting are no votes
        assert certificate.denoiser == smoother.session.variants.denoiser.name
        assert "+mock-" in certificate.denoiser
        # Those about photos that were held out were bought after the choice: they are.
        assert max(smoother.predict(photo).cached for photo in held) == 1


def test_photos_that_tuned_a_denoiser_are_kept_out_of_studies_with_it(
    tuned, photos, weights, tmp_path
):
    adapter = likes_sharp()
    some = dict(list(photos.items())[:20])
    chosen = {
        name
        for name, photo in some.items()
        if load_image(photo, size=18).digest in tuned.result.adaptation.photos
    }
    assert 0 < len(chosen) < 20
    options = {
        "provider": adapter,
        "sigmas": 0.25,
        "radii": 0.1,
        "max_votes": 20,
        "size": 18,
        "gallery": 0,
        "home": with_noise_key(tmp_path / "h"),
        "device": "cpu",
    }
    study = Study(some, denoisers=[str(weights), str(tuned.file)], **options).run()
    assert {p.photo for p in study.problems if p.kind == "tuned"} == chosen
    assert {p.name for p in study.photos} == set(some) - chosen
    assert "had a part in the denoiser adapted" in study.problems[0].why
    assert study.left_out == len(chosen)
    without = Study(some, denoisers=str(weights), **options).run()
    assert len(without.photos) == 20


def test_without_labels_the_provider_s_own_say_is_the_measure(make):
    adapter = likes_sharp()
    result = make(adapter, truth=None).run()
    assert result.reference == "plain"
    # Smooth pictures are vans to it, and softened ones stay so.
    assert result.adaptation.knobs == SOFT
    assert result.queries <= 400


def test_another_provider_or_sigma_than_it_was_adapted_to_is_said(tuned, caplog):
    with Smoother(Taste(lambda _: 0.9), sigma=0.25, denoiser=tuned.file):
        assert not caplog.records
    with Smoother(Taste(lambda _: 0.9), sigma=0.5, denoiser=tuned.file):
        assert "was adapted to mock at sigma 0.25" in caplog.text


def test_what_cannot_be_adapted_is_refused(make, tuned):
    adapter = likes_sharp()
    with pytest.raises(UsageError, match="not adapted again"):
        make(adapter, weights=tuned.file)
    with pytest.raises(UsageError, match="default"):
        make(adapter, weights="none")
    with pytest.raises(UsageError, match="at least one"):
        make(adapter, settings=(Knobs(),))
    with pytest.raises(UsageError, match="not enough"):
        make(adapter, budget="20").run()
    assert not adapter.sent


def test_the_file_names_photos_by_digest_alone(tuned):
    result, written = tuned.result, tuned.file.read_text()
    data = json.loads(written)
    assert data["schema"] == "smoothapi.denoiser-adaptation/1"
    assert len(data["photos"]) == result.photos
    assert ".png" not in written + tuned.card.read_text()
    assert data["about"]["queries"] == result.queries
    assert np.isfinite([row["evidence"] for row in data["about"]["tried"]]).all()


def test_a_budget_without_room_for_a_photo_ends_with_its_error(make):
    from smoothapi import Budget

    adapter = likes_sharp()
    limits = (Budget(attempts=400), Budget(attempts=1, per="day", name="tiny"))
    tuning = make(adapter, budget=limits)
    with pytest.raises((BudgetExceededError, UsageError)):
        tuning.run()
    assert adapter.sent <= 1
