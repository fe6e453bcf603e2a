"""Know the price before, set a limit that holds, and pay for nothing twice."""

from __future__ import annotations

import tempfile
from pathlib import Path

from smoothapi import Budget, BudgetExceededError, Smoother
from smoothapi_adapters.mock import MockAdapter

PHOTO = Path(__file__).parent / "photos" / "balloon.jpg"

service = MockAdapter({"balloon": 0.99, None: 0.01}, price="1.50")
with tempfile.TemporaryDirectory() as home:
    options = {"radius": 0.25, "size": 64, "denoiser": "none", "home": home}

    with Smoother(service, **options) as smoother:
        plan = smoother.plan(PHOTO)
        print(
            f"At least {plan.at_least} queries, at most {plan.at_most}, at ${plan.dollars}/1,000."
        )

    with Smoother(service, budget=Budget(attempts=20), **options) as smoother:
        try:
            smoother.certify(PHOTO)
        except BudgetExceededError as error:
            print(f"Refused before anything was sent ({service.requests} requests): {error}")

    with Smoother(service, budget="$5/month", **options) as smoother:
        certificate = smoother.certify(PHOTO)
        print(certificate, f"for ${certificate.cost:.4f}.")
        again = smoother.certify(PHOTO)
        print(f"The second time: {again.queries} queries, {again.cached} answers from the store.")
