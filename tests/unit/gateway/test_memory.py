"""A gateway runs for weeks: what a call took is given back when it ends, however it ends."""

from __future__ import annotations

import base64
import gc
import itertools
import time
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

from smoothapi.encode import Codec
from smoothapi.gateway import app
from smoothapi.services import serve
from tests.unit.gateway.conftest import CONTENT, KITS, PHOTO, RAW, call, tables
from tests.unit.wrapping.conftest import labeller

pytestmark = pytest.mark.timeout(120)

CERTIFY = {"max_votes": 10, "alpha": 0.2, "radius": 0.005, "size": 128, "concurrency": 2}
CALLS = 2
PHOTO_BYTES = 400_000
A_LITTLE = 350_000  # bytes a call: less than its photo, and than half of its working image


def photo(seed):
    """Return the file of a photo; behind the picture it is padded, which no decoder looks at."""
    pixels = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    return Codec().encode(pixels).ljust(PHOTO_BYTES, b"\0")


def cut_off(seed):
    return (photo(seed)[:20_000]).ljust(PHOTO_BYTES, b"\0")


def asked(gateway, name, data):
    """Have a photo labelled, and return what was found about it."""
    path, headers, body = RAW[name]
    body = data if body == PHOTO else body.replace(CONTENT.encode(), base64.b64encode(data))
    return call(gateway, "POST", path, headers, body).headers["x-smoothapi-outcome"]


@contextmanager
def without_collector():
    """Leave objects that hold each other where they are, as under load for a while."""
    gc.collect()
    gc.disable()
    tracemalloc.start(1)
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


def kept_by_calls(gateway, name, photos):
    """Return the outcomes, and how many bytes each call leaves behind once its threads ended.

    What is made once may be made late, where calls end by the clock: more of them tell it apart.
    """
    asked(gateway, name, next(photos))  # what is made once is there
    with without_collector():
        outcomes = {asked(gateway, name, next(photos))}
        time.sleep(0.1)
        for _ in range(3):
            before = tracemalloc.get_traced_memory()[0]
            outcomes |= {asked(gateway, name, next(photos)) for _ in range(CALLS)}
            ends = time.monotonic() + 20.0  # threads that were left behind end by themselves
            while True:
                kept = (tracemalloc.get_traced_memory()[0] - before) / CALLS
                if kept < A_LITTLE or time.monotonic() > ends:
                    break
                time.sleep(0.1)
            if kept < A_LITTLE:
                break
    return outcomes, kept


@pytest.mark.parametrize("name", list(KITS))
def test_nothing_of_a_photo_is_held_after_its_call(name, tmp_path):
    with serve(KITS[name].service, labeller, keep=0) as service:
        gateway = app(tables(name, service.url, tmp_path, certify=CERTIFY))
        try:
            outcomes, kept = kept_by_calls(gateway, name, map(photo, itertools.count()))
        finally:
            gateway.close()
    assert outcomes == {"certified"}
    assert kept < A_LITTLE


@pytest.mark.parametrize(
    ("outcome", "make", "certify", "budget", "latency"),
    [
        ("refused", cut_off, {}, "$5/day", 0.0),
        ("budget", photo, {}, "3/day", 0.0),
        ("deadline", photo, {"within": 0.3}, "$5/day", 0.2),
    ],
)
def test_nothing_of_a_photo_is_held_where_something_ends_its_votes(
    outcome, make, certify, budget, latency, tmp_path
):
    certify = {**CERTIFY, "otherwise": "plain", **certify}
    with serve("clarifai", lambda _: [("Bus", 0.97)], keep=0, latency=latency) as service:
        written = tables(
            "clarifai", service.url, tmp_path, certify=certify, provider={"budget": budget}
        )
        gateway = app(written)
        try:
            outcomes, kept = kept_by_calls(gateway, "clarifai", map(make, itertools.count()))
        finally:
            gateway.close()
    assert outcomes == {outcome}
    assert kept < A_LITTLE
