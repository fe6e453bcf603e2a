"""What a provider said about one picture: the value that crosses from dispatch to certify."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from smoothapi.errors import UsageError
from smoothapi.text import shortened

__all__ = ["Answer", "Label"]


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
                f"A label's name is text, not {shortened(self.name)}; an answer without labels is "
                "Answer(labels=())."
            )
        if isinstance(self.score, bool) or not hasattr(self.score, "__float__"):
            raise UsageError(
                f"The score of label {self.name!r} is not a number: {shortened(self.score)}."
            )
        try:
            score = float(self.score)  # numpy's numbers are not JSON
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not 0.0 <= score <= 1.0:
            raise UsageError(
                f"The score of label {self.name!r} is {shortened(self.score)}; scores are in "
                "[0, 1]. "
                "An adapter for a provider with percentages divides by 100."
            )
        object.__setattr__(self, "score", score)
        for names in ("parents", "categories"):
            given = getattr(self, names)
            if isinstance(given, str) or not all(isinstance(name, str) for name in given):
                raise UsageError(f"The {names} of label {self.name!r} are a list of names.")
            object.__setattr__(self, names, tuple(given))


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
                labels=tuple(Label(*row) for row in data["labels"]),
                model_version=data["model_version"],
                request_id=data["request_id"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"This is not a stored answer: {error!r}") from error


def _row(label: Label) -> list[Any]:
    """Return a label as a list as short as it can be: a store holds thousands."""
    row: list[Any] = [label.name, label.score, list(label.parents), list(label.categories)]
    while not row[-1] and len(row) > 2:
        row.pop()
    return row
