"""What a provider said about one picture: the value that crosses from dispatch to certify."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from smoothapi.errors import UsageError


@dataclass(frozen=True, slots=True)
class Label:
    """One label of an answer.

    Attributes:
        name: the provider's own name for it, as it came.
        score: the provider's confidence in [0, 1].
        parents: names of more general labels it belongs to, nearest first, if the provider says.
    """

    name: str
    score: float
    parents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise UsageError("A label needs a name; an answer without labels is Answer(labels=()).")
        if not (math.isfinite(self.score) and 0.0 <= self.score <= 1.0):
            raise UsageError(
                f"The score of label {self.name!r} is {self.score}; scores are in [0, 1]. "
                "An adapter for a provider with percentages divides by 100."
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's labels for one payload. No labels at all is a valid answer.

    Attributes:
        labels: in the provider's order, which need not be sorted.
        model_version: what the provider says of its model, "" if it says nothing.
        request_id: the provider's id of the request, "" if it gave none.
    """

    labels: tuple[Label, ...]
    model_version: str = ""
    request_id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_dict` is its inverse."""
        return {
            "labels": [
                [label.name, label.score, list(label.parents)]
                if label.parents
                else [label.name, label.score]
                for label in self.labels
            ],
            "model_version": self.model_version,
            "request_id": self.request_id,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Answer:
        """Rebuild an answer; raises UsageError if `data` is none."""
        try:
            return cls(
                labels=tuple(
                    Label(str(name), float(score), tuple(str(p) for p in (rest[0] if rest else ())))
                    for name, score, *rest in data["labels"]
                ),
                model_version=str(data["model_version"]),
                request_id=str(data["request_id"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"This is no stored answer: {error!r}") from error
