"""`smoothapi plan`: queries and dollars, without any call and without any photo."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.learning import learn
from smoothapi.cli.options import options
from smoothapi.cli.study import numbers
from smoothapi.cli.terminal import echo
from smoothapi.errors import MissingExtraError, UnreachableRadiusError, UsageError
from smoothapi.radius import WantedRadius, working_only
from smoothapi.text import printable

if TYPE_CHECKING:
    from smoothapi.config import Resolved
    from smoothapi.provider import Price
    from smoothapi.study import Expected, Shares

_WHY_NOT = (
    "What native and rms radii come to depends on the photos' size: add --photo-size 4000x3000."
)
_LONGEST_SIDE = 30_000
_WIDTH = 30  # of a bar
_BESIDE = 15  # columns of the figures left and right of it
_PARTS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class _Photos:
    """Of what size the planned photos are, and what the radius comes to around them.

    Attributes:
        native_size: (width, height) before the resize, None if that is not known.
        size: (width, height) of the working image.
        radius: L2 around the working image.
        radius_native: around the photo, None if its size is not known.
        radius_rms: the same as a root mean square.
        rms_steps: that in steps of 8-bit values, as a certificate shows it.
    """

    native_size: tuple[int, int] | None
    size: tuple[int, int]
    radius: float
    radius_native: float | None = None
    radius_rms: float | None = None
    rms_steps: float | None = None

    @classmethod
    def of(cls, native_size: tuple[int, int] | None, shorter: int, radius: float | str) -> _Photos:
        """Return photos of one size.

        Args:
            native_size: (width, height), None if that is not known.
            shorter: shorter side of the working image.
            radius: the one wanted, in any unit if the size is known.

        Raises:
            UsageError: the radius is one around photos of unknown size, or the largest; or no
                photo of this size can be certified.
        """
        if native_size is None:
            return cls(None, (shorter, shorter), working_only(radius, _WHY_NOT))
        from smoothapi.certify.radii import (  # noqa: PLC0415
            photo_radii,
            rounding_of,
            working_radius,
        )
        from smoothapi.image import MAX_PIXELS, MAX_SIDE, resize_gain, working_size  # noqa: PLC0415

        if radius == "largest":
            raise UsageError("A plan is for one radius, and the largest depends on the votes.")
        size = working_size(native_size, shorter)
        if math.prod(native_size) > MAX_PIXELS or max(size) > MAX_SIDE:
            width, height = native_size
            raise UsageError(
                f"Photos of {width} x {height} would be refused: they have up to {MAX_PIXELS:,} "
                f"pixels, and sides of the working image up to {MAX_SIDE:,}."
            )
        gain, rounding = resize_gain(native_size, size), rounding_of(3 * math.prod(size))
        wanted = working_radius(WantedRadius.parse(radius), native_size, gain, rounding)
        around = photo_radii(wanted, native_size, gain, rounding)
        return cls(native_size, size, wanted, around.native, around.rms, around.steps)


def _photo_size(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Read "4000x3000", a click callback."""
    del ctx, param
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})\s*x\s*([1-9]\d{0,4})", value.strip(), re.ASCII)
    sides = (0, 0) if match is None else (int(match[1]), int(match[2]))
    if not 0 < max(sides) <= _LONGEST_SIDE:
        raise click.BadParameter(
            f"{value!r}: write width and height in pixels, such as 4000x3000, up to "
            f"{_LONGEST_SIDE:,} each."
        )
    return sides


@dataclass(frozen=True, slots=True)
class _Planned:
    """What a plan says.

    Attributes:
        rows: what each reachable sigma would take.
        photos: which.
        unreachable: why no number of votes is enough, of the other sigmas.
        shares: how sure the labeller is assumed to be.
        price: what a query costs.
        provider: whose price that is.
    """

    rows: list[Expected]
    photos: _Photos
    unreachable: list[str]
    shares: Shares
    price: Price
    provider: str

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "schema": "smoothapi.expected/1",
            "provider": self.provider,
            "price_per_thousand": float(self.price.per_thousand),
            "price_date": self.price.as_of,
            "free_per_month": self.price.free_per_month,
            "distribution": self.shares.source,
            "photo_size": self.photos.native_size,
            "radius_native": self.photos.radius_native,
            "radius_rms": self.photos.radius_rms,
            "rms_steps": self.photos.rms_steps,
            "unreachable": self.unreachable,
            "rows": [asdict(row) | {"per_photo": row.per_photo} for row in self.rows],
        }


@click.command()
@options("radius", radius="L2 radius to certify: 0.25; with --photo-size also '0.5 native'.")
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
    "--photo-size",
    metavar="WxH",
    callback=_photo_size,
    help="Pixels of the photos, such as 4000x3000: says what a radius comes to around them.",
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
    photo_size: tuple[int, int] | None,
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
    around = _Photos.of(photo_size, settings.size, settings.radius)
    shares = _shares(distribution, share)
    price = _price(resolved, home)
    found: list[Expected] = []
    unreachable: list[str] = []
    for sigma in sigmas or (settings.sigma,):
        try:
            found.append(
                expect(
                    around.radius,
                    sigma,
                    alpha=settings.alpha,
                    max_votes=settings.max_votes,
                    photos=photos,
                    price=price,
                    shares=shares,
                    pixels=3 * math.prod(around.size),
                    final=settings.final,
                )
            )
        except UnreachableRadiusError as error:
            unreachable.append(str(error))
    if not found:
        raise UnreachableRadiusError(" ".join(unreachable))
    planned = _Planned(found, around, unreachable, shares, price, settings.provider)
    if as_json:
        echo(json.dumps(planned.to_dict()))
    else:
        _show(planned)
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


def _show(planned: _Planned) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415
    from smoothapi.cli.output import around_text  # noqa: PLC0415

    price, around, first = planned.price, planned.photos, planned.rows[0]
    table = Table(
        title=f"{first.photos:,} photos at radius {first.radius:g}, at most "
        f"{first.max_votes:,} votes each. Nothing was sent.",
        title_justify="left",
    )
    for name in ("sigma", "certified", "queries a photo", "queries", "dollars", "at most"):
        table.add_column(name, justify="right", no_wrap=name != "queries a photo")
    for one in planned.rows:
        table.add_row(
            f"{one.sigma:g}",
            f"{one.certified:.0%}",
            f"{one.per_photo:,.1f}",
            f"{one.queries:,}",
            f"${one.dollars:,.2f}",
            f"${one.dollars_at_most:,.2f}",
        )
    console = PrintableConsole()
    console.print_table(table)
    if around.native_size is not None:
        width, height = around.native_size
        text = around_text([around.radius], [around.radius_native], [around.rms_steps])
        console.print(Text(f"Photos of {width} x {height}: {text[0].lower()}{text[1:]}"))
    width = max(1, min(_WIDTH, console.width - _BESIDE))
    for one in planned.rows:
        console.print(
            Text(f"Photos that take at most so many queries on average, sigma {one.sigma:g}")
        )
        for n, decided in one.decided:
            console.print(Text(f"  {n:>7,} {_bar(decided, width)} {decided:4.0%}"))
    free = f", the first {price.free_per_month:,} of a month free" if price.free_per_month else ""
    dated = f" as of {price.as_of}" if price.as_of else ""
    cost = f"${price.per_thousand} per 1,000{free}{dated}"
    console.print(Text(f"Price: {planned.provider}, {cost}; one month's bill."), style="dim")
    console.print(Text(f"p: {printable(planned.shares.source)}."), style="dim")
    for line in planned.unreachable:
        console.print(Text(printable(line)), style="yellow")


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_PARTS[part] if part else "")).ljust(width)
