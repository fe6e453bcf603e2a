"""The labels of a caller's own answer, certified together as far as the votes suffice."""

from __future__ import annotations

import numpy as np
import pytest

from smoothapi import Smoother, verify
from smoothapi.answer import Answer, Label
from smoothapi.image import load_image
from smoothapi.wrapping.labels import certify_labels
from smoothapi.wrapping.policy import CallPolicy
from smoothapi_adapters.mock import MockAdapter

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def certified(smoother, found):
    image = load_image(PHOTO, size=smoother.session.size)
    return certify_labels(smoother.session, image, found, CallPolicy(), least=0.5)


@pytest.mark.parametrize("blank", [" ", "\u00a0\t"])
def test_a_label_of_spaces_does_not_cost_the_others_their_certificate(blank):
    """A wrapped client has paid for the answer by then."""
    found = Answer((Label("Bus", 0.9), Label(blank, 0.8)))
    adapter = MockAdapter(lambda _: found)
    with Smoother(adapter, sigma=0.25, radius=0.1, denoiser="none", size=24) as smoother:
        certificate = certified(smoother, found)
        assert [claim.label for claim in certificate.claims] == ["Bus"]
        nothing = Answer((Label(blank, 0.8),))
        assert certified(smoother, nothing).abstained


def test_an_answer_of_many_labels_is_certified_as_far_as_the_votes_can():
    """Thirty labels share alpha, and then 55 votes are too few for each of them."""
    found = Answer(tuple(Label(f"L{n:02}", 0.99 - n / 100) for n in range(30)))
    adapter = MockAdapter(lambda _: found)
    common = {"sigma": 0.25, "radius": 0.25, "denoiser": "none", "size": 24}
    with Smoother(adapter, max_votes=55, **common) as smoother:
        certificate = certified(smoother, found)
    labels = [claim.label for claim in certificate.claims]
    assert labels == [f"L{n:02}" for n in range(len(labels))]
    assert 0 < len(labels) < 30
    assert verify(certificate)
    with Smoother(adapter, max_votes=200, **common) as smoother:
        assert len(certified(smoother, found).claims) == 30
