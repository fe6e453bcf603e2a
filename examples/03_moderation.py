"""A moderation pipeline before and after `wrap`: what it decides, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3

from smoothapi import Scores, wrap
from smoothapi.services import Table, serve

PHOTOS = Path(__file__).parent / "photos"
BUS, BALLOON = PHOTOS / "school_bus.jpg", PHOTOS / "balloon.jpg"
SEEN = Table({str(BUS): [("Weapons", 0.93), ("Violence", 0.88)], str(BALLOON): ()})


def blocked(client: Any, photo: Path) -> bool:  # as it was, and stays
    image = {"Bytes": photo.read_bytes()}
    response = client.detect_moderation_labels(Image=image, MinConfidence=1)
    return any(label["Confidence"] >= 80 for label in response["ModerationLabels"])


with serve("aws", SEEN) as service:
    plain = boto3.client(
        "rekognition",
        endpoint_url=service.url,  # leave out these four lines to ask Amazon itself
        region_name="eu-west-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",  # noqa: S106
    )
    # What must not be missed is named: it is asked about whatever the plain answer says.
    never = Scores(["Weapons", "Violence"], 0.8)
    certified = wrap(plain, budget="$2", target=never, size=96, denoiser="none")
    for name, client in (("plain", plain), ("certified", certified)):
        for photo in (BUS, BALLOON):
            before = len(service.received)
            decision = "blocked" if blocked(client, photo) else "let through"
            sent = len(service.received) - before
            print(f"{photo.name}, {name}: {decision} (requests: {sent}, ${sent / 1000:.3f})")
