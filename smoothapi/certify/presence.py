"""Tests of yes/no votes: is a label among those of the answer?

Votes are the text that `Presence.vote` and `MostSpecific.vote` make of an answer, so that they can
be kept and replayed like labels; None is a variant that failed for good, and counts against all.
Each vote names the least score at which a label counted as present, and that of presence also the
labels that were asked for and absent, so that a certificate which claims another score, or the
absence of another label, does not follow from its votes.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack

from smoothapi._special import special
from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.ballot import Ballot, Candidate, Candidates
from smoothapi.certify.bounds import check_alpha, check_max_votes
from smoothapi.certify.decision import (
    RULES,
    SHARE_DECIMALS,
    UNLIKELY,
    Claim,
    Decision,
    Reason,
    Vote,
    check_vote,
)
from smoothapi.certify.evalue import PRIOR, boundary, p_lower
from smoothapi.certify.futility import DEFAULT_RULE, ChanceRule, Futility
from smoothapi.certify.reach import check_reachable
from smoothapi.certify.sequential import (
    SequentialCertify,
    VoteTerms,
    needed_share,
    radius_above,
    refuse_final,
    smallest_radius,
)
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Wanted: TypeAlias = Literal["either", "present", "absent"]

_CHANCE_RULES = 2  # rules up to which `ChanceRule` gave runs for named labels up
_PRESENCE = "the labels present, those absent"
_CHAIN = "a label with its parents, and others"


class LabelsTest:
    """A `SequentialCertify` for each of some labels, chosen beforehand, which share alpha.

    Args:
        labels: the labels asked for.
        terms: the other arguments of `SequentialCertify`.
    """

    def __init__(self, labels: Sequence[str], **terms: Unpack[VoteTerms]) -> None:
        check_alpha(terms["alpha"])
        rule: Futility = DEFAULT_RULE if terms.get("rules", RULES) > _CHANCE_RULES else ChanceRule()
        self._labels = tuple(labels)
        self._alpha = terms["alpha"]
        terms["alpha"] /= len(self._labels)
        self._tests = {label: SequentialCertify(futility=rule, **terms) for label in self._labels}
        self._tally: Counter[Vote] = Counter()

    @property
    def done(self) -> bool:
        """Whether all labels are decided or given up."""
        return all(test.done for test in self._tests.values())

    def needed(self) -> int:
        """Return the most further votes that may be in flight: what the slowest label needs."""
        return max(test.needed() for test in self._tests.values())

    def _decided(
        self, claims: tuple[Claim, ...], words: Sequence[str], largest: tuple[Claim, ...]
    ) -> Decision:
        """Return the decision that makes these claims, each said in words.

        What is shown for all is the first label that has a claim, or the first at all, with the
        weakest claim's radius and bound.
        """
        shown = self._tests[claims[0].label if claims else self._labels[0]].result()
        return replace(
            shown,
            label=", ".join(words) or None,
            reason=Reason.CERTIFIED if claims else shown.reason,
            radius=min((c.radius for c in claims), default=0.0),
            p_lower=min((c.p_lower for c in claims), default=0.0),
            votes=self._tally.total(),
            tally=dict(self._tally.most_common()),
            alpha=self._alpha,
            claims=claims,
            largest=largest,
        )


class PresenceTest(LabelsTest):
    """Decide for each of some labels, chosen beforehand, whether it is present or absent.

    With probability at least 1 - alpha, whenever the run is stopped, every claim holds: no L2
    change up to its radius changes what the majority of noisy copies says of that label. Each
    label has alpha / (number of labels); present and absent exclude each other, so
    `SequentialCertify` covers both with one level.

    Args:
        labels: the labels asked for; votes are JSON, [those present, those absent, score].
        wanted: which outcome is worth a certificate; the other one then ends the run early.
        score: the least score of a label that counts as present; of a vote it must be the same.
        terms: the other arguments of `SequentialCertify`.
    """

    def __init__(
        self, labels: Sequence[str], wanted: Wanted, score: float, **terms: Unpack[VoteTerms]
    ) -> None:
        super().__init__(labels, **terms)
        self._asked = sorted(labels)
        self._wanted = wanted
        self._score = score

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: what `Presence.vote` made of the answer.

        Raises:
            UsageError: the test is done, or the vote is not such a text.
        """
        check_vote(vote, done=self.done)
        present = None if vote is None else self._present(vote)
        self._tally[vote] += 1
        for label, test in self._tests.items():
            if not test.done:
                test.add(self._answer(label, present))

    def result(self) -> Decision:
        """Return the decision on the votes so far, with a claim for each label decided."""
        decisions = {label: test.result() for label, test in self._tests.items()}
        claims = tuple(
            Claim(
                label=label,
                relation="present" if decision.label == "present" else "absent",
                radius=decision.radius,
                p_lower=decision.p_lower,
                votes=decision.candidate_votes,
            )
            for label, decision in decisions.items()
            if decision.label is not None
        )
        largest = tuple(
            replace(
                claim, label=label, relation="present" if claim.label == "present" else "absent"
            )
            for label, decision in decisions.items()
            for claim in decision.largest
        )
        words = [f"{claim.label} {claim.relation}" for claim in claims]
        return self._decided(claims, words, largest)

    def _present(self, vote: str) -> frozenset[str]:
        present, absent = _parts(vote, self._score, _PRESENCE)
        if sorted((*present, *absent)) != self._asked:
            raise UsageError(
                f"The vote {vote!r} is about other labels than this target's: "
                f"{', '.join(self._asked)}."
            )
        return frozenset(present)

    def _answer(self, label: str, present: frozenset[str] | None) -> Vote:
        """Return the label's vote; an outcome that is not wanted is counted against the other."""
        if present is None:
            return None
        outcome = "present" if label in present else "absent"
        return outcome if self._wanted in ("either", outcome) else None


class _Chain:
    """A candidate with its parents, and how often each was present since it was named."""

    def __init__(self, candidate: Candidate, labels: tuple[str, ...]) -> None:
        self.candidate = candidate
        self.labels = labels
        self.level = candidate.level / len(labels)  # of each label's own test
        self.present = [0] * len(labels)

    def count(self, names: frozenset[str]) -> None:
        """Count an answer by what it says is present."""
        for place, label in enumerate(self.labels):
            self.present[place] += label in names


class MostSpecificTest:
    """Certify the most specific label of a chain of parents that the votes allow.

    The chain is that of a candidate (`smoothapi.certify.ballot`): a label that took the lead as the
    answers' most specific. It is tested on the votes after that, and its level is split evenly over
    the chain's labels. (Were parents always a nested line, nothing would have to be split; but a
    label can have two parents of which neither is the other's, and answers do not always name the
    same ones.) With probability at least 1 - alpha all claims hold, whenever the run is stopped.

    Args:
        score: the least score of a label that counts as present; of a vote it must be the same.
        sigma, alpha, max_votes, delta: as for `SequentialCertify`.
        radius: the L2 radius wanted. None, the largest, is refused: which label is the most
            specific would depend on it. So are `or_less` and `final`.
        unlikely: a label is given up, and its parent tried for, as by `ChanceRule`.
        rules: those of the certificate to be checked; see `RULES`.

    Raises:
        UnreachableRadiusError: not even an unbroken run of `max_votes` votes would suffice.
        UsageError: a value is out of range.
    """

    def __init__(
        self,
        score: float,
        *,
        sigma: float,
        alpha: float,
        max_votes: int,
        radius: float | None,
        delta: float = 0.0,
        or_less: bool = False,
        final: bool = False,
        unlikely: float = UNLIKELY,
        rules: int = RULES,
    ) -> None:
        check_alpha(alpha)
        check_max_votes(max_votes)
        if radius is None or or_less:
            raise UsageError(
                "Which label is the most specific depends on the radius, so neither the largest "
                "nor a smaller one can be searched for: name the radius wanted, such as 0.25."
            )
        refuse_final(final=final, what="the most specific label")
        self._score = score
        self._alpha = alpha
        self._radius = float(radius)
        self._unlikely = unlikely
        self._rules = rules
        self._ballot = Ballot(max_votes)
        self._candidates = Candidates(self._ballot, alpha)
        check_reachable(
            radius,
            lambda wanted: self._votes_unnamed(needed_share(wanted, sigma, delta)),
            sigma=sigma,
            alpha=alpha,
            max_votes=max_votes,
        )
        self._share = needed_share(radius, sigma, delta)
        self._smallest = smallest_radius(self._radius, sigma)
        self._least_share = needed_share(self._smallest, sigma, delta)
        self._sigma, self._delta = sigma, delta
        self._chains: dict[str, _Chain] = {}
        self._raw: Counter[Vote] = Counter()
        self._ended: Reason | None = None
        most_losses = boundary(self._share, self._candidates.next_level).most_losses(max_votes)
        self._hope = max(self._share, 1.0 - most_losses / max_votes)

    @property
    def done(self) -> bool:
        """Whether the test has decided; then it takes no more votes."""
        return self._ended is not None

    def add(self, vote: Vote) -> None:
        """Count the next vote in order of index: what `MostSpecific.vote` made of the answer.

        Raises:
            UsageError: the test is done, or the vote is not such a text.
        """
        check_vote(vote, done=self.done)
        chain, others = ((), ()) if vote is None else _parts(vote, self._score, _CHAIN)
        self._raw[vote] += 1
        names = frozenset((*chain, *others))
        for known in self._chains.values():
            known.count(names)
        self._ballot.add(chain[0] if chain else None)
        candidate = self._candidates.name_leader()
        if candidate is not None:
            self._chains[candidate.label] = _Chain(candidate, chain)
        self._ended = self._end()

    def needed(self) -> int:
        """Return the most further votes that may be in flight without buying one in vain."""
        return 0 if self.done else min(self._ballot.left, self._best_case())

    def result(self) -> Decision:
        """Return the decision on the votes so far; its claim is the most specific that holds."""
        ballot = self._ballot
        leading = self._leading()
        chains = [leading, *(c for c in self._chains.values() if c is not leading)]
        claim, chosen = None, leading
        for chain in chains:
            if chain is not None and claim is None:
                claim = self._claim(chain)
                chosen = chain if claim else chosen
        k, n = (leading.present[0], self._total(leading)) if leading else (0, 0)
        reason = self._ended or Reason.STOPPED
        if ballot.leader is None and ballot.votes:
            reason = Reason.NO_ANSWER
        return Decision(
            label=claim.label if claim else None,
            reason=Reason.CERTIFIED if claim else reason,
            radius=self._radius if claim else 0.0,
            radius_requested=self._radius,
            p_lower=claim.p_lower if claim else 0.0,
            votes=ballot.votes,
            tally=dict(self._raw.most_common()),
            candidate=claim.label if claim else ballot.leader,
            candidate_votes=claim.votes if claim else (k, n),
            alpha=self._alpha,
            level=leading.level if leading else 0.0,
            claims=(claim,) if claim else (),
            largest=self._largest(chosen),
        )

    def _largest(self, chain: _Chain | None) -> tuple[Claim, ...]:
        """Return how far each label of a chain is certified, the most specific first.

        No level is split over radii: the e-value of one label falls as the share grows
        (`smoothapi.certify.evalue`), so no radius is wrong unless that of its true share is.
        """
        if chain is None or self._rules == 1:
            return ()
        n = self._total(chain)
        claims = []
        for place, k in enumerate(chain.present):
            certified = self._missing(chain, place) <= 0
            bound = max(p_lower(k, n, chain.level) if n else 0.0, self._share if certified else 0.0)
            if bound >= self._least_share:
                p_low = floor_to(bound, SHARE_DECIMALS)
                radius = radius_above(p_low, self._delta, self._sigma, self._smallest)
                radius = max(radius, self._radius if certified else 0.0)
                claims.append(Claim(chain.labels[place], "present", radius, p_low, (k, n)))
        return tuple(claims)

    def _leading(self) -> _Chain | None:
        leader = self._ballot.leader
        return None if leader is None else self._chains[leader]

    def _total(self, chain: _Chain) -> int:
        return self._candidates.total(chain.candidate)

    def _end(self) -> Reason | None:
        ballot = self._ballot
        chain = self._leading()
        place = self._aim(chain) if chain else None
        if chain and place is not None and self._missing(chain, place) <= 0:
            return Reason.CERTIFIED
        if ballot.left == 0:
            return Reason.CAP
        if self._best_case() > ballot.left:
            return Reason.FUTILE
        if chain and place is None:
            return Reason.UNLIKELY
        hopeless = special.betaincc(PRIOR[0], ballot.votes + PRIOR[1], self._hope) < self._unlikely
        return Reason.UNLIKELY if chain is None and hopeless else None

    def _aim(self, chain: _Chain) -> int | None:
        """Return the place of the most specific label that is certified or not yet hopeless."""
        n = self._total(chain)
        for place, k in enumerate(chain.present):
            if self._missing(chain, place) <= 0:
                return place
            if k == n and self._rules > 1:  # given up at a loss only
                return place
            if special.betaincc(k + PRIOR[0], n - k + PRIOR[1], self._hope) >= self._unlikely:
                return place
        return None

    def _claim(self, chain: _Chain) -> Claim | None:
        n = self._total(chain)
        for place, k in enumerate(chain.present):
            if self._missing(chain, place) <= 0:
                bound = max(p_lower(k, n, chain.level), self._share)
                return Claim(
                    chain.labels[place],
                    "present",
                    self._radius,
                    floor_to(bound, SHARE_DECIMALS),
                    (k, n),
                )
        return None

    def _missing(self, chain: _Chain, place: int) -> int:
        n = self._total(chain)
        return boundary(self._share, chain.level)[n - chain.present[place]] - n

    def _missing_unnamed(self) -> int:
        return self._votes_unnamed(self._share)

    def _votes_unnamed(self, share: float) -> int:
        fresh = boundary(share, self._candidates.next_level)[0]
        return self._candidates.votes_to_name() + fresh

    def _best_case(self) -> int:
        ballot = self._ballot
        best = self._missing_unnamed()
        for label, chain in self._chains.items():
            place = self._aim(chain)
            if place is not None:
                behind = 0 if label == ballot.leader else ballot.behind(label) + 1
                best = min(best, max(behind, self._missing(chain, place)))
        return best


def _parts(vote: str, score: float, form: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the two lists of labels of a vote, which ends with the score.

    Raises:
        UsageError: it has another form, or another score.
    """
    try:
        found = json.loads(vote)
    except ValueError:
        found = None
    if (
        not isinstance(found, list)
        or len(found) != 3
        or not all(isinstance(part, list) for part in found[:-1])
        or not all(isinstance(name, str) for part in found[:-1] for name in part)
    ):
        raise UsageError(
            f"The vote {vote!r} is not of this target's form: expected JSON, {form}, and the least "
            "score."
        )
    first, second, given = found
    if isinstance(given, bool) or given != score:
        raise UsageError(
            f"The vote {vote!r} is of another target: labels counted as present from a score of "
            f"{given!r}, and here from {score!r}."
        )
    return tuple(first), tuple(second)
