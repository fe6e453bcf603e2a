"""Denoised smoothing in front of a vision API: the one class that wires the pipe.

photo -> image -> noise -> denoise -> encode -> dispatch -> certify -> certificate
"""

from __future__ import annotations

import copy
import hashlib
import logging
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from smoothapi import config, denoise
from smoothapi._version import __version__
from smoothapi.answer import Answer, printable
from smoothapi.certify.arithmetic import ceil_to, floor_to, noise_delta, rounding_radius
from smoothapi.certify.certificate import Certificate, ImageFacts, runs_of
from smoothapi.certify.labels import LabelSpace, label_key, top1
from smoothapi.certify.planning import target_queries
from smoothapi.certify.sequential import Decision, Reason, SequentialPredict, VoteTest
from smoothapi.certify.targets import Presence, Target, Top1, parse_target
from smoothapi.certify.verify import verify_claims
from smoothapi.dispatch import (
    Adapter,
    Answers,
    AnswerStore,
    Budget,
    Delivery,
    Dispatcher,
    Job,
    Named,
    Price,
    Recorder,
    Replay,
    Retry,
    SharedState,
    Totals,
    answer_key,
    make_adapter,
)
from smoothapi.encode import Codec
from smoothapi.errors import (
    BudgetExceededError,
    CertificateError,
    ModelChangedError,
    PermanentError,
    SmoothAPIError,
    UnreachableRadiusError,
    UsageError,
)
from smoothapi.image import (
    MAX_PIXELS,
    MAX_SIDE,
    PhotoSource,
    WorkingImage,
    load_image,
    resize_norm,
)
from smoothapi.label_file import read_label_space
from smoothapi.noise import MAX_SIGMA, NoiseKey, noisy_variants, variant_seeds

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from smoothapi.dispatch.job import Encode

DenoiserSpec: TypeAlias = (
    "str | Path | torch.nn.Module | denoise.Denoiser | denoise.DenoiserRuntime"
)
Asked: TypeAlias = "Callable[[int], Mapping[str, object]]"
Radius: TypeAlias = 'float | Literal["largest"]'

_log = logging.getLogger("smoothapi")

_DECIMALS = 6
# Variants prepared together; as many as a request takes.
_SMALLEST_LOT, _LARGEST_LOT = 8, 32
_MOST_NAMED = 8
_LONGEST_NATIVE = 10**6


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
class Plan:
    """What a run would send and cost, found out without sending anything.

    Attributes:
        photo: name of the photo.
        stored: answers that the store already holds, of those that could be needed.
        at_least: queries to send if every further vote is for one label.
        at_most: queries to send if the cap is reached.
        expected: votes by p, the label's true share of them: (p, mean), at a wanted radius; what
            is assumed of the other labels is said by `certify.target_queries`, which cannot tell
            for `TopK`.
        dollars: price of 1,000 queries.
        price_date: date of the price list.
    """

    photo: str
    stored: int
    at_least: int
    at_most: int
    expected: tuple[tuple[float, float], ...]
    dollars: float
    price_date: str


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


class Smoother:
    """Certified labels from one provider.

    Every argument left out is taken from the settings (`smoothapi config` shows them).

    Args:
        provider: name of a registered adapter, or an adapter of your own; "replay:FILE" answers
            from a recording, with neither the provider nor the denoiser.
        sigma: noise level, in (0, 1.5]. Fixed for a deployment: choosing it by photo would void
            the guarantee.
        radius: the L2 radius to certify, in units of the [0, 1] range; "largest" certifies as
            much as the votes allow.
        alpha: chance of a wrong certificate.
        max_queries: most votes for one certificate.
        budget: hard limit, as a `Budget` or its text ("500", "$2", "$20/month"); several hold at
            once.
        size: shorter side of the working image, or its exact (width, height).
        labels: the caller's classes as {class: [provider labels]}, a `LabelSpace`, or a TOML or
            JSON file of one; by default the provider's own labels.
        plain: ask once for the label of the working image itself, to compare.
        denoiser: "default", "none", a .safetensors file, a torch module, a callable,
            or what `smoothapi.denoise.load` returned (to share one that is loaded).
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        codec: "png" or "jpeg".
        concurrency: most requests in flight.
        retry: when a variant is tried again.
        refresh: ask again although answers are stored.
        partial: buy what the budget allows although it cannot pay for the whole run; what was
            bought is kept, and the same call continues when the budget allows.
        record: file to which each answer that is used is also written, for a replay.
        home: folder of the noise key and of the answers.

    Raises:
        UsageError: a value is out of range, the provider unknown, its package missing.
        StoreError: the key or the answers cannot be kept.

    Threads may share a Smoother. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        provider: str | Adapter | None = None,
        *,
        sigma: float | None = None,
        radius: Radius | None = None,
        alpha: float | None = None,
        max_queries: int | None = None,
        budget: Budget | str | Sequence[Budget] | None = None,
        size: int | tuple[int, int] | None = None,
        labels: Mapping[str, Sequence[str]] | LabelSpace | str | Path | None = None,
        plain: bool | None = None,
        denoiser: DenoiserSpec | None = None,
        device: str | None = None,
        codec: str | None = None,
        concurrency: int | None = None,
        retry: Retry | None = None,
        refresh: bool = False,
        partial: bool | None = None,
        record: str | Path | None = None,
        home: str | Path | None = None,
    ) -> None:
        settings = config.resolve(
            provider=provider if isinstance(provider, str) else None,
            sigma=sigma,
            radius=radius,
            alpha=alpha,
            max_queries=max_queries,
            size=size if isinstance(size, int) else None,
            labels=labels if isinstance(labels, (str, Path)) else None,
            plain=plain,
            denoiser=denoiser if isinstance(denoiser, str) else None,
            device=device,
            codec=codec,
            concurrency=concurrency,
            partial=partial,
            record=record,
            home=home,
        ).settings
        self.settings = settings
        self._size = settings.size if size is None else size
        self._space = _space(labels, settings.labels)
        self._refresh = refresh
        self._closed = False
        self._replay: Replay | None = None
        if provider is None or isinstance(provider, str):
            self._replay = Replay.of(settings.provider)
        if self._replay is not None:
            if refresh:
                raise UsageError("A replay sends nothing, so it cannot ask again: refresh=False.")
            self.adapter: Adapter = self._replay.adapter
        elif provider is None or isinstance(provider, str):
            options = settings.providers.get(settings.provider, {})
            self.adapter = make_adapter(settings.provider, **options)
        elif isinstance(provider, Adapter):
            self.adapter = provider
        else:
            raise UsageError(
                f"provider is a name or an adapter, not {type(provider).__name__}. An adapter has "
                "name, identity, limits, price, ask(payloads) and close()."
            )
        self._codec: Codec | Named
        self._denoiser: denoise.DenoiserRuntime | Named
        self._key: NoiseKey | Named
        self._store: Answers
        if self._replay is not None:
            self._codec, self._denoiser = self._replay.codec, self._replay.denoiser
            self._key, self._store = self._replay.noise, self._replay
        else:
            self._codec = self._choose_codec()
            self._denoiser = (
                denoiser
                if isinstance(denoiser, denoise.DenoiserRuntime)
                else denoise.load(
                    settings.denoiser if denoiser is None else denoiser, device=settings.device
                )
            )
            self._key = NoiseKey.of_installation(settings.home / "noise.key")
            self._store = AnswerStore(settings.home / "answers")
        self._recorder: Recorder | None = None
        if settings.record is not None:
            names = {self._denoiser.fingerprint: self._denoiser.name}
            self._recorder = Recorder(self._store, settings.record, names)
        self._state = SharedState(settings.home / "ledger.db")
        self._dispatcher = Dispatcher(
            self.adapter,
            self._recorder or self._store,
            self._state,
            _budgets(budget if budget is not None else settings.budget),
            price=_price(self.adapter, settings.prices.get(self.adapter.name)),
            concurrency=settings.concurrency,
            retry=retry or Retry(attempts=settings.attempts, deadline=settings.deadline),
            max_failed=settings.max_failed,
        )

    def certify(
        self,
        photo: PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Certificate:
        """Return the label that no change of the photo smaller than `radius` can flip.

        With probability at least 1 - alpha over the noise, a certificate with a label is right.
        Abstaining is a result, not an error: see `Certificate.reason`.

        Args:
            photo: path, encoded bytes, PIL image, or (H, W, 3) array (uint8, or floats in [0, 1]).
            radius: L2 radius in units of the [0, 1] range, or "largest"; by default the settings'.
            target: what is to be certified, out of the same answers: the top label,
                `Presence("Weapon", 0.8)`, `Absence("Weapon", 0.8)`, `MostSpecific(0.5)` along a
                label's parents, or `TopK(3)`. Chosen before the first vote is seen.
            on_progress: called after each vote.

        Raises:
            ImageError: the photo cannot be used.
            UnreachableRadiusError: `max_queries` votes could not certify the radius.
            BudgetExceededError: the budget does not allow the next query.
            ProviderError: the service failed; what was answered is kept.
        """
        image = load_image(photo, size=self._size)
        meant = self._target(target)
        wanted = self.settings.radius if radius is None else radius
        start = partial(self._test, image, wanted, meant)
        return self._run("certify", image, meant, start, on_progress)

    def predict(
        self, photo: PhotoSource, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Certificate:
        """Return the smoothed label of the photo, with no radius: the plain majority vote.

        With probability at least 1 - alpha over the noise it is the label that most variants
        get. Raises as `certify` does.
        """
        image = load_image(photo, size=self._size)
        alpha, most = self.settings.alpha, self.settings.max_queries
        start = partial(SequentialPredict, alpha=alpha, max_votes=most)
        return self._run("predict", image, Top1(self._space), start, on_progress)

    def certify_labels(
        self, photo: PhotoSource, answer: Answer, radius: Radius | None = None, *, score: float
    ) -> Certificate:
        """Certify of each label of an answer that it stays: all out of the same votes.

        Args:
            photo: as for `certify`.
            answer: given before the first vote; its labels are the ones asked about.
            radius: as for `certify`.
            score: least score of a label that counts as present, in (0, 1].

        Returns:
            The certificate of `Presence(labels, score, wanted="present")`; its claims are of those
            labels that could be certified. Labels share alpha: where `max_queries` are too few for
            so many, the ones with the highest scores are asked about. An answer without labels
            costs no query: then the certificate has no votes.
        """
        best = sorted(answer.labels, key=lambda label: (-label.score, label.name))
        names = {label_key(label.name): label.name for label in best if label.score >= score}
        names.pop("", None)  # nothing but spaces is no label to ask about
        image = load_image(photo, size=self._size)
        if names:
            return self.certify(photo, radius, target=self._reachable(image, names, radius, score))
        test = self._test(image, self.settings.radius if radius is None else radius, Top1())
        return self._certificate(
            "certify",
            image,
            Top1(),
            replace(test.result(), reason=Reason.NO_ANSWER),
            votes=[],
            plain=None,
            model_version=answer.model_version,
            totals=Totals(),
            seconds=0.0,
        )

    def _reachable(
        self, image: WorkingImage, names: Mapping[str, str], radius: Radius | None, score: float
    ) -> Presence:
        """Return the presence of as many labels, from the first on, as the votes could certify."""
        labels = list(names.values())
        wanted = self.settings.radius if radius is None else radius

        def asked(count: int) -> Presence:
            return Presence(tuple(labels[:count]), score, wanted="present")

        def too_many(count: int) -> bool:
            try:
                self._test(image, wanted, asked(count))
            except UnreachableRadiusError:
                return True
            return False

        # More labels need more votes, so the first count that is too many can be bisected for.
        counts = range(2, len(labels) + 1)
        return asked(1 + bisect_left(counts, x=True, key=too_many))

    def check_labels(
        self, photo: PhotoSource, radius: Radius | None = None, *, score: float
    ) -> None:
        """Refuse what `certify_labels` could not do with any answer, before one is paid for.

        Raises:
            BudgetExceededError: the budget cannot pay for an answer and the votes of one label.
            ImageError, UnreachableRadiusError, UsageError: as `certify` does.
        """
        image = load_image(photo, size=self._size)
        target = Presence("any", score, wanted="present")
        wanted = self.settings.radius if radius is None else radius
        start = partial(self._test, image, wanted, target)
        start()  # refuses a radius that is out of reach
        self._refuse_what_is_not_taken(image)
        self._refuse_early(image, target, start, more=1)

    def ask(self, payload: bytes) -> tuple[Answer | None, Totals]:
        """Send an encoded picture as it is: one query, in budget and pace, retried like any other.

        Returns:
            The answer, None if it failed for good, and what was sent. It is stored, but never
            taken from the store.
        """
        digest = hashlib.sha256(payload).hexdigest()
        parts = {"provider": self.adapter.name, "identity": dict(self.adapter.identity)}
        return self._ask_one(
            lambda _: {**parts, "payload": digest}, lambda _: [lambda: payload], refresh=True
        )

    def through(self, adapter: Adapter, *, refresh: bool = False) -> Smoother:
        """Return a Smoother that asks in another way, and shares all else with this one.

        Budgets, pace, store, threads and denoiser are this one's: close this one only.

        Args:
            adapter: another adapter of the same provider.
            refresh: ask again although answers are stored.
        """
        twin = copy.copy(self)
        twin.adapter = adapter
        twin._refresh = self._refresh or refresh  # noqa: SLF001  its own class
        twin._codec = twin._choose_codec()  # noqa: SLF001
        price = _price(adapter, self.settings.prices.get(adapter.name))
        twin._dispatcher = self._dispatcher.through(adapter, price)  # noqa: SLF001
        return twin

    def plan(
        self,
        photo: PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
    ) -> Plan:
        """Say what `certify` would send and cost, without sending anything."""
        image = load_image(photo, size=self._size)
        wanted = self.settings.radius if radius is None else radius
        meant = self._target(target)
        test = self._test(image, wanted, meant)
        most = self.settings.max_queries
        asked = self._asked(image)
        votes = 0
        while not test.done and (stored := self._answer(asked(votes))) is not None:
            test.add(meant.vote(stored if isinstance(stored, Answer) else None))
            votes += 1
        ahead = [self._answer(asked(index)) is not None for index in range(votes, most)]
        plain = self.settings.plain and self._answer(self._asked_plainly(image)) is None
        expected: list[tuple[float, float]] = []
        if wanted != "largest":
            settings = self.settings
            delta = noise_delta(image.pixels.size, settings.sigma)
            for p in (0.999, 0.99, 0.95, 0.9):
                needed = target_queries(
                    meant, wanted, settings.sigma, settings.alpha, p, max_votes=most, delta=delta
                )
                if needed is not None:
                    expected.append((p, needed.mean))
        price = self._dispatcher.price
        return Plan(
            photo=image.name,
            stored=votes + sum(ahead),
            at_least=test.needed() - sum(ahead[: test.needed()]) + plain,
            at_most=(0 if test.done else ahead.count(False)) + plain,
            expected=tuple(expected),
            dollars=float(price.per_thousand),
            price_date=price.as_of,
        )

    def close(self) -> None:
        """Wait for requests under way, then release threads, connections and the store."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as last_first:  # goes on with the rest when one of them fails
            last_first.callback(self._state.close)
            last_first.callback(self._store.close)
            if self._recorder is not None:
                last_first.callback(self._recorder.close)
            last_first.callback(self.adapter.close)
            last_first.callback(self._dispatcher.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def beside(self, *, sigma: float, denoiser: DenoiserSpec | None = None) -> Smoother:
        """Return a Smoother at another noise level, or with another denoiser.

        Connections, threads, pace, budget, key and answers are this one's: close this one only.

        Raises:
            UsageError: sigma is out of range, or the answers are a replay's.
        """
        if not 0.0 < sigma <= MAX_SIGMA:
            raise UsageError(
                f"sigma={sigma} is out of range: noise levels are in (0, {MAX_SIGMA}]."
            )
        if self._replay is not None and denoiser is not None:
            raise UsageError("A replay has the denoiser that it was recorded with, and no other.")
        twin = copy.copy(self)
        twin.settings = self.settings.model_copy(update={"sigma": sigma})
        if denoiser is not None:
            twin._denoiser = (  # noqa: SLF001  its own class
                denoiser
                if isinstance(denoiser, denoise.DenoiserRuntime)
                else denoise.load(denoiser, device=self.settings.device)
            )
        return twin

    def collect(
        self,
        image: WorkingImage,
        test: VoteTest,
        target: Target | Literal["top1"] = "top1",
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Collection:
        """Feed votes in order of index to a test of your own until it is done.

        Each answer is bought once and kept, as for `certify`; raises as `certify` does.

        Args:
            image: a working image, from `load_image`.
            test: takes each vote, and says how many more may be under way.
            target: what an answer's vote is.
            on_progress: called after each vote.
        """
        if self._closed:
            raise UsageError("This Smoother is closed. Make another, or ask before closing it.")
        target = self._target(target)
        began = time.monotonic()
        self._refuse_what_is_not_taken(image)
        asked = self._asked(image)
        plain, plain_totals = self._ask_plainly(image, refresh=self._refresh)
        self._say_what_is_unmapped(image, target, plain)
        job = Job(
            asked=asked,
            prepare=partial(self._prepare, image),
            needed=test.needed,
            batch=min(
                max(self.adapter.limits.batch, self.settings.concurrency // 2, _SMALLEST_LOT),
                _LARGEST_LOT,
            ),
            refresh=self._refresh,
        )
        votes: list[str | None] = []
        model_version: str | None = None
        run = self._dispatcher.run(job)
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
        except SmoothAPIError as error:
            ended = error
            if isinstance(error, BudgetExceededError):
                kept = self._kept(asked, len(votes), test)
                ended = BudgetExceededError(f"{error} {kept:,} votes are kept.")
            (run.totals + plain_totals).tell(ended)
            if ended is not error:
                raise ended from error
            raise
        return Collection(
            votes=tuple(votes),
            plain=plain,
            model_version=model_version or "",
            totals=run.totals + plain_totals,
            seconds=time.monotonic() - began,
        )

    def stored(self, image: WorkingImage, index: int | None) -> Answer | PermanentError | None:
        """Return the kept answer of a variant, or with None of the image itself; send nothing."""
        return self._answer(
            self._asked_plainly(image) if index is None else self._asked(image)(index)
        )

    def variant(
        self, image: WorkingImage, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a variant as (noisy, denoised), each (height, width, 3) uint8, to look at."""
        key, denoiser = self._key, self._denoiser
        if isinstance(key, Named) or isinstance(denoiser, Named):
            raise UsageError("A replay has answers only: neither the noise nor the denoiser.")
        noisy = noisy_variants(image, self.settings.sigma, [index], key)
        seen = np.rint(np.clip(noisy[0], 0.0, 1.0) * 255.0).astype(np.uint8)
        return seen, denoiser.variants(noisy, self.settings.sigma)[0]

    @property
    def price(self) -> Price:
        """The price list in force: the adapter's, or the settings' own."""
        return self._dispatcher.price

    @property
    def denoiser(self) -> tuple[str, str]:
        """The denoiser's name and fingerprint."""
        return self._denoiser.name, self._denoiser.fingerprint

    def _run(
        self,
        kind: Literal["certify", "predict"],
        image: WorkingImage,
        target: Target,
        start: Callable[[], VoteTest],
        on_progress: Callable[[Progress], None] | None,
    ) -> Certificate:
        """The method: votes in order of index, until the test has enough."""
        test = start()
        if not self._closed:
            self._refuse_early(image, target, start)
        collected = self.collect(image, test, target, on_progress=on_progress)
        return self._certificate(
            kind,
            image,
            target,
            test.result(),
            votes=list(collected.votes),
            plain=collected.plain,
            model_version=collected.model_version,
            totals=collected.totals,
            seconds=collected.seconds,
        )

    def _target(self, target: Target | Literal["top1"]) -> Target:
        meant = Top1(self._space) if target == "top1" else parse_target(target)
        least = self.adapter.limits.least_score
        if isinstance(meant, Presence) and meant.wanted != "present" and meant.score < least:
            raise UsageError(
                f"{self.adapter.name} is set to leave out labels with a score below {least:g}, so "
                f"whether {', '.join(meant.labels)} would be absent at {meant.score:g} cannot be "
                "told. Lower that option of the adapter (its least confidence), ask from that "
                'score up, or for presence only (wanted="present").'
            )
        return meant

    def _test(self, image: WorkingImage, radius: Radius, target: Target) -> VoteTest:
        wanted = None if radius == "largest" else radius
        if wanted is not None and not (isinstance(wanted, (int, float)) and wanted > 0.0):
            raise UsageError(f"radius={radius!r}: give a number above 0, or 'largest'.")
        return target.start(
            sigma=self.settings.sigma,
            alpha=self.settings.alpha,
            max_votes=self.settings.max_queries,
            radius=wanted,
            delta=noise_delta(image.pixels.size, self.settings.sigma),
        )

    def _lot(self) -> int:
        """Return how many variants to prepare together: two lots for all requests in flight."""
        wanted = max(self.adapter.limits.batch, self.settings.concurrency // 2)
        return min(max(wanted, _SMALLEST_LOT), _LARGEST_LOT)

    def _prepare(self, image: WorkingImage, indices: Sequence[int]) -> list[Encode]:
        key, denoiser, codec = self._key, self._denoiser, self._codec_for(image)
        if isinstance(key, Named) or isinstance(denoiser, Named) or isinstance(codec, Named):
            raise self._missing(self._asked(image)(indices[0]), image)
        sigma = self.settings.sigma
        if denoiser.draws_noise:
            seeds = variant_seeds(image, sigma, indices, key)
            pictures = denoiser.variants_of(image.pixels, sigma, seeds)
        else:
            pictures = denoiser.variants(noisy_variants(image, sigma, indices, key), sigma)
        return [partial(codec.encode, picture) for picture in pictures]

    def _prepare_plainly(self, image: WorkingImage, _: Sequence[int]) -> list[Encode]:
        codec = self._codec_for(image)
        if isinstance(codec, Named):
            raise self._missing(self._asked_plainly(image), image)
        return [partial(codec.encode, image.to_uint8())]

    def _missing(self, asked: Mapping[str, object], image: WorkingImage) -> UsageError:
        assert self._replay is not None  # noqa: S101
        return self._replay.missing(asked, image.name)

    def _asked(self, image: WorkingImage) -> Asked:
        """Return index -> all that decides the answer, and nothing else."""
        parts = {
            **self._asked_of(image),
            "sigma": self.settings.sigma,
            "noise": self._key.id,
            "denoiser": self._denoiser.fingerprint,
        }
        return lambda index: {**parts, "index": index}

    def _asked_plainly(self, image: WorkingImage) -> dict[str, object]:
        return {**self._asked_of(image), "plain": True}

    def _asked_of(self, image: WorkingImage) -> dict[str, object]:
        return {
            "provider": self.adapter.name,
            "identity": dict(self.adapter.identity),
            "image": image.digest,
            "size": list(image.size),
            "codec": self._codec_for(image).version,
        }

    def _answer(self, asked: Mapping[str, object]) -> Answer | PermanentError | None:
        """Return what the store holds, as far as it will be used."""
        return None if self._refresh else self._store.get(answer_key(asked))

    def _kept(self, asked: Asked, votes: int, test: VoteTest) -> int:
        """Return how many votes need not be bought again: those counted, and what is stored."""
        ahead = range(votes, votes + test.needed())
        return votes + sum(self._answer(asked(index)) is not None for index in ahead)

    def _refuse_early(
        self,
        image: WorkingImage,
        target: Target,
        start: Callable[[], VoteTest],
        *,
        more: int = 0,
    ) -> None:
        """Refuse before the first query what the budget cannot pay for even at best."""
        room = None if self.settings.partial else self._dispatcher.ledger.room()
        if room is None:
            return
        asked, ahead, votes = self._asked(image), start(), 0
        # Stored votes can decide it, an abstention too: so they are counted as they will be.
        while not ahead.done and (stored := self._answer(asked(votes))) is not None:
            ahead.add(target.vote(stored if isinstance(stored, Answer) else None))
            votes += 1
        needed = range(votes, votes + ahead.needed())
        missing = more + sum(self._answer(asked(index)) is None for index in needed)
        if self.settings.plain:
            missing += self._answer(self._asked_plainly(image)) is None
        if missing > room:
            raise BudgetExceededError(
                f"This needs at least {missing:,} queries "
                f"(${self._dispatcher.price.of(missing):.4f}), but the budget leaves room for "
                f"{room:,}. Nothing was sent. Raise the budget, ask for a smaller radius, or, for "
                "the largest radius, set max_queries to what the budget allows; or buy a part now "
                "and the rest later with partial (--partial)."
            )

    def _refuse_what_is_not_taken(self, image: WorkingImage) -> None:
        if isinstance(self._codec, Named):
            return
        longest = max(self._codec.size_of(image.size))
        if longest > self.adapter.limits.max_side:
            raise UsageError(
                f"The working image would be sent with a side of {longest:,} pixels, and "
                f"{self.adapter.name} takes up to {self.adapter.limits.max_side:,}. Give size="
                "(width, height), or crop the photo."
            )

    def _ask_plainly(self, image: WorkingImage, *, refresh: bool) -> tuple[Answer | None, Totals]:
        """Ask for the labels of the working image itself, once; None if that failed for good."""
        if not self.settings.plain:
            return None, Totals()
        prepare = partial(self._prepare_plainly, image)
        return self._ask_one(lambda _: self._asked_plainly(image), prepare, refresh=refresh)

    def _ask_plainly_again(self, image: WorkingImage) -> tuple[Answer | None, Totals]:
        try:
            return self._ask_plainly(image, refresh=True)
        except BudgetExceededError:  # the votes are paid for, and need no comparison
            return None, Totals()

    def _ask_one(
        self, asked: Asked, prepare: Callable[[Sequence[int]], list[Encode]], *, refresh: bool
    ) -> tuple[Answer | None, Totals]:
        left = [1]
        job = Job(asked=asked, prepare=prepare, needed=lambda: left[0], refresh=refresh)
        run = self._dispatcher.run(job)
        answer = None
        with run:
            for delivery in run:
                answer = delivery.answer
                left[0] = 0
        # Such a query that failed is no failed vote.
        return answer, replace(run.totals, failed=0)

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
            self.adapter.name,
            names,
        )

    def _same_model(self, version: str | None, delivery: Delivery) -> str | None:
        """Return the version of the votes so far; refuse votes of two versions."""
        if delivery.answer is None:
            return version
        new = delivery.answer.model_version
        if version is not None and new != version:
            raise ModelChangedError(
                f"{self.adapter.name} answered with model version {version!r} and then "
                f"{new!r} (vote {delivery.index}), and one certificate must rest on one model. "
                "The answers are kept. Ask all again with refresh=True (--refresh) now that the "
                "new version serves, or pin a version in the adapter's options.",
                provider=self.adapter.name,
                request_id=delivery.answer.request_id,
            )
        return new

    def _progress(self, test: VoteTest, votes: int, totals: Totals) -> Progress:
        return Progress(
            votes=votes,
            needed=test.needed(),
            max_votes=self.settings.max_queries,
            queries=totals.queries,
            cached=totals.cached,
            cost=float(totals.dollars),
            retries=totals.retries,
            waited=totals.waited,
        )

    def _certificate(
        self,
        kind: Literal["certify", "predict"],
        image: WorkingImage,
        target: Target,
        decision: Decision,
        *,
        votes: list[str | None],
        plain: Answer | None,
        model_version: str,
        totals: Totals,
        seconds: float,
    ) -> Certificate:
        certify = kind == "certify"
        rounding = ceil_to(rounding_radius(image.pixels.size), _DECIMALS) if certify else 0.0
        return Certificate(
            kind=kind,
            label=decision.label,
            reason=str(decision.reason),
            plain_label=None
            if plain is None
            else top1(plain, getattr(target, "space", self._space)),
            plain_asked=self.settings.plain,
            plain_agrees=None if plain is None else target.agrees(plain, decision),
            radius=decision.radius,
            radius_requested=decision.radius_requested,
            radius_native=native_radius(decision.radius, image.gain, rounding),
            p_lower=decision.p_lower,
            sigma=self.settings.sigma,
            alpha=self.settings.alpha,
            max_votes=self.settings.max_queries,
            votes=runs_of(votes),
            delta=noise_delta(image.pixels.size, self.settings.sigma) if certify else 0.0,
            rounding=rounding,
            provider=self.adapter.name,
            identity=dict(self.adapter.identity),
            model_version=model_version,
            image=ImageFacts(
                name=image.name,
                digest=image.digest,
                size=image.size,
                native_size=image.native_size,
                gain=image.gain,
                notes=image.notes,
            ),
            denoiser=self._denoiser.name,
            denoiser_fingerprint=self._denoiser.fingerprint,
            codec=self._codec_for(image).version,
            target=target.description,
            claims=decision.claims,
            noise_key=self._key.id,
            version=__version__,
            replayed_from=self._replay.path.name if self._replay else "",
            queries=totals.queries,
            attempts=totals.attempts,
            cached=totals.cached,
            failed=totals.failed,
            cost=ceil_to(float(totals.dollars), _DECIMALS),
            seconds=round(seconds, 3),
        )

    def _choose_codec(self) -> Codec:
        name, limits = self.settings.codec, self.adapter.limits
        if name not in limits.formats:
            raise UsageError(
                f"{self.adapter.name} does not take {name}; choose codec="
                f"{' or '.join(limits.formats)}."
            )
        return Codec(
            name,
            min_side=limits.min_side,
            jpeg_above=limits.max_bytes if "jpeg" in limits.formats else None,
        )

    def _codec_for(self, image: WorkingImage) -> Codec | Named:
        return self._codec.for_size(image.size) if isinstance(self._codec, Codec) else self._codec


def verify(certificate: Certificate, photo: PhotoSource | None = None) -> list[str]:
    """Recompute all of a certificate that can be recomputed; return what was checked, in words.

    The label, the radius and the bound are derived again from the votes in their order; the
    deductions from the picture's size and sigma; the gain from the two sizes; with the photo at
    hand, its size and digest. Without the photo the native radius rests on the size that the
    certificate states. What cannot be checked is what the provider said: that it gave these votes,
    from this model, about these labels or classes, and the plain label.

    Raises:
        CertificateError: something does not follow; says what.
        ImageError: the photo cannot be read.
    """
    width, height = certificate.image.size
    native_width, native_height = certificate.image.native_size
    sides = (width, height, native_width, native_height)
    if not 0.0 < certificate.sigma <= MAX_SIGMA:
        raise CertificateError(f"The certificate does not add up: sigma is in (0, {MAX_SIGMA}].")
    if min(sides) < 1 or max(width, height) > MAX_SIDE or max(sides) > _LONGEST_NATIVE:
        raise CertificateError("The certificate does not add up: no picture has its sizes.")
    if native_width * native_height > MAX_PIXELS:
        raise CertificateError("The certificate does not add up: its photo is impossibly large.")
    gain = resize_norm(native_width, width) * resize_norm(native_height, height)
    pixels = 3 * width * height
    rounding = ceil_to(rounding_radius(pixels), _DECIMALS)
    checks = verify_claims(
        certificate,
        gain=gain,
        delta=noise_delta(pixels, certificate.sigma),
        rounding=rounding,
        radius_native=native_radius(certificate.radius, gain, rounding),
    )
    if photo is not None:
        image = load_image(photo, size=certificate.image.size)
        if image.native_size != certificate.image.native_size:
            raise CertificateError(
                f"The certificate is about a photo of {certificate.image.native_size} pixels, this "
                f"one has {image.native_size}: its native radius does not hold for it."
            )
        if image.digest != certificate.image.digest:
            raise CertificateError(
                "The certificate is about another photo: its digest is "
                f"{certificate.image.digest[:16]}..., this photo's is {image.digest[:16]}..."
            )
        checks.append("the photo's size and digest")
    return checks


def _space(
    given: Mapping[str, Sequence[str]] | LabelSpace | str | Path | None, file: Path | None
) -> LabelSpace | None:
    """Return the label space that was given, else the one of the settings' file."""
    if isinstance(given, LabelSpace):
        return given
    if isinstance(given, Mapping):
        return LabelSpace(given)
    return None if file is None else read_label_space(file)


def native_radius(radius: float, gain: float, rounding: float) -> float:
    """Return the radius around the photo before the resize, rounded down.

    A change of norm e there changes the working image by at most gain * e + rounding.
    """
    return floor_to(max(0.0, radius - rounding) / gain, _DECIMALS)


def _budgets(budget: Budget | str | Sequence[Budget] | None) -> Sequence[Budget]:
    if budget is None:
        return ()
    if isinstance(budget, str):
        return (Budget.parse(budget),)
    budgets = (budget,) if isinstance(budget, Budget) else budget
    if not isinstance(budgets, Sequence) or not all(isinstance(b, Budget) for b in budgets):
        raise UsageError(
            f"budget={budget!r}: give Budget(queries=500), Budget(dollars=2), or text such as "
            "'500' or '$2'."
        )
    return budgets


def _price(adapter: Adapter, override: Mapping[str, Any] | None) -> Price:
    """Return the adapter's price list, or the one that the settings give instead."""
    return adapter.price if override is None else Price.parse(override, adapter.name)
