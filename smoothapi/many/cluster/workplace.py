"""The process that does tasks, on whatever machine: an actor, which knows nothing of the others."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from smoothapi.asynchronous import Stop
from smoothapi.dispatch.run import STOPPED
from smoothapi.errors import SmoothAPIError, StoppedError
from smoothapi.many.cluster.denoising import ClusterVariants
from smoothapi.many.cluster.recipe import facts_here, options_here
from smoothapi.photos.carrying import NotHereError
from smoothapi.variants import MadeVariants
from smoothapi.wiring import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.many.cluster.recipe import Facts, SessionRecipe
    from smoothapi.options import SmootherOptions
    from smoothapi.session import Progress, Session
    from smoothapi.store import Budget

Note: TypeAlias = "Callable[[Progress], None]"
"""Is told how far a task is."""

_MOST_SAID = 100  # warnings that wait to be fetched


class Hands(Protocol):
    """What does a task."""

    def do(self, task: Any, stop: Stop, note: Note, /) -> Any:
        """Return what comes of a task; `stop` can end it, `note` is called after each vote.

        Raises:
            SmoothAPIError: as the work itself.
            NotHereError: its photo is a file that is not here.
        """
        ...

    def close(self) -> None:
        """Wait for what is under way, and release all."""
        ...


class Duty(Protocol):
    """What a process is there for. It is sent to other machines: plain values, nothing secret."""

    @property
    def recipe(self) -> SessionRecipe:
        """What it is opened by."""
        ...

    def open(self, denoisers: Mapping[str, DenoiserRuntime], /) -> Hands:
        """Open what its tasks need; raises SmoothAPIError.

        Args:
            denoisers: by the names of the recipe.
        """
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task on another machine.

    Attributes:
        result: of the task; None where an error ended it.
        error: what ended it.
        progress: how far it was last.
        is_missing: whether its photo's file was not there, and nothing was done.
    """

    result: Any = None
    error: SmoothAPIError | None = None
    progress: Progress | None = None
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Glance:
    """What a process tells when it is looked at.

    Attributes:
        progress: {number of a task: how far it is}, of those under way.
        said: (level, text) of warnings since it was looked at last.
    """

    progress: Mapping[int, Progress]
    said: tuple[tuple[int, str], ...]


class Workplace:
    """Does tasks, several at once, each in a thread of the caller. An actor.

    An error of ours is returned, not raised: on its way through Ray it would become another one,
    with the text of a traceback.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = Stop()
        self._hands: Hands | None = None
        self._under_way: dict[int, Progress] = {}
        self._said = _Said()
        logging.getLogger("smoothapi").addHandler(self._said)

    def open(self, duty: Duty, denoisers: Mapping[str, DenoiserRuntime]) -> Facts | SmoothAPIError:
        """Get ready; return what must be alike on all machines, or what is wrong."""
        try:
            facts = facts_here(duty.recipe)
            self._hands = duty.open(denoisers)
        except SmoothAPIError as error:
            return error
        return facts

    def do(self, number: int, task: Any) -> Done:
        """Do a task, of a number that no other has."""
        hands, mine = self._hands, self._stop.for_one()
        assert hands is not None  # noqa: S101  it was opened before it was given tasks
        try:
            if self._stop.stopped:
                raise StoppedError(STOPPED)
            result = hands.do(task, mine, lambda progress: self._note(number, progress))
        except NotHereError:
            return Done(is_missing=True)
        except SmoothAPIError as error:
            return Done(error=error, progress=self._end(number))
        finally:
            self._stop.forget(mine)
        return Done(result, progress=self._end(number))

    def look(self) -> Glance:
        """Return how far the tasks are, and what was warned of."""
        with self._lock:
            return Glance(dict(self._under_way), self._said.taken())

    def stop(self, why: str) -> None:
        """Have nothing more sent by what is under way, and by what comes."""
        self._stop.stop(why)

    def close(self) -> None:
        """Wait for what is under way, give back what was reserved, and release all."""
        hands, self._hands = self._hands, None
        if hands is not None:
            hands.close()

    def _note(self, number: int, progress: Progress) -> None:
        with self._lock:
            self._under_way[number] = progress

    def _end(self, number: int) -> Progress | None:
        with self._lock:
            return self._under_way.pop(number, None)


class _Said(logging.Handler):
    """Keeps the last warnings until they are fetched."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: deque[tuple[int, str]] = deque(maxlen=_MOST_SAID)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # a text that does not fit its values must not end the work
            self._records.append((record.levelno, record.getMessage()))

    def taken(self) -> tuple[tuple[int, str], ...]:
        with suppress(IndexError):
            return tuple(self._records.popleft() for _ in range(len(self._records)))
        return ()


def open_session_here(
    recipe: SessionRecipe,
    provider: str,
    denoiser: DenoiserRuntime,
    budget: Sequence[Budget] | None = None,
) -> Session:
    """Open a session by a recipe, whose variants are denoised where the denoiser is."""
    options: SmootherOptions = {**recipe.options, **options_here(recipe)}
    if budget is not None:
        options["budget"] = budget
    options["denoiser"] = denoiser
    session = open_session(provider, **options)
    assert isinstance(session.variants, MadeVariants)  # noqa: S101  no recipe has a recording
    return replace(session, variants=ClusterVariants.of(session.variants))
