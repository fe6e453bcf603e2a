"""What a person sees: tables on stdout, progress on stderr. Labels come from outside."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from smoothapi.certify.certificate import (
    claim_text,
    confidence,
    less_text,
    never_seen_text,
    rounded_down,
)
from smoothapi.certify.radii import rms_radius
from smoothapi.cli.console import PrintableConsole
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi import smoother
    from smoothapi.certify.certificate import Certificate
    from smoothapi.config import Settings
    from smoothapi.provider import Price

_MOST_LABELS = 4
_SHORTEST_SHOWN = 0.05  # seconds


@contextmanager
def progress(name: str) -> Iterator[Callable[[smoother.Progress], None]]:
    """Show a bar on stderr while votes come in; yields what to call after each."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("votes, {task.fields[sent]} sent, ${task.fields[cost]:.4f}"),
        TimeElapsedColumn(),
    )
    console = PrintableConsole(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        # Progress reads its description as markup.
        task = bar.add_task(Text(printable(name)).markup, total=None, sent=0, cost=0.0)

        def advance(state: smoother.Progress) -> None:
            bar.update(
                task,
                completed=state.votes,
                total=state.votes + state.needed,
                sent=state.queries,
                cost=state.cost,
            )

        yield advance


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
        yield "  why", certificate.explanation
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
    data["cost_at_least"] = plan.at_least * plan.dollars / 1000
    data["cost_at_most"] = plan.at_most * plan.dollars / 1000
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
            f"${plan.at_least * plan.dollars / 1000:.4f} to "
            f"${plan.at_most * plan.dollars / 1000:.4f}",
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
