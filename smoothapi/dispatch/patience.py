"""Ctrl-C while what is under way is awaited: once it is asked for patience, twice it ends."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("smoothapi")


class Patience:
    """Waits to the end though Ctrl-C is pressed, since what is under way is paid for; once.

    What the caller is already ending by counts: a Ctrl-C, or two.

    Args:
        under_way: returns how many queries are.
        leave: goes on without them, and returns how many there were.
    """

    def __init__(self, under_way: Callable[[], int], leave: Callable[[], int]) -> None:
        self._under_way = under_way
        self._leave = leave
        self._pressed = _times_pressed()

    @property
    def over(self) -> bool:
        """Whether nothing is to be awaited any more."""
        return self._pressed > 1

    def await_all(self, *steps: Callable[[], object]) -> None:
        """Take all steps, in order; then raise the KeyboardInterrupt that came meanwhile.

        One that fails does not keep the others from being taken. One that Ctrl-C interrupts is
        begun again, but not the second time.
        """
        if self.over:
            self._go_on_without()
        elif self._pressed:
            self._ask()
        failed: BaseException | None = None
        for step in steps:
            done = False
            while not done:
                try:
                    step()
                    done = True
                except KeyboardInterrupt as error:
                    failed = error
                    self._press()
                    done = self.over
                except BaseException as error:  # noqa: BLE001  raised below
                    failed = failed or error
                    done = True
        if failed is not None:
            raise failed

    def _press(self) -> None:
        self._pressed += 1
        if self.over:
            self._go_on_without()
        else:
            self._ask()

    def _ask(self) -> None:
        queries = self._under_way()
        if queries:
            _log.warning(
                "Waiting for %d queries under way: their answers are paid for. Ctrl-C again ends "
                "without them.",
                queries,
            )

    def _go_on_without(self) -> None:
        queries = self._leave()
        if queries:
            _log.warning(
                "Ended with %d queries under way. Their answers may be lost; they stay counted as "
                "spent, since the provider may bill them.",
                queries,
            )


def _times_pressed() -> int:
    """Return how many KeyboardInterrupts, one in the handling of another, are being handled."""
    error, pressed = sys.exception(), 0
    while error is not None:
        pressed += isinstance(error, KeyboardInterrupt)
        error = error.__context__
    return pressed
