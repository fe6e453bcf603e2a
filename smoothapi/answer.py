"""What a provider said about one picture: the value that crosses from dispatch to certify."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from smoothapi.errors import UsageError
from smoothapi.text import printable

__all__ = ["Answer", "Label", "printable"]


@dataclass(frozen=True, slots=True)
class Label:
    """One label of an answer.

    Attributes:
        name: the provider's own name for it, as it came.
        score: the provider's confidence in [0, 1].
        parents: names of more general labels it belongs to, nearest first, if the provider says.
        categories: names of the provider's categories that it is filed under, if it says.
    """

    name: str
    score: float
    parents: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(
                f"A label's name is text, not {self.name!r}; an answer without labels is "
                "Answer(labels=())."
            )
        if isinstance(self.score, bool) or not hasattr(self.score, "__float__"):
            raise UsageError(f"The score of label {self.name!r} is not a number: {self.score!r}.")
        object.__setattr__(self, "score", float(self.score))  # numpy's numbers are not JSON
        object.__setattr__(self, "parents", tuple(self.parents))
        object.__setattr__(self, "categories", tuple(self.categories))
        if not all(isinstance(name, str) for name in (*self.parents, *self.categories)):
            raise UsageError(f"Parents and categories of label {self.name!r} are names, as text.")
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if not all(isinstance(label, Label) for label in self.labels):
            raise UsageError(
                "The labels of an answer are Label objects, such as Label('bus', 0.9)."
            )
        if not isinstance(self.model_version, str) or not isinstance(self.request_id, str):
            raise UsageError(
                'The model version and request id of an answer are text, "" if unknown.'
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_dict` is its inverse."""
        return {
            "labels": [_row(label) for label in self.labels],
            "model_version": self.model_version,
            "request_id": self.request_id,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Answer:
        """Rebuild an answer; raises UsageError if `data` is malformed."""
        try:
            return cls(
                labels=tuple(
                    Label(str(name), float(score), *(tuple(map(str, names)) for names in more))
                    for name, score, *more in data["labels"]
                ),
                model_version=str(data["model_version"]),
                request_id=str(data["request_id"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"This is not a stored answer: {error!r}") from error


def _row(label: Label) -> list[Any]:
    """Return a label as a list as short as it can be: a store holds thousands."""
    row: list[Any] = [label.name, label.score, list(label.parents), list(label.categories)]
    while not row[-1] and len(row) > 2:
        row.pop()
    return row
