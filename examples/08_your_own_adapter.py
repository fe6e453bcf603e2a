"""Certify through a service of your own: an adapter is a class with six members.

The "service" here is a function that names the colour of a picture; yours would make a request in
`ask`, with its SDK's own retries off, and raise smoothapi's errors (TransientError, ThrottledError,
PermanentError, FatalError) for its failures.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from PIL import Image, ImageStat

from smoothapi import Answer, Label, Limits, Price, Smoother

PHOTO = Path(__file__).parent / "photos" / "balloon.jpg"


class ColourService:
    """Answers with the strongest colour channel of a picture."""

    name = "colours"
    identity = {"operation": "strongest-channel", "version": 1}
    limits = Limits(max_bytes=1_000_000)
    price = Price(Decimal("0.10"), as_of="2026-11-22")

    def ask(self, payloads: Sequence[bytes]) -> list[Answer]:
        """Label each encoded picture."""
        return [self._label(payload) for payload in payloads]

    def close(self) -> None:
        """Nothing to release."""

    def _label(self, payload: bytes) -> Answer:
        means = ImageStat.Stat(Image.open(io.BytesIO(payload)).convert("RGB")).mean
        shares = [mean / sum(means) for mean in means]
        names = ("red", "green", "blue")
        return Answer(tuple(Label(n, s) for n, s in zip(names, shares, strict=True)), "1")


options = {"sigma": 0.5, "radius": "largest", "max_votes": 100, "denoiser": "none"}
with Smoother(ColourService(), **options) as smoother:
    certificate = smoother.certify(PHOTO)
print(certificate)
