"""Answers on their way to the disk: many in one transaction, written beside the senders.

A sender that waited for its own transaction would keep its place from the next request. So it
hands the answer over and goes on; what has gathered while one transaction is made goes into the
next. Nothing is handed on to a run before it is on disk.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from smoothapi.dispatch.semaphore import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.store.protocols import Answers
    from smoothapi.store.rows import Kept


class Keeper:
    """Writes what senders hand over, in order, in a thread of its own.

    Args:
        store: where answers are kept.
        most: answers that may wait for the disk; who hands over another waits too.
    """

    def __init__(self, store: Answers, most: int) -> None:
        self._store = store
        self._room = Slots(most)
        self._lock = threading.Lock()
        self._waiting: list[tuple[Kept | None, Callable[[BaseException | None], None]]] = []
        self._writing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="smoothapi-keep")

    def keep(self, kept: Kept, then: Callable[[BaseException | None], None]) -> None:
        """Write an answer soon.

        Args:
            kept: the answer.
            then: called in the keeper's thread when it is on disk, or with what prevented it.
        """
        self._room.take()
        with self._lock:
            self._waiting.append((kept, then))
            if self._writing:
                return
            self._writing = True
        try:
            self._thread.submit(self._write)
        except RuntimeError:  # the interpreter is ending; a last answer is kept all the same
            self._write()

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

    def close(self) -> None:
        """Write what was handed over, and end the thread."""
        self._thread.shutdown()

    def _write(self) -> None:
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
                    self._store.put(*answers)
            except BaseException as caught:  # noqa: BLE001  nobody's answer is stored
                error = caught
            self._room.give(len(answers))
            for _, then in batch:
                then(error)
