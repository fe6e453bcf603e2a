"""One provider, opened: asks about variants of photos, and keeps what it answers.

variants -> dispatch -> answers, in order of index. A `Sample` is what the paper calls
`SampleUnderNoise` (Cohen, Rosenfeld, Kolter, ICML 2019, section 3.2), of a paid service.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from smoothapi.certify.labels import LabelSpace, top1
from smoothapi.certify.targets import Presence, Target, Top1, parse_target
from smoothapi.denoise import gathered
from smoothapi.dispatch import Delivery, Dispatcher, Run, Totals, Work
from smoothapi.errors import (
    BudgetExceededError,
    ModelChangedError,
    PermanentError,
    SmoothAPIError,
    StoreError,
    UsageError,
)
from smoothapi.known_labels import KnownLabels
from smoothapi.mixes import Deployment, Mixes, futility_rule
from smoothapi.noise import MAX_SIGMA
from smoothapi.parts import choose_codec, choose_denoiser, warn_unsuited
from smoothapi.provider import choose_price
from smoothapi.store import Answers, answer_key, refreshes_of
from smoothapi.store.owners import refuse_fork
from smoothapi.text import printable
from smoothapi.variants import MadeVariants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from smoothapi.answer import Answer
    from smoothapi.certify.futility import Futility, Mix
    from smoothapi.dispatch.job import Encode
    from smoothapi.image import WorkingImage
    from smoothapi.options import DenoiserSpec
    from smoothapi.provider import Adapter, Price
    from smoothapi.settings import Settings
    from smoothapi.store import Store
    from smoothapi.variants import Asked, Variants

# Variants prepared together: as many as a request takes, or two lots for all requests in flight.
_SMALLEST_LOT, _LARGEST_LOT = 8, 32
_MOST_NAMED = 8
_LOOK_AHEAD = 64  # variants that are looked up in the store together
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
        waited: seconds of the clock in which a request waited between attempts so far.
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
        refreshes: how often they have been asked for anew, by choice.
    """

    votes: tuple[str | None, ...]
    plain: Answer | None
    model_version: str
    totals: Totals
    seconds: float
    refreshes: int = 0


class Resources(ExitStack):
    """What a session holds open, closed in the opposite order."""

    closed = False

    def __init__(self) -> None:
        super().__init__()
        self.process = os.getpid()

    def close(self) -> None:
        """Close all of it; goes on with the rest when one fails.

        In a process that was forked meanwhile nothing is closed: it is the parent's, down to the
        sockets on which it waits for answers.
        """
        if os.getpid() != self.process:
            return
        self.closed = True
        super().close()


@dataclass(frozen=True, slots=True)
class Session:
    """Asks one provider about variants of photos at one noise level.

    Sessions that were made of one another (`through`, `beside`) share budgets, pace, store and
    threads; closing one of them closes all.

    Attributes:
        variants: how they are made and asked about; their sigma is the one that is certified.
        dispatcher: what sends them.
        answers: where answers are kept.
        settings: in force, but for the noise level.
        size: shorter side of the working image, or its exact (width, height).
        space: the caller's classes; None for the provider's own labels.
        refresh: ask again although answers are kept.
        mixes: of shares, learnt from past photos; None for a recording without.
        resources: what `close` releases.
        store: the home, for what is no answer.
        on_run: is told of each run that begins, and may stop it.
        doubted: labels asked for by name that were warned of, which is done once.
    """

    variants: Variants
    dispatcher: Dispatcher
    answers: Answers
    settings: Settings
    size: int | tuple[int, int]
    space: LabelSpace | None
    refresh: bool
    mixes: Mixes | None
    resources: Resources = field(repr=False)
    store: Store = field(repr=False)
    on_run: Callable[[Run], None] | None = field(default=None, repr=False)
    doubted: set[str] = field(default_factory=set, repr=False)

    @property
    def adapter(self) -> Adapter:
        """Who is asked."""
        return self.variants.adapter

    @property
    def price(self) -> Price:
        """The price list in force: the adapter's, or the settings' own."""
        return self.dispatcher.price

    @property
    def sigma(self) -> float:
        """The noise level, of the [0, 1] range."""
        return self.variants.sigma

    @property
    def deployment(self) -> Deployment:
        """What the shares of photos' top labels depend on."""
        return Deployment.of(
            provider=self.adapter.name,
            identity=self.adapter.identity,
            denoiser=self.variants.denoiser.fingerprint,
            sigma=self.sigma,
            size=self.size,
            space=self.space,
        )

    @property
    def learnt_mix(self) -> Mix | None:
        """The mix by which runs for the top label are given up; None where none was learnt."""
        return None if self.mixes is None else self.mixes.mix(self.deployment)

    @property
    def futility(self) -> Futility:
        """The rule by which runs for the top label are given up."""
        return futility_rule(self.mixes, self.deployment)

    @contextmanager
    def sample(
        self, image: WorkingImage, needed: Callable[[], int], target: Target
    ) -> Iterator[Sample]:
        """Give the answers about an image's variants, to iterate over in a `with` statement.

        When that ends, requests under way have been awaited and kept, and nothing more is sent.

        Args:
            image: a working image, from `load_image`.
            needed: returns how many more answers could be needed; never more are under way, and 0
                ends it.
            target: what the answers will be votes for.

        Raises:
            BudgetExceededError: the budget does not allow the next query.
            ModelChangedError: the provider's model changed between two answers.
            ProviderError: the service failed; what was answered is kept.
            UsageError: the session is closed, or the provider does not take such a picture.
        """
        refuse_fork(self.resources.process)
        if self.resources.closed:
            raise UsageError("This Smoother is closed. Make another, or ask before closing it.")
        began = time.monotonic()
        self.variants.check_side(image)
        plain, spent = self._ask_plainly(image, refresh=self.refresh)
        self._warn_unmapped(image, target, plain)
        refreshes = self._refreshes(image)
        run = self._begin(_VariantsOf(image, self, needed, refreshes))
        sample = Sample(self, run, plain, spent, began, refreshes=refreshes)
        try:
            with run:
                yield sample
            if plain is not None and sample.known_version not in (None, plain.model_version):
                # Stored by an earlier model: what the votes' model says is what is of interest.
                sample.plain, again = self._ask_plainly_again(image)
                sample.spent += again
        except BudgetExceededError as error:
            kept = self._kept(image, sample.count, needed())
            ended = BudgetExceededError(f"{error} {kept:,} votes are kept.")
            sample.totals.tell(ended)
            raise ended from error
        except SmoothAPIError as error:
            sample.totals.tell(error)
            raise

    def stored(self, image: WorkingImage) -> Callable[[int | None], Answer | PermanentError | None]:
        """Return index -> the kept answer that will be used; None stands for the image itself."""
        kept = self.kept(image)
        return lambda index: None if self.refresh else kept(index)

    def kept(self, image: WorkingImage) -> Callable[[int | None], Answer | PermanentError | None]:
        """Return index -> the kept answer, used or not; None stands for the image itself."""
        refuse_fork(self.resources.process)
        return _Kept(self.answers, self.variants.asked(image))

    def _refreshes(self, image: WorkingImage) -> int:
        """Return how often the answers about an image will have been asked for anew, by choice."""
        key = answer_key(self.variants.asked(image)(0))
        try:
            row = self.answers.row(key)  # also of what was erased, which has no more than the count
        except (StoreError, LookupError):
            return 0
        return refreshes_of(row) + (self.refresh and "asked" in row)

    def look_at(
        self, image: WorkingImage, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a variant as (noisy, denoised), each (height, width, 3) uint8, to look at."""
        return self.variants.look_at(image, index)

    def ask(self, payload: bytes) -> tuple[Answer | None, Totals]:
        """Send an encoded picture as it is: one query, in budget and pace, retried like any other.

        Returns:
            The answer, None if it failed for good, and what was sent. It is stored, but never
            taken from the store.
        """
        digest = hashlib.sha256(payload).hexdigest()
        parts = {"provider": self.adapter.name, "identity": dict(self.adapter.identity)}
        question = _Question({**parts, "payload": digest}, lambda: [lambda: payload], refresh=True)
        return self._ask_once(question)

    def target(self, given: Target | Literal["top1"]) -> Target:
        """Return the target that is meant.

        Raises:
            UsageError: it is not a target, or this provider's answers cannot tell.
            UnknownLabelError: it names a label that this provider never gives.
        """
        meant = Top1(self.space) if given == "top1" else parse_target(given)
        least = self.adapter.limits.least_score
        if isinstance(meant, Presence) and meant.wanted != "present" and meant.score < least:
            raise UsageError(
                f"{self.adapter.name} is set to leave out labels with a score below {least:g}, so "
                f"whether {', '.join(meant.labels)} would be absent at {meant.score:g} cannot be "
                "told. Lower that option of the adapter (its least confidence), ask from that "
                'score up, or for presence only (wanted="present").'
            )
        known = self.known_labels
        known.check(meant)
        self._warn_of_doubted(known, meant)
        return meant

    def never_seen(self, target: Target) -> tuple[str, ...]:
        """Return what a target names and the provider is not known to say; see `Certificate`.

        Votes are paid for: where the store cannot tell, that is logged, and nothing is returned.
        """
        try:
            return self.known_labels.never_seen(target)
        except SmoothAPIError as error:
            _log.warning("Whether the labels asked for were ever seen cannot be told: %s", error)
            return ()

    @property
    def known_labels(self) -> KnownLabels:
        """The labels that are known of the provider now: stated, or seen in stored answers."""
        return KnownLabels(self.adapter, self.answers)

    def through(self, adapter: Adapter, *, refresh: bool = False) -> Session:
        """Return a session that asks in another way, and shares all else with this one.

        Args:
            adapter: another adapter of the same provider.
            refresh: ask again although answers are stored.
        """
        return replace(
            self,
            variants=self.variants.through(adapter, choose_codec(self.settings, adapter)),
            dispatcher=self.dispatcher.through(adapter, choose_price(self.settings, adapter)),
            refresh=self.refresh or refresh,
        )

    def beside(self, *, sigma: float, denoiser: DenoiserSpec | None = None) -> Session:
        """Return a session at another noise level, or with another denoiser.

        Raises:
            UsageError: sigma is out of range, or the answers are a replay's.
        """
        if not 0.0 < sigma <= MAX_SIGMA:
            raise UsageError(
                f"sigma={sigma} is out of range: noise levels are in (0, {MAX_SIGMA}]."
            )
        runtime = None if denoiser is None else choose_denoiser(denoiser, self.settings.device)
        variants = self.variants.at(sigma, runtime)
        warn_unsuited(variants)
        return replace(self, variants=variants)

    def for_many(self) -> Session:
        """Return a session for several photos at once, which fill the denoiser's batches."""
        if not isinstance(self.variants, MadeVariants):  # a recording's need no denoiser
            return self
        variants = self.variants.at(self.sigma, gathered(self.variants.denoiser))
        return replace(self, variants=variants)

    def close(self) -> None:
        """Wait for requests under way, then release threads, connections and the store."""
        self.resources.close()

    def _ask_once(self, question: _Question) -> tuple[Answer | None, Totals]:
        """Ask about one picture that is no variant; the answer is None if it failed for good."""
        run = self._begin(question)
        answer = None
        with run:
            for delivery in run:
                answer = delivery.answer
                question.ended = True
        # Such a query that failed is no failed vote.
        return answer, replace(run.totals, failed=0)

    def _begin(self, work: Work) -> Run:
        run = self.dispatcher.run(work)
        if self.on_run is not None:
            self.on_run(run)
        return run

    def _ask_plainly(self, image: WorkingImage, *, refresh: bool) -> tuple[Answer | None, Totals]:
        if not self.settings.plain:
            return None, Totals()
        asked = self.variants.asked(image)(None)
        prepare = partial(self.variants.prepare_plain, image)
        return self._ask_once(_Question(asked, prepare, refresh=refresh))

    def _ask_plainly_again(self, image: WorkingImage) -> tuple[Answer | None, Totals]:
        try:
            return self._ask_plainly(image, refresh=True)
        except BudgetExceededError:  # the votes are paid for, and need no comparison
            return None, Totals()

    def _kept(self, image: WorkingImage, votes: int, needed: int) -> int:
        """Return how many votes need not be bought again: those counted, and what is stored."""
        stored = self.stored(image)
        return votes + sum(stored(index) is not None for index in range(votes, votes + needed))

    def _warn_of_doubted(self, known: KnownLabels, target: Target) -> None:
        """Warn, before it is paid for, of what the provider is not known to say."""
        try:
            doubted = known.doubted(target, self.doubted)
        except StoreError:
            return  # the certificate's own look at the store says so
        for name, text in doubted.items():
            self.doubted.add(name)
            _log.warning("%s", text)

    def _warn_unmapped(self, image: WorkingImage, target: Target, plain: Answer | None) -> None:
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


class _Kept:
    """Index of a variant -> the answer that is kept about it, None if none is.

    Variants are looked up many at once: where the store is elsewhere, each look is a way there and
    back.
    """

    def __init__(self, answers: Answers, asked: Asked) -> None:
        self._answers = answers
        self._asked = asked
        self._found: dict[int, Answer | PermanentError | None] = {}

    def __call__(self, index: int | None) -> Answer | PermanentError | None:
        if index is None:
            return self._answers.get(answer_key(self._asked(None)))
        if index not in self._found:
            keys = {n: answer_key(self._asked(n)) for n in range(index, index + _LOOK_AHEAD)}
            found = self._answers.get_all(list(keys.values()))
            self._found.update((n, found.get(key)) for n, key in keys.items())
        return self._found[index]


class _VariantsOf:
    """The work of a sample: to ask about an image's variants; a `Work`."""

    def __init__(
        self, image: WorkingImage, session: Session, needed: Callable[[], int], refreshes: int
    ) -> None:
        lot = max(session.adapter.limits.batch, session.dispatcher.concurrency // 2)
        self.batch = min(max(lot, _SMALLEST_LOT), _LARGEST_LOT)
        self.refresh = session.refresh
        self.refreshes = refreshes
        self._image = image
        self._variants = session.variants
        self._asked = session.variants.asked(image)
        self._needed = needed

    def asked(self, index: int) -> Mapping[str, object]:
        return self._asked(index)

    def prepare(self, indices: Sequence[int]) -> Sequence[Encode]:
        return self._variants.prepare(self._image, indices)

    def needed(self) -> int:
        return self._needed()


class _Question:
    """The work of asking once about one picture that is no variant; a `Work`."""

    batch = 1
    refreshes = 0

    def __init__(
        self, asked: Mapping[str, object], prepare: Callable[[], Sequence[Encode]], *, refresh: bool
    ) -> None:
        self.refresh = refresh
        self.ended = False
        self._asked = asked
        self._prepare = prepare

    def asked(self, index: int) -> Mapping[str, object]:
        del index
        return self._asked

    def prepare(self, indices: Sequence[int]) -> Sequence[Encode]:
        del indices
        return self._prepare()

    def needed(self) -> int:
        return 0 if self.ended else 1


class Sample:
    """Answers about an image's variants, in order of index; None for one that failed for good.

    Attributes:
        plain: the answer to the image itself; None if it was not asked for, or failed for good.
        count: answers so far.
        refreshes: how often they have been asked for anew, by choice.
    """

    def __init__(
        self,
        session: Session,
        run: Run,
        plain: Answer | None,
        spent: Totals,
        began: float,
        *,
        refreshes: int,
    ) -> None:
        self.plain = plain
        self.refreshes = refreshes
        self.spent = spent  # on the image itself
        self.count = 0
        self.known_version: str | None = None
        self._provider = session.adapter.name
        self._run = run
        self._began = began

    def __iter__(self) -> Iterator[Answer | None]:
        for delivery in self._run:
            self._check_model(delivery)
            self.count += 1
            yield delivery.answer

    @property
    def model_version(self) -> str:
        """Of the provider's model, "" if it gave none."""
        return self.known_version or ""

    @property
    def totals(self) -> Totals:
        """What was sent and received so far."""
        return self._run.totals + self.spent

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

    def refuse_failures(self) -> None:
        """Raise TooManyFailuresError if more than the allowed share failed for good."""
        self._run.refuse_failures()

    def _check_model(self, delivery: Delivery) -> None:
        """Refuse answers of two versions: one certificate must rest on one model."""
        if delivery.answer is None:
            return
        known, new = self.known_version, delivery.answer.model_version
        if known is not None and new != known:
            raise ModelChangedError(
                f"{self._provider} answered with model version {known!r} and then "
                f"{new!r} (vote {delivery.index}), and one certificate must rest on one model. "
                "The answers are kept. Ask all again with refresh=True (--refresh) now that the "
                "new version serves, or pin a version in the adapter's options.",
                provider=self._provider,
                request_id=delivery.answer.request_id,
            )
        self.known_version = new
