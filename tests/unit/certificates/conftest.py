"""Certificates of a scripted provider, made as a user makes them."""

from __future__ import annotations

import numpy as np
import pytest

from smoothapi import Smoother, verify
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import ScriptedAdapter


@pytest.fixture(scope="session")
def photo():
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


@pytest.fixture
def make(photo):
    """Return make(script, kind=, ...): the certificate of the photo before a scripted provider."""

    def made(script=None, *, kind="certify", **options):
        options = {"denoiser": "none", "size": 20, "refresh": True, **options}
        with Smoother(ScriptedAdapter(script), **options) as smoother:
            return getattr(smoother, kind)(photo)

    return made


@pytest.fixture
def certificate(make):
    return make()


@pytest.fixture
def certified(photo):
    """Return certified(target): the certificate of a target, as a dict to tamper with."""

    def made(target):
        adapter = MockAdapter(lambda _: [("Bird", 0.9), ("Tree", 0.6)])
        with Smoother(adapter, sigma=0.25, radius=0.1, denoiser="none") as smoother:
            certificate = smoother.certify(photo, target=target)
        assert verify(certificate)
        return certificate.to_dict()

    return made
