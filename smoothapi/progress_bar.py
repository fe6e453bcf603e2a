"""A progress bar for Python: in a notebook as HTML, on a terminal on stderr, else nothing."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from smoothapi import notebook

if TYPE_CHECKING:
    from types import TracebackType

_EVERY = 0.1  # seconds between two drawings


class ProgressBar:
    """What `on_progress` of a Smoother, a Study or a Tuning can be given, in a `with` statement.

    ::

        with ProgressBar() as bar:
            result = study.run(bar)

    In a notebook it is drawn anew in place, and needs no widgets; on a terminal it is a line on
    stderr that goes when it ends. Where there is neither it shows nothing.
    """

    def __init__(self) -> None:
        self._ipython: Any = None
        self._display: Any = None
        self._bar: Any = None
        self._task: Any = None
        self._drawn = 0.0
        self._last: tuple[int, int | None, str] | None = None

    def __call__(self, state: Any) -> None:
        """Show how far a run is."""
        self._last = _told(state)
        now = time.monotonic()
        if now - self._drawn >= _EVERY:
            self._drawn = now
            self._draw(*self._last)

    def __enter__(self) -> Self:
        if _in_notebook():
            self._ipython = import_module("IPython.display")  # it is there
            drawn = self._ipython.HTML(_html(0, None, "starting"))
            self._display = self._ipython.display(drawn, display_id=True)
        elif sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415  loaded where it is shown
            from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

            columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        if self._last is not None:
            self._draw(*self._last)
        if self._bar is not None:
            self._bar.stop()

    def _draw(self, done: int, total: int | None, said: str) -> None:
        if self._display is not None:
            self._display.update(self._ipython.HTML(_html(done, total, said)))
        elif self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=said)


def _told(state: Any) -> tuple[int, int | None, str]:
    """Return what is done, of how many if that is known, and both in words."""
    if hasattr(state, "needed"):  # one photo's votes
        total = state.votes + state.needed
        return state.votes, total, f"{state.votes:,} of {total:,} votes, ${state.cost:.4f}"
    total = getattr(state, "total", None)
    of = f"{state.done:,}" + ("" if total is None else f" of {total:,}")
    if hasattr(state, "certified"):
        of += f": {state.certified:,} certified, {state.abstained:,} abstained"
    elif hasattr(state, "phase"):
        of = f"{state.phase} {of}"
    cost = getattr(state, "cost", None)
    return state.done, total, of if cost is None else f"{of}, ${cost:.2f}"


def _html(done: int, total: int | None, said: str) -> str:
    ends = f"value='{done}' max='{max(total, 1)}'" if total is not None else ""
    return f"<progress {ends} style='width:16em'></progress> {notebook.escaped(said)}"


def _in_notebook() -> bool:
    """Whether IPython runs this as a notebook's kernel; it is not imported to find out."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"
