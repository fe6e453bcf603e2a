"""Votes about a photo, each bought once: `SampleUnderNoise` of a service.

variants -> dispatch -> votes, in order of index (Cohen, Rosenfeld, Kolter, ICML 2019, section 3.2).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from smoothapi.answer import Answer, printable
from smoothapi.certify.labels import top1
from smoothapi.dispatch import Answers, Delivery, Dispatcher, Job, Run, Totals, answer_key
from smoothapi.errors import (
    BudgetExceededError,
    ModelChangedError,
    PermanentError,
    SmoothAPIError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.certify.decision import VoteTest
    from smoothapi.certify.targets import Target
    from smoothapi.config import Settings
    from smoothapi.dispatch.job import Encode
    from smoothapi.image import WorkingImage
    from smoothapi.variants import Variants

# Variants prepared together: as many as a request takes, or two lots for all requests in flight.
_SMALLEST_LOT, _LARGEST_LOT = 8, 32
_MOST_NAMED = 8
_log = logging.getLogger("smoothapi")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a certificate is.

    Attributes:
        votes: counted so far.
        needed: the fewest further votes that could decide it.
        max_votes: the most that are allowed.
        queries: variants sent so far.
        cached: answers from the store so far.
        cost: dollars so far.
        retries: pictures sent again so far.
        waited: seconds spent waiting between attempts so far, summed over threads.
    """

    votes: int
    needed: int
    max_votes: int
    queries: int
    cached: int
    cost: float
    retries: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Collection:
    """Votes about one image, in order of index, and what they cost.

    Attributes:
        votes: labels, or None for "no answer".
        plain: the answer to the image itself; None if it was not asked for, or failed for good.
        model_version: of the provider's model, "" if it gave none.
        totals: what was sent and received.
        seconds: how long it took.
    """

    votes: tuple[str | None, ...]
    plain: Answer | None
    model_version: str
    totals: Totals
    seconds: float


@dataclass(frozen=True, slots=True)
class Sampler:
    """Asks one provider about variants of photos, and keeps what it answered.

    Attributes:
        variants: how they are made and asked about.
        dispatcher: what sends them.
        answers: where answers are kept.
        settings: in force; their sigma is that of the variants.
        refresh: ask again although answers are kept.
        on_run: is told of each run that begins, and may stop it.
    """

    variants: Variants
    dispatcher: Dispatcher
    answers: Answers
    settings: Settings
    refresh: bool
    on_run: Callable[[Run], None] | None = None

    def stored(self, image: WorkingImage) -> Callable[[int | None], Answer | PermanentError | None]:
        """Return index -> the kept answer that will be used; None stands for the image itself."""
        asked = self.variants.asked(image)
        return lambda index: None if self.refresh else self.answers.get(answer_key(asked(index)))

    def collect(
        self,
        image: WorkingImage,
        test: VoteTest,
        target: Target,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Collection:
        """Feed votes in order of index to a test until it is done; see `Smoother.collect`."""
        began = time.monotonic()
        self.variants.check_side(image)
        plain, plain_totals = self._ask_plainly(image, refresh=self.refresh)
        self._say_what_is_unmapped(image, target, plain)
        votes: list[str | None] = []
        model_version: str | None = None
        run = self._begin(self._job(image, test))
        try:
            with run:
                for delivery in run:
                    model_version = self._same_model(model_version, delivery)
                    vote = target.vote(delivery.answer)
                    votes.append(vote)
                    test.add(vote)
                    if on_progress is not None:
                        on_progress(self._progress(test, len(votes), run.totals + plain_totals))
            if test.result().abstained:
                run.refuse_failures()
            if plain is not None and model_version not in (None, plain.model_version):
                # Stored by an earlier model: what the votes' model says is what is of interest.
                plain, again = self._ask_plainly_again(image)
                plain_totals += again
        except BudgetExceededError as error:
            kept = self._kept(image, len(votes), test)
            ended = BudgetExceededError(f"{error} {kept:,} votes are kept.")
            (run.totals + plain_totals).tell(ended)
            raise ended from error
        except SmoothAPIError as error:
            (run.totals + plain_totals).tell(error)
            raise
        return Collection(
            votes=tuple(votes),
            plain=plain,
            model_version=model_version or "",
            totals=run.totals + plain_totals,
            seconds=time.monotonic() - began,
        )

    def ask_once(
        self,
        asked: Mapping[str, object],
        prepare: Callable[[Sequence[int]], list[Encode]],
        *,
        refresh: bool,
    ) -> tuple[Answer | None, Totals]:
        """Ask about one picture that is no variant; the answer is None if it failed for good."""
        left = [1]
        job = Job(asked=lambda _: asked, prepare=prepare, needed=lambda: left[0], refresh=refresh)
        run = self._begin(job)
        answer = None
        with run:
            for delivery in run:
                answer = delivery.answer
                left[0] = 0
        # Such a query that failed is no failed vote.
        return answer, replace(run.totals, failed=0)

    def _begin(self, job: Job) -> Run:
        run = self.dispatcher.run(job)
        if self.on_run is not None:
            self.on_run(run)
        return run

    def _ask_plainly(self, image: WorkingImage, *, refresh: bool) -> tuple[Answer | None, Totals]:
        if not self.settings.plain:
            return None, Totals()
        asked = self.variants.asked(image)(None)
        return self.ask_once(asked, lambda _: self.variants.prepare_plain(image), refresh=refresh)

    def _ask_plainly_again(self, image: WorkingImage) -> tuple[Answer | None, Totals]:
        try:
            return self._ask_plainly(image, refresh=True)
        except BudgetExceededError:  # the votes are paid for, and need no comparison
            return None, Totals()

    def _job(self, image: WorkingImage, test: VoteTest) -> Job:
        lot = max(self.variants.adapter.limits.batch, self.dispatcher.concurrency // 2)
        return Job(
            asked=self.variants.asked(image),
            prepare=partial(self.variants.prepare, image),
            needed=test.needed,
            batch=min(max(lot, _SMALLEST_LOT), _LARGEST_LOT),
            refresh=self.refresh,
        )

    def _same_model(self, version: str | None, delivery: Delivery) -> str | None:
        """Return the version of the votes so far; refuse votes of two versions."""
        if delivery.answer is None:
            return version
        new = delivery.answer.model_version
        if version is not None and new != version:
            name = self.variants.adapter.name
            raise ModelChangedError(
                f"{name} answered with model version {version!r} and then "
                f"{new!r} (vote {delivery.index}), and one certificate must rest on one model. "
                "The answers are kept. Ask all again with refresh=True (--refresh) now that the "
                "new version serves, or pin a version in the adapter's options.",
                provider=name,
                request_id=delivery.answer.request_id,
            )
        return new

    def _kept(self, image: WorkingImage, votes: int, test: VoteTest) -> int:
        """Return how many votes need not be bought again: those counted, and what is stored."""
        stored = self.stored(image)
        ahead = range(votes, votes + test.needed())
        return votes + sum(stored(index) is not None for index in ahead)

    def _progress(self, test: VoteTest, votes: int, totals: Totals) -> Progress:
        return Progress(
            votes=votes,
            needed=test.needed(),
            max_votes=self.settings.max_votes,
            queries=totals.queries,
            cached=totals.cached,
            cost=float(totals.dollars),
            retries=totals.retries,
            waited=totals.waited,
        )

    def _say_what_is_unmapped(
        self, image: WorkingImage, target: Target, plain: Answer | None
    ) -> None:
        space = getattr(target, "space", None)
        if space is None or plain is None or not plain.labels or top1(plain, space) is not None:
            return
        names = ", ".join(printable(name) for name in space.unmapped(plain)[:_MOST_NAMED])
        _log.warning(
            "No label of %s belongs to a class, so the photo itself gets no answer from %s. Its "
            "labels: %s. If one of them is meant, list it with its class.",
            printable(image.name),
            self.variants.adapter.name,
            names,
        )
