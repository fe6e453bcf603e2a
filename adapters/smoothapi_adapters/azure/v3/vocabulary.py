"""What Azure Computer Vision 3.2 can say: its 86 categories, and three words for adult content."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from smoothapi.provider import Vocabulary

ADULT = ("adult", "racy", "gory")

_TAXONOMY = "learn.microsoft.com/azure/ai-services/computer-vision/category-taxonomy"
_AS_OF = "2026-11-28"


@cache
def stated(feature: str, *, own: bool) -> Vocabulary:
    """Return what is known of a feature's labels.

    Args:
        feature: tags, categories, description or adult.
        own: whether Azure itself is asked; categories of others are not known.
    """
    if feature == "adult":
        return Vocabulary(ADULT, closed=True, source="the feature adult")
    if feature != "categories" or not own:
        return Vocabulary()
    text = (files("smoothapi_adapters.azure.v3") / "categories.txt").read_text(encoding="utf-8")
    names = tuple(text.split())
    parents = {name: above for name in names if (above := parents_of(name))}
    return Vocabulary(names, closed=True, parents=parents, source=_TAXONOMY, as_of=_AS_OF)


def parents_of(category: str) -> tuple[str, ...]:
    """Return the group of a category, whose name begins with it: `trans_` for `trans_bus`."""
    group, mark, rest = category.partition("_")
    return (group + mark,) if rest else ()
