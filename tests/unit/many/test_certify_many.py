"""Many photos at once: each is a result of its own, memory stays flat, nothing is paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

import numpy as np
import pandas as pd
import polars as pl
import pytest

from smoothapi.denoise import Gathering
from smoothapi.errors import (
    BudgetExceededError,
    FatalError,
    ImageError,
    TooManyFailuresError,
    UsageError,
)
from smoothapi.many import COLUMNS, Failures
from tests.conftest import answer
from tests.unit.dispatch.harness import until
from tests.unit.many.conftest import save


def arrays(count, start=0):
    for seed in range(start, start + count):
        yield np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def outcomes(results):
    return [result.outcome for result in results]


def test_a_folder_with_a_broken_photo_and_a_duplicate_pays_once_and_goes_on(folder, smoother):
    one = smoother()
    results = list(one.certify_many(folder))
    names = [result.photo.rpartition("photos/")[2] for result in results]
    assert names == ["a.png", "b.png", "broken.jpg", "deep/again.png", "deep/c.png"]
    expected = ["certified", "certified", "failed", "certified", "certified"]
    assert outcomes(results) == expected
    assert isinstance(results[2].error, ImageError)
    alone = results[0].certificate
    assert results[3].certificate.image.digest == alone.image.digest
    sent = one.adapter_of_test.sent
    assert sent == 3 * alone.total_votes  # a, b and c: the copy of a is answered by a's answers
    again = list(one.certify_many(folder))
    assert [r.certificate for r in again] == [r.certificate for r in results]
    assert one.adapter_of_test.sent == sent


def test_each_result_is_what_certify_says_of_the_photo_alone(folder, smoother):
    one = smoother()
    many = {r.photo: r.certificate for r in one.certify_many(folder) if r.certificate}
    for photo, certificate in many.items():
        assert one.certify(photo) == certificate


def test_in_order_or_as_they_end(smoother):
    """The first photo waits until the second is done."""
    second = threading.Event()
    photos = list(arrays(2))
    slow = smoother(lambda payload, _: (second.wait(20), answer("bus"))[1], concurrency=64)
    quick = smoother()
    first = quick.certify(photos[1])  # stored: needs no answer of the slow service

    def ended(results):
        for result in results:
            if result.index == 1:
                second.set()
            yield result.index

    assert list(ended(slow.certify_many(photos, in_order=False))) == [1, 0]
    second.clear()
    threading.Timer(0.1, second.set).start()
    again = smoother(lambda payload, _: (second.wait(20), answer("bus"))[1], refresh=False)
    assert [r.index for r in again.certify_many([*arrays(1, start=9), photos[1]])] == [0, 1]
    assert first.label == "bus"


def test_photos_are_taken_only_as_results_are_taken(smoother):
    """Ten million paths need no more memory than ten."""
    taken = itertools.count()
    photo = next(arrays(1))

    def without_end():
        while True:
            next(taken)
            yield photo

    one = smoother()
    results = one.certify_many(without_end(), photos_at_once=2)
    for _ in range(20):
        assert next(results).outcome == "certified"
    results.close()
    assert next(taken) <= 20 + 4 * 2 + 1


def test_leaving_early_keeps_what_is_paid_and_the_same_call_goes_on(smoother):
    photos = list(arrays(6))
    one = smoother()
    with contextlib.closing(one.certify_many(photos, photos_at_once=2)) as results:
        next(results)
    paid = one.adapter_of_test.sent
    results = list(one.certify_many(photos))
    assert outcomes(results) == ["certified"] * 6
    votes = sum(result.certificate.total_votes for result in results)
    assert one.adapter_of_test.sent == votes >= paid


def test_ctrl_c_while_results_are_awaited_stops_the_sending(smoother):
    begun = threading.Event()
    release = threading.Event()

    def slow(payload, _):
        begun.set()
        release.wait(60)
        return answer("bus")

    one = smoother(slow, concurrency=2)

    def answers_when_all_is_stopped():
        begun.wait(30)
        until(lambda: all(run._stop.is_set() for run in list(one.session.dispatcher._runs.all)))
        release.set()

    answers = threading.Thread(target=answers_when_all_is_stopped)
    answers.start()

    def interrupt(_):
        if begun.is_set():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(one.certify_many(arrays(4), on_progress=interrupt))
    answers.join()
    assert one.adapter_of_test.sent <= 4  # those under way, not the 29 a photo takes


def test_the_budgets_end_is_raised_after_what_was_finished(smoother):
    one = smoother()
    votes = one.certify(next(arrays(1))).total_votes
    poor = smoother(budget=f"{2 * votes}")
    results, got = poor.certify_many(arrays(6), photos_at_once=1), []
    with pytest.raises(BudgetExceededError):
        while True:
            got.append(next(results))
    # The first was paid for before, by another Smoother of the same home.
    assert [(result.index, result.outcome) for result in got] == [
        (index, "certified") for index in range(3)
    ]
    assert poor.adapter_of_test.sent == 2 * votes


def test_what_concerns_all_ends_all(smoother):
    def refused(payload, _):
        raise FatalError("the key is not valid")

    one = smoother(refused)
    with pytest.raises(FatalError):
        list(one.certify_many(arrays(50), photos_at_once=2))
    assert one.adapter_of_test.sent < 50


def test_fail_fast_raises_the_first_photos_error(folder, smoother):
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        list(smoother().certify_many(folder, fail_fast=True))


def test_results_are_rows_of_pandas_and_polars(folder, smoother):
    rows = [result.row() for result in smoother().certify_many(folder)]
    assert all(list(row) == list(COLUMNS) for row in rows)
    table = pd.DataFrame(rows)
    assert table.loc[table.outcome == "certified", "radius"].tolist() == [0.1] * 4
    assert table.leader_share.dropna().tolist() == [1.0] * 4
    frame = pl.DataFrame(rows, schema=COLUMNS)
    assert frame.filter(pl.col("outcome") == "failed")["error"].to_list() == ["ImageError"]
    assert frame.schema["votes"] == pl.Int64


def test_progress_counts_what_has_ended_and_what_was_spent(folder, smoother):
    seen = []
    one = smoother()
    results = list(one.certify_many(folder, on_progress=seen.append))
    last = seen[-1]
    assert (last.done, last.certified, last.abstained, last.failed) == (5, 4, 0, 1)
    assert last.under_way == 0
    assert last.queries == one.adapter_of_test.sent
    assert last.votes == sum(r.certificate.total_votes for r in results if r.certificate)


def test_what_was_under_way_when_a_run_was_given_up_is_in_what_was_spent(smoother):
    """Its answers come after the vote that decided, and are paid for."""
    started, others = 0, threading.Condition()

    def undecided(*_):
        """Answered once three more are under way; the last, after which none comes, in a while."""
        nonlocal started
        with others:
            number = started = started + 1
            others.notify_all()
            others.wait_for(lambda: started >= number + 3, 2)
        return answer("bus" if number % 2 else "van")

    one, seen = smoother(undecided), []
    [result] = one.certify_many(arrays(1), on_progress=seen.append)
    certificate = result.certificate
    assert certificate.abstained
    assert certificate.queries > certificate.total_votes + 1, "some were under way"
    assert seen[-1].queries == certificate.queries == one.adapter_of_test.sent
    assert seen[-1].cost == certificate.cost


class Turns:
    """A denoiser that takes turns, and does nothing; numpy alone."""

    name = fingerprint = "turns"
    device, precision = "cpu", "fp32"
    adaptation = None
    draws_noise = False
    takes_turns = loaded = True

    def __init__(self):
        self.sizes = []
        self.others_wait = lambda: True

    def variants(self, noisy, sigma):
        self.sizes.append(len(noisy))
        until(self.others_wait)
        return np.rint(np.clip(noisy, 0.0, 1.0) * 255.0).astype(np.uint8)

    def variants_of(self, pixels, sigma, seeds):
        raise AssertionError


def test_the_denoisers_batches_are_filled_from_several_photos(smoother, monkeypatch):
    turns, first = Turns(), []
    variants = Gathering.variants

    def gathered(gathering, *given):
        if not first:  # it is denoised when others wait for their turn
            first.append(gathering)
            turns.others_wait = lambda: len(gathering._waiting) > 1 or len(turns.sizes) > before
        return variants(gathering, *given)

    monkeypatch.setattr(Gathering, "variants", gathered)
    one = smoother(denoiser=turns)
    assert isinstance(one.session.for_many().variants.denoiser, Gathering)
    alone = one.certify(next(arrays(1)))
    largest, before = max(turns.sizes), len(turns.sizes) + 1
    results = list(one.certify_many(arrays(6), photos_at_once=6))
    assert outcomes(results) == ["certified"] * 6
    assert results[0].certificate == alone
    assert max(turns.sizes) > largest


def test_predict_many(smoother):
    assert [r.certificate.kind for r in smoother().predict_many(arrays(2))] == ["predict"] * 2


@pytest.mark.parametrize("asynchronous", [True, False])
def test_in_asyncio(smoother, asynchronous):
    async def photos():
        for photo in arrays(5):
            await asyncio.sleep(0)
            yield photo

    async def main():
        one = smoother()
        given = photos() if asynchronous else arrays(5)
        return [result.index async for result in one.certify_many_async(given)]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_a_cancelled_task_ends_also_where_it_waits_for_photos(smoother):
    async def without_end():
        yield next(arrays(1))
        await asyncio.Event().wait()

    async def main():
        results = smoother().certify_many_async(without_end(), photos_at_once=1)
        got = []

        async def take():
            got.extend([result async for result in results])

        task = asyncio.create_task(take())
        await asyncio.sleep(0.3)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        await results.aclose()

    asyncio.run(main())


def test_a_service_that_fails_on_one_photo_in_five_is_at_fault():
    failures = Failures()
    assert [failures.concern_all(TooManyFailuresError("x"), ended) for ended in (8, 9, 10)] == [
        False, False, True,
    ]  # fmt: skip
    assert not Failures().concern_all(ImageError("x"), 1)
    assert Failures().concern_all(BudgetExceededError("x"), 1)


@pytest.mark.parametrize("options", [{"photos_at_once": 0}])
def test_bad_options(smoother, options):
    with pytest.raises(UsageError):
        smoother().certify_many([], **options)


def test_a_folder_without_photos_is_said(tmp_path, smoother):
    with pytest.raises(ImageError, match="no photos in the folder"):
        list(smoother().certify_many(tmp_path))
    with pytest.raises(ImageError, match="No file matches"):
        list(smoother().certify_many(str(tmp_path / "*.jpg")))
    save(tmp_path / "x.png", 1)
    assert outcomes(smoother().certify_many(str(tmp_path / "*.png"))) == ["certified"]
