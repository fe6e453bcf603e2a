"""Studies of tiny pictures, and results made without any query."""

from __future__ import annotations

import base64
import io
import threading
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image
from scipy.special import ndtr

from smoothapi.answer import Answer, Label
from smoothapi.certify import Top1, runs_of
from smoothapi.provider import Price
from smoothapi.study import (
    Cell,
    DenoiserFacts,
    GalleryPhoto,
    Photo,
    Problem,
    ProviderFacts,
    Rules,
    Study,
    StudyResult,
)
from smoothapi.study.collect import Collector
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import with_noise_key


def strongest(pixels):
    """The colour that is strongest on average; with noise, a coin that the picture loads."""
    order = np.argsort(-pixels.reshape(-1, 3).mean(0))
    return [(("red", "green", "blue")[order[0]], 0.9)]


strongest.labeller_id = "strongest/1"

HOSTILE = "<script>alert('x')</script> & \"q\".png"


@pytest.fixture
def pictures():
    """Pictures, from hopeless to certain; one has a name that must be escaped."""
    return some_pictures()


def some_pictures():
    random = np.random.default_rng(5)
    made = {}
    for number in range(12):
        base = np.full(3, 0.45)
        base[number % 3] += 0.004 * number
        noise = random.normal(0, 0.02, (16, 16, 3))
        pixels = np.clip(base + noise, 0, 1) * 255
        made[HOSTILE if number == 0 else f"{number:02d}.png"] = pixels.astype(np.uint8)
    return made


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a small study; its adapter is `.adapter`."""
    return maker(tmp_path / "study-home")


def maker(home):
    with_noise_key(home)

    def make(photos, *, adapter=None, **options):
        adapter = adapter or MockAdapter(strongest)
        defaults = {
            "provider": adapter,
            "sigmas": (0.12, 0.25),
            "radii": (0.05, 0.1),
            "max_votes": (40, 80),
            "denoisers": "none",
            "gallery": 0,
            "home": home,
        }
        study = Study(photos, **(defaults | options))
        study.adapter = adapter
        return study

    return make


def synthetic(
    photos=40, *, providers=("aws",), denoisers=("default",), stopped="", labelled=True, pictures=3
):
    """A result as a real study makes it, with votes drawn at random."""
    random = np.random.default_rng(0)
    rules = Rules((0.1, 0.25, 0.5), (50, 100, 200), 0.001)
    names = ["school bus", "balloon", "<script>alert('label')</script>"]
    taken, cells = [], []
    for number in range(photos):
        label = names[number % 3]
        taken.append(
            Photo(
                f"{number:03d} <b>&.jpg", f"{number:064x}", (224, 299), (1024, 1365), 0.29,
                (label,) if labelled else (), number % 2 == 0,
            )
        )  # fmt: skip
        ease = random.normal(1.9, 1.1)
        for provider in providers:
            for denoiser in denoisers:
                for sigma, factor in ((0.12, 1.25), (0.25, 1.0)):
                    p = ndtr(ease * factor - (1.2 if denoiser == "none" else 0.0))
                    collector = Collector(
                        rules, Top1(), sigma=sigma, delta=0.0, stop=threading.Event()
                    )
                    while collector.needed():
                        collector.add(label if random.random() < p else None)
                    cells.append(
                        Cell(
                            taken[-1].name, provider, denoiser, sigma, runs_of(collector.votes),
                            label, "v3", len(collector.votes), len(collector.votes) + 1, 0,
                            len(collector.votes) / 1000, 1.0,
                            collector.outcomes(Answer((Label(label, 0.9),))),
                        )
                    )  # fmt: skip
    return StudyResult(
        name="holiday <photos>",
        created="2026-11-22T20:00:00Z",
        command="smoothapi study 'a <b>' --provider aws",
        versions={"smoothapi": "0.1.0", "python": "3.11"},
        rules=rules,
        sigmas=(0.12, 0.25),
        target={"target": "top1", "space": None},
        size=224,
        codec="png",
        photos_found=photos + 1,
        passed_over=2,
        photos=tuple(taken),
        problems=(Problem("broken <i>.jpg", "it is damaged", "unreadable"),),
        providers=tuple(
            ProviderFacts(
                name, {"operation": "label"},
                Price(Decimal("1.00"), "2026-11-01", 1000, ((10_000, Decimal("0.80")),)),
            )
            for name in providers
        ),
        denoisers=tuple(DenoiserFacts(name, "ab12cd34") for name in denoisers),
        cells=tuple(cells),
        pictures=tuple(
            GalleryPhoto(taken[n].name, providers[0], denoisers[0], 0.25, _webp(n), _webp(9), _webp(8))
            for n in range(pictures)
        ),
        stopped=stopped,
        seconds=61.2,
    )  # fmt: skip


def _webp(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=30)
    return base64.b64encode(stream.getvalue()).decode()
