"""The label with the largest share of votes, without a radius.

Without a radius the share to exceed is 1/2 between any two labels, and many labels can be near the
top. So the test of each label counts only the votes after it took the lead, as
`smoothapi.certify.ballot` says.
"""

from __future__ import annotations

from functools import partial

from smoothapi._special import special
from smoothapi.certify.ballot import FIRST_WEIGHT, Ballot, Candidate, Candidates
from smoothapi.certify.bounds import check_alpha, check_max_votes
from smoothapi.certify.decision import UNLIKELY, Decision, Reason, Vote, check_vote
from smoothapi.certify.evalue import PRIOR, boundary
from smoothapi.errors import UnreachableRadiusError


class SequentialPredict:
    """Return the label with the largest share of votes under noise, or abstain.

    With probability at least 1 - alpha over the noise, whenever the run is stopped: a label that
    is returned has a larger share of votes than any other, and than "no answer". A label A is
    returned when for every other label B the e-value for "A has more than half of the votes for
    A or B" has reached 1 / level, the level being that of A as a candidate. If A is not the top,
    the true top is one of those B, whose e-value alone would have to be wrong: so nothing is split
    over the labels B. (The sequential form of PREDICT, Cohen et al., ICML 2019.)

    Args:
        alpha: chance of a wrong label, in (0, 1).
        max_votes: most votes to count.
        unlikely: give up once the leader, by the posterior of its share of the votes for it or
            its strongest rival, has less than this chance of a share that `max_votes` votes can
            tell from 1/2.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(self, *, alpha: float, max_votes: int, unlikely: float = UNLIKELY) -> None:
        check_alpha(alpha)
        check_max_votes(max_votes)
        self._alpha = alpha
        self._unlikely = unlikely
        self._ballot = Ballot(max_votes)
        self._candidates = Candidates(self._ballot, alpha)
        self._predicted: str | None = None
        self._ended: Reason | None = None
        least = self._missing_unnamed()
        if least > max_votes:
            raise UnreachableRadiusError(
                f"A prediction at alpha {alpha:g} needs at least {least} votes even if every one "
                f"is for the same label, and only {max_votes:,} are allowed. Allow more queries, "
                "or a larger alpha."
            )

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        return self._ended is not None

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: a label, or None for "no answer".

        Raises:
            UsageError: the test is done, or the vote is neither text nor None.
        """
        check_vote(vote, done=self.done)
        ballot = self._ballot
        ballot.add(vote)
        if self._candidates.name_leader() is None:
            candidate = self._candidates.get(vote)
            if candidate is not None and self._missing(candidate) <= 0:
                self._predicted = vote
                self._ended = Reason.CERTIFIED
                return
        if ballot.left == 0:
            self._ended = Reason.CAP
        elif vote == ballot.leader:
            return  # good news ends no run
        elif self._best_case() > ballot.left:
            self._ended = Reason.FUTILE
        elif self._hopeless():
            self._ended = Reason.UNLIKELY

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain."""
        return 0 if self.done else min(self._ballot.left, self._best_case())

    def result(self) -> Decision:
        """Return the decision on the votes so far; its radius is 0."""
        ballot, candidates = self._ballot, self._candidates
        label = self._predicted or ballot.leader
        candidate = candidates.get(label)
        if self._predicted is None and ballot.leader is None and ballot.votes:
            reason = Reason.NO_ANSWER
        else:
            reason = self._ended or Reason.STOPPED
        k, n = 0, 0
        if candidate is not None:
            k, n = candidates.count(candidate, label), candidates.total(candidate)
        return Decision(
            label=self._predicted,
            reason=reason,
            radius=0.0,
            radius_requested=None,
            p_lower=0.0,
            votes=ballot.votes,
            tally=ballot.sorted_tally(),
            candidate=label,
            candidate_votes=(k, n),
            alpha=self._alpha,
            level=candidate.level if candidate else 0.0,
        )

    def _missing(self, candidate: Candidate) -> int:
        """Return how many votes in a row the label still needs against its strongest rival."""
        count = partial(self._candidates.count, candidate)
        rivals = (count(vote) for vote in self._ballot.tally if vote != candidate.label)
        rival = max(rivals, default=0)
        return boundary(0.5, candidate.level)[rival] - (count(candidate.label) + rival)

    def _missing_unnamed(self) -> int:
        """Return how many votes in a row some label needs that has not led: first the lead."""
        return self._candidates.votes_to_name() + boundary(0.5, self._candidates.next_level)[0]

    def _best_case(self) -> int:
        return min([self._missing_unnamed(), *map(self._missing, self._candidates)])

    def _hopeless(self) -> bool:
        ballot = self._ballot
        ours = 0 if ballot.leader is None else ballot.tally[ballot.leader]
        rival = max((n for vote, n in ballot.tally.items() if vote != ballot.leader), default=0)
        both = (ours + rival) * ballot.max_votes // ballot.votes
        at_most = boundary(0.5, self._alpha * FIRST_WEIGHT).most_losses(both)
        if at_most < 0:
            return True
        chance = special.betaincc(ours + PRIOR[0], rival + PRIOR[1], 1.0 - at_most / both)
        return bool(chance < self._unlikely)
