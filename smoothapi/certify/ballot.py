"""The votes of a run so far, and the labels that have led it.

Where many labels can be near the top (predictions, top-k, the most specific label), the current
leader is *named*: it becomes a candidate, whose test counts only the votes that come later. The
j-th candidate of a run has level alpha * w_j, w = 0.9, 0.05, 0.025, ..., which sum to 1. A label is
named once: if it loses the lead its test goes on counting, and if it regains the lead nothing
starts again and nothing is paid again. When a label is named, it and its number are known from
votes that its test does not count; so its chance of being wrongly returned is at most alpha * w_j.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smoothapi.certify.decision import Vote

FIRST_WEIGHT = 0.9
"""Of alpha, for the first candidate of a run; each later one gets half of the rest."""


@dataclass(slots=True)
class Ballot:
    """The votes so far."""

    max_votes: int
    votes: int = 0
    tally: dict[Vote, int] = field(default_factory=dict)
    leader: str | None = None

    def add(self, vote: Vote) -> None:
        """Count a vote. A label takes the lead when it has strictly more votes than the leader."""
        self.votes += 1
        count = self.tally[vote] = self.tally.get(vote, 0) + 1
        if vote is not None and (self.leader is None or count > self.tally[self.leader]):
            self.leader = vote

    @property
    def left(self) -> int:
        """How many further votes are allowed."""
        return self.max_votes - self.votes

    def behind(self, label: str) -> int:
        """Return how many votes the label is behind the leader."""
        lead = 0 if self.leader is None else self.tally[self.leader]
        return lead - self.tally.get(label, 0)

    def sorted_tally(self) -> dict[Vote, int]:
        """Return the tally, most votes first, then by name."""
        return dict(sorted(self.tally.items(), key=lambda item: (-item[1], item[0] or "")))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A label that took the lead, and the votes up to then: its test counts only later ones.

    Attributes:
        label: the label.
        level: chance that its test wrongly succeeds.
        since: how many votes there were.
        before: these votes by label.
    """

    label: str
    level: float
    since: int
    before: Mapping[Vote, int]


class Candidates:
    """The labels that have led a ballot, each at its level; see the top of this module.

    Args:
        ballot: the votes; call `name_leader` after each that is added.
        alpha: what the levels of all candidates sum to at most.
    """

    def __init__(self, ballot: Ballot, alpha: float) -> None:
        self._ballot = ballot
        self._alpha = alpha
        self._named: dict[str, Candidate] = {}

    def name_leader(self) -> Candidate | None:
        """Return the leader as a new candidate, or None if it is one already."""
        leader = self._ballot.leader
        if leader is None or leader in self._named:
            return None
        votes, tally = self._ballot.votes, dict(self._ballot.tally)
        candidate = self._named[leader] = Candidate(leader, self.next_level, votes, tally)
        return candidate

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._named.values())

    def get(self, label: Vote) -> Candidate | None:
        """Return the label's candidate, None if it has never led."""
        return None if label is None else self._named.get(label)

    @property
    def next_level(self) -> float:
        """The level of the next label to be named."""
        return self._alpha * candidate_weight(len(self._named))

    def votes_to_name(self) -> int:
        """Return how many votes in a row make some label the leader that has never led."""
        tally, named = self._ballot.tally, self._named
        others = (n for vote, n in tally.items() if vote is not None and vote not in named)
        lead = 0 if self._ballot.leader is None else tally[self._ballot.leader]
        return lead - max(others, default=0) + 1

    def total(self, candidate: Candidate) -> int:
        """Return how many votes the candidate's test counts."""
        return self._ballot.votes - candidate.since

    def count(self, candidate: Candidate, vote: Vote) -> int:
        """Return how many of these votes are for `vote`."""
        return self._ballot.tally.get(vote, 0) - candidate.before.get(vote, 0)


def candidate_weight(earlier: int) -> float:
    """Return w_j for a label named after `earlier` others; the w_j sum to 1."""
    return FIRST_WEIGHT if earlier == 0 else (1.0 - FIRST_WEIGHT) * 0.5**earlier
