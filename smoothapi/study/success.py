"""What counts as a success of a study, said once; figures, report, terminal and tables count by it.

- *Certified*: the test ended with a label at the radius wanted.
- *Agreeing*: certified, and the plain answer has the same label. A label that noise alone suggests
  is certified easily, and is worth nothing.
- *Right*: certified, and the label is one of those that the photo's truth names. Its share of the
  photos is the certified accuracy of Cohen, Rosenfeld and Kolter (ICML 2019, section 4).

Each holds the one before it to more, but for an answer that is right where the plain one is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from smoothapi.study.folder import is_right

if TYPE_CHECKING:
    from smoothapi.study.collect import Outcome


class Measure(StrEnum):
    """Which certificates of a study count first: it is by these that costs are divided."""

    RIGHT = "right"
    AGREEING = "agreeing"
    CERTIFIED = "certified"

    @property
    def text(self) -> str:
        """In words, behind "certified"."""
        return {
            Measure.RIGHT: "certified with a right label",
            Measure.AGREEING: "certified with the plain call's label",
            Measure.CERTIFIED: "certified",
        }[self]

    @property
    def heading(self) -> str:
        """At the head of a column."""
        return {
            Measure.RIGHT: "certified, right",
            Measure.AGREEING: "certified, agreeing",
            Measure.CERTIFIED: "certified",
        }[self]


@dataclass(frozen=True, slots=True)
class Success:
    """How a photo's test ended, as it is counted.

    Attributes:
        certified: whether there is a certificate.
        agreeing: whether it is for the plain answer's label; None for a certificate of which that
            cannot be told (nothing was asked plainly, or the target is no single label).
        right: whether it is for a right label; None where the photo's truth is not known.
    """

    certified: bool
    agreeing: bool | None
    right: bool | None

    @classmethod
    def of(cls, outcome: Outcome, truth: tuple[str, ...]) -> Success:
        """Return how an outcome is counted.

        Args:
            outcome: of one test.
            truth: the labels that are right for the photo; empty if that is not known.
        """
        certified = outcome.certified
        return cls(
            certified,
            outcome.agrees if certified else False,
            None if not truth else outcome.label is not None and is_right(outcome.label, truth),
        )
