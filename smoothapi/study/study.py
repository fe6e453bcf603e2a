"""Many photos: the votes are bought once, every cap, radius and method is computed from them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack

from smoothapi._version import __version__
from smoothapi.certify import LabelSpace, Target, Top1, parse_target
from smoothapi.dispatch import Retry
from smoothapi.errors import ImageError, UsageError
from smoothapi.files import shown_name
from smoothapi.many.cluster import Cluster, open_team, recipe_of, sendable
from smoothapi.noise import MAX_SIGMA
from smoothapi.options import SharedOptions, keywords, resolve
from smoothapi.parts import choose_denoiser, choose_label_space
from smoothapi.photos.fetching import PhotoFetcher, is_remote
from smoothapi.photos.naming import shown_location
from smoothapi.store.runs import DONE
from smoothapi.study.cluster import OnCluster, StudyDuty, reader
from smoothapi.study.collect import Rules
from smoothapi.study.crew import (
    CellCrew,
    Here,
    Opened,
    Read,
    Setup,
    StudyProgress,
    budgets_of,
    look_at,
)
from smoothapi.study.findings import Photo, Problem
from smoothapi.study.folder import Photos, find_photos, read_truth, truth_of
from smoothapi.study.gallery import make_pictures
from smoothapi.study.plans import StudyPlan, plan_cells
from smoothapi.study.result import StudyResult
from smoothapi.study.truths import doubts_after, doubts_before
from smoothapi.text import printable
from smoothapi.wiring import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi.image import PhotoSource
    from smoothapi.many.cluster import SessionRecipe, Team
    from smoothapi.options import DenoiserSpec
    from smoothapi.photos import Fetcher
    from smoothapi.provider import Adapter
    from smoothapi.store import Budget
    from smoothapi.study.crew import StudyPlace
    from smoothapi.study.shares import Shares

Providers: TypeAlias = "str | Adapter | Sequence[str | Adapter] | Mapping[str, str | Adapter]"
Denoisers: TypeAlias = "DenoiserSpec | Sequence[DenoiserSpec] | Mapping[str, DenoiserSpec]"

_READERS = 4
_CONCURRENCY = 32
_MOST_NAMED = 8
_log = logging.getLogger("smoothapi")


class Study:
    """What a query budget buys, over a folder of photos.

    Each vote is bought once and kept, and every radius, cap and method is computed from the same
    votes. Killed or stopped, the same study goes on where it ended and pays for what is missing.

    Arguments left out are taken from the settings, but for `final`: several caps and radii on one
    set of votes are what it promises not to look at.

    Args:
        photos: a folder (with all below it), files, patterns, what is on the web or in a bucket
            (https, s3, gs, az), {name: photo}, or any photos.
        provider: who is asked: a name, an adapter, several, or {name: either}.
        sigmas: noise levels, in (0, 1.5].
        radii: L2 radii of interest.
        max_votes: most votes of a certificate; the method is compared at each.
        truth: what the photos show, for certified accuracy: {photo: label}, or a CSV file with
            the columns file and label (`smoothapi.study.folder.read_truth` says more).
        classes: your classes as {class: [provider labels]}, or a TOML or JSON file of them; by
            default the provider's own labels.
        target: what is certified: "top1", or a target such as `Presence("Weapon", 0.8)`.
        denoisers: what is put in front: as for `Smoother`, several, or {name: one}.
        alpha: chance of a wrong certificate.
        budget: hard limit. A budget of a run belongs to the study: it also counts what earlier
            runs of the same study spent, until `smoothapi budget reset` forgets it.
        complete: buy at least so many votes of each photo, so that fixed samples up to it are
            measured and not estimated. True: the largest cap. By default the tests' need alone.
        selection: votes of a fixed sample that only name its candidate; by default a tenth of the
            cap, at most 100.
        size: shorter side of the working image, or its exact (width, height).
        device: where the denoiser runs.
        codec: "png" or "jpeg".
        concurrency: most requests in flight for a provider; 32 if nothing else is set, more than
            for one photo, so that a pace limit is used to the end.
        photos_at_once: cells under way at the same time, so that neither the denoiser nor the
            provider waits for one photo's test.
        gallery: how many photos are kept, small, in the result for the report's gallery.
        retry: when a variant is tried again.
        refresh: ask again although answers are stored.
        home: folder of the noise key and of the answers, or "postgresql://user@host/database".
        noise_key_file: file of a deployment's noise key; a home in a database has no other.
        fetcher: of photos that are elsewhere; by default from no private address. They are fetched
            anew for each sigma, provider and denoiser.
        name: what the study is called; by default the folder's name.
        command: what made it, for the report.
        cluster: machines that share the work, each with `photos_at_once` cells for each of its
            processes: "local", "auto", "ray://host:port", or a `Cluster`.

    Raises:
        UsageError: a value cannot work, a folder has no photos, a label file cannot be read.
    """

    @keywords(SharedOptions)
    def __init__(
        self,
        photos: Photos,
        *,
        provider: Providers | None = None,
        sigmas: Sequence[float] | float | None = None,
        radii: Sequence[float] | float = (0.1, 0.25, 0.5),
        max_votes: Sequence[int] | int = (50, 100, 200, 1000),
        truth: str | Path | Mapping[str, str] | None = None,
        classes: Mapping[str, Sequence[str]] | LabelSpace | str | Path | None = None,
        target: Target | Literal["top1"] = "top1",
        denoisers: Denoisers | None = None,
        budget: Budget | str | Sequence[Budget] | None = None,
        complete: bool | int = 0,
        selection: int | None = None,
        photos_at_once: int = 20,
        gallery: int = 8,
        fetcher: Fetcher | None = None,
        name: str | None = None,
        command: str = "",
        cluster: Cluster | str | None = None,
        **options: Unpack[SharedOptions],
    ) -> None:
        resolved = resolve(provider, {**options, "denoiser": denoisers})
        settings = resolved.settings
        concurrency = options.get("concurrency")
        if resolved.origins["concurrency"] == "default":
            concurrency = _CONCURRENCY
        self._fetcher = fetcher or PhotoFetcher()
        self._found = find_photos(photos, self._fetcher)
        size = options.get("size")
        self._truth = read_truth(truth) if truth is not None else {}
        levels = _floats(settings.sigma if sigmas is None else sigmas)
        if not all(0.0 < sigma <= MAX_SIGMA for sigma in levels):
            raise UsageError(f"sigmas={levels}: noise levels are in (0, {MAX_SIGMA}].")
        largest = _ascending(max_votes)
        rules = Rules(
            radii=_floats(radii),
            max_votes=largest,
            alpha=settings.alpha,
            complete=largest[-1] if complete is True else int(complete),
            selection=selection,
        )
        space = choose_label_space(classes)
        if space is not None and target != "top1":
            raise UsageError("classes are for target='top1'; other targets name their labels.")
        if photos_at_once < 1 or gallery < 0:
            raise UsageError("photos_at_once is at least 1, and gallery is a number of photos.")
        self._cluster = None if cluster is None else Cluster.of(cluster)
        self._denoisers = _named(settings.denoiser if denoisers is None else denoisers)
        self._setup = Setup(
            providers=_named(settings.provider if provider is None else provider),
            # Those of a cluster are its machines'.
            denoisers={
                name: choose_denoiser(spec, settings.device)
                for name, spec in self._denoisers.items()
                if cluster is None
            },
            sigmas=levels,
            rules=rules,
            target=Top1(space) if target == "top1" else parse_target(target),
            size=size or settings.size,
            budget=settings.budget if budget is None else budget,
            fresh=f" {time.time_ns()}" if options.get("refresh") else "",
            at_once=photos_at_once,
            open=partial(
                open_session,
                max_votes=largest[-1],
                classes=space,
                plain=True,
                **options | {"alpha": settings.alpha, "concurrency": concurrency},
            ),
        )
        self._asked = settings, concurrency, options.get("retry"), bool(options.get("refresh"))
        self._gallery = gallery
        self.name = shown_name(name or _name_of(photos))
        self._command = shown_name(command)

    def plan(
        self,
        *,
        pilot: int | None = None,
        shares: Shares | None = None,
        on_progress: Callable[[StudyProgress], None] | None = None,
    ) -> StudyPlan:
        """Say what `run` would send and cost, without sending anything.

        Answers that the store holds count as they are: after a pilot the plan rests on them.

        Args:
            pilot: of so many photos only.
            shares: the distribution of the top label's share of votes that is assumed where
                nothing was measured; by default the one that ships.
            on_progress: called while photos are read.
        """
        with self._team(denoises=False) as (setup, team):
            reads, _ = self._read(setup, team, on_progress)
            return self._planned(setup, reads, pilot, shares)

    def _planned(
        self, setup: Setup, reads: list[Read], pilot: int | None, shares: Shares | None
    ) -> StudyPlan:
        with Opened(setup, reads) as open_:
            self._doubt(doubts_before(_photos(reads), setup.target, open_.known_labels))
            tasks = open_.tasks(reads[:pilot])
            return plan_cells(
                [
                    (
                        task.provider,
                        task.denoiser,
                        task.sigma,
                        partial(task.read.load, setup.size),
                    )
                    for task in tasks
                ],
                open_.sessions,
                setup.rules,
                setup.target,
                shares=shares,
            )

    def run(
        self,
        on_progress: Callable[[StudyProgress], None] | None = None,
        *,
        pilot: int | None = None,
    ) -> StudyResult:
        """Collect the votes, and return what the tests make of them.

        A photo that cannot be read, or that the provider fails on, is a `Problem` and ends
        nothing. The budget's end, and a provider that is down or refuses all, end the study: what
        there is is returned, with `stopped` saying why.

        Args:
            on_progress: called some times a second.
            pilot: study only so many photos, drawn at random once and for all: the full study
                begins with the same ones and finds their answers.

        Raises:
            ProviderError: the provider failed before there was a single vote.
            BudgetExceededError: the budget does not even allow a first photo.
            StoreError: answers cannot be kept.
        """
        with self._team() as (setup, team):
            return self._run(setup, team, on_progress, pilot)

    @contextmanager
    def _team(self, *, denoises: bool = True) -> Iterator[tuple[Setup, Team[Any] | None]]:
        """Give the setup as it is where the work is done, and the machines; None for this one."""
        if self._cluster is None:
            yield self._setup, None
            return
        setup = self._setup
        fetcher = sendable(self._fetcher)
        duty = StudyDuty(self._recipe(), dict(setup.providers), setup.sigmas, setup.size, fetcher)
        opening = open_team(
            self._cluster, duty, slots=setup.at_once, size=setup.size, denoises=denoises
        )
        with opening as team:
            yield replace(setup, denoisers=team.denoisers), team

    def _recipe(self) -> SessionRecipe:
        """Return what other machines open sessions like these by; raises UsageError."""
        settings, concurrency, retry, refresh = self._asked
        setup = self._setup
        return recipe_of(
            setup.providers,
            self._denoisers,
            settings,
            {
                "sigma": setup.sigmas[0],
                "alpha": settings.alpha,
                "max_votes": setup.rules.max_votes[-1],
                "size": setup.size,
                "classes": getattr(setup.target, "space", None),
                "plain": True,
                "codec": settings.codec,
                "concurrency": concurrency or settings.concurrency,
                "retry": retry or Retry(attempts=settings.attempts, deadline=settings.deadline),
                "refresh": refresh,
            },
        )

    def _run(
        self,
        setup: Setup,
        team: Team[Any] | None,
        on_progress: Callable[[StudyProgress], None] | None,
        pilot: int | None,
    ) -> StudyResult:
        began = time.monotonic()
        reads, problems = self._read(setup, team, on_progress)
        if not reads:
            raise ImageError(
                f"None of the {len(self._found.photos)} photos can be used. The first: "
                f"{problems[0].photo}: {problems[0].why}"
            )
        studied = reads[:pilot]
        with Opened(setup, reads) as open_, ExitStack() as stack:
            target = setup.target
            log = open_.log(self._command)
            stack.enter_context(log)
            self._doubt(doubts_before(_photos(reads), target, open_.known_labels))
            place: StudyPlace = Here(setup, open_.sessions)
            if team is not None:
                place = OnCluster(setup, team, budgets_of(setup, reads))
            crew = CellCrew(place, began, len(problems))
            crew.run(open_.tasks(studied), on_progress)
            problems += crew.problems
            _warn_of_never_seen(open_, target)
            known = open_.known_labels
            self._doubt(doubts_after(_photos(studied), target, crew.cells, known))
            if crew.error is not None and not crew.cells:
                raise crew.error
            done = {cell.photo for cell in crew.cells}
            result = StudyResult(
                name=self.name,
                created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                command=self._command,
                versions=_versions(),
                rules=setup.rules,
                sigmas=setup.sigmas,
                target=target.description,
                size=setup.size,
                codec=open_.codec,
                photos_found=len(self._found.photos),
                passed_over=self._found.passed_over,
                photos=self._halved([read.photo for read in studied if read.photo.name in done]),
                problems=tuple(sorted(problems, key=lambda problem: problem.photo)),
                providers=open_.providers,
                denoisers=open_.denoisers,
                cells=tuple(crew.cells),
                stopped="" if crew.error is None else str(crew.error),
                seconds=round(time.monotonic() - began, 3),
            )
            loaders = {r.photo.name: partial(r.load, setup.size) for r in studied}
            pictures = make_pictures(result, self._gallery, loaders, open_.sessions)
            log.result(
                {"studied": len(result.photos), "left out": result.left_out},
                sum(cell.attempts for cell in result.cells),
                sum(cell.cached for cell in result.cells),
                result.dollars,
            )
            log.end(result.stopped or DONE)
        return replace(result, pictures=pictures)

    @staticmethod
    def _doubt(doubts: Iterable[str]) -> None:
        for doubt in doubts:
            _log.warning("%s", doubt)

    def _halved(self, photos: list[Photo]) -> tuple[Photo, ...]:
        """Return the photos, half of them marked for calibration, whatever their order.

        None is where there is nothing to choose: one sigma, provider and denoiser.
        """
        setup = self._setup
        if len(setup.sigmas) * len(setup.providers) * len(self._denoisers) == 1:
            return tuple(photos)
        ranked = sorted(photos, key=lambda photo: _shuffled("calibration", photo.digest))
        chosen = {photo.name for photo in ranked[: (len(ranked) + 1) // 2]}
        return tuple(replace(photo, calibration=photo.name in chosen) for photo in photos)

    def _read(
        self,
        setup: Setup,
        team: Team[Any] | None,
        on_progress: Callable[[StudyProgress], None] | None,
    ) -> tuple[list[Read], list[Problem]]:
        """Return the photos in the order of study, each picture once, and what is wrong."""
        began = time.monotonic()
        reads: list[Read] = []
        problems: list[Problem] = []
        seen: dict[str, str] = {}
        tuned = _tuned(setup)

        def look(item: tuple[str, PhotoSource]) -> Photo | Problem:
            name, source = item
            truth = truth_of(name, self._truth)
            if team is None:
                return look_at(name, source, self._fetcher, size=setup.size, truth=truth)
            try:
                return reader(team, setup.size)(name, source, truth)
            except ImageError as error:
                return Problem(name, str(error), "unreadable")

        readers = _READERS if team is None else team.at_once
        with ThreadPoolExecutor(readers, thread_name_prefix="smoothapi-read") as pool:
            looked = pool.map(look, self._found.photos)
            for number, (found, item) in enumerate(zip(looked, self._found.photos, strict=True)):
                if isinstance(found, Problem):
                    problems.append(found)
                elif found.digest in tuned:
                    why = (
                        f"its answers had a part in the denoiser {tuned[found.digest]}, whose "
                        "figures it would flatter"
                    )
                    problems.append(Problem(found.name, why, "tuned"))
                elif found.digest in seen:
                    why = f"the same picture as {seen[found.digest]}, which is counted once"
                    problems.append(Problem(found.name, why, "duplicate"))
                else:
                    seen[found.digest] = found.name
                    reads.append(Read(found, item[1], self._fetcher))
                if on_progress is not None:
                    seconds = time.monotonic() - began
                    on_progress(
                        StudyProgress(
                            "reading", number + 1, len(self._found.photos), 0, 0, 0, 0.0,
                            len(problems), seconds,
                        )
                    )  # fmt: skip
        # An order that has nothing to do with names or contents: any beginning is a fair sample.
        reads.sort(key=lambda read: _shuffled("order", read.photo.digest))
        return reads, problems


def _tuned(setup: Setup) -> dict[str, str]:
    """Return {digest: denoiser} of the photos whose answers had a part in a denoiser.

    They are left out for all denoisers: each is measured on the same photos.
    """
    return {
        digest: name
        for name, runtime in setup.denoisers.items()
        if runtime.adaptation is not None
        for digest in runtime.adaptation.photos
    }


def _warn_of_never_seen(open_: Opened, target: Target) -> None:
    """Warn of what a target names and a provider, which answered, is not known to say."""
    for name, session in {key[0]: session for key, session in open_.sessions.items()}.items():
        for label in session.never_seen(target)[:_MOST_NAMED]:
            _log.warning(
                "%r was never seen in any answer of %s: that it is absent says little.",
                printable(label),
                printable(name),
            )


def _name_of(photos: Photos) -> str:
    if not isinstance(photos, (str, Path)):
        return "photos"
    return shown_location(str(photos)) if is_remote(photos) else Path(os.path.realpath(photos)).name


def _photos(reads: Iterable[Read]) -> list[Photo]:
    return [read.photo for read in reads]


def _floats(values: Sequence[float] | float) -> tuple[float, ...]:
    listed = values if isinstance(values, Sequence) else (values,)
    try:
        numbers = {float(value) for value in listed}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{values!r}: give numbers, such as (0.12, 0.25, 0.5).") from error
    return tuple(sorted(numbers))


def _ascending(values: Sequence[int] | int) -> tuple[int, ...]:
    listed = values if isinstance(values, Sequence) else (values,)
    if not listed or not all(type(value) is int for value in listed):
        raise UsageError(f"max_votes={values!r}: give whole numbers, such as (50, 100, 200, 1000).")
    return tuple(sorted(set(listed)))


def _named(given: Any) -> dict[str, Any]:
    """Return {unique name: provider or denoiser}."""
    if isinstance(given, Mapping):
        return dict(given)
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    if not items:
        raise UsageError("Name at least one provider and one denoiser ('none' for none).")
    named: dict[str, Any] = {}
    for item in items:
        if isinstance(item, Path) or (
            isinstance(item, str) and item.endswith((".safetensors", ".json"))
        ):
            name = Path(item).stem
        else:
            name = (
                item if isinstance(item, str) else str(getattr(item, "name", type(item).__name__))
            )
        count = sum(known == name or known.startswith(f"{name} #") for known in named)
        named[name if not count else f"{name} #{count + 1}"] = item
    return named


def _shuffled(purpose: str, digest: str) -> bytes:
    return hashlib.sha256(f"{purpose} {digest}".encode()).digest()


def _versions() -> dict[str, str]:
    versions = {"smoothapi": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "pillow"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # installed without its metadata
            versions[package] = "unknown"
    return versions
