"""Several pictures in one request: filled, not waited for, and taken apart when one is refused."""

from __future__ import annotations

import numpy as np
import pytest

from smoothapi import Retry, Smoother
from smoothapi.errors import PermanentError, ThrottledError, TransientError
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import FAST, labels, run, stored

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


class Refusing(ScriptedAdapter):
    """Refuses a whole request with `error` if `bad` is among its pictures."""

    def __init__(self, bad, error, **options):
        super().__init__(**options)
        self.bad, self.error = bad, error

    def ask(self, payloads):
        answers = super().ask(payloads)
        if self.bad in payloads:
            raise self.error
        return answers


def certify(adapter, photo=PHOTO, **options):
    with Smoother(adapter, denoiser="none", plain=False, retry=FAST, **options) as s:
        return s.certify(photo)


def test_a_small_run_goes_out_at_once_and_a_large_one_in_full_requests():
    small = ScriptedAdapter(batch=16)
    certificate = certify(small, radius=0.01, alpha=0.3)
    assert certificate.total_votes <= 4
    assert [len(request) for request in small.requests] == [certificate.total_votes]
    large = ScriptedAdapter(batch=16, delay=0.02)
    certificate = certify(large, PHOTO[::-1], concurrency=2)
    sizes = [len(request) for request in large.requests]
    votes = certificate.total_votes
    assert large.sent == votes  # an unbroken run: nothing was bought in vain
    assert large.most_in_flight <= min(votes, 2 * 16)
    assert sizes.count(16) == votes // 16
    assert len(sizes) == -(-votes // 16)


def test_lots_are_prepared_up_to_32_at_a_time():
    adapter = ScriptedAdapter(batch=128, delay=0.02)
    certify(adapter, radius=0.5, alpha=0.001, concurrency=1)
    assert max(len(request) for request in adapter.requests) >= 32


def test_a_request_refused_for_one_picture_is_asked_again_one_by_one(store):
    adapter = Refusing(b"5", PermanentError("bad picture"), batch=8)
    delivered, totals = run(adapter, store, count=16, lot=8, concurrency=1)
    assert labels(delivered) == ["bus"] * 5 + [None] + ["bus"] * 10
    assert delivered[5].error == "bad picture"
    assert [len(request) for request in adapter.requests].count(1) == 8
    assert (totals.queries, totals.attempts, totals.failed) == (16, 24, 1)
    assert adapter.sent == 24
    assert isinstance(stored(store, 5), PermanentError)
    assert all(stored(store, i) == answer() for i in range(16) if i != 5)


def test_a_request_that_never_ends_well_because_of_one_picture_is_taken_apart_too(store):
    adapter = Refusing(b"5", TransientError("500"), batch=8)
    delivered, totals = run(adapter, store, count=8, lot=8, concurrency=1)
    assert labels(delivered) == ["bus"] * 5 + [None] + ["bus"] * 2
    whole, alone = FAST.attempts * 8, 7 + FAST.attempts
    assert totals.attempts == adapter.sent == whole + alone
    assert stored(store, 5) is None  # a later run may ask again


def test_a_throttled_request_is_not_taken_apart(store):
    adapter = Refusing(b"5", ThrottledError("slow down"), batch=8)
    retry = Retry(attempts=2, base=0.001, cap=0.002)
    run(adapter, store, count=8, lot=8, concurrency=1, max_failed=1.0, retry=retry)
    assert {len(request) for request in adapter.requests} == {8}


@pytest.mark.parametrize("batch", [1, 8])
def test_a_request_refused_as_a_whole_for_all_is_a_failure_of_each(store, batch):
    adapter = ScriptedAdapter(lambda *_: PermanentError("bad"), batch=batch)
    delivered, _ = run(adapter, store, count=8, lot=8, max_failed=1.0)
    assert labels(delivered) == [None] * 8
