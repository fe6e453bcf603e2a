"""What a test of votes is, and what it decides: the values that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Vote: TypeAlias = str | None
"""A label, or None for "no answer"."""

UNLIKELY = 0.01
"""A run is given up when its label succeeds within the cap with less probability than this."""

RULES = 3
"""The rules that votes are tested by.

By rules 2, of certificates of schema 2, the level was that of `label_level`, which leaves some of
alpha unused (`smoothapi.certify.calibration`). And runs for labels that were asked for by name were
given up by `ChanceRule`; that decides about cost, never about validity.

By rules 1, of certificates of schema 1, each radius had a level of its own, so that certificates
of one photo at several radii did not hold jointly, and the share of votes was spared once the
chance of noise that float64 rounds differently, not twice.
"""

RADIUS_DECIMALS = 6
SHARE_DECIMALS = 9


class Reason(StrEnum):
    """Why a run ended as it did."""

    CERTIFIED = "certified"
    CAP = "cap"
    FUTILE = "futile"
    UNLIKELY = "unlikely"
    NO_ANSWER = "no-answer"
    STOPPED = "stopped"

    @property
    def text(self) -> str:
        """The reason in words."""
        return _TEXTS[self]


_TEXTS = {
    Reason.CERTIFIED: "the votes suffice",
    Reason.CAP: "the votes allowed were used up before the test could decide",
    Reason.FUTILE: "not even an unbroken run of the votes left could suffice",
    Reason.UNLIKELY: "success had become unlikely, so no more votes were bought",
    Reason.NO_ANSWER: "no vote was for what was to be certified",
    Reason.STOPPED: "the run was stopped before the test could decide",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a decision says about a label.

    Attributes:
        label: the label.
        relation: what holds of it everywhere within the radius.
        radius: L2 radius that is certified.
        p_lower: lower bound of the share of answers of which it holds, rounded down.
        votes: (k, n): answers of which it held, and all that were counted for it.
        score: for "at least", what the label's median score under noise does not fall below.
    """

    label: str
    relation: Literal["top", "present", "absent", "among the best", "at least"]
    radius: float
    p_lower: float
    votes: tuple[int, int]
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the votes say.

    Attributes:
        label: the label certified (or predicted), None where the test abstains.
        reason: why the run ended so.
        radius: L2 radius that is certified, 0.0 if the test abstains. A radius asked for is
            returned unchanged; one found is rounded down.
        radius_requested: the radius asked for; None for the largest, and for a prediction.
        p_lower: lower bound of the label's share of votes, rounded down and before `delta` is
            taken off; 0.0 where nothing is certified (the levels hold for shares that certify, not
            for smaller ones), and for a prediction.
        votes: how many were counted.
        tally: votes by label, most first; the key None stands for "no answer".
        candidate: the label certified, else the leader, None if no vote was for a label.
        candidate_votes: (k, n) of the candidate's test: votes for it, and all votes it counts.
        alpha: chance that a run like this certifies anything wrongly.
        level: 1 over the e-value that the candidate's test must reach for the radius wanted.
        claims: what is certified by targets other than the top label; `label` then says it in
            words. All claims of a decision hold together with probability 1 - alpha.
        largest: of each label that the votes certify at some radius from sigma / 8 up, the largest
            such radius, whether or not it is the one asked for. These hold together with the label
            and the claims with probability 1 - alpha.
        or_less: whether the run was to go on for less than the radius asked for.
        final: whether the test was calibrated to its cap, which is never raised.
    """

    label: str | None
    reason: Reason
    radius: float
    radius_requested: float | None
    p_lower: float
    votes: int
    tally: Mapping[Vote, int]
    candidate: str | None
    candidate_votes: tuple[int, int]
    alpha: float
    level: float
    claims: tuple[Claim, ...] = ()
    largest: tuple[Claim, ...] = ()
    or_less: bool = False
    final: bool = False

    @property
    def abstained(self) -> bool:
        """Whether no label is claimed."""
        return self.label is None


class VoteTest(Protocol):
    """A test that is fed votes one by one."""

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        ...

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index."""
        ...

    def needed(self) -> int:
        """Return how many further votes may be in flight: those an unbroken run would need."""
        ...

    def result(self) -> Decision:
        """Return the decision on the votes so far."""
        ...


def replay(test: VoteTest, votes: Iterable[Vote]) -> Decision:
    """Feed votes in their order and return the decision; the same votes give the same decision.

    Raises:
        UsageError: there are votes after the one that decided.
    """
    for vote in votes:
        test.add(vote)
    return test.result()


def check_vote(vote: object, *, done: bool) -> None:
    """Raise UsageError if the test is done, or the vote is neither text nor None."""
    if done:
        raise UsageError(
            "The test has decided and takes no more votes: stop when `done` is true. Votes that "
            "come after the decision must not be counted."
        )
    if vote is not None and not isinstance(vote, str):
        raise UsageError(f"A vote is a label's name or None, not {type(vote).__name__}.")
