"""Awaited certificates: the same ones, many at once, and a cancellation that loses nothing."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from smoothapi import Budget, BudgetExceededError, Smoother
from tests.conftest import ScriptedAdapter

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def smoother(adapter, **options):
    return Smoother(adapter, denoiser="none", radius=0.1, **options)


def test_the_certificate_is_the_one_that_certify_gives():
    async def both():
        async with smoother(ScriptedAdapter()) as s:
            progress = []
            certificate = await s.certify_async(PHOTO, 0.2, on_progress=progress.append)
            assert progress[-1].votes == certificate.total_votes
            assert certificate == s.certify(PHOTO, 0.2)
            assert await s.predict_async(PHOTO) == s.predict(PHOTO)

    asyncio.run(both())


def test_many_at_once_share_threads_store_and_budget():
    adapter = ScriptedAdapter(delay=0.002)
    photos = [np.roll(PHOTO, by, axis=0) for by in range(10)]

    async def all_of_them():
        async with smoother(adapter, concurrency=4, budget=Budget(attempts=400)) as s:
            certificates = await asyncio.gather(*(s.certify_async(p) for p in photos))
            with pytest.raises(BudgetExceededError):
                await asyncio.gather(*(s.certify_async(p, 0.45) for p in photos))
            return certificates

    assert {c.label for c in asyncio.run(all_of_them())} == {"bus"}
    assert adapter.most_in_flight <= 4
    assert adapter.sent <= 400


@pytest.mark.parametrize("cancellations", [1, 3])
def test_a_cancelled_task_sends_no_more_and_keeps_what_is_under_way(cancellations):
    hold, begun = threading.Event(), threading.Event()

    def slow(payload, attempt):
        begun.set()
        hold.wait(60.0)
        return ScriptedAdapter().ask([payload])[0]

    adapter = ScriptedAdapter(slow)

    async def cancel():
        async with smoother(adapter, plain=False, concurrency=4) as s:
            task = asyncio.create_task(s.certify_async(PHOTO))
            await asyncio.to_thread(begun.wait)
            for _ in range(cancellations):
                task.cancel()
                await asyncio.sleep(0.05)
            assert not task.done(), "what is under way is awaited"
            hold.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            sent = adapter.sent
            assert sent <= 4
            again = await s.certify_async(PHOTO)
            assert (again.cached, again.queries) == (sent, again.total_votes - sent)

    asyncio.run(cancel())


def test_a_task_cancelled_before_its_run_begins_sends_nothing(monkeypatch):
    adapter = ScriptedAdapter()
    loading, go = threading.Event(), threading.Event()

    async def cancel():
        async with smoother(adapter) as s:
            real = s.session.variants.check_side  # the last step before the first query

            def wait(variants, image):
                loading.set()
                go.wait(60.0)
                return real(image)

            monkeypatch.setattr(type(s.session.variants), "check_side", wait)
            task = asyncio.create_task(s.certify_async(PHOTO))
            await asyncio.to_thread(loading.wait)
            task.cancel()
            await asyncio.sleep(0)
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert adapter.sent == 0
