"""Labels in the JSON of any service, once a path has found them."""

from __future__ import annotations

from typing import Any

from smoothapi.answer import Label

_ANY = 1e300  # above all scores; also where an integer is too large for a float
_MEMBERS = frozenset({"name", "score", "parents", "categories"})


class MisfitError(Exception):
    """What a path finds is not what it should be."""


def labels_in(found: Any, scale: float) -> tuple[Label, ...]:
    """Return the labels in what the path `labels` finds.

    Args:
        found: a list of objects or pairs, one object of names and scores, or one name.
        scale: the highest score.

    Raises:
        MisfitError: it is something else.
    """
    if isinstance(found, str):
        found = [[found, scale]]
    elif isinstance(found, dict):
        found = [found] if {"name", "score"} <= found.keys() <= _MEMBERS else list(found.items())
    if not isinstance(found, list):
        raise MisfitError("the path labels= finds nothing")
    return tuple(_label(item, scale) for item in found)


def _label(item: Any, scale: float) -> Label:
    if isinstance(item, dict):
        name, score = item.get("name"), item.get("score")
        parents, categories = item.get("parents") or (), item.get("categories") or ()
    elif isinstance(item, (list, tuple)) and len(item) == 2:
        (name, score), parents, categories = item, (), ()
    else:
        raise MisfitError("a label is neither an object with name and score nor a pair of them")
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str) or not name:
        raise MisfitError("a label has no name")
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not abs(score) < _ANY:
        raise MisfitError("a label has no score that is a number")
    share = score / scale
    if not -1e-6 <= share <= 1.0 + 1e-6:  # rounding on the way is harmless
        raise MisfitError(f"a score is {score:g}, not within 0 and scale={scale:g}")
    if not all(isinstance(names, (list, tuple)) for names in (parents, categories)) or not all(
        isinstance(text, str) for text in (*parents, *categories)
    ):
        raise MisfitError("parents and categories of a label are lists of names")
    return Label(name, min(1.0, max(0.0, share)), tuple(parents), tuple(categories))
