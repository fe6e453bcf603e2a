"""Answers on their way to the disk: many in one transaction, written beside the senders.

A sender that waited for its own transaction would keep its place from the next request. So it
hands the answer over and goes on; what has gathered while one transaction is made goes into the
next. Nothing is handed on to a run before it is on disk.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from smoothapi.dispatch.semaphore import FastSemaphore
from smoothapi.dispatch.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.store.protocols import Answers
    from smoothapi.store.rows import StoredAnswer


class AnswerWriter:
    """Writes what senders hand over, in order, in a thread of its own.

    Args:
        answers: where they are kept.
        most: answers that may wait for the disk; who hands over another waits too.
    """

    def __init__(self, answers: Answers, most: int) -> None:
        self._answers = answers
        self._room = FastSemaphore(most)
        self._lock = threading.Lock()
        self._waiting: list[tuple[StoredAnswer | None, Callable[[BaseException | None], None]]] = []
        self._writing = False
        self._thread = Threads(1, "smoothapi-write")

    def write(self, answer: StoredAnswer, then: Callable[[BaseException | None], None]) -> None:
        """Write an answer soon.

        Args:
            answer: what was answered.
            then: called in the writer's thread when it is on disk, or with what prevented it.
        """
        self._room.acquire()
        with self._lock:
            self._waiting.append((answer, then))
            if self._writing:
                return
            self._writing = True
        try:
            self._thread.submit(self._work_off)
        except RuntimeError:  # it was closed; an answer that comes late is kept all the same
            self._work_off()

    def flush(self) -> None:
        """Wait until all that was handed over before is on disk, or known not to be.

        Not for what others hand over meanwhile, of which there may be no end.
        """
        written = threading.Event()
        with self._lock:
            if not self._writing:
                return
            self._waiting.append((None, lambda _: written.set()))
        written.wait()

    def close(self, *, wait: bool = True) -> None:
        """Write what was handed over, and end the thread; do not await that if not `wait`."""
        self._thread.shutdown(wait=wait)

    def _work_off(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._writing = False
                    return
            answers = [kept for kept, _ in batch if kept is not None]
            error: BaseException | None = None
            try:
                if answers:
                    self._answers.put(*answers)
            except BaseException as caught:  # noqa: BLE001  nobody's answer is stored
                error = caught
            self._room.release(len(answers))
            for _, then in batch:
                then(error)
