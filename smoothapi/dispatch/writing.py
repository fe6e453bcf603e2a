"""Answers on their way to the disk: those of one request in one transaction, before all else.

What gathers while one transaction is made goes into the next, so that many requests share the
wait for the disk. A sender goes on to nothing else before its answers are there: what a crash can
lose is the one request that each sender has under way.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from smoothapi.dispatch.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.store.protocols import Answers
    from smoothapi.store.rows import StoredAnswer


class AnswerWriter:
    """Writes what senders hand over, in order, in a thread of its own.

    Args:
        answers: where they are kept.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._waiting: list[tuple[Sequence[StoredAnswer], Future[None]]] = []
        self._writing = False
        self._thread = Threads(1, "smoothapi-write")

    def write(self, answers: Sequence[StoredAnswer]) -> Future[None]:
        """Have the answers of one request written, all or none.

        Returns:
            Done when they are on disk; its error is what prevented that.
        """
        written: Future[None] = Future()
        with self._lock:
            self._waiting.append((answers, written))
            if self._writing:
                return written
            self._writing = True
        try:
            self._thread.submit(self._work_off)
        except RuntimeError:  # it was closed; an answer that comes late is kept all the same
            self._work_off()
        return written

    def close(self) -> None:
        """Write what was handed over, and end the thread."""
        self._thread.shutdown()

    def _work_off(self) -> None:
        while True:
            with self._lock:
                requests, self._waiting = self._waiting, []
                if not requests:
                    self._writing = False
                    return
            error: BaseException | None = None
            try:
                self._answers.put(*(answer for answers, _ in requests for answer in answers))
            except BaseException as caught:  # noqa: BLE001  nobody's answer is stored
                error = caught
            for _, written in requests:
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
