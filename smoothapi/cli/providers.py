"""`smoothapi providers`: what there is, what it takes, costs and can say; `check` asks one once."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click

from smoothapi.answer import Answer
from smoothapi.cli.group import Group
from smoothapi.cli.options import options
from smoothapi.cli.terminal import confirm, echo
from smoothapi.errors import FatalError, ProviderError, UsageError
from smoothapi.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from smoothapi.known_labels import KnownLabels
    from smoothapi.provider import Adapter, Credentials, Price, ProviderInfo
    from smoothapi.settings import Settings

_MOST_LABELS = 10
_DECLINED = 1


@click.group(cls=Group, invoke_without_command=True)
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def providers(ctx: click.Context, home: str | None, as_json: bool) -> int:
    """List the providers: installed or not, credentials, prices, limits. Sends nothing.

    Options of adapters are taken from the settings, as for every other command.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from smoothapi import config, provider  # noqa: PLC0415

    resolved = config.resolve(home=home)
    rows = [_row(info, resolved.settings) for info in provider.providers(resolved)]
    if as_json:
        echo(json.dumps(rows))
    else:
        _show(rows)
    return 0


@providers.command(short_help="Send one picture to a provider, once.")
@click.argument("name")
@click.option("--photo", type=click.Path(), help="A photo to send instead of a test picture.")
@click.option("--yes", is_flag=True, help="Do not ask before a query that costs money.")
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(name: str, photo: str | None, yes: bool, home: str | None, as_json: bool) -> int:
    """Send one picture to the provider NAME, once, and say what came back and what it cost.

    It is sent with no retry, outside of all budgets, and the answer is not kept.
    """
    from smoothapi import config, provider  # noqa: PLC0415

    resolved = config.resolve(home=home)
    adapter = provider.make_adapter(name, **provider.adapter_options(name, resolved))
    try:
        return _check(adapter, resolved.settings, photo, sure=yes, as_json=as_json)
    finally:
        adapter.close()


def _check(
    adapter: Adapter, settings: Settings, photo: str | None, *, sure: bool, as_json: bool
) -> int:
    from smoothapi.provider import choose_price  # noqa: PLC0415

    price = choose_price(settings, adapter)
    cost = price.per_thousand / 1000
    payload = _payload(adapter, settings, photo)
    found = _credentials(adapter)
    if cost and not sure and not _confirmed(adapter.name, price):
        echo("Nothing was sent.", err=True)
        return _DECLINED
    began = time.monotonic()
    try:
        answer = _ask(adapter, payload)
    except ProviderError as error:
        error.provider = error.provider or adapter.name
        if found is None or found.found:  # else there was nothing to sign in with
            error.attempts, error.cost = 1, float(cost)
        raise
    seconds = time.monotonic() - began
    result = {
        "schema": "smoothapi.check/1",
        "provider": adapter.name,
        "identity": dict(adapter.identity),
        "labels": [{"name": label.name, "score": label.score} for label in answer.labels],
        "model_version": answer.model_version,
        "request_id": answer.request_id,
        "bytes": len(payload),
        "seconds": round(seconds, 3),
        "cost": float(cost),
        "price_as_of": price.as_of,
        "credentials": found.where if found else None,
    }
    if as_json:
        echo(json.dumps(result))
    else:
        _show_check(answer, result, price)
    return 0


@providers.command(short_help="Show the labels that a provider can give.")
@click.argument("name")
@click.option("--search", default="", metavar="TEXT", help="Only labels with this text in them.")
@click.option("--seen", is_flag=True, help="Only those that were in a stored answer.")
@options("home")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def labels(name: str, search: str, seen: bool, home: str | None, as_json: bool) -> int:
    """Show the labels of the provider NAME that are known: stated by it, or seen in its answers.

    With the options of the settings: each operation has labels of its own. Sends nothing.
    """
    from smoothapi import config, provider  # noqa: PLC0415
    from smoothapi.known_labels import KnownLabels  # noqa: PLC0415
    from smoothapi.store import open_home  # noqa: PLC0415

    resolved = config.resolve(home=home)
    adapter = provider.make_adapter(name, **provider.adapter_options(name, resolved))
    with closing(adapter), closing(open_home(resolved.settings.home)) as store:
        known = KnownLabels(adapter, store.answers)
        rows = [
            row
            for row in known.rows()
            if (row["seen"] or not seen) and _has(row, search.casefold())
        ]
        if as_json:
            echo(json.dumps({**_of_labels(known), "labels": rows}))
        else:
            _show_labels(known, rows, search)
    return 0


def _has(row: dict[str, Any], text: str) -> bool:
    return any(text in name.casefold() for name in (row["name"], *row["aliases"]))


def _of_labels(known: KnownLabels) -> dict[str, Any]:
    return {
        "schema": "smoothapi.labels/1",
        "provider": known.provider,
        "operation": known.operation,
        "closed": known.vocabulary.closed,
        "source": known.vocabulary.source,
        "as_of": known.vocabulary.as_of,
    }


def _show_labels(known: KnownLabels, rows: list[dict[str, Any]], search: str) -> None:
    stated = known.vocabulary
    count = f"{len(stated.all_names):,} labels"
    source = ", ".join(filter(None, (stated.source, stated.as_of)))
    source = f" ({source})" if source and stated.all_names else ""
    if stated.closed:
        head = f"{known.who}: {count}, and no others{source}."
    elif stated.all_names:
        head = f"{known.who}: {count} are known{source}; it may have others."
    else:
        head = f"{known.who}: it is not known which labels it has; any may be asked for."
    echo(printable(head), err=True)
    if not rows and search:
        meant = known.meant(search)
        hint = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
        echo(printable(f"None of those that are known has {search!r} in it.{hint}"), err=True)
    for row in rows:
        facts = [" < ".join(row["parents"])] if row["parents"] else []
        facts += [f"also called {' or '.join(row['aliases'])}"] if row["aliases"] else []
        facts += ["seen"] if row["seen"] else []
        facts += [f"until {row['retired']}"] if row["retired"] else []
        echo(printable(row["name"] + (f"  ({', '.join(facts)})" if facts else "")))


def _ask(adapter: Adapter, payload: bytes) -> Answer:
    """Ask once.

    Raises:
        ProviderError: whatever the provider, or the adapter itself, did wrong.
    """
    try:
        outcomes = list(adapter.ask([payload]))
    except ProviderError:
        raise
    except Exception as error:
        raise FatalError(
            f"The adapter {adapter.name!r} failed with {type(error).__name__}, which is not "
            "one of smoothapi's provider errors: this is a defect of the adapter.",
        ) from error
    outcome = outcomes[0] if len(outcomes) == 1 else None
    if isinstance(outcome, ProviderError):
        raise outcome
    if not isinstance(outcome, Answer):
        raise FatalError(
            f"The adapter {adapter.name!r} must return one Answer or ProviderError for one "
            "picture: this is a defect of the adapter."
        )
    return outcome


def _payload(adapter: Adapter, settings: Settings, photo: str | None) -> bytes:
    """Return a picture as the provider takes it.

    Raises:
        UsageError: the photo cannot be used, or not with this provider.
    """
    from smoothapi.encode import Codec  # noqa: PLC0415
    from smoothapi.image import load_image  # noqa: PLC0415

    limits = adapter.limits
    image = load_image(trial_picture() if photo is None else photo, size=settings.size)
    name = settings.codec if settings.codec in limits.formats else limits.formats[0]
    codec = Codec(
        name,
        min_side=limits.min_side,
        jpeg_above=limits.max_bytes if name == "png" and "jpeg" in limits.formats else None,
    )
    longest = max(codec.size_of(image.size))
    payload = codec.encode(image.to_uint8()) if longest <= limits.max_side else b""
    if not payload or len(payload) > limits.max_bytes:
        raise UsageError(
            f"The picture would be sent with {longest:,} pixels and {len(payload):,} bytes; "
            f"{adapter.name} takes up to {limits.max_side:,} and {limits.max_bytes:,}. Set a "
            "smaller size."
        )
    return payload


def trial_picture() -> NDArray[np.uint8]:
    """Return a picture to try a provider with: a bright disc over a field, (224, 224, 3) uint8."""
    import numpy as np  # noqa: PLC0415

    rows, columns = np.mgrid[0:224, 0:224]
    sky = np.stack([90 + rows // 4, 140 + rows // 4, 230 - rows // 8], axis=-1)
    field = np.stack([60 + columns // 8, 130 - columns // 8, 50 + 0 * rows], axis=-1)
    picture = np.where((rows > 150)[..., None], field, sky)
    disc = (rows - 70) ** 2 + (columns - 150) ** 2 < 40**2
    picture[disc] = (250, 220, 80)
    return picture.astype(np.uint8)


def _confirmed(name: str, price: Price) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            f"This sends one picture to {name}, which costs {_dollars(price)}, and there is nobody "
            "to ask. Give --yes to send it. Nothing was sent."
        )
    return confirm(
        f"This sends one picture to {name}, which costs {_dollars(price)}. Go on?", err=True
    )


def _dollars(price: Price) -> str:
    date = f" by the price list of {price.as_of}" if price.as_of else ""
    free = f" (the first {price.free_per_month:,} a month free)" if price.free_per_month else ""
    return f"${price.per_thousand / 1000:.4f}{date}{free}"


def _credentials(adapter: Adapter) -> Credentials | None:
    """Return what the adapter found to sign in with; None if it needs nothing."""
    from smoothapi.provider import NeedsCredentials  # noqa: PLC0415

    return adapter.credentials() if isinstance(adapter, NeedsCredentials) else None


def _row(info: ProviderInfo, settings: Settings) -> dict[str, Any]:
    """Return what is known of a provider, ready for JSON."""
    row: dict[str, Any] = {
        "name": info.name,
        "package": info.distribution,
        "installed": info.installed,
        "usable": info.adapter is not None,
        "problem": info.problem,
        **dict.fromkeys(
            (
                *("credentials", "where", "per_thousand", "price_as_of", "free_per_month"),
                *("steps", "batch", "max_bytes", "max_request_bytes", "min_side", "max_side"),
                *("formats", "per_second", "retires"),
            )
        ),
    }
    adapter = info.adapter
    if adapter is None:
        return row
    from smoothapi.provider import choose_price  # noqa: PLC0415

    try:  # a stranger's broken adapter must not hide the rest
        price, limits, found = (
            choose_price(settings, adapter),
            adapter.limits,
            _credentials(adapter),
        )
        row |= {
            "credentials": found.found if found else None,
            "where": found.where if found else None,
            "per_thousand": float(price.per_thousand),
            "price_as_of": price.as_of,
            "free_per_month": price.free_per_month,
            "steps": [[above, float(dollars)] for above, dollars in price.steps],
            "batch": limits.batch,
            "max_bytes": limits.max_bytes,
            "max_request_bytes": limits.max_request_bytes,
            "min_side": limits.min_side,
            "max_side": limits.max_side,
            "formats": list(limits.formats),
            "per_second": limits.per_second,
            "retires": getattr(adapter, "retires", None),
        }
    except UsageError:  # a price in the settings that cannot be read is the caller's
        raise
    except Exception as error:  # noqa: BLE001
        row |= {"usable": False, "problem": f"{type(error).__name__}: {error}"}
    with suppress(Exception):  # nor may one that cannot even be closed
        adapter.close()
    return row


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    table = Table()
    for column in ("provider", "here", "per 1,000", "a request", "a picture"):
        table.add_column(column, overflow="fold")  # a name cut short is of no use
    for row in rows:
        cells = (row["name"], _here(row)[0], *(_priced(row) if row["usable"] else ("", "", "")))
        table.add_row(*(Text(_printable_lines(cell)) for cell in cells))
    console = PrintableConsole()
    console.print(table)
    # Below, where names of variables and commands to install are not cut to a column's width.
    for row in rows:
        for more in _here(row)[1:]:
            line = Text(printable(row["name"]), style="bold")
            console.print(line.append(f": {printable(more)}", style="not bold"))


def _here(row: dict[str, Any]) -> list[str]:
    """Return in a few words whether a provider can be used here, and what more there is to say."""
    if not row["usable"]:
        return ["not usable" if row["installed"] else "not installed", row["problem"]]
    if row["credentials"] is None:
        said = ["ready, needs no credentials"]
    elif row["credentials"]:
        said = ["ready", f"credentials found: {row['where']}"]
    else:
        said = ["no credentials", f"no credentials: {row['where']}"]
    if row["retires"]:
        said.append(f"ends on {row['retires']}")
    return said


def _priced(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return price, limits of a request and limits of a picture, as lines."""
    date = f" ({row['price_as_of']})" if row["price_as_of"] else ""
    price = [f"${row['per_thousand']:.2f}{date}"]
    if row["free_per_month"]:
        price.append(f"first {row['free_per_month']:,} a month free")
    price += [f"from {above:,}: ${dollars:.2f}" for above, dollars in row["steps"]]
    request = [f"{row['batch']:,} picture{'s' * (row['batch'] > 1)}"]
    if row["max_request_bytes"]:
        request.append(f"{row['max_request_bytes'] / 1e6:.1f} MB")
    if row["per_second"]:
        request.append(f"{row['per_second']:g} a second")
    picture = [
        f"{', '.join(row['formats'])} up to {row['max_bytes'] / 1e6:.1f} MB",
        f"sides {row['min_side']:,} to {row['max_side']:,}",
    ]
    return "\n".join(price), "\n".join(request), "\n".join(picture)


def _show_check(answer: Answer, result: dict[str, Any], price: Price) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from smoothapi.cli.console import PrintableConsole  # noqa: PLC0415

    best = sorted(answer.labels, key=lambda label: (-label.score, label.name))[:_MOST_LABELS]
    labels = [f"{label.name} {label.score:.3f}" for label in best] or ["none: a valid answer"]
    if len(answer.labels) > len(best):
        labels.append(f"and {len(answer.labels) - len(best)} more")
    facts = [
        ("labels", "\n".join(printable(label) for label in labels)),
        ("model", answer.model_version or "the provider names none"),
        ("request id", answer.request_id or "the provider gave none"),
        ("sent", f"{result['bytes']:,} bytes, one request"),
        ("time", f"{result['seconds']:.2f} s"),
        ("cost", _dollars(price)),
    ]
    if result["credentials"]:
        facts.append(("credentials", result["credentials"]))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in facts:
        table.add_row(Text(name), Text(_printable_lines(value)))
    console = PrintableConsole()
    console.print(Text(f"{printable(result['provider'])} answers", style="bold"))
    console.print(table)


def _printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())
