"""Small photos, and a Smoother that needs no denoiser."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from smoothapi import Smoother
from tests.conftest import ScriptedAdapter
from tests.unit.photos.conftest import WebServer

OPTIONS = {"denoiser": "none", "sigma": 0.25, "radius": 0.1, "plain": False}


@pytest.fixture
def folder(tmp_path):
    """A folder with photos, one of them twice, one broken, and a file that is no photo."""
    root = tmp_path / "photos"
    (root / "deep").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png", "deep/c.png"]):
        save(root / name, number)
    save(root / "deep" / "again.png", 0)
    (root / "broken.jpg").write_bytes(b"no photo")
    (root / "notes.txt").write_text("none")
    (root / ".hidden.png").write_bytes(b"")
    return root


def save(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def smoother(tmp_path):
    """Make Smoothers of a scripted adapter in a home of this test's own."""
    made = []

    def make(script=None, **options):
        adapter = ScriptedAdapter(script)
        one = Smoother(adapter, home=tmp_path / "home", **{**OPTIONS, **options})
        made.append(one)
        one.adapter_of_test = adapter
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def web():
    server = WebServer()
    yield server
    server.close()
