"""The cells of a study: what is bought for each, and what becomes of one that fails."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from smoothapi.certify import runs_of, share_deduction, top1
from smoothapi.denoise import gathered
from smoothapi.errors import (
    BudgetExceededError,
    ImageError,
    ModelChangedError,
    ProviderError,
    SmoothAPIError,
    TooManyFailuresError,
)
from smoothapi.history import RunLog
from smoothapi.image import WorkingImage, load_image
from smoothapi.many import OF_ONE_PHOTO, Crew, Failures, Outlay, Spending
from smoothapi.method import collect_votes
from smoothapi.parts import choose_budgets
from smoothapi.photos.fetching import opened
from smoothapi.study.collect import (
    FAILED,
    MODEL_CHANGED,
    UNDECIDED,
    Collector,
    Rules,
)
from smoothapi.study.findings import Cell, DenoiserFacts, Photo, Problem, ProviderFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from smoothapi.certify import LabelSpace, Target
    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.image import PhotoSource
    from smoothapi.known_labels import KnownLabels
    from smoothapi.photos import Fetcher
    from smoothapi.session import Progress, Session
    from smoothapi.store import Budget


@dataclass(frozen=True)
class Setup:
    """What a study was asked to do.

    Attributes:
        providers: {name: adapter or its registered name}.
        denoisers: {name: what was loaded}.
        sigmas: noise levels.
        rules: what is tested on the votes.
        target: what is certified.
        size: of the working image.
        budget: as for `Smoother`.
        fresh: what sets this run's budget apart from earlier ones', "" if nothing does.
        at_once: cells under way at the same time.
        open: opens a session of (provider, sigma, denoiser, budget).
    """

    providers: Mapping[str, Any]
    denoisers: Mapping[str, DenoiserRuntime]
    sigmas: tuple[float, ...]
    rules: Rules
    target: Target
    size: int | tuple[int, int]
    budget: Budget | str | Sequence[Budget] | None
    fresh: str
    at_once: int
    open: Callable[..., Session]


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """How far a study is.

    Attributes:
        phase: "reading" photos, or "asking".
        done: photos read, or cells (photo, sigma, denoiser, provider) that have all their votes.
        total: of them.
        votes: counted in this run.
        queries: variants sent.
        cached: answers that the store already had.
        cost: dollars spent.
        problems: photos that cannot be studied.
        seconds: since the start.
    """

    phase: Literal["reading", "asking"]
    done: int
    total: int
    votes: int
    queries: int
    cached: int
    cost: float
    problems: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A photo that can be studied, and where it is read again from."""

    photo: Photo
    source: PhotoSource
    fetcher: Fetcher

    def load(self, size: int | tuple[int, int]) -> WorkingImage:
        """Return the working image; raises ImageError if the photo has gone."""
        return load_image(opened(self.source, self.fetcher), size=size)


def look_at(
    name: str,
    source: PhotoSource,
    fetcher: Fetcher,
    *,
    size: int | tuple[int, int],
    truth: tuple[str, ...],
) -> Photo | Problem:
    """Read a photo, and say what a study needs to know of it, or why it cannot be studied."""
    try:
        image = load_image(opened(source, fetcher), size=size)
    except ImageError as error:
        return Problem(name, str(error), "unreadable")
    return Photo(
        name=name,
        digest=image.digest,
        size=image.size,
        native_size=image.native_size,
        gain=image.gain,
        truth=truth,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One cell to be filled."""

    read: Read
    provider: str
    denoiser: str
    sigma: float


class Opened:
    """The sessions of a study: one for each provider, and beside it one a sigma and denoiser."""

    def __init__(self, setup: Setup, reads: list[Read]) -> None:
        self._setup = setup
        self._stack = ExitStack()
        self.sessions: dict[tuple[str, str, float], Session] = {}
        runtimes = {name: gathered(runtime) for name, runtime in setup.denoisers.items()}
        self.denoisers = tuple(DenoiserFacts(n, r.fingerprint) for n, r in runtimes.items())
        facts: list[ProviderFacts] = []
        try:
            for name, spec in setup.providers.items():
                first = setup.open(
                    spec,
                    sigma=setup.sigmas[0],
                    denoiser=next(iter(runtimes.values())),
                    budget=budgets_of(setup, reads),
                )
                self._stack.callback(first.close)
                first.target(setup.target)  # refuses what this provider never says
                facts.append(ProviderFacts(name, dict(first.adapter.identity), first.price))
                for kind, runtime in runtimes.items():
                    for sigma in setup.sigmas:
                        # A replay has neither the denoiser nor the noise, only answers.
                        mine = None if _is_replay(spec) else runtime
                        beside = first.beside(sigma=sigma, denoiser=mine)
                        self.sessions[name, kind, sigma] = beside
        except BaseException:
            self._stack.close()
            raise
        self.providers = tuple(facts)
        self.codec = first.settings.codec

    @property
    def known_labels(self) -> dict[str, KnownLabels]:
        """The labels that are known of each provider."""
        return {name: session.known_labels for (name, _, _), session in self.sessions.items()}

    def log(self, line: str) -> RunLog:
        """Return what writes the study down as one run, in the store of its first session.

        Args:
            line: the command line; "" from Python.
        """
        rules = self._setup.rules
        asked = {
            "sigma": list(self._setup.sigmas),
            "radius": list(rules.radii),
            "max_votes": list(rules.max_votes),
            "alpha": rules.alpha,
            "providers": list(self._setup.providers),
            "denoisers": list(self._setup.denoisers),
            "target": dict(self._setup.target.description),
        }
        first = next(iter(self.sessions.values()))
        return RunLog(first, "study", line=line, asked=asked)

    def tasks(self, reads: Iterable[Read]) -> list[Task]:
        """Return the cells, photo by photo: a study cut short has whole photos to compare."""
        return [
            Task(read, provider, denoiser, sigma)
            for read in reads
            for provider, denoiser, sigma in self.sessions
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def budgets_of(setup: Setup, reads: list[Read]) -> Sequence[Budget] | None:
    """Return the budgets; one of a run is the study's, through kills and restarts."""
    given = setup.budget
    if given is None:
        return None
    budgets = choose_budgets(given)
    parts = [*sorted(r.photo.digest for r in reads), *setup.providers]
    parts += [*setup.denoisers, *(str(sigma) for sigma in setup.sigmas)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
    name = f"study {digest}{setup.fresh}"
    return [replace(b, name=name) if b.per == "run" and not b.name else b for b in budgets]


def _is_replay(provider: object) -> bool:
    return isinstance(provider, str) and provider.startswith("replay:")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which cell is to be filled, by plain values.

    Attributes:
        photo: its name.
        provider: as the study calls it.
        denoiser: as the study calls it.
        sigma: noise level.
        rules: what is tested on the votes.
        target: what is certified.
    """

    photo: str
    provider: str
    denoiser: str
    sigma: float
    rules: Rules
    target: Target

    @property
    def space(self) -> LabelSpace | None:
        """The caller's classes."""
        return getattr(self.target, "space", None)


class StudyPlace(Protocol):
    """Where the work of a study is done: on this machine, or on those of a cluster."""

    @property
    def at_once(self) -> int:
        """Cells under way at the same time."""
        ...

    def fill(self, task: Task, note: Callable[[Progress], None], /) -> Filled:
        """Fill a cell; raises SmoothAPIError where there is nothing to be had of it."""
        ...

    def look(self) -> None:
        """Take the news; called some times a second."""
        ...

    def stop(self) -> None:
        """Have nothing more sent."""
        ...


class Here:
    """This machine; a `StudyPlace`.

    Args:
        setup: of the study.
        sessions: by provider, denoiser and sigma.
    """

    def __init__(self, setup: Setup, sessions: Mapping[tuple[str, str, float], Session]) -> None:
        self.at_once = setup.at_once
        self._setup = setup
        self._sessions = sessions
        self._stop = threading.Event()

    def fill(self, task: Task, note: Callable[[Progress], None]) -> Filled:
        """Fill a cell."""
        session = self._sessions[task.provider, task.denoiser, task.sigma]
        load = partial(task.read.load, self._setup.size)
        return fill_cell(session, load, wanted(task, self._setup), self._stop, note)

    def look(self) -> None:
        """Do nothing: all is known here."""

    def stop(self) -> None:
        """Have nothing more sent."""
        self._stop.set()


def wanted(task: Task, setup: Setup) -> Wanted:
    """Return a task by plain values."""
    return Wanted(
        task.read.photo.name, task.provider, task.denoiser, task.sigma, setup.rules, setup.target
    )


class CellCrew:
    """Works on many cells at once, and knows what was spent."""

    def __init__(self, place: StudyPlace, began: float, problems: int) -> None:
        self._place = place
        self._began = began
        self._known_problems = problems
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._spending: Spending[Task] = Spending()
        self._failures = Failures()
        self._ended = 0
        self.cells: list[Cell] = []
        self.problems: list[Problem] = []
        self.error: SmoothAPIError | None = None

    def run(self, tasks: list[Task], on_progress: Callable[[StudyProgress], None] | None) -> None:
        """Fill the cells of `tasks`; after an error that concerns all, no further ones."""
        done = 0
        cells: dict[Task, Cell] = {}

        def look() -> None:
            self._place.look()
            if on_progress is not None:
                on_progress(self._progress(done, len(tasks)))

        crew = Crew(self._fill, self._place.at_once)
        for task, cell in crew.run(tasks, in_order=False, on_look=look, on_cut=self._stop_all):
            done += 1
            if cell is not None:
                cells[task] = cell
        look()
        self.cells = [cells[task] for task in tasks if task in cells]

    def _progress(self, done: int, total: int) -> StudyProgress:
        spent = self._spending.so_far
        with self._lock:
            problems = self._known_problems + len(self.problems)
        return StudyProgress(
            phase="asking",
            done=done,
            total=total,
            votes=spent.votes,
            queries=spent.queries,
            cached=spent.cached,
            cost=spent.cost,
            problems=problems,
            seconds=time.monotonic() - self._began,
        )

    def _fill(self, task: Task) -> Cell | None:
        """Return the cell; None if it has no votes."""
        if self._stop.is_set():
            return None
        try:
            filled = self._place.fill(task, partial(self._spending.note, task))
        except SmoothAPIError as error:
            filled = Filled(None, error=error)
        except BaseException:
            self._stop_all()
            raise
        self._spending.end(task, filled.spent)
        with self._lock:
            self._ended += 1
            if filled.error is not None:
                self._note_failure(task, filled, filled.error)
        return filled.cell

    def _note_failure(self, task: Task, filled: Filled, error: SmoothAPIError) -> None:
        """Note what went wrong; stop the study if it is wrong for all."""
        if isinstance(error, OF_ONE_PHOTO):
            why = f"sigma {task.sigma:g}, {task.provider}, {task.denoiser}: {error}"
            kind: Literal["failed", "undecided"] = "failed" if filled.cell is None else "undecided"
            self.problems.append(Problem(task.read.photo.name, why, kind))
        if self._failures.concern_all(error, self._ended):
            self.error = self.error or error
            # Without money others still have what is stored.
            if not isinstance(error, BudgetExceededError):
                self._stop_all()

    def _stop_all(self) -> None:
        self._stop.set()
        self._place.stop()


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of filling a cell.

    Attributes:
        cell: with its votes; None if it has none.
        spent: on it; None where that is as it was noted last.
        error: what ended it early.
    """

    cell: Cell | None
    spent: Outlay | None = None
    error: SmoothAPIError | None = None


def fill_cell(
    session: Session,
    load: Callable[[], WorkingImage],
    wanted: Wanted,
    stop: threading.Event,
    note: Callable[[Progress], None],
) -> Filled:
    """Buy the votes of one cell, and say what the tests make of them; on any machine.

    Args:
        session: at the cell's sigma, with its denoiser.
        load: returns the working image; raises ImageError if the photo has gone.
        wanted: which cell.
        stop: ends it early.
        note: called after each vote.
    """
    last = _Last(note)
    collector: Collector | None = None
    target = wanted.target
    try:
        image = load()
        collector = Collector(
            wanted.rules,
            target,
            sigma=session.sigma,
            delta=share_deduction(image.pixels.size, session.sigma),
            stop=stop,
            futility=session.futility,
        )
        collected = collect_votes(session, image, collector, target, last)
    except SmoothAPIError as error:
        return Filled(
            _cut_short(session, load, wanted, collector, error, spent=last.spent), None, error
        )
    totals = collected.totals
    spent = Outlay(len(collected.votes), totals.queries, totals.cached, float(totals.dollars))
    if not collected.votes and not collector.decided:
        return Filled(None, spent)
    cell = Cell(
        photo=wanted.photo,
        provider=wanted.provider,
        denoiser=wanted.denoiser,
        sigma=session.sigma,
        votes=runs_of(collected.votes),
        plain=None if collected.plain is None else top1(collected.plain, wanted.space),
        model_version=collected.model_version,
        queries=totals.queries,
        attempts=totals.attempts,
        cached=totals.cached,
        dollars=float(totals.dollars),
        seconds=round(collected.seconds, 3),
        outcomes=collector.outcomes(collected.plain),
    )
    return Filled(cell, spent)


def _cut_short(
    session: Session,
    load: Callable[[], WorkingImage],
    wanted: Wanted,
    collector: Collector | None,
    error: SmoothAPIError,
    *,
    spent: Outlay,
) -> Cell | None:
    """Return the cell with the votes so far; None before the first.

    A photo that the service answers about, but not under noise, or with one model to the end,
    counts as not certified: left out, the figures would be of those photos that it can answer, or
    that take few votes. Tests that had decided before stand.
    """
    if collector is None or not isinstance(error, (BudgetExceededError, ProviderError)):
        return None
    if not collector.votes:
        return None
    plain = session.stored(load())(None)
    answer = None if plain is None or isinstance(plain, Exception) else plain
    if isinstance(error, TooManyFailuresError) and answer is None:
        return None
    ended = UNDECIDED
    if isinstance(error, (TooManyFailuresError, ModelChangedError)):
        ended = FAILED if isinstance(error, TooManyFailuresError) else MODEL_CHANGED
    return Cell(
        photo=wanted.photo,
        provider=wanted.provider,
        denoiser=wanted.denoiser,
        sigma=session.sigma,
        votes=runs_of(collector.votes),
        plain=None if answer is None else top1(answer, wanted.space),
        model_version="" if answer is None else answer.model_version,
        queries=spent.queries,
        attempts=error.attempts,
        cached=spent.cached,
        dollars=error.cost,
        seconds=0.0,
        outcomes=collector.outcomes(answer, ended),
    )


class _Last:
    """Passes progress on, and keeps the last of it."""

    def __init__(self, note: Callable[[Progress], None]) -> None:
        self._note = note
        self.spent = Outlay()

    def __call__(self, progress: Progress) -> None:
        self.spent = Outlay(progress.votes, progress.queries, progress.cached, progress.cost)
        self._note(progress)
