"""A certified label for a photo, offline: python examples/01_first_certificate.py [PHOTO]."""

from __future__ import annotations

import sys
from pathlib import Path

from smoothapi import Budget, Smoother

PHOTO = Path(__file__).parent / "photos" / "monarch.jpg"

with Smoother("mock", sigma=0.25, budget=Budget(attempts=500)) as smoother:
    certificate = smoother.certify(sys.argv[1] if len(sys.argv) > 1 else PHOTO, radius=0.25)

print(certificate)
if certificate.abstained:
    print(f"No label can be certified: {certificate.explanation}.")
else:
    print(f"The API's own answer: {certificate.plain_label} (same: {certificate.plain_agrees}).")
    print(f"Price of the {certificate.queries} queries just sent: ${certificate.cost:.4f}.")
