"""From an answer to a vote: which label counts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from smoothapi.answer import Answer, Label


@dataclass(frozen=True)
class LabelSpace:
    """The caller's classes, as a mapping from the provider's labels.

    Provider labels are compared without regard to case and to spaces around them; classes are
    returned as the caller wrote them. Labels of the provider that no class names are not votes.

    Args:
        classes: {class: [provider labels]}, such as {"bird": ["Bird", "Vulture"]}.

    Raises:
        UsageError: there is no class, a class or label is empty, or a provider label is mapped to
            two classes.
    """

    classes: Mapping[str, Sequence[str]]
    _class_of: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        class_of: dict[str, str] = {}
        if not self.classes:
            raise UsageError('A label space needs a class: {"bird": ["Bird", "Vulture"]}.')
        for name, labels in self.classes.items():
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"{name!r} is no name of a class: it must be text, not empty.")
            if isinstance(labels, str) or not labels:
                raise UsageError(
                    f"Class {name!r} needs a list of the provider's labels, such as "
                    f"[{name.title()!r}], not {labels!r}."
                )
            for label in labels:
                key = label_key(label)
                if not key:
                    raise UsageError(f"Class {name!r} has an empty label.")
                if class_of.setdefault(key, name) != name:
                    raise UsageError(
                        f"The provider's label {label!r} is mapped to {class_of[key]!r} and to "
                        f"{name!r}, so a vote for it would be for both. Labels are compared "
                        "without regard to case. Choose one."
                    )
        object.__setattr__(self, "classes", {n: tuple(ls) for n, ls in self.classes.items()})
        object.__setattr__(self, "_class_of", class_of)

    def __hash__(self) -> int:
        return hash(self.digest)

    def class_of(self, label: str) -> str | None:
        """Return the class that a provider label belongs to, None if it belongs to none."""
        return self._class_of.get(label_key(label))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the mapping, the same whatever its order and case of labels."""
        canonical = sorted(self._class_of.items())
        return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()


def top1(answer: Answer, space: LabelSpace | None = None) -> str | None:
    """Return the vote of an answer: its label with the highest score.

    Several labels can share the highest score to the last digit. Then the most specific is meant:
    a label that another of them names among its parents loses; of those left, the first by name.

    Args:
        answer: the provider's labels, in any order.
        space: the caller's classes; then only labels that belong to one compete.

    Returns:
        The label's name as the provider gave it, or its class; None ("no answer") if there is no
        label, or none that belongs to a class.
    """
    labels: Iterable[Label] = answer.labels
    if space is not None:
        labels = [label for label in labels if space.class_of(label.name) is not None]
    best = max((label.score for label in labels), default=None)
    if best is None:
        return None
    tied = [label for label in labels if label.score == best]
    parents = {parent for label in tied for parent in label.parents if parent != label.name}
    # Labels that name each other as parents leave none: then none is more specific.
    specific = [label for label in tied if label.name not in parents] or tied
    if space is None:
        return min(label.name for label in specific)
    return min(name for label in specific if (name := space.class_of(label.name)) is not None)


def label_key(label: str) -> str:
    """Return what labels are compared by: no case, no spaces around."""
    return label.strip().casefold()
