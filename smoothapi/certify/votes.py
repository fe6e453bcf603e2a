"""Votes as text, in which they are kept and replayed, and as a certificate shows them.

A vote of `Top1` or `TopK` is a label. Those of `Presence`, `Scores` and `MostSpecific` say of
several labels whether, or with which score, an answer had them: as JSON, which stands as JSON in a
certificate, and counts there for each label that it says is there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.certify.decision import Vote

_OF_SEVERAL = frozenset(("presence", "scores", "most-specific"))


def shown(vote: Vote, target: Mapping[str, Any]) -> Any:
    """Return a vote as it stands in a certificate's JSON; `text_of` is the inverse.

    Args:
        vote: as the target made it of an answer.
        target: the target's description.
    """
    if vote is None or target.get("target") not in _OF_SEVERAL:
        return vote
    value = _parsed(vote)
    return value if isinstance(value, (list, dict)) and json.dumps(value) == vote else vote


def text_of(shown_vote: Any, target: Mapping[str, Any]) -> Any:
    """Return the text of a vote as it stands in a certificate's JSON.

    The members of an object have no order in JSON, and signing sorts them; in a vote they stand as
    the target names its labels.
    """
    if not isinstance(shown_vote, (list, dict)):
        return shown_vote
    labels = target.get("labels")
    if isinstance(shown_vote, list) and isinstance(labels, list):
        shown_vote = [_in_order(part, labels) for part in shown_vote]
    return json.dumps(shown_vote)


def _in_order(part: Any, labels: list[Any]) -> Any:
    if not isinstance(part, dict) or len(part) != len(labels):
        return part
    try:
        return {label: part[label] for label in labels}
    except (KeyError, TypeError):  # of another target, which `verify` will say
        return part


def same_vote(one: Vote, other: Vote) -> bool:
    """Whether two votes say the same, though a JSON tool may have written 1.0 as 1."""
    if one == other:
        return True
    if one is None or other is None:
        return False
    parsed = _parsed(one)
    return isinstance(parsed, list) and parsed == _parsed(other)


def labels_of(vote: Vote, target: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the labels that a vote counts for, each once; (None,) for "no answer".

    Those are its label; or those that it says are present, or have the least score wanted. What is
    no vote of the target counts for none.
    """
    if vote is None or target.get("target") not in _OF_SEVERAL:
        return (vote,)
    try:
        first, *rest = _parsed(vote)
        if isinstance(first, dict):
            [least] = rest
            names = [name for name, score in first.items() if score >= least]
        else:
            others, _least = rest
            names = [*first, *others] if target["target"] == "most-specific" else first
        return tuple(dict.fromkeys(names))
    except (TypeError, ValueError):
        return ()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
