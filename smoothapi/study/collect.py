"""One photo at one sigma: the votes are bought once, and every test of the study reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from smoothapi.certify import Decision, Reason, Top1, TopK, fixed_certify
from smoothapi.errors import UnreachableRadiusError, UsageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from smoothapi.answer import Answer
    from smoothapi.certify import Target, Vote, VoteTest

UNDECIDED = "undecided"
"""The study ended before the test could decide."""

FAILED = "provider-failed"
"""The provider failed too often under noise before the test could decide."""

MODEL_CHANGED = "model-changed"
"""The provider's model changed before the test could decide."""

OPEN = frozenset((UNDECIDED, FAILED, MODEL_CHANGED))
"""Reasons of photos about which more votes might have said more."""

UNREACHABLE = "unreachable"
"""The cap is too small for the radius, even if every vote were for one label."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is tested on the votes of each photo.

    Attributes:
        radii: L2 radii wanted, ascending.
        max_votes: most votes of a certificate, ascending.
        alpha: chance that one test certifies wrongly.
        complete: votes that are bought in any case, so that fixed samples up to it are measured.
        selection: votes of a fixed sample that only name its candidate; None for a tenth of the
            cap, at most 100.
    """

    radii: tuple[float, ...]
    max_votes: tuple[int, ...]
    alpha: float
    complete: int = 0
    selection: int | None = None

    def __post_init__(self) -> None:
        if not self.radii or not all(0.0 < radius < 100.0 for radius in self.radii):
            raise UsageError(f"radii={self.radii}: name at least one L2 radius above 0.")
        if not self.max_votes or not all(
            type(cap) is int and 2 <= cap <= 10**6 for cap in self.max_votes
        ):
            raise UsageError(
                f"max_votes={self.max_votes}: caps are whole numbers from 2 to a million."
            )
        if self.complete < 0:
            raise UsageError(f"complete={self.complete}: it is a number of votes.")
        if self.selection is not None and not 1 <= self.selection < min(self.max_votes):
            raise UsageError(
                f"selection={self.selection}: it takes at least one vote to name a candidate, and "
                "at least one more, below the smallest cap, to test it."
            )

    def selection_of(self, max_votes: int) -> int:
        """Return how many votes of a fixed sample of `max_votes` name its candidate."""
        return max(1, min(100, max_votes // 10)) if self.selection is None else self.selection


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one test made of a photo's votes.

    Attributes:
        radius: L2 radius wanted.
        max_votes: most votes allowed.
        method: "sequential", or "fixed" for a sample of `cap` votes (Cohen et al.).
        label: the label certified, None where it abstains.
        reason: "certified", or why not.
        votes: how many votes the test used.
        agrees: whether the plain answer says the same; None where that cannot be told.
        largest_radius: the largest radius from sigma / 8 up that the same votes certify, 0 if none;
            of a sequential test.
        largest_label: what is certified there.
    """

    radius: float
    max_votes: int
    method: Literal["sequential", "fixed"]
    label: str | None
    reason: str
    votes: int
    agrees: bool | None = None
    largest_radius: float = 0.0
    largest_label: str | None = None

    @property
    def certified(self) -> bool:
        """Whether a label is certified."""
        return self.label is not None


class Collector:
    """A test that is made of all tests of a study; it is done when each of them is.

    Args:
        rules: what is tested.
        target: what votes say.
        sigma: noise level.
        delta: what arithmetic may have moved a share of votes by.
        stop: set from outside to end early.
    """

    def __init__(
        self, rules: Rules, target: Target, *, sigma: float, delta: float, stop: threading.Event
    ) -> None:
        self._rules = rules
        self._target = target
        self._sigma = sigma
        self._delta = delta
        self._stop = stop
        self.votes: list[Vote] = []
        self._tests: dict[tuple[float, int], VoteTest | None] = {}
        for radius in rules.radii:
            for cap in rules.max_votes:
                self._tests[radius, cap] = self._start(radius, cap)
        self._open = [test for test in self._tests.values() if test is not None]

    def _start(self, radius: float, cap: int) -> VoteTest | None:
        try:
            return self._target.start(
                sigma=self._sigma,
                alpha=self._rules.alpha,
                max_votes=cap,
                radius=radius,
                delta=self._delta,
            )
        except UnreachableRadiusError:
            return None

    @property
    def done(self) -> bool:
        """Whether no further vote is wanted."""
        return self.needed() == 0

    @property
    def decided(self) -> bool:
        """Whether every test has decided and all votes wanted are there."""
        return not self._open and len(self.votes) >= self._rules.complete

    def add(self, vote: Vote) -> None:
        """Count the next vote in every test that has not decided."""
        self.votes.append(vote)
        for test in self._open:
            test.add(vote)
        if any(test.done for test in self._open):
            self._open = [test for test in self._open if not test.done]

    def needed(self) -> int:
        """Return how many more votes may be under way without buying one in vain."""
        if self._stop.is_set():
            return 0
        missing = max(0, self._rules.complete - len(self.votes))
        return max([missing, *(test.needed() for test in self._open)])

    def result(self) -> Decision:
        """Return the decision of the test with the most votes; it says whether all abstain."""
        decisions = [test.result() for test in self._tests.values() if test is not None]
        certified = [decision for decision in decisions if not decision.abstained]
        if certified:
            return certified[-1]
        if decisions:
            return decisions[-1]
        return Decision(
            None, Reason.STOPPED, 0.0, None, 0.0, len(self.votes), {}, None, (0, 0),
            self._rules.alpha, 0.0,
        )  # fmt: skip

    def outcomes(self, plain: Answer | None, ended: str = UNDECIDED) -> tuple[Outcome, ...]:
        """Return what each test made of the votes so far.

        Those that could not decide abstain for the reason `ended`, one of `OPEN`: dropped, the
        figures would be of those photos that are decided fast.
        """
        found = [
            self._sequential(radius, cap, test, plain, ended)
            for (radius, cap), test in self._tests.items()
        ]
        if isinstance(self._target, Top1):
            for cap in self._rules.max_votes:
                if len(self.votes) >= cap:
                    found += self._fixed(cap, plain)
                elif cap <= self._rules.complete:
                    found += [
                        Outcome(radius, cap, "fixed", None, ended, len(self.votes))
                        for radius in self._rules.radii
                    ]
        return tuple(found)

    def _sequential(
        self, radius: float, cap: int, test: VoteTest | None, plain: Answer | None, ended: str
    ) -> Outcome:
        if test is None:
            return Outcome(radius, cap, "sequential", None, UNREACHABLE, 0)
        decision = test.result()
        reason = str(decision.reason) if test.done else ended
        label = decision.label if test.done else None
        agrees = self._agrees(plain, decision) if label is not None else None
        most = max(decision.largest, key=lambda claim: claim.radius, default=None)
        return Outcome(
            radius, cap, "sequential", label, reason, decision.votes, agrees,
            0.0 if most is None else most.radius,
            None if most is None else most.label,
        )  # fmt: skip

    def _fixed(self, cap: int, plain: Answer | None) -> Iterable[Outcome]:
        first = self._rules.selection_of(cap)
        decision = fixed_certify(
            self.votes[:first],
            self.votes[first:cap],
            sigma=self._sigma,
            alpha=self._rules.alpha,
            delta=self._delta,
        )
        for radius in self._rules.radii:
            far_enough = decision.radius >= radius
            label = decision.label if far_enough else None
            reason = Reason.NO_ANSWER if decision.candidate is None else Reason.CAP
            yield Outcome(
                radius,
                cap,
                "fixed",
                label,
                str(Reason.CERTIFIED if far_enough else reason),
                cap,
                self._agrees(plain, decision) if label is not None else None,
            )

    def _agrees(self, plain: Answer | None, decision: Decision) -> bool | None:
        if plain is None or isinstance(self._target, TopK):  # of which one answer says nothing
            return None
        return bool(self._target.agrees(plain, decision))
