"""Threads that can be left behind: a call that never comes back must not keep the program."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


class Threads:
    """A pool of threads, started when they are needed.

    A `ThreadPoolExecutor` is joined when the interpreter ends, whatever its threads are at. These
    are awaited then too, since what they do is paid for, but for those that were left behind.

    Args:
        most: of them at once.
        name: that theirs begin with.
    """

    def __init__(self, most: int, name: str) -> None:
        self._crew = _Crew(most, name)
        self._dropped = weakref.finalize(self, self._crew.end)
        self._dropped.atexit = False

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Have a thread call a function; RuntimeError once they are shut down."""
        return self._crew.submit(function, arguments)

    def leave(self, thread: threading.Thread) -> None:
        """Go on without a thread: its future is done (None), another takes its place."""
        self._crew.leave(thread)

    def shutdown(self, *, wait: bool = True) -> None:
        """End the threads when all is done that was submitted; do not await that if not `wait`."""
        self._crew.end()
        if wait:
            self._crew.join()
        self._crew.forget()


class _Crew:
    """What the threads of a pool share. It outlives a pool that nobody holds any more."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[
            tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None
        ] = queue.SimpleQueue()
        self._at_work: dict[threading.Thread, Future[Any] | None] = {}
        self._idle = 0
        self._started = 0
        self._ended = False
        atexit.register(self._at_exit)

    def submit(
        self, function: Callable[..., _Result], arguments: tuple[Any, ...]
    ) -> Future[_Result]:
        future: Future[_Result] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("these threads have ended")
            self._jobs.put((future, function, arguments))
            if self._idle:
                self._idle -= 1
            elif len(self._at_work) < self._most:
                self._start()
        return future

    def leave(self, thread: threading.Thread) -> None:
        with self._lock:
            future = self._at_work.pop(thread, None)
            if future is not None and not self._jobs.empty():
                self._start()
        if future is not None:
            future.set_result(None)

    def end(self) -> None:
        if os.getpid() != self._process:
            return  # the threads stayed with the parent, and perhaps the lock
        with self._lock:
            if not self._ended:
                self._ended = True
                for _ in self._at_work:
                    self._jobs.put(None)

    def join(self) -> None:
        with self._lock:
            threads = list(self._at_work)
        for thread in threads:
            while thread in self._at_work:  # until it ends, or is left behind
                thread.join(_LOOK)
                if not thread.is_alive():
                    break

    def forget(self) -> None:
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        if os.getpid() == self._process:
            self.end()
            self.join()

    def _start(self) -> None:
        name = f"{self._name}_{self._started}"
        self._started += 1
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._at_work[thread] = None
        try:
            thread.start()
        except BaseException:
            del self._at_work[thread]
            raise

    def _work(self) -> None:
        this = threading.current_thread()
        while (job := self._next()) is not None:
            future, function, arguments = job
            if not future.set_running_or_notify_cancel():
                continue
            with self._lock:
                self._at_work[this] = future
            try:
                result, error = function(*arguments), None
            except BaseException as caught:  # noqa: BLE001  whoever awaits the future gets it
                result, error = None, caught
            with self._lock:
                if this not in self._at_work:
                    return  # left behind; the future has been told
                self._at_work[this] = None
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
            del job, future, function, arguments, result, error  # hold nothing while idle
        with self._lock:
            self._at_work.pop(this, None)

    def _next(self) -> Any:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            with self._lock:
                # One that came meanwhile was not left to an idle thread.
                with suppress(queue.Empty):
                    return self._jobs.get_nowait()
                self._idle += 1
            return self._jobs.get()


_LOOK = 0.5  # seconds until it is looked again whether a thread was left behind
