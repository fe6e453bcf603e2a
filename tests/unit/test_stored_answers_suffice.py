"""Votes that were paid for make a certificate, whatever else the budget has no room for."""

from __future__ import annotations

import numpy as np
import pytest

from smoothapi import Smoother, verify
from smoothapi.errors import BudgetExceededError
from smoothapi_adapters.mock import MockAdapter

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_votes_that_are_paid_for_make_a_certificate_whatever_the_plain_answer_costs(tmp_path):
    """The plain answer is an earlier model's, and the budget has no room to ask it again."""

    def labeller(_):
        return [("Bird", 0.9)]

    labeller.labeller_id = "bird/1"
    common = {"sigma": 0.25, "radius": 0.1, "denoiser": "none", "home": tmp_path}
    with Smoother(MockAdapter(labeller, model_version="1"), **common | {"sigma": 0.5}) as smoother:
        smoother.certify(PHOTO)  # stores the plain answer
    with Smoother(MockAdapter(labeller, model_version="2"), budget="20", **common) as smoother:
        certificate = smoother.certify(PHOTO)
    assert (certificate.label, certificate.queries) == ("Bird", 20)
    assert (certificate.plain_label, certificate.plain_agrees) == (None, None)
    assert verify(certificate)


def test_what_is_stored_needs_no_budget_even_if_it_is_an_abstention(tmp_path):
    def labeller(picture):
        return [("bus" if int(picture.sum()) % 2 else "van", 0.9)]

    adapter = MockAdapter(labeller, labeller_id="odd")
    common = {"sigma": 0.25, "radius": 0.25, "denoiser": "none", "home": tmp_path}
    with Smoother(adapter, **common) as smoother:
        first = smoother.certify(PHOTO)
    assert first.abstained
    assert first.total_votes < 47
    with Smoother(adapter, budget="1", **common) as smoother:
        assert smoother.certify(PHOTO).votes == first.votes
        with pytest.raises(BudgetExceededError):
            smoother.certify(PHOTO[::-1])
    assert adapter.billed == first.attempts
