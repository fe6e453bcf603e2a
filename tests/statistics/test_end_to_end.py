"""The whole pipe, with threads, store and failures, is wrong no more often than alpha.

The labeller's share of votes is known exactly: it says yes to a share q of all pictures, chosen by
their digest. At p = q every certificate is false.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from smoothapi import Retry, Smoother
from smoothapi.certify import required_p
from smoothapi.errors import PermanentError, TransientError
from tests.conftest import ScriptedAdapter, answer
from tests.statistics.harness import ALPHA, Rate

if TYPE_CHECKING:
    from smoothapi.answer import Answer

SIGMA = 0.25
RADIUS = 0.05
CAP = 60
RUNS = 120


def labeller(p: float, *, lost: float = 0.0):
    """Say "yes" to a share p of pictures; of the others, lose a share for good.

    A fifth of all pictures is answered only at the second attempt.
    """

    def script(payload: bytes, attempt: int) -> list[Answer]:
        digest = hashlib.sha256(payload).digest()
        chance, fate, late = (int.from_bytes(digest[i : i + 6]) / 2.0**48 for i in (0, 6, 12))
        if late < 0.2 and attempt == 1:
            raise TransientError("busy")
        if chance < p:
            return answer("yes")
        if fate < lost:
            raise PermanentError("cannot be read")
        return answer("no")

    return script


@pytest.fixture(autouse=True)
def _judged_by_its_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of failures is not to be stopped for them."""
    monkeypatch.setenv("SMOOTHAPI_MAX_FAILED", "1")


def false_certificates(p: float, *, lost: float, concurrency: int) -> Rate:
    wrong = 0
    rng = np.random.default_rng(81)
    adapter = ScriptedAdapter(labeller(p, lost=lost))
    with Smoother(
        adapter,
        sigma=SIGMA,
        alpha=ALPHA,
        max_votes=CAP,
        denoiser="none",
        plain=False,
        concurrency=concurrency,
        retry=Retry(attempts=3, base=1e-4, cap=1e-3),
    ) as smoother:
        for _ in range(RUNS):
            picture = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            wrong += smoother.certify(picture, radius=RADIUS).label == "yes"
    return Rate(wrong, RUNS)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_false_certificates_are_rare_through_the_whole_pipe(concurrency: int) -> None:
    rate = false_certificates(required_p(RADIUS, SIGMA), lost=0.6, concurrency=concurrency)
    assert not rate.refutes, str(rate)


def test_a_labeller_that_deserves_it_is_certified() -> None:
    assert false_certificates(0.97, lost=0.6, concurrency=8).errors > 0.95 * RUNS


def test_the_same_run_with_failures_dropped_would_be_noticed() -> None:
    # Dropping the failures would leave "yes" a share of q / (q + 0.4 (1 - q)).
    q = required_p(RADIUS, SIGMA)
    rate = false_certificates(q / (q + 0.4 * (1.0 - q)), lost=0.0, concurrency=8)
    assert rate.refutes
