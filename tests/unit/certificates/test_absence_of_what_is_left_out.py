"""What a provider leaves out of its answers is not certified to be absent."""

from __future__ import annotations

import dataclasses

import pytest

from smoothapi import Absence, MostSpecific, Presence, Smoother
from smoothapi.errors import UsageError
from smoothapi.provider import Limits
from smoothapi_adapters.aws import AwsAdapter
from smoothapi_adapters.clarifai import ClarifaiAdapter
from smoothapi_adapters.mock import MockAdapter


def test_absence_is_not_certified_at_a_score_that_the_provider_leaves_out(photo):
    """Rekognition lists labels from 55 percent: a weapon at 40 would be absent at 30 else."""
    everywhere = [("Weapon", 0.4), ("Person", 0.9)]
    adapter = MockAdapter(
        lambda _: [each for each in everywhere if each[1] >= 0.55],
        limits={"least_score": "0.55"},
    )
    with Smoother(adapter, sigma=0.25, radius=0.1, denoiser="none") as smoother:
        for target in (Absence("Weapon", 0.3), Presence(["Person", "Weapon"], 0.3)):
            with pytest.raises(UsageError, match=r"below 0.55.*Weapon.*at 0.3"):
                smoother.certify(photo, target=target)
            with pytest.raises(UsageError, match="cannot be told"):
                smoother.plan(photo, target=target)
        assert adapter.billed == 0
        for target in (
            Absence("Weapon", 0.55),
            Presence("Person", 0.3, wanted="present"),
            MostSpecific(0.3),
        ):
            assert smoother.certify(photo, target=target).label


def test_adapters_say_which_scores_they_leave_out():
    assert AwsAdapter(region="us-east-1").limits.least_score == 0.55
    arn = "arn:aws:rekognition:us-east-1:111122223333:project/p/version/v/1"
    custom = AwsAdapter("custom", project_version_arn=arn, min_confidence="model")
    assert custom.limits.least_score == 0.0  # by label, and not said
    assert ClarifaiAdapter(min_value=0.2).limits.least_score == 0.2
    with pytest.raises(UsageError, match="least_score"):
        dataclasses.replace(Limits(), least_score=1.5)
