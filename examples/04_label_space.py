"""Classes of your own: names that mean the same to you are one class, and their votes one sum."""

from __future__ import annotations

from pathlib import Path

from smoothapi import Smoother
from smoothapi_adapters.mock import MockAdapter

PHOTO = Path(__file__).parent / "photos" / "school_bus.jpg"

# A service that wavers between three names for what is one thing to us.
wavering = MockAdapter({"Bus": 0.5, "School Bus": 0.45, "Minibus": 0.04, None: 0.01}, seed=1)
options = {"sigma": 0.25, "radius": 0.25, "size": 64, "denoiser": "none"}

with Smoother(wavering, **options) as smoother:
    print("By the service's names:", smoother.certify(PHOTO))

classes = {"bus": ["Bus", "School Bus", "Minibus"], "car": ["Car", "Taxi"]}
with Smoother(wavering, classes=classes, **options) as smoother:
    print("By classes of our own:", smoother.certify(PHOTO))
