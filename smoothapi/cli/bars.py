"""Progress of photos on stderr: a bar on a terminal, else a line now and then.

rich is loaded where a bar is shown: it takes longer to load than a stored photo to certify.
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

    from rich.progress import ProgressColumn

    from smoothapi.many import ManyProgress
    from smoothapi.session import Progress as VoteProgress
    from smoothapi.session import Session

_LOOK = 0.1  # seconds between looks at what is waited for
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
    with _bar(_of_photos, "photos", session, total=total, said="") as update:

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


def _of_votes() -> tuple[ProgressColumn, ...]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("votes, {task.fields[sent]} sent, ${task.fields[cost]:.4f}"),
        TimeElapsedColumn(),
    )


def _of_photos() -> tuple[ProgressColumn, ...]:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(compact=True),
    )


@contextmanager
def _bar(
    columns: Callable[[], tuple[ProgressColumn, ...]],
    name: str,
    session: Session,
    **fields: Any,
) -> Iterator[Callable[..., bool]]:
    """Show a bar that says what is waited for: the denoiser, or what `name` says.

    Args:
        columns: returns the bar's.
        name: what is worked on.
        session: whose denoiser may have to be loaded.
        fields: what the columns show at first.

    Yields:
        What changes the fields; says whether there is a bar.
    """
    if not sys.stderr.isatty():
        yield lambda **_: False
        return
    from rich.progress import Progress  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    plain = Text(printable(name)).markup  # a description is read as markup
    denoiser, ended = session.variants.denoiser, threading.Event()
    console = PrintableConsole(stderr=True)
    bar = Progress(
        *columns(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # rich's own variables may say so
        # What is printed meanwhile would go to stderr, also where stdout is a file or a pipe.
        redirect_stdout=sys.stdout.isatty(),
    )

    def look() -> None:
        while not ended.wait(_LOOK):
            loading = getattr(denoiser, "loading", False)
            bar.update(task, description="loading the denoiser" if loading else plain)

    def update(**changed: Any) -> bool:
        bar.update(task, **changed)
        return not bar.disable

    watch = threading.Thread(target=look, name="smoothapi-bar", daemon=True)
    with bar:
        task = bar.add_task(plain, **fields)
        watch.start()
        try:
            yield update
        finally:
            ended.set()
            watch.join()
