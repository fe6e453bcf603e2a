"""Many photos: several under way at once, each a result of its own."""

from smoothapi.many.certifying import Ask, ManyProgress, certify_photos
from smoothapi.many.crew import OF_ONE_PHOTO, Crew, Failures, Spending, Spent
from smoothapi.many.results import COLUMNS, PhotoResult

__all__ = [
    "COLUMNS",
    "OF_ONE_PHOTO",
    "Ask",
    "Crew",
    "Failures",
    "ManyProgress",
    "PhotoResult",
    "Spending",
    "Spent",
    "certify_photos",
]
