"""Progress of photos on stderr: a bar on a terminal, else a line now and then.

rich is loaded where a bar is shown: it takes longer to load than a stored photo to certify. So the
bar of one photo comes only when that takes a while.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from smoothapi.cli.terminal import echo
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, ProgressColumn

    from smoothapi.denoise import DenoiserIdentity
    from smoothapi.many import ManyProgress
    from smoothapi.session import Progress as VoteProgress
    from smoothapi.session import Session

_UNSEEN = 0.3  # seconds in which one photo needs no bar
_LOOK = 0.1  # seconds between looks at what is waited for
_DRAWN = 70  # columns of a terminal from which on there is room to draw a bar
_WIDE = 110  # and a long one
_SAID_EVERY = 30.0  # seconds between lines of progress where there is no terminal


@contextmanager
def progress(name: str, session: Session) -> Iterator[Callable[[VoteProgress], None]]:
    """Show a bar while votes come in; yields what to call after each."""
    with _bar(_of_votes, name, session, total=None, sent=0, cost=0.0) as update:

        def advance(state: VoteProgress) -> None:
            update(
                completed=state.votes,
                total=state.votes + state.needed,
                sent=state.queries,
                cost=state.cost,
            )

        yield advance


@contextmanager
def progress_of_many(
    total: int | None, session: Session
) -> Iterator[Callable[[ManyProgress], None]]:
    """Show one bar over all photos; yields what to call now and then.

    Without a terminal there is a line every half minute.
    """
    said = time.monotonic()
    with _bar(_of_photos, "photos", session, at_once=True, total=total, said="") as update:

        def advance(state: ManyProgress) -> None:
            nonlocal said
            number = f"{state.done:,}" + ("" if total is None else f" of {total:,}")
            line = (
                f"{number}: {state.certified:,} certified, {state.abstained:,} abstained, "
                + (f"{state.failed:,} failed, " if state.failed else "")
                + f"${state.cost:.2f}"
            )
            shown = update(completed=state.done, said=line)
            if not shown and time.monotonic() - said > _SAID_EVERY:
                said = time.monotonic()
                echo(f"photos {line}", err=True)

        yield advance


def _of_votes(width: int) -> tuple[ProgressColumn, ...]:
    """Return the columns of one photo's bar; where there is little room, its name is cut."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    drawn = 40 if width >= _WIDE else 10
    return (
        TextColumn("{task.description}", table_column=Column(overflow="ellipsis")),
        *([BarColumn(drawn, table_column=Column(no_wrap=True))] if width >= _DRAWN else ()),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("votes, {task.fields[sent]} sent, ${task.fields[cost]:.4f}"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
    )


def _of_photos(width: int) -> tuple[ProgressColumn, ...]:
    """Return the columns of many photos' bar; where there is little room, counts take two lines."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    return (
        TextColumn("{task.description}", table_column=Column(overflow="ellipsis")),
        *([BarColumn(10, table_column=Column(no_wrap=True))] if width >= _DRAWN else ()),
        TextColumn("{task.fields[said]}", table_column=Column(overflow="fold")),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
    )


@contextmanager
def _bar(
    columns: Callable[[int], tuple[ProgressColumn, ...]],
    name: str,
    session: Session,
    *,
    at_once: bool = False,
    **fields: Any,
) -> Iterator[Callable[..., bool]]:
    """Show a bar of what takes a while: it says what is waited for, the denoiser or `name`.

    Args:
        columns: returns the bar's, for a terminal of so many columns.
        name: what is worked on.
        session: whose denoiser may have to be loaded.
        at_once: whether it is known to take a while.
        fields: what the columns show at first.

    Yields:
        What changes the fields; says whether there may be a bar.
    """
    if not sys.stderr.isatty():
        yield lambda **_: False
        return
    bar = _Bar(columns, name, session.variants.denoiser, fields)
    watch = threading.Thread(target=bar.watch, name="smoothapi-bar", daemon=True)
    try:
        if at_once:
            bar.show()
        watch.start()
        yield bar.update
    finally:
        bar.ended.set()
        try:
            if watch.ident is not None:
                watch.join()
        finally:  # whoever presses Ctrl-C again wants the cursor back, too
            bar.hide()


class _Bar:
    """A bar that may not be shown yet."""

    def __init__(
        self,
        columns: Callable[[int], tuple[ProgressColumn, ...]],
        name: str,
        denoiser: DenoiserIdentity,
        fields: dict[str, Any],
    ) -> None:
        self.ended = threading.Event()
        self._columns, self._name, self._denoiser = columns, name, denoiser
        self._fields = fields
        self._lock = threading.Lock()
        self._shown: Progress | None = None

    def watch(self) -> None:
        """Show the bar when it is time, and say in it what is waited for."""
        if self._shown is None and not self.ended.wait(_UNSEEN):
            self.show()
        while not self.ended.wait(_LOOK):
            self.update(description=self._waited_for())

    def show(self) -> None:
        """Load rich, and show the bar, unless what it is of has ended meanwhile."""
        from rich.progress import Progress  # noqa: PLC0415

        from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

        console = PrintableConsole(stderr=True)
        bar = Progress(
            *self._columns(console.width),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # rich's own variables may say so
            # What is printed meanwhile would go to stderr, also where stdout is a file or a pipe.
            redirect_stdout=sys.stdout.isatty(),
        )
        with self._lock:
            if self.ended.is_set():
                return
            bar.add_task(**{"description": self._waited_for(), **self._fields})
            bar.start()
            self._shown = bar

    def update(self, **changed: Any) -> bool:
        """Change what it says; whether there is a bar, or may still be one."""
        with self._lock:
            if self._shown is None:
                self._fields |= changed
                return True
            self._shown.update(self._shown.task_ids[0], **changed)
            return not self._shown.disable

    def hide(self) -> None:
        """Take the bar away."""
        with self._lock:
            if self._shown is not None:
                self._shown.stop()

    def _waited_for(self) -> str:
        if getattr(self._denoiser, "loading", False):
            return "loading the denoiser"
        from rich.text import Text  # noqa: PLC0415

        return Text(printable(self._name)).markup  # a description is read as markup
