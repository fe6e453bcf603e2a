"""A denoiser adapted to one provider by that provider's own answers, within a budget."""

from smoothapi.adapting.race import Race, Standing, Vote
from smoothapi.adapting.result import Adapted, AdaptPlan, AdaptProgress, BeforeAfter, Tried
from smoothapi.adapting.tuning import GRID, KnobTuning

__all__ = [
    "GRID",
    "AdaptPlan",
    "AdaptProgress",
    "Adapted",
    "BeforeAfter",
    "KnobTuning",
    "Race",
    "Standing",
    "Tried",
    "Vote",
]
