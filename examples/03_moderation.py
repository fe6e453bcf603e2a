"""Is "Weapon" in the picture? Certified to be present in one, and to be absent from another."""

from __future__ import annotations

from pathlib import Path

from smoothapi import Presence, Smoother
from smoothapi.services import Table
from smoothapi_adapters.mock import MockAdapter

PHOTOS = Path(__file__).parent / "photos"
BUS, BALLOON = str(PHOTOS / "school_bus.jpg"), str(PHOTOS / "balloon.jpg")

# Stands for a moderation service, such as Smoother("aws") with operation = "moderation".
moderation = MockAdapter(Table({BUS: [("Weapon", 0.93), ("Violence", 0.88)], BALLOON: ()}))

with Smoother(moderation, sigma=0.25, radius=0.25, size=96, denoiser="none") as smoother:
    for photo in (BUS, BALLOON):
        certificate = smoother.certify(photo, target=Presence("Weapon", 0.8))
        for claim in certificate.claims:
            print(f"{certificate.image.name}: {claim.label!r} is {claim.relation}, and no change")
            print(f"  smaller than {claim.radius:g} alters that ({certificate.total_votes} votes).")
