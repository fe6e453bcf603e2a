"""Keep the answers of a run in a file, and get the same certificate from it anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

from smoothapi import Smoother, UsageError
from smoothapi_adapters.mock import MockAdapter

PHOTOS = Path(__file__).parent / "photos"

with tempfile.TemporaryDirectory() as folder:
    recording = Path(folder) / "answers.jsonl"
    options = {"radius": 0.25, "size": 64}

    # "here" has an account and a denoiser ...
    service = MockAdapter({"balloon": 0.99, "parachute": 0.01})
    with Smoother(
        service, record=recording, denoiser="none", home=f"{folder}/here", **options
    ) as smoother:
        print("Recorded:", smoother.certify(PHOTOS / "balloon.jpg"))

    # ... "there" has neither, and another noise key.
    with Smoother(f"replay:{recording}", home=f"{folder}/there", **options) as smoother:
        print("Replayed:", smoother.certify(PHOTOS / "balloon.jpg"))
        try:
            smoother.certify(PHOTOS / "monarch.jpg")
        except UsageError as error:
            print("A miss:", error)
