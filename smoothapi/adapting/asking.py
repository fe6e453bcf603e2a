"""Votes for the photos' labels through several denoisers, each on the same noise."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from smoothapi.adapting.race import Vote
from smoothapi.answer import Answer
from smoothapi.certify import Decision, Reason, Top1, top1
from smoothapi.certify.labels import label_key
from smoothapi.dispatch import Totals
from smoothapi.errors import BudgetExceededError, ImageError, TooManyFailuresError
from smoothapi.method import collect_votes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.adapting.photos import Subject
    from smoothapi.certify import LabelSpace
    from smoothapi.session import Collection, Session

    Votes: TypeAlias = dict[int, Vote]

_FEWEST_FAILED = 3


class Asker:
    """Asks about many photos at once, and keeps count.

    Args:
        space: the caller's classes.
        size: of the working image.
        at_once: photos under way at the same time.
        max_failed: share of the variants that may fail for good.
        on_query: called after each answer.

    Attributes:
        totals: what was sent and received.
        versions: of the provider's model.
        skipped: photos that have no label, or are gone.
        stopped: why the budget ended it; "" if it did not.
    """

    def __init__(
        self,
        *,
        space: LabelSpace | None,
        size: int | tuple[int, int],
        at_once: int,
        max_failed: float,
        on_query: Callable[[Totals], None],
    ) -> None:
        self._target = Top1(space)
        self._size = size
        self._at_once = at_once
        self._max_failed = max_failed
        self._on_query = on_query
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._votes = 0
        self.totals = Totals()
        self.versions: set[str] = set()
        self.skipped = 0
        self.stopped = ""

    def ask(
        self, subjects: Sequence[Subject], through: Mapping[int, Session]
    ) -> list[tuple[Subject, Votes]]:
        """Return the votes for each photo, in order; photos without a label are not among them.

        When the budget ends, the photos before the first that lacks an answer are returned.

        Args:
            subjects: the photos.
            through: by number, the sessions; the first is asked what a photo shows.

        Raises:
            ProviderError: the provider failed; what was answered is kept.
        """
        if not subjects:
            return []
        done: list[tuple[Subject, Votes]] = []
        pool = ThreadPoolExecutor(
            min(self._at_once, len(subjects)), thread_name_prefix="smoothapi-adapt"
        )
        try:
            asked = [pool.submit(self._ask_about, subject, through) for subject in subjects]
            for subject, future in zip(subjects, asked, strict=True):
                votes = future.result()
                if votes is None:
                    self.skipped += 1
                else:
                    done.append((subject, votes))
        except BudgetExceededError as error:
            self.stopped = str(error)
        finally:
            self._stop.set()  # an error is everyone's: nothing more is bought
            pool.shutdown(wait=True, cancel_futures=True)
            self._stop.clear()
        return done

    def _ask_about(self, subject: Subject, through: Mapping[int, Session]) -> Votes | None:
        """Return the vote through each; None for a photo that has no label."""
        try:
            image = subject.load(self._size)
        except ImageError:
            return None
        right = frozenset(label_key(name) for name in subject.truth)
        if not right:
            first = next(iter(through.values()))
            plain = self._collected(collect_votes(first, image, _Votes(0), self._target)).plain
            label = None if plain is None else top1(plain, self._target.space)
            if label is None:
                return None
            right = frozenset((label_key(label),))
        votes: Votes = {}
        for number, session in through.items():
            if self._stop.is_set():
                return None  # nobody looks at it
            # What the photo itself gets is known by now, and is not to be counted once a setting.
            settings = session.settings.model_copy(update={"plain": False})
            alone = replace(session, settings=settings)
            self._collected(collect_votes(alone, image, _Votes(1), self._target))
            answer = session.stored(image)(0)
            votes[number] = vote_for(
                answer if isinstance(answer, Answer) else None, right, self._target.space
            )
        return votes

    def _collected(self, collected: Collection) -> Collection:
        with self._lock:
            self.totals += collected.totals
            self._votes += len(collected.votes)
            if collected.model_version:
                self.versions.add(collected.model_version)
            failed = self.totals.failed
            if failed >= max(_FEWEST_FAILED, self._max_failed * self._votes):
                raise TooManyFailuresError(
                    f"{failed} of {self._votes} variants got no answer, so what they would have "
                    "said cannot be compared. The answers so far are kept: run the same command "
                    "again when the service is well."
                )
            self._on_query(self.totals)
        return collected


class _Votes:
    """A test that takes so many votes, and decides nothing."""

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    @property
    def done(self) -> bool:
        """Whether it has all."""
        return not self._left

    def add(self, vote: str | None) -> None:
        """Take a vote."""
        del vote
        self._left -= 1

    def needed(self) -> int:
        """Return how many it still takes."""
        return self._left

    def result(self) -> Decision:
        """Return a placeholder. It does not abstain: a failed vote here does not fail the run."""
        return Decision(
            label="", reason=Reason.CAP, radius=0.0, radius_requested=None, p_lower=0.0,
            votes=self._most - self._left, tally={}, candidate=None, candidate_votes=(0, 0),
            alpha=1.0, level=1.0,
        )  # fmt: skip


def vote_for(answer: Answer | None, right: frozenset[str], space: LabelSpace | None) -> Vote:
    """Return what an answer says for a photo's label.

    Args:
        answer: None for a variant that failed for good: no vote for anything.
        right: keys of the labels that are right.
        space: the caller's classes.
    """
    if answer is None:
        return Vote(0.0, right=False)
    best = top1(answer, space)
    own = other = 0.0
    for label in answer.labels:
        name = label.name if space is None else space.class_of(label)
        if name is None:
            continue
        if label_key(name) in right:
            own = max(own, label.score)
        else:
            other = max(other, label.score)
    return Vote(
        own / (own + other) if own > 0.0 else 0.0,
        right=best is not None and label_key(best) in right,
    )
