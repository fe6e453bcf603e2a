"""What a person sees: tables on stdout. Labels come from outside."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from smoothapi.advice import advise
from smoothapi.certify.certificate import (
    claim_text,
    confidence,
    less_text,
    never_seen_text,
    rounded_down,
)
from smoothapi.cli.terminal import echo, echo_facts, echo_styled
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from smoothapi.certify.certificate import Certificate
    from smoothapi.plan import Plan
    from smoothapi.provider import Price
    from smoothapi.settings import Settings

_MOST_LABELS = 4
_SHORTEST_SHOWN = 0.05  # seconds
_COLOUR = {True: {"fg": "green"}, False: {"fg": "yellow"}}  # of certified and not


def show_line(photo: str, certificate: Certificate) -> None:
    """Print what one of many photos came to as one line."""
    certified = certificate.label is not None
    said = ""
    if certified and certificate.kind == "certify":
        said = f"  {rounded_down(certificate.radius)}"
    elif certificate.lesser:
        said = f"  {less_text(certificate)}"
    echo_styled(
        ("● ", _COLOUR[certified]),
        (f"{photo}  ", {}),
        (certificate.label or "abstained", {"bold": True} if certified else {}),
        (said, {}),
    )


def show_certificate(certificate: Certificate, price: Price, waited: float = 0.0) -> None:
    """Print one certificate as a short table; `waited` is in seconds of the clock."""
    certified = certificate.label is not None
    colour = _COLOUR[certified]
    kind = {"certify": "certified", "predict": "predicted"}[certificate.kind]
    if certificate.abstained and certificate.lesser:
        echo_styled(("● ", colour), (less_text(certificate), colour))
    else:
        said = certificate.label or "no label"
        kind = kind if certified else "abstained"
        echo_styled(("● ", colour), (said, {"bold": True}), (f"  {kind}", colour))
    echo_facts(_facts(certificate, price, waited))
    echo()


def _facts(certificate: Certificate, price: Price, waited: float) -> Iterator[tuple[str, str]]:
    image = certificate.image
    if certificate.abstained:
        yield "  why", certificate.explanation
    yield from _advice(certificate, price)
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


def _advice(certificate: Certificate, price: Price) -> Iterator[tuple[str, str]]:
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
    yield "", f"{rounded_down(certificate.native(radius))} around the photo before the resize"
    steps = certificate.rms_steps(radius)
    yield "", f"{steps:g}/255 of it as root mean square over the photo's channel values"


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
    # Of labels that were asked for by name, none may have been as it had to be.
    return f"{certificate.total_votes}: " + (", ".join(parts) or "none of what was asked about")


def _in_all(plans: list[Plan]) -> tuple[str, ...]:
    """Return the last row of some plans: pictures that are the same are paid for once."""
    once = list({plan.image or number: plan for number, plan in enumerate(plans)}.values())
    costs = (sum(costs) for costs in zip(*(plan.costs for plan in once), strict=True))
    return (
        "in all" if len(once) == len(plans) else f"in all, {len(once):,} pictures",
        f"{sum(plan.stored for plan in once):,}",
        f"{sum(plan.at_least for plan in once):,}",
        f"{sum(plan.at_most for plan in once):,}",
        "${:.4f} to ${:.4f}".format(*costs),
    )


def around_text(
    working: Iterable[float | None], native: Iterable[float | None], steps: Iterable[float | None]
) -> str:
    """Return what the planned radii of some photos come to, in all units; None is the largest.

    As their certificates will show them.
    """
    return (
        f"Radius {_span(working, rounded_down)} around the working image (L2, of [0, 1]) is "
        f"{_span(native, rounded_down)} around the photo before the resize, "
        f"{_span(steps, '{:g}'.format)}/255 of it as root mean square."
    )


def _span(values: Iterable[float | None], text: Callable[[float], str]) -> str:
    found = [value for value in values if value is not None]
    low, high = text(min(found)), text(max(found))
    return low if low == high else f"{low} to {high}"


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan, with its costs, for JSON."""
    data = asdict(plan)
    data["schema"] = "smoothapi.plan/1"
    data["expected"] = [{"p": p, "queries": round(mean, 1)} for p, mean in plan.expected]
    data["cost_at_least"], data["cost_at_most"] = plan.costs
    return data


def show_plans(plans: list[Plan], settings: Settings) -> None:
    """Print what runs would send and cost."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table(title="Nothing was sent. Queries that certify would send:", title_justify="left")
    table.add_column("Photo", overflow="fold")
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
    if len(plans) > 1:
        table.add_section()
        table.add_row(*_in_all(plans))
    console = PrintableConsole()
    console.print(table)
    radii = {plan.radius for plan in plans if plan.radius is not None}
    if radii:
        console.print(
            Text(
                around_text(
                    (plan.radius for plan in plans),
                    (plan.radius_native for plan in plans),
                    (plan.rms_steps for plan in plans),
                )
            )
        )
    if plans and plans[0].expected:
        parts = ", ".join(f"{mean:.0f} if p = {p:g}" for p, mean in plans[0].expected)
        of = f" of {printable(plans[0].photo)}" if len(radii) > 1 else ""
        console.print(
            Text(
                f"Votes{of} on average, where the label's true share of votes is p: {parts} "
                f"(radius {settings.radius}, sigma {settings.sigma:g}, alpha {settings.alpha:g})."
            )
        )
