"""Many photos: what a query budget buys, before and after paying."""

from __future__ import annotations

from smoothapi.study.collect import Outcome, Rules
from smoothapi.study.crew import StudyProgress
from smoothapi.study.figures import (
    Band,
    Choice,
    Figure,
    Projection,
    band,
    choices,
    figures,
    highprob,
    project,
)
from smoothapi.study.findings import (
    Cell,
    DenoiserFacts,
    GalleryPhoto,
    Photo,
    Problem,
    ProviderFacts,
)
from smoothapi.study.plans import CellPlan, Expected, StudyPlan, expect
from smoothapi.study.result import StudyResult
from smoothapi.study.shares import Shares
from smoothapi.study.study import Study

__all__ = [
    "Band",
    "Cell",
    "CellPlan",
    "Choice",
    "DenoiserFacts",
    "Expected",
    "Figure",
    "GalleryPhoto",
    "Outcome",
    "Photo",
    "Problem",
    "Projection",
    "ProviderFacts",
    "Rules",
    "Shares",
    "Study",
    "StudyPlan",
    "StudyProgress",
    "StudyResult",
    "band",
    "choices",
    "expect",
    "figures",
    "highprob",
    "project",
]
