"""The side that gives out tasks: which processes there are, who does what, and who has died."""

from __future__ import annotations

import logging
import queue
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from smoothapi.asynchronous import Stop
from smoothapi.denoise import load
from smoothapi.dispatch.run import STOPPED
from smoothapi.errors import (
    ClusterError,
    ProcessesLostError,
    SmoothAPIError,
    StoppedError,
    UsageError,
)
from smoothapi.many.cluster.connection import connected, machines, placed
from smoothapi.many.cluster.denoising import LOTS_AT_ONCE, DenoisingPlace, RemoteDenoiser, agreed
from smoothapi.many.cluster.recipe import disagreements, facts_here
from smoothapi.many.cluster.workplace import Workplace
from smoothapi.photos.carrying import with_content
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.many.cluster.connection import Cluster, Place
    from smoothapi.many.cluster.workplace import Done, Duty, Glance, Note
    from smoothapi.photos import CarriedPhoto

_START = 60.0  # seconds for all denoisers to begin; then the work goes on with those that have
_OTHERS = 10.0  # seconds for the other processes, after the first; later ones join the work
_NONE_YET = 600.0  # seconds for the first one: a cluster may have to fetch a machine for it
_MOST_LOST = 3  # processes that one task may take along, before it is taken for the cause
_MOST_BEGUN = 3  # tries to begin a process that ends at once
_LOOK = 1.0  # seconds between two looks at a process
_CLOSING = 60.0  # seconds for what is under way to end
_MORE_CALLS = 3  # beside the tasks: to look, to stop and to close
_MOST_HEARD = 1000  # different warnings that are remembered

_log = logging.getLogger("smoothapi")


class Carrying(Protocol):
    """A task, a frozen dataclass."""

    @property
    def photo(self) -> CarriedPhoto:
        """The photo it is about."""
        ...


_Task = TypeVar("_Task", bound=Carrying)


class Team(Generic[_Task]):
    """Processes on the machines of a cluster, each with some tasks at once. Threads share it.

    Make one with `open_team`.

    Args:
        ray: connected.
        duty: what they are there for.
        places: where they are to be.
        denoisers: by name.
        slots: tasks that each has at once.
        size: of the working image.
    """

    def __init__(
        self,
        ray: Any,
        duty: Duty,
        places: Sequence[Place],
        denoisers: Mapping[str, DenoiserRuntime],
        *,
        slots: int,
        size: int | tuple[int, int],
    ) -> None:
        self.denoisers = denoisers
        self.at_once = slots * len(places)
        self._ray = ray
        self._duty = duty
        self._slots = slots
        self._size = size
        self._facts = facts_here(duty.recipe)
        self._members = [_Member(place) for place in places]
        self._free: queue.Queue[tuple[_Member, int]] = queue.Queue()
        self._numbers = count()
        self._lock = threading.Lock()
        self._notes: dict[int, Note] = {}
        self._glances: dict[_Member, Any] = {}
        self._looked = 0.0
        self._heard: set[str] = set()
        self._changed = threading.Condition()
        self._error: SmoothAPIError | None = None
        self._why_stopped: str | None = None
        self._closing = False

    def start(self) -> None:
        """Begin the processes, and wait for them.

        Raises:
            SmoothAPIError: one cannot do its work, or disagrees with the others.
            ClusterError: none has begun for ten minutes.
        """
        for member in self._members:
            self._begin(member)
        began, first = time.monotonic(), None
        with self._changed:
            while self._error is None:
                up = sum(member.is_up for member in self._members)
                now = time.monotonic()
                waited = now - began
                if up and first is None:
                    first = now
                if up == len(self._members) or (first is not None and now - first > _OTHERS):
                    break
                if waited > _NONE_YET:
                    raise ClusterError(
                        f"None of the {len(self._members)} processes has begun for "
                        f"{_NONE_YET / 60:.0f} minutes: the cluster has no free cores for them "
                        "(`ray status` shows what it has, and what waits). Nothing was sent."
                    )
                self._changed.wait(0.5)
        if self._error is not None:
            raise self._error
        if up < len(self._members):
            _log.warning(
                "%d of %d processes have begun on the cluster; the others join when it has room.",
                up,
                len(self._members),
            )

    def do(self, task: _Task, note: Note) -> Any:
        """Return what comes of a task; it is done again where the process that did it died.

        Raises:
            SmoothAPIError: as on the machine that did it.
            ProcessesLostError: it took three processes along.
            ClusterError: the cluster is lost, or none of its processes is left.
            StoppedError: the team was stopped.
        """
        lost = 0
        while True:
            member, generation = self._take()
            done = self._done(member, generation, task, note)
            if done is None:
                lost += 1
                if lost == _MOST_LOST:
                    raise ProcessesLostError(
                        f"{_MOST_LOST} processes died while they worked on this photo: it may need "
                        "more memory than their machines have. What was answered about it is kept."
                    )
            elif done.is_missing:
                self._hear(
                    logging.WARNING,
                    "The photos are not on the machines of the cluster under the same path, so "
                    "they are sent there from here. Shared folders and buckets would spare that.",
                )
                task = replace(task, photo=with_content(task.photo, self._size))  # type: ignore[type-var]
            else:
                if done.progress is not None:
                    note(done.progress)
                if done.error is not None:
                    raise done.error
                return done.result

    def look(self) -> None:
        """Ask how far the tasks are, and pass on what was warned of; waits for nothing."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        for member in self._members:
            glance = self._glances.get(member)
            if glance is not None and not glance.done():
                continue
            if glance is not None and glance.exception() is None:
                self._see(glance.result())
            self._glances.pop(member, None)
            if member.is_up:
                with suppress(Exception):  # it died just now: whoever waits for its task says so
                    self._glances[member] = member.actor.look.remote().future()

    def stop(self, why: str = STOPPED) -> None:
        """Have nothing more sent; what is under way is awaited where it is."""
        self._why_stopped = why
        for member in self._members:
            if member.is_up:
                with suppress(Exception):  # what has died sends nothing more
                    member.actor.stop.remote(why)

    def close(self) -> None:
        """Have each process await what is under way and give back what it reserved; end them."""
        self._closing = True
        ray, up = self._ray, [member for member in self._members if member.is_up]
        with suppress(Exception):  # the cluster may be gone: its processes are, too
            ends = [member.actor.close.remote() for member in up]
            if ends:
                ray.wait(ends, num_returns=len(ends), timeout=_CLOSING)
            last = [member.actor.look.remote().future() for member in up]
            for glance in [*self._glances.values(), *last]:  # what one tells no other does
                with suppress(Exception):
                    self._see(glance.result(timeout=1.0))
        for member in self._members:
            with suppress(Exception):
                ray.kill(member.actor)

    def _done(self, member: _Member, generation: int, task: _Task, note: Note) -> Done | None:
        """Return what came of a task; None if its process died."""
        exceptions = self._ray.exceptions
        number = next(self._numbers)
        with self._lock:
            self._notes[number] = note
        failed = None
        try:
            done: Done = member.actor.do.remote(number, task).future().result()
        except exceptions.RayActorError as error:
            self._lose(member, generation, error)
            return None
        except (exceptions.RayError, ConnectionError) as error:
            if isinstance(error, exceptions.RayTaskError):
                raise  # a fault of the program
            failed = ClusterError(
                f"The cluster is lost: {printable(str(error).partition(chr(10))[0])}. What was "
                "answered is kept; the same call continues where this one ended."
            )
        finally:
            with self._lock:
                self._notes.pop(number, None)
        if failed is not None:
            self._fail(failed)  # whoever waits for a process need not any more
            raise failed
        if generation == member.generation:
            self._free.put((member, generation))
        return done

    def _take(self) -> tuple[_Member, int]:
        """Return a process that is free; waits for one.

        Raises:
            SmoothAPIError: there will be none.
        """
        began = time.monotonic()
        while True:
            if self._why_stopped is not None:
                raise StoppedError(self._why_stopped)
            if isinstance(self._error, UsageError):  # of no single photo
                raise ClusterError(str(self._error))
            if self._error is not None:
                raise self._error
            try:
                member, generation = self._free.get(timeout=0.2)
            except queue.Empty:
                if any(member.is_up for member in self._members):
                    began = time.monotonic()
                elif time.monotonic() - began > _NONE_YET:
                    raise ClusterError(
                        "No process of the cluster is left, and none has begun for "
                        f"{_NONE_YET / 60:.0f} minutes. What was answered is kept; the same call "
                        "continues where this one ended."
                    ) from None
                continue
            if generation == member.generation:
                return member, generation

    def _lose(self, member: _Member, generation: int, error: Exception) -> None:
        """Begin a process anew that died, once for all whose task it had."""
        with self._lock:
            if generation != member.generation:
                return
            member.generation += 1
            member.is_up = False
        if self._closing or self._why_stopped is not None:
            return
        _log.warning(
            "A process of the cluster died (%s); what it had under way is begun again.",
            type(error).__name__,
        )
        with suppress(Exception):  # where it is only out of reach, it must not go on
            self._ray.kill(member.actor)
        self._begin(member)

    def _begin(self, member: _Member) -> None:
        threading.Thread(
            target=self._bring_up, args=(member,), name="smoothapi-cluster", daemon=True
        ).start()

    def _bring_up(self, member: _Member) -> None:
        """Start a process and have it open what it needs; its slots are free after that."""
        error: Exception | None = None
        for attempt in range(_MOST_BEGUN):
            try:
                member.actor = self._actor(member.place)
                found = member.actor.open.remote(self._duty, self.denoisers).future().result()
            except Exception as failure:  # noqa: BLE001  Ray's, or what an import raised there
                error = failure
                if self._closing:
                    return
                time.sleep(2.0**attempt)
                continue
            if isinstance(found, SmoothAPIError):
                self._fail(found)
            elif differs := disagreements(self._facts, found):
                self._fail(
                    UsageError(
                        f"A machine of the cluster differs from this one: {differs}. Nothing was "
                        "sent by it."
                    )
                )
            else:
                with self._changed:
                    member.is_up = True
                    self._changed.notify_all()
                for _ in range(self._slots):
                    self._free.put((member, member.generation))
            return
        said = str(error).strip().rpartition("\n")[2]
        self._fail(
            ClusterError(
                f"A process cannot be begun on the cluster: {printable(said)}. Its machines need "
                "smoothapi-vision[ray] in the same version as here."
            )
        )

    def _actor(self, place: Place) -> Any:
        kind = self._ray.remote(max_concurrency=self._slots + _MORE_CALLS)(Workplace)
        return kind.options(**where(place)).remote()

    def _fail(self, error: SmoothAPIError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _see(self, glance: Glance) -> None:
        with self._lock:  # which holds whoever ends a task back until it is noted
            for number, progress in glance.progress.items():
                if (note := self._notes.get(number)) is not None:
                    note(progress)
        for level, text in glance.said:
            self._hear(level, text)

    def _hear(self, level: int, text: str) -> None:
        """Log what a process warned of, once: they warn of the same."""
        with self._lock:
            if text in self._heard or len(self._heard) >= _MOST_HEARD:
                return
            self._heard.add(text)
        _log.log(level, "%s", text)


class _Member:
    """A process of a team: where it is, and whether it is there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.actor: Any = None
        self.generation = 0
        self.is_up = False


class TeamStop(Stop):
    """Stops a team with all that another stop is for."""

    def __init__(self, team: Team[Any]) -> None:
        super().__init__()
        self._team = team

    def stop(self, why: str = STOPPED) -> None:
        """Have nothing more sent by any machine."""
        super().stop(why)
        self._team.stop(why)


def where(place: Place) -> dict[str, Any]:
    """Return a place as Ray's options: that machine if it is there, else any with room."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    return {
        "num_cpus": place.cpus,
        "num_gpus": place.gpus,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=True),
    }


@contextmanager
def open_team(
    cluster: Cluster,
    duty: Duty,
    *,
    slots: int,
    size: int | tuple[int, int],
    denoises: bool = True,
) -> Iterator[Team[Any]]:
    """Connect to a cluster and begin a team there; it has ended when this does.

    Args:
        cluster: which.
        duty: what its processes are there for.
        slots: tasks that each of them has at once.
        size: of the working image.
        denoises: whether something will be denoised. If not, one machine tells of the denoisers,
            and the others need not begin any.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster cannot be used.
        SmoothAPIError: a machine cannot do its work, or disagrees with the others.
    """
    recipe = duty.recipe
    with ExitStack() as stack:
        ray = stack.enter_context(connected(cluster))
        networks = bool(recipe.denoises)
        asking, denoising = placed(machines(ray), cluster.workers, denoises=networks)
        denoisers: dict[str, DenoiserRuntime] = {
            name: load("none", device=recipe.device)
            for name, spec in recipe.denoisers.items()
            if spec == "none"
        }
        if networks:
            places = denoising if denoises else denoising[:1]
            actors = _denoising(ray, duty, places, stack)
            known = agreed([found for _, found in actors])
            handles = [actor for actor, _ in actors]
            denoisers |= {name: RemoteDenoiser(each, name, handles) for name, each in known.items()}
        ordered = {name: denoisers[name] for name in recipe.denoisers}
        team: Team[Any] = Team(ray, duty, asking, ordered, slots=slots, size=size)
        stack.callback(team.close)
        team.start()
        yield team


def _denoising(
    ray: Any, duty: Duty, places: Sequence[Place], stack: ExitStack
) -> list[tuple[Any, Any]]:
    """Begin the denoisers; return those that have begun within a minute, and what they have."""
    # Ray begins one that dies anew, on another machine if need be; calls are given to the others.
    kind = ray.remote(max_concurrency=LOTS_AT_ONCE, max_restarts=-1)(DenoisingPlace)
    actors = [kind.options(**where(place)).remote(duty.recipe) for place in places]

    def end() -> None:
        for actor in actors:
            with suppress(Exception):
                ray.kill(actor)

    stack.callback(end)
    calls = {actor.denoisers.remote(): actor for actor in actors}
    ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=_START)
    if not ready:
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=_NONE_YET)
    if not ready:
        raise ClusterError(
            f"None of the {len(places)} denoisers has begun for {_NONE_YET / 60:.0f} minutes: the "
            "cluster has no free cards or cores for them (`ray status` shows what it has). Nothing "
            "was sent."
        )
    if len(ready) < len(actors):
        _log.warning(
            "%d of %d denoisers have begun on the cluster; the work goes on with them.",
            len(ready),
            len(actors),
        )
    try:
        return [(calls[ref], ray.get(ref)) for ref in ready]
    except ray.exceptions.RayError as error:
        said = printable(str(error).strip().rpartition("\n")[2])
    raise ClusterError(
        f"A denoiser cannot be begun on the cluster: {said}. Its machines need "
        "smoothapi-vision[ray] in the same version as here."
    )
