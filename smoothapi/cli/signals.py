"""SIGTERM and SIGHUP end a command as Ctrl-C does.

A supervisor (`docker stop`, Kubernetes) sends the one, a terminal that is closed the other.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDING = ("SIGTERM", "SIGHUP")


ANSWERS_KEPT = "All answers that came are kept: the same command continues where this one ended."


class Stopped(KeyboardInterrupt):
    """What a command says when it is stopped: what is kept of its work, and how to go on."""


@contextmanager
def says_when_stopped(what: str) -> Iterator[None]:
    """Have a command say more than that it was stopped."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(what) from None


@dataclass
class EndingSignal:
    """Which signal ended the command, if one did."""

    by: int = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """What a shell says of a program that the signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.by


@contextmanager
def as_ctrl_c() -> Iterator[EndingSignal]:
    """Raise a KeyboardInterrupt where a signal asks the process to end, and say which one it was.

    A signal that is ignored, as by `nohup`, stays so. Children of a fork end at once.
    """
    ended, process = EndingSignal(), os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        ended.by = number
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _ENDING if hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
