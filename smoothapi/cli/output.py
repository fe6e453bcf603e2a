"""What a person sees: tables on stdout, progress on stderr. Labels come from outside."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from smoothapi.advice import advise
from smoothapi.certify.certificate import (
    claim_text,
    confidence,
    less_text,
    never_seen_text,
    rounded_down,
)
from smoothapi.certify.radii import rms_radius
from smoothapi.cli.console import PrintableConsole
from smoothapi.cli.terminal import echo
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.progress import ProgressColumn, TaskID

    from smoothapi import smoother
    from smoothapi.certify.certificate import Certificate
    from smoothapi.many import ManyProgress
    from smoothapi.provider import Price
    from smoothapi.session import Session
    from smoothapi.settings import Settings

_MOST_LABELS = 4
_SHORTEST_SHOWN = 0.05  # seconds
_LOOK = 0.1  # seconds between looks at what is waited for
_SAID_EVERY = 30.0  # seconds between lines of progress where there is no terminal


@contextmanager
def progress(name: str, session: Session) -> Iterator[Callable[[smoother.Progress], None]]:
    """Show a bar on stderr while votes come in; yields what to call after each."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("votes, {task.fields[sent]} sent, ${task.fields[cost]:.4f}"),
        TimeElapsedColumn(),
    )
    with _bar(*columns) as bar:
        task = bar.add_task("", total=None, sent=0, cost=0.0)
        with _saying_what(bar, task, name, session):

            def advance(state: smoother.Progress) -> None:
                bar.update(
                    task,
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
    """Show one bar over all photos on stderr; yields what to call now and then.

    Without a terminal there is a line every half minute.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(compact=True),
    )
    with _bar(*columns) as bar:
        task = bar.add_task("", total=total, said="")
        said = [time.monotonic()]
        with _saying_what(bar, task, "photos", session):

            def advance(state: ManyProgress) -> None:
                number = f"{state.done:,}" + ("" if total is None else f" of {total:,}")
                line = (
                    f"{number}: {state.certified:,} certified, {state.abstained:,} abstained, "
                    + (f"{state.failed:,} failed, " if state.failed else "")
                    + f"${state.cost:.2f}"
                )
                bar.update(task, completed=state.done, said=line)
                if bar.disable and time.monotonic() - said[0] > _SAID_EVERY:
                    said[0] = time.monotonic()
                    echo(f"photos {line}", err=True)

            yield advance


def _bar(*columns: ProgressColumn) -> Progress:
    console = PrintableConsole(stderr=True)
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # What is printed meanwhile would go to stderr, also where stdout is a file or a pipe.
        redirect_stdout=sys.stdout.isatty(),
    )


@contextmanager
def _saying_what(bar: Progress, task: TaskID, name: str, session: Session) -> Iterator[None]:
    """Have a bar's description say what is waited for: the denoiser, or what `name` says."""
    plain = Text(printable(name)).markup  # a description is read as markup
    denoiser, ended = session.variants.denoiser, threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            loading = getattr(denoiser, "loading", False)
            bar.update(task, description="loading the denoiser" if loading else plain)

    bar.update(task, description=plain)
    if bar.disable:
        yield
        return
    watch = threading.Thread(target=look, name="smoothapi-bar", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def show_line(photo: str, certificate: Certificate) -> None:
    """Print what one of many photos came to as one line."""
    certified = certificate.label is not None
    line = Text("● ", style="green" if certified else "yellow")
    line.append(f"{printable(photo)}  ")
    line.append(printable(certificate.label or "abstained"), style="bold" if certified else "")
    if certified and certificate.kind == "certify":
        line.append(f"  {rounded_down(certificate.radius)}")
    elif certificate.lesser:
        line.append(f"  {less_text(certificate)}")
    PrintableConsole().print(line, soft_wrap=True)


def show_summary(
    counts: Mapping[str, int], kept: int, spent: ManyProgress | None, *, err: bool
) -> None:
    """Print what many photos came to: counts by outcome, and what this run spent."""
    total = sum(counts.values())
    parts = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    echo(f"{total:,} photos: {parts}." + (f" {kept:,} were in the file." if kept else ""), err=err)
    if spent is not None:
        echo(
            f"Sent now: {spent.queries:,} queries (${spent.cost:.4f}); {spent.cached:,} answers "
            f"from the store; {spent.seconds:.1f} s.",
            err=err,
        )


def show_certificate(certificate: Certificate, price: Price, waited: float = 0.0) -> None:
    """Print one certificate as a short table; `waited` is in seconds of the clock."""
    certified = certificate.label is not None
    kind = {"certify": "certified", "predict": "predicted"}[certificate.kind]
    head = Text()
    head.append("● ", style="green" if certified else "yellow")
    color = "green" if certified else "yellow"
    if certificate.abstained and certificate.lesser:
        head.append(less_text(certificate), style=color)
    else:
        head.append(printable(certificate.label or "no label"), style="bold")
        head.append(f"  {kind}" if certified else "  abstained", style=color)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in _facts(certificate, price, waited):
        table.add_row(Text(name), Text(value))
    console = PrintableConsole()
    console.print(head)
    console.print(table)
    console.print()


def _facts(certificate: Certificate, price: Price, waited: float) -> Iterator[tuple[str, str]]:
    image = certificate.image
    if certificate.abstained:
        yield from _abstention(certificate, price)
    yield "  photo", _photo(certificate)
    for note in image.notes:
        yield "", note
    yield "  plain label", _plain(certificate)
    if certificate.kind == "certify":
        yield from _radii(certificate)
    yield "  confidence", f"{confidence(certificate.alpha)} at sigma {certificate.sigma:g}"
    yield from _claims(certificate)
    yield "  votes", _votes(certificate)
    sent = f"{certificate.queries} sent, {certificate.cached} answered from the store"
    if certificate.attempts > certificate.queries:
        sent += f", {certificate.attempts - certificate.queries} retries"
    if waited >= _SHORTEST_SHOWN:
        sent += f", {waited:.1f} s waited"
    if certificate.failed:
        sent += f", {certificate.failed} failed"
    yield "  queries", sent
    if certificate.refreshes:
        yield "  asked anew", _refreshed(certificate)
    if certificate.replayed_from:
        yield "  replayed", f"from {printable(certificate.replayed_from)}: no provider was asked"
    yield (
        "  cost",
        f"${certificate.cost:.4f} ({certificate.provider}, ${price.per_thousand} per 1,000"
        + (f" as of {price.as_of}" if price.as_of else "")
        + ")",
    )
    yield "  time", f"{certificate.seconds:.1f} s"


def _abstention(certificate: Certificate, price: Price) -> Iterator[tuple[str, str]]:
    yield "  why", certificate.explanation
    advice = advise(certificate, price)
    for number, line in enumerate(advice.lines() if advice is not None else ()):
        yield "" if number else "  what now", line


def _claims(certificate: Certificate) -> Iterator[tuple[str, str]]:
    for claim in certificate.claims:
        k, n = claim.votes
        yield "  claim", f"{claim_text(claim)}, in {k} of {n} answers"
    if certificate.lesser and not certificate.abstained:
        yield "  at less", less_text(certificate)
    if certificate.final:
        yield "  final", f"alpha is for at most {certificate.max_votes:,} votes, and this radius"
    if certificate.never_seen:
        yield "  note", f"{never_seen_text(certificate)}: that it is absent says little"


def _radii(certificate: Certificate) -> Iterator[tuple[str, str]]:
    # Of several labels all are certified at the least of their radii.
    radius = certificate.radius or min((claim.radius for claim in certificate.lesser), default=0.0)
    if not radius:
        yield "  radius", "none certified"
        return
    yield "  radius", f"{rounded_down(radius)} around the working image (L2, of [0, 1])"
    native = certificate.native(radius)
    yield "", f"{rounded_down(native)} around the photo before the resize"
    mean = 255.0 * rms_radius(native, certificate.image.native_size)
    yield "", f"{mean:.2g}/255 of it as root mean square over the photo's channel values"


def _refreshed(certificate: Certificate) -> str:
    times = "once" if certificate.refreshes == 1 else f"{certificate.refreshes} times"
    before = f", where it was {certificate.replaced} before" if certificate.replaced else ""
    most = certificate.alpha * (certificate.refreshes + 1)
    return f"{times}{before}: that one of these sets is wrong has a chance up to {most:g}"


def _photo(certificate: Certificate) -> str:
    image = certificate.image
    native = f"{image.native_size[0]} x {image.native_size[1]}"
    working = f"{image.size[0]} x {image.size[1]}"
    sizes = native if image.size == image.native_size else f"{native}, working image {working}"
    return f"{printable(image.name)} ({sizes})"


def _plain(certificate: Certificate) -> str:
    if not certificate.plain_asked:
        return "not asked"
    note = {True: " (the same)", False: " (DIFFERENT: look before you trust either)", None: ""}
    return printable(certificate.plain_label or "none") + note[certificate.plain_agrees]


def _votes(certificate: Certificate) -> str:
    tally = list(certificate.tally.items())
    parts = [
        f"{count} {printable(label) if label is not None else 'no answer'}"
        for label, count in tally[:_MOST_LABELS]
    ]
    if len(tally) > _MOST_LABELS:
        parts.append(f"{sum(count for _, count in tally[_MOST_LABELS:])} others")
    return f"{certificate.total_votes}: " + ", ".join(parts)


def plan_dict(plan: smoother.Plan) -> dict[str, Any]:
    """Return a plan, with its costs, for JSON."""
    data = asdict(plan)
    data["schema"] = "smoothapi.plan/1"
    data["expected"] = [{"p": p, "queries": round(mean, 1)} for p, mean in plan.expected]
    data["cost_at_least"], data["cost_at_most"] = plan.costs
    return data


def show_plans(plans: list[smoother.Plan], settings: Settings) -> None:
    """Print what runs would send and cost."""
    table = Table(title="Nothing was sent. Queries that certify would send:", title_justify="left")
    table.add_column("Photo")
    for name in ("stored", "at least", "at most", "dollars"):
        table.add_column(name, justify="right")
    for plan in plans:
        table.add_row(
            Text(printable(plan.photo)),
            f"{plan.stored:,}",
            f"{plan.at_least:,}",
            f"{plan.at_most:,}",
            "${:.4f} to ${:.4f}".format(*plan.costs),
        )
    console = PrintableConsole()
    console.print(table)
    if plans and plans[0].expected:
        parts = ", ".join(f"{mean:.0f} if p = {p:g}" for p, mean in plans[0].expected)
        console.print(
            Text(
                f"Votes on average, where the label's true share of votes is p: {parts} "
                f"(radius {settings.radius}, sigma {settings.sigma:g}, alpha {settings.alpha:g})."
            )
        )
