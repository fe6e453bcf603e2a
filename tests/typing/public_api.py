"""Only type-checked, never run: what a user writes must be typed as they would expect."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smoothapi import (
    Adapter,
    Advice,
    Answer,
    Budget,
    Certificate,
    Label,
    Limits,
    PhotoResult,
    Plan,
    Price,
    Progress,
    ProviderError,
    Smoother,
    advise,
    verify,
)


class MyAdapter:
    """A stranger's adapter needs no base class."""

    name = "mine"
    identity = {"operation": "label"}
    limits = Limits()
    price = Price(Decimal("1.5"), "2026-11-01")

    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        return [Answer((Label("bus", 0.5),)) for _ in payloads]

    def close(self) -> None: ...


adapter: Adapter = MyAdapter()
array: NDArray[np.uint8] = np.zeros((3, 3, 3), np.uint8)


def advance(progress: Progress) -> None:
    assert_type(progress.votes, int)


with Smoother("mock", sigma=0.25, budget=Budget(attempts=500)) as smoother:
    assert_type(smoother, Smoother)
    certificate = smoother.certify("photo.jpg", radius=0.25, on_progress=advance)
    assert_type(certificate, Certificate)
    assert_type(certificate.label, str | None)
    assert_type(certificate.radius, float)
    smoother.certify(Path("photo.jpg"), radius="largest")
    smoother.certify(b"", 0.1)
    smoother.certify(Image.new("RGB", (3, 3)))
    smoother.certify(array)
    assert_type(smoother.predict("photo.jpg"), Certificate)
    assert_type(smoother.plan("photo.jpg"), Plan)

Smoother(MyAdapter(), classes={"bus": ["School Bus"]}, denoiser="none", budget="$2")
assert_type(verify(certificate, "photo.jpg"), list[str])
Smoother(sigma="loud")  # pyright: ignore[reportArgumentType]


async def many(smoother: Smoother) -> None:
    for result in smoother.certify_many(["photo.jpg", Path("folder"), array, b"bytes"]):
        assert_type(result, PhotoResult)
        assert_type(result.certificate, Certificate | None)
        if result.certificate is not None:
            assert_type(advise(result.certificate), Advice | None)
    async for result in smoother.certify_many_async("photos/", in_order=False):
        assert_type(result, PhotoResult)
