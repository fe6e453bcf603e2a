"""The knobs of a denoiser, set by a provider's own answers: `smoothapi denoiser adapt`.

photos -> (held out | tuning) -> race on paired variants -> a setting, or none -> before and after

Whatever is asked goes through a `Session`: budgets hold, each answer is on disk before it counts,
and the same command after a kill finds its answers in the store. The variants of the neutral
setting are those that certification asks about: what is stored is not bought again, and what is
bought here serves later certificates.
"""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

from smoothapi.adapting.asking import Asker
from smoothapi.adapting.photos import Subject, read_photos, shuffled
from smoothapi.adapting.race import Race
from smoothapi.adapting.result import Adapted, AdaptPlan, AdaptProgress, BeforeAfter, Tried
from smoothapi.adapting.schedule import Schedule, spread
from smoothapi.denoise.adaptation import Adaptation
from smoothapi.denoise.gathering import gathered
from smoothapi.denoise.knobs import NEUTRAL, Knobs
from smoothapi.denoise.runtime import LocalRuntime
from smoothapi.denoise.sources import File, Shared, Tuned
from smoothapi.denoise.storage import SHIPPED, read_header
from smoothapi.errors import BudgetExceededError, UsageError
from smoothapi.history import RunLog
from smoothapi.options import AskOptions, keywords, resolve
from smoothapi.parts import choose_budgets, choose_label_space
from smoothapi.store.runs import DONE
from smoothapi.study.folder import find_photos, read_truth
from smoothapi.wiring import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.denoise.protocol import DenoiserRuntime
    from smoothapi.denoise.sources import Source
    from smoothapi.dispatch import Totals
    from smoothapi.options import Budgets, Classes
    from smoothapi.provider import Adapter, Price
    from smoothapi.session import Session
    from smoothapi.store import Budget
    from smoothapi.study.folder import Photos

GRID = (Knobs(blend=0.03), Knobs(sharpen=0.7))
"""What is tried unless something else is named."""

CHANCE = 0.1
"""The chance that any setting is taken although it is not better than the neutral one."""

_BUDGET = "1000"


class KnobTuning:
    """Sets the knobs of a denoiser by what a provider answers, or leaves them alone.

    The same call after a kill pays for nothing twice. Arguments left out are taken from the
    settings.

    Args:
        photos: a folder (with all below it), files, or {name: photo}: of the kind that the
            denoiser is meant for.
        provider: who is asked: a registered name, or an adapter.
        sigma: the noise level that the denoiser is to be used at.
        weights: "default", "small", or a .safetensors file.
        settings: the knobs that are tried.
        chance: that any setting is taken although it is not better than the neutral one, in (0, 1).
        truth: what the photos show: {photo: label}, or a CSV file with the columns file and label.
            By default a photo's label is what the provider itself says of it: that is what a
            certificate can confirm, and each photo costs a query for it.
        classes: your classes as {class: [provider labels]}, or a TOML or JSON file of them.
        budget: hard limit, restarts included; 1,000 queries if neither this nor the settings
            name one.
        size: shorter side of the working image, or its exact (width, height).
        device: where the denoiser runs.
        codec: "png" or "jpeg".
        concurrency: most requests in flight.
        retry: when a variant is tried again.
        home: folder of the noise key and of the answers, or "postgresql://user@host/database".
        noise_key_file: file of a deployment's noise key; a home in a database has no other.

    Raises:
        UsageError: a value cannot work, a folder has no photos, a label file cannot be read.
        DenoiserError: the weights cannot be used.
    """

    @keywords(AskOptions)
    def __init__(
        self,
        photos: Photos,
        *,
        provider: str | Adapter | None = None,
        sigma: float | None = None,
        weights: str | Path = "default",
        settings: Sequence[Knobs] = GRID,
        chance: float = CHANCE,
        truth: str | Path | Mapping[str, str] | None = None,
        classes: Classes | None = None,
        budget: Budgets | None = None,
        **options: Unpack[AskOptions],
    ) -> None:
        resolved = resolve(provider, {**options, "sigma": sigma, "denoiser": weights}).settings
        self._found = find_photos(photos)
        self._truth = None if truth is None else read_truth(truth)
        self._space = choose_label_space(classes)
        self._weights = str(weights)
        self._base = _weights_of(weights)
        self._tried = tuple(dict.fromkeys(knobs for knobs in settings if not knobs.neutral))
        self._chance = chance
        Race(len(self._tried), chance=chance)  # refuses what cannot be before anything is opened
        self._provider = str(getattr(provider, "name", resolved.provider))
        self._sigma = resolved.sigma
        self._size = options.get("size") or resolved.size
        self._device = resolved.device
        self._at_once = resolved.concurrency
        self._max_failed = resolved.max_failed
        self._budgets = choose_budgets(budget or resolved.budget or _BUDGET)
        self._open_first = partial(
            open_session,
            provider,
            sigma=sigma,
            classes=self._space,
            plain=self._truth is None,
            **options,
        )

    def plan(self, on_progress: Callable[[AdaptProgress], None] | None = None) -> AdaptPlan:
        """Say what `run` would send and cost at most, without sending anything."""
        subjects, left_out = self._read(on_progress)
        with self._open(subjects) as opened:
            schedule = opened.schedule
            stored = opened.stored(self._size)
            most = max(0, schedule.queries - stored)
            return AdaptPlan(
                provider=opened.provider,
                photos=len(subjects),
                left_out=left_out,
                tuning=schedule.tuning,
                held_out=schedule.held_out,
                settings=self._tried,
                stored=stored,
                queries=most,
                dollars=float(opened.price.of(most)),
                budget=" and ".join(str(budget) for budget in self._budgets),
            )

    def run(self, on_progress: Callable[[AdaptProgress], None] | None = None) -> Adapted:
        """Ask, choose, and measure the choice on photos that had no part in it.

        When the budget ends, what was learnt until then decides.

        Raises:
            ProviderError: the provider failed; what was answered is kept.
            BudgetExceededError: the budget does not even allow a first photo.
            StoreError: answers cannot be kept.
        """
        began = time.monotonic()
        subjects, left_out = self._read(on_progress)
        with self._open(subjects) as opened, opened.log() as log:
            told = _Told(opened.schedule, on_progress)
            asker = Asker(
                space=self._space,
                size=self._size,
                at_once=self._at_once,
                max_failed=self._max_failed,
                on_query=told.spent,
            )
            race = Race(len(self._tried), chance=self._chance, halvings=opened.schedule.halvings)
            used = _run(race, asker, opened, told)
            if not used:
                raise BudgetExceededError(
                    asker.stopped or "No photo has a label that could be compared."
                )
            taken = race.taken
            adaptation = Adaptation(
                weights=self._weights,
                sha256=self._base.sha256,
                knobs=self._tried[taken - 1] if taken else NEUTRAL,
                provider=opened.provider,
                sigma=self._sigma,
                # Where all stays as it was, no answer had a part in the denoiser.
                photos=frozenset(used) if taken else frozenset(),
            )
            held_out = None
            if taken and not asker.stopped:
                held_out = _compare(asker, opened, adaptation, told)
            totals = asker.totals
            log.result(
                {"studied": race.photos, "left out": left_out + asker.skipped},
                totals.attempts,
                totals.cached,
                float(totals.dollars),
            )
            log.end(asker.stopped or DONE)
            return Adapted(
                adaptation=adaptation,
                base=self._base.name,
                tried=tuple(
                    Tried(knobs, race.standing(number))
                    for number, knobs in enumerate(self._tried, 1)
                ),
                needed=race.needed,
                photos=race.photos,
                held_out=held_out,
                reference="plain" if self._truth is None else "truth",
                model_versions=tuple(sorted(asker.versions)),
                queries=asker.totals.queries,
                cached=asker.totals.cached,
                dollars=float(asker.totals.dollars),
                seconds=round(time.monotonic() - began, 3),
                left_out=left_out + asker.skipped,
                stopped=asker.stopped,
            )

    def _read(
        self, on_progress: Callable[[AdaptProgress], None] | None
    ) -> tuple[list[Subject], int]:
        def on_read(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(AdaptProgress("reading", done, total))

        return read_photos(self._found, self._size, self._truth, on_read)

    def _open(self, subjects: list[Subject]) -> _Opened:
        return _Opened(
            subjects,
            self._open_first,
            self._base,
            self._tried,
            device=self._device,
            budgets=self._named(subjects),
            plain=self._truth is None,
        )

    def _named(self, subjects: Sequence[Subject]) -> list[Budget]:
        """Return the budgets; one of a run is the tuning's, through kills and restarts."""
        parts = [self._base.sha256, self._provider, str(self._sigma)]
        parts += sorted(subject.digest for subject in subjects)
        name = f"adapt {hashlib.sha256(' '.join(parts).encode()).hexdigest()[:10]}"
        return [
            replace(b, name=name) if b.per == "run" and not b.name else b for b in self._budgets
        ]


class _Opened:
    """The sessions of a tuning: number 0 is neutral, then one for each setting.

    Args:
        subjects: all photos.
        open_first: opens the first session of (denoiser, budget).
        base: the weights.
        tried: the settings.
        device: where the denoiser runs.
        budgets: hard limits.
        plain: whether photos are asked about themselves.
    """

    def __init__(
        self,
        subjects: list[Subject],
        open_first: Callable[..., Session],
        base: File,
        tried: Sequence[Knobs],
        *,
        device: str,
        budgets: Sequence[Budget],
        plain: bool,
    ) -> None:
        self._device = device
        self._shared = Shared(base)  # one network in memory, whatever the number of settings
        self._plain = plain
        self._stack = ExitStack()
        with ExitStack() as opened:
            first = open_first(denoiser=self._runtime(self._shared), budget=budgets)
            opened.callback(first.close)
            self.provider = first.adapter.name
            self.price = first.price
            self.sessions = {0: first}
            for number, knobs in enumerate(tried, 1):
                self.sessions[number] = self._beside(Tuned(self._shared, knobs))
            most = _most_queries(budgets, first.price)
            self.schedule = spread(len(subjects), len(tried), most, plain=plain)
            self._stack = opened.pop_all()
        ranked = sorted(subjects, key=lambda one: shuffled("held out", one.digest))
        apart = {one.digest for one in ranked[: self.schedule.held_out]}
        self.held_out = [one for one in subjects if one.digest in apart]
        self.tuning = [one for one in subjects if one.digest not in apart]

    def log(self) -> RunLog:
        """Return what writes the tuning down as one run."""
        return RunLog(self.sessions[0], "adapt", asked={"settings": len(self.sessions) - 1})

    def adapted(self, adaptation: Adaptation) -> Session:
        """Return one with the adapted denoiser, as certificates will use it."""
        return self._beside(Tuned(self._shared, adaptation.knobs, adaptation=adaptation))

    def stored(self, size: int | tuple[int, int]) -> int:
        """Return how many answers of the first part of the race are stored already."""
        until = (*self.schedule.halvings, self.schedule.tuning)[0]
        count = 0
        for subject in self.tuning[:until]:
            image = subject.load(size)
            count += self._plain and self.sessions[0].stored(image)(None) is not None
            count += sum(one.stored(image)(0) is not None for one in self.sessions.values())
        return count

    def _beside(self, source: Source) -> Session:
        first = self.sessions[0]
        return first.beside(sigma=first.sigma, denoiser=self._runtime(source))

    def _runtime(self, source: Source) -> DenoiserRuntime:
        runtime = LocalRuntime(source, device=self._device, precision="auto")
        return gathered(runtime)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Told:
    """What is told of a tuning while it runs."""

    def __init__(
        self, schedule: Schedule, on_progress: Callable[[AdaptProgress], None] | None
    ) -> None:
        self._tell = on_progress
        self._now = AdaptProgress("tuning", 0, schedule.tuning)

    def spent(self, totals: Totals) -> None:
        """Tell what was sent."""
        self._say(queries=totals.queries, cached=totals.cached, cost=float(totals.dollars))

    def race(self, race: Race) -> None:
        """Tell how far the race is."""
        self._say(done=race.photos, left=len(race.live))

    def measuring(self, total: int) -> None:
        """Tell that the photos held out are next."""
        self._say(phase="measuring", done=0, total=total)

    def _say(self, **changes: object) -> None:
        self._now = replace(self._now, **changes)  # type: ignore[arg-type]
        if self._tell is not None:
            self._tell(self._now)


def _run(race: Race, asker: Asker, opened: _Opened, told: _Told) -> set[str]:
    """Run the race; return the digests of all photos whose variants were asked about."""
    waiting = list(opened.tuning)
    shown: set[str] = set()
    told.race(race)
    while waiting and not race.over and not asker.stopped:
        room = opened.schedule.tuning - race.photos
        if not room:
            break
        # The field stays the same within a lot, so what is asked does not depend on the timing.
        count = min(room, race.ahead or room)
        lot, waiting = waiting[:count], waiting[count:]
        shown.update(subject.digest for subject in lot)
        field = {number: opened.sessions[number] for number in race.field}
        for _, votes in asker.ask(lot, field):
            race.add(votes)
        told.race(race)
    return shown if race.photos else set()


def _compare(
    asker: Asker, opened: _Opened, adaptation: Adaptation, told: _Told
) -> BeforeAfter | None:
    """Show the photos that were held out through the denoiser as it was and as it is."""
    told.measuring(len(opened.held_out))
    both = {0: opened.sessions[0], 1: opened.adapted(adaptation)}
    votes = [votes for _, votes in asker.ask(opened.held_out, both)]
    pairs = [(one[0].right, one[1].right) for one in votes]
    return BeforeAfter(
        photos=len(pairs),
        before=sum(before for before, _ in pairs),
        after=sum(after for _, after in pairs),
        gained=sum(after and not before for before, after in pairs),
        lost=sum(before and not after for before, after in pairs),
    )


def _weights_of(weights: str | Path) -> File:
    if weights in SHIPPED:
        return File.shipped(str(weights), None)
    if str(weights) in ("none", "") or Path(weights).suffix.lower() == ".json":
        raise UsageError(
            f"weights={str(weights)!r}: what is adapted is 'default', 'small' or a .safetensors "
            "file. An adapted denoiser is not adapted again; adapt the weights that it was made of."
        )
    return File(read_header(Path(weights)), None)


def _most_queries(budgets: Sequence[Budget], price: Price) -> int | None:
    """Return what the budgets allow in all, at the dearest step of the price list."""
    dearest = max([price.per_thousand, *(each for _, each in price.steps)])
    limits = [b.attempts for b in budgets if b.attempts is not None]
    if dearest > 0:
        dollars = (Decimal(b.dollars) for b in budgets if b.dollars is not None)
        limits += [math.floor(each * 1000 / dearest) for each in dollars]
    return min(limits, default=None)
