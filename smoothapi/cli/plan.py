"""`smoothapi plan`: queries and dollars, without any call and without any photo."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.learning import learn
from smoothapi.cli.options import options
from smoothapi.cli.study import numbers
from smoothapi.cli.terminal import echo
from smoothapi.errors import MissingExtraError, UnreachableRadiusError, UsageError
from smoothapi.radius import working_only
from smoothapi.text import printable

if TYPE_CHECKING:
    from smoothapi.config import Resolved
    from smoothapi.provider import Price
    from smoothapi.study import Expected, Shares

_WHY_NOT = (
    "A plan is for one radius, and what native and rms radii come to depends on each photo's size: "
    "`smoothapi certify PHOTO --radius '0.5 native' --dry-run` plans for one photo."
)
_WIDTH = 30  # of a bar
_PARTS = " ▏▎▍▌▋▊▉█"


@click.command()
@options("radius", radius="L2 radius to certify, around the working image.")
@click.option(
    "--sigma", "sigmas", callback=numbers(float), metavar="LIST", help="Noise levels: 0.12,0.25,0.5"
)
@click.option("--photos", type=click.IntRange(min=1), default=1000, show_default=True)
@options(
    "provider",
    "max-votes",
    "final",
    "alpha",
    "size",
    "classes",
    "home",
    provider="Whose price list.",
)
@click.option(
    "--distribution",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How sure the labeller is: the result.json of a study. Default: measured, of our own.",
)
@click.option("--p", "share", type=float, help="Assume this share of votes for every photo.")
@click.option(
    "--learn",
    "learning",
    is_flag=True,
    help="Learn how sure the labeller is from past photos, and give up hopeless ones by that.",
)
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --learn: from a recording or a study's result.json, too.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def plan(
    *,
    radius: float | str | None,
    sigmas: tuple[float, ...] | None,
    photos: int,
    provider: str | None,
    max_votes: int | None,
    final: bool | None,
    alpha: float | None,
    size: int | None,
    classes: Path | None,
    home: str | None,
    distribution: Path | None,
    share: float | None,
    learning: bool,
    files: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Work out queries and dollars for many photos; nothing is sent.

    What is not given is taken from the settings. The expectation is exact for each photo's share
    of votes p; how p is distributed is assumed, and said.

    With --learn it is learnt instead, from what the home has stored, for each provider, denoiser
    and sigma. Later runs with these give up photos by it where another certificate would cost too
    many votes. No certificate rests on it.
    """
    from smoothapi import config  # noqa: PLC0415
    from smoothapi.study import expect  # noqa: PLC0415

    resolved = config.resolve(
        provider=provider,
        radius=radius,
        max_votes=max_votes,
        final=final,
        alpha=alpha,
        size=size,
        classes=classes,
        home=home,
    )
    settings = resolved.settings
    if learning:
        if distribution is not None or share is not None:
            raise UsageError("--learn counts past photos: leave out --distribution and --p.")
        return learn(settings, files, as_json=as_json)
    if files:
        raise UsageError("--from says what to learn from: give --learn, too.")
    wanted = working_only(settings.radius, _WHY_NOT)
    shares = _shares(distribution, share)
    price = _price(resolved, home)
    found: list[Expected] = []
    unreachable: list[str] = []
    for sigma in sigmas or (settings.sigma,):
        try:
            found.append(
                expect(
                    wanted,
                    sigma,
                    alpha=settings.alpha,
                    max_votes=settings.max_votes,
                    photos=photos,
                    price=price,
                    shares=shares,
                    pixels=3 * settings.size**2,
                    final=settings.final,
                )
            )
        except UnreachableRadiusError as error:
            unreachable.append(str(error))
    if not found:
        raise UnreachableRadiusError(" ".join(unreachable))
    if as_json:
        _as_json(found, unreachable, shares, price, settings.provider)
    else:
        _show(found, unreachable, shares, price, settings.provider)
    return 0


def _price(resolved: Resolved, home: str | None) -> Price:
    """The price list in force; a provider that cannot be asked here needs the settings' own."""
    from smoothapi.provider import Price  # noqa: PLC0415
    from smoothapi.smoother import Smoother  # noqa: PLC0415

    name = resolved.settings.provider
    try:
        with Smoother(name, denoiser="none", home=home) as smoother:
            return smoother.session.price
    except MissingExtraError as error:
        resolved.require_trust(("prices",))
        if name in resolved.settings.prices:
            return Price.parse(resolved.settings.prices[name], name)
        raise MissingExtraError(
            f"{error} To plan without it, say what it costs, such as [prices.{name}] with "
            "per_thousand = 1.0 in smoothapi.toml."
        ) from error


def _shares(distribution: Path | None, share: float | None) -> Shares:
    from smoothapi.study import Shares  # noqa: PLC0415

    if distribution is not None and share is not None:
        raise UsageError("Give --distribution or --p, not both.")
    if share is not None:
        return Shares.of(share)
    return Shares.shipped() if distribution is None else Shares.load(distribution)


def _as_json(
    found: list[Expected], unreachable: list[str], shares: Shares, price: Price, provider: str
) -> None:
    rows: list[dict[str, Any]] = [asdict(one) | {"per_photo": one.per_photo} for one in found]
    data = {
        "schema": "smoothapi.expected/1",
        "provider": provider,
        "price_per_thousand": float(price.per_thousand),
        "price_date": price.as_of,
        "free_per_month": price.free_per_month,
        "distribution": shares.source,
        "unreachable": unreachable,
        "rows": rows,
    }
    echo(json.dumps(data))


def _show(
    found: list[Expected], unreachable: list[str], shares: Shares, price: Price, provider: str
) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    first = found[0]
    table = Table(
        title=f"{first.photos:,} photos at radius {first.radius:g}, at most "
        f"{first.max_votes:,} votes each. Nothing was sent.",
        title_justify="left",
    )
    for name in ("sigma", "certified", "queries a photo", "queries", "dollars", "at most"):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            f"{one.sigma:g}",
            f"{one.certified:.0%}",
            f"{one.per_photo:,.1f}",
            f"{one.queries:,}",
            f"${one.dollars:,.2f}",
            f"${one.dollars_at_most:,.2f}",
        )
    console = PrintableConsole()
    console.print(table)
    for one in found:
        console.print(
            Text(f"Photos that take at most so many queries on average, sigma {one.sigma:g}")
        )
        for n, decided in one.decided:
            console.print(Text(f"  {n:>7,} {_bar(decided)} {decided:4.0%}"))
    free = f", the first {price.free_per_month:,} of a month free" if price.free_per_month else ""
    dated = f" as of {price.as_of}" if price.as_of else ""
    console.print(
        Text(f"Price: {provider}, ${price.per_thousand} per 1,000{free}{dated}; one month's bill."),
        style="dim",
    )
    console.print(Text(f"p: {printable(shares.source)}."), style="dim")
    for line in unreachable:
        console.print(Text(printable(line)), style="yellow")


def _bar(share: float) -> str:
    eighths = round(share * _WIDTH * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_PARTS[part] if part else "")).ljust(_WIDTH)
