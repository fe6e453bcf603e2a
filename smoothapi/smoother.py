"""Denoised smoothing in front of a vision API: the one class that wires the pipe.

photo -> image -> noise -> denoise -> encode -> dispatch -> certify -> certificate

`wiring` opens the parts, `variants` makes what is asked and `sampling` gets the votes, `plan` says
what they will cost, `certificates` what they came to.
"""

from __future__ import annotations

import copy
import hashlib
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from smoothapi import config
from smoothapi.awaiting import Stop, in_thread
from smoothapi.certificates import issue, native_radius, verify
from smoothapi.certify.arithmetic import noise_delta
from smoothapi.certify.decision import Reason, VoteTest
from smoothapi.certify.labels import label_key
from smoothapi.certify.planning import reachable_presence
from smoothapi.certify.predict import SequentialPredict
from smoothapi.certify.targets import Presence, Target, Top1, parse_target
from smoothapi.dispatch import Adapter, Price, Retry, Totals
from smoothapi.errors import UsageError
from smoothapi.image import PhotoSource, WorkingImage, load_image
from smoothapi.plan import Plan, plan_run, refuse_unpayable
from smoothapi.sampling import Collection, Progress, Sampler
from smoothapi.wiring import beside, choose_label_space, open_sampler, through

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from smoothapi.answer import Answer
    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.labels import LabelSpace
    from smoothapi.dispatch import Budget
    from smoothapi.errors import PermanentError
    from smoothapi.wiring import DenoiserSpec

__all__ = ["Collection", "Plan", "Progress", "Smoother", "native_radius", "verify"]

Radius: TypeAlias = 'float | Literal["largest"]'


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
        max_votes: most votes for one certificate.
        budget: hard limit, as a `Budget` or its text ("500", "$2", "$20/month"); several hold at
            once.
        size: shorter side of the working image, or its exact (width, height).
        classes: the caller's classes as {class: [provider labels]}, a `LabelSpace`, or a TOML or
            JSON file of one; by default the provider's own labels.
        plain: ask once for the label of the working image itself, to compare.
        denoiser: "default", "small", "none", a .safetensors file, a .json file that `smoothapi
            denoiser adapt` wrote, a torch module, a callable, or what `smoothapi.denoise.load`
            returned (to share one that is loaded).
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

    Threads and tasks may share a Smoother. Close it, or use it in a `with` (or `async with`)
    statement.
    """

    def __init__(
        self,
        provider: str | Adapter | None = None,
        *,
        sigma: float | None = None,
        radius: Radius | None = None,
        alpha: float | None = None,
        max_votes: int | None = None,
        budget: Budget | str | Sequence[Budget] | None = None,
        size: int | tuple[int, int] | None = None,
        classes: Mapping[str, Sequence[str]] | LabelSpace | str | Path | None = None,
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
            max_votes=max_votes,
            size=size if isinstance(size, int) else None,
            classes=classes if isinstance(classes, (str, Path)) else None,
            plain=plain,
            denoiser=denoiser if isinstance(denoiser, str) else None,
            device=device,
            codec=codec,
            concurrency=concurrency,
            partial=partial,
            record=record,
            home=home,
        ).settings
        self._size = settings.size if size is None else size
        self._space = choose_label_space(classes, settings.classes)
        self._closed = False
        with ExitStack() as opened:  # closes what was opened, should the rest not be
            self._sampler = open_sampler(
                settings,
                opened,
                provider=provider,
                denoiser=denoiser,
                budget=budget,
                retry=retry,
                refresh=refresh,
            )
            self._opened = opened.pop_all()

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
            UnreachableRadiusError: `max_votes` votes could not certify the radius.
            BudgetExceededError: the budget does not allow the next query.
            ProviderError: the service failed; what was answered is kept.
        """
        image = load_image(photo, size=self._size)
        meant = self._target(target)
        start = partial(self._test, image, radius, meant)
        return self._run("certify", image, meant, start, on_progress)

    def predict(
        self, photo: PhotoSource, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Certificate:
        """Return the smoothed label of the photo, with no radius: the plain majority vote.

        With probability at least 1 - alpha over the noise it is the label that most variants
        get. Raises as `certify` does.
        """
        image = load_image(photo, size=self._size)
        alpha, most = self.settings.alpha, self.settings.max_votes
        start = partial(SequentialPredict, alpha=alpha, max_votes=most)
        return self._run("predict", image, Top1(self._space), start, on_progress)

    async def certify_async(
        self,
        photo: PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Certificate:
        """Do what `certify` does in a thread, and await it.

        When the task is cancelled, nothing more is sent; what is under way is awaited and kept,
        and the same call continues there. `on_progress` is called in the thread.
        """
        stop = Stop()
        twin = self._asking(replace(self._sampler, on_run=stop.watch))
        call = partial(twin.certify, photo, radius, target=target, on_progress=on_progress)
        return await in_thread(call, stop)

    async def predict_async(
        self, photo: PhotoSource, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Certificate:
        """Do what `predict` does in a thread, and await it; see `certify_async`."""
        stop = Stop()
        twin = self._asking(replace(self._sampler, on_run=stop.watch))
        return await in_thread(partial(twin.predict, photo, on_progress=on_progress), stop)

    def plan(
        self,
        photo: PhotoSource,
        radius: Radius | None = None,
        *,
        target: Target | Literal["top1"] = "top1",
    ) -> Plan:
        """Say what `certify` would send and cost, without sending anything."""
        image = load_image(photo, size=self._size)
        meant = self._target(target)
        test = self._test(image, radius, meant)
        return plan_run(self._sampler, image, meant, test, self._wanted(radius))

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
            labels that could be certified. Labels share alpha: where `max_votes` are too few for
            so many, the ones with the highest scores are asked about. An answer without labels
            costs no query: then the certificate has no votes.
        """
        best = sorted(answer.labels, key=lambda label: (-label.score, label.name))
        names = {label_key(label.name): label.name for label in best if label.score >= score}
        names.pop("", None)  # nothing but spaces is no label to ask about
        image = load_image(photo, size=self._size)
        if names:
            start = partial(self._test, image, radius)
            target = reachable_presence(list(names.values()), score, start)
            return self.certify(photo, radius, target=target)
        decision = replace(self._test(image, radius, Top1()).result(), reason=Reason.NO_ANSWER)
        nothing = Collection((), None, answer.model_version, Totals(), 0.0)
        return issue(
            "certify", image, Top1(), decision, nothing, sampler=self._sampler, space=self._space
        )

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
        start = partial(self._test, image, radius, target)
        start()  # refuses a radius that is out of reach
        self._sampler.variants.check_side(image)
        self._refuse_early(image, target, start, more=1)

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
        return self._sampler.collect(image, test, self._target(target), on_progress)

    def stored(self, image: WorkingImage, index: int | None) -> Answer | PermanentError | None:
        """Return the kept answer of a variant, or with None of the image itself; send nothing."""
        return self._sampler.stored(image)(index)

    def variant(
        self, image: WorkingImage, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a variant as (noisy, denoised), each (height, width, 3) uint8, to look at."""
        return self._sampler.variants.look_at(image, index)

    def ask(self, payload: bytes) -> tuple[Answer | None, Totals]:
        """Send an encoded picture as it is: one query, in budget and pace, retried like any other.

        Returns:
            The answer, None if it failed for good, and what was sent. It is stored, but never
            taken from the store.
        """
        digest = hashlib.sha256(payload).hexdigest()
        parts = {"provider": self.adapter.name, "identity": dict(self.adapter.identity)}
        return self._sampler.ask_once(
            {**parts, "payload": digest}, lambda _: [lambda: payload], refresh=True
        )

    def through(self, adapter: Adapter, *, refresh: bool = False) -> Smoother:
        """Return a Smoother that asks in another way, and shares all else with this one.

        Budgets, pace, store, threads and denoiser are this one's: close this one only.

        Args:
            adapter: another adapter of the same provider.
            refresh: ask again although answers are stored.
        """
        return self._asking(through(self._sampler, adapter, refresh=refresh))

    def beside(self, *, sigma: float, denoiser: DenoiserSpec | None = None) -> Smoother:
        """Return a Smoother at another noise level, or with another denoiser.

        Connections, threads, pace, budget, key and answers are this one's: close this one only.

        Raises:
            UsageError: sigma is out of range, or the answers are a replay's.
        """
        return self._asking(beside(self._sampler, sigma, denoiser))

    @property
    def settings(self) -> config.Settings:
        """What was resolved of arguments, variables and files."""
        return self._sampler.settings

    @property
    def adapter(self) -> Adapter:
        """Who is asked."""
        return self._sampler.variants.adapter

    @property
    def price(self) -> Price:
        """The price list in force: the adapter's, or the settings' own."""
        return self._sampler.dispatcher.price

    @property
    def denoiser(self) -> tuple[str, str]:
        """The denoiser's name and fingerprint."""
        denoiser = self._sampler.variants.denoiser
        return denoiser.name, denoiser.fingerprint

    def close(self) -> None:
        """Wait for requests under way, then release threads, connections and the store."""
        self._closed = True
        self._opened.close()  # goes on with the rest when one of them fails

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await in_thread(self.close, Stop())

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
        return issue(
            kind, image, target, test.result(), collected, sampler=self._sampler, space=self._space
        )

    def _refuse_early(
        self,
        image: WorkingImage,
        target: Target,
        start: Callable[[], VoteTest],
        *,
        more: int = 0,
    ) -> None:
        if not self.settings.partial:
            refuse_unpayable(self._sampler, image, target, start, more=more)

    def _asking(self, sampler: Sampler) -> Smoother:
        twin = copy.copy(self)
        twin._sampler = sampler  # noqa: SLF001  its own class
        return twin

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

    def _test(self, image: WorkingImage, radius: Radius | None, target: Target) -> VoteTest:
        return target.start(
            sigma=self.settings.sigma,
            alpha=self.settings.alpha,
            max_votes=self.settings.max_votes,
            radius=self._wanted(radius),
            delta=noise_delta(image.pixels.size, self.settings.sigma),
        )

    def _wanted(self, radius: Radius | None) -> float | None:
        """Return the radius to certify, None for the largest."""
        radius = self.settings.radius if radius is None else radius
        if radius == "largest":
            return None
        if not (isinstance(radius, (int, float)) and radius > 0.0):
            raise UsageError(f"radius={radius!r}: give a number above 0, or 'largest'.")
        return radius
