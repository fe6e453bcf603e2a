"""The provider: credentials, prices, its host, and the clock by which its answers are dated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi.doctor.network import Reached, Unreachable, reach
from smoothapi.doctor.result import CheckResult
from smoothapi.provider import HasEndpoint, NeedsCredentials, choose_price

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.provider import Adapter
    from smoothapi.settings import Settings

_NOTED, _REFUSED = 60.0, 300.0  # seconds; AWS refuses what was signed 5 minutes from its own time


def examine(adapter: Adapter, settings: Settings, *, online: bool) -> Iterator[CheckResult]:
    """Yield what is known of a provider, and with `online` whether its host can be reached.

    Raises:
        UsageError: a price in the settings cannot be read.
    """
    yield _credentials(adapter)
    price = choose_price(settings, adapter)
    date = f", as of {price.as_of}" if price.as_of else ""
    if price.per_thousand and settings.budget is None:
        yield CheckResult(
            "money",
            "warning",
            f"${price.per_thousand} per 1,000 queries{date}, and no budget",
            'Set a hard limit, such as budget = "$2".',
        )
    else:
        limit = f"; budget {settings.budget}" if settings.budget else ""
        yield CheckResult("money", "ok", f"${price.per_thousand} per 1,000 queries{date}{limit}")
    if not isinstance(adapter, HasEndpoint):
        return
    place = adapter.endpoint()
    if not place:
        yield CheckResult(
            "endpoint",
            "problem",
            "it is not known where the provider is",
            "Set region or endpoint.",
        )
        return
    if not online:
        yield CheckResult("endpoint", "ok", f"{place}, not tried")
        return
    try:
        reached = reach(place)
    except Unreachable as error:
        yield CheckResult(
            "endpoint", "problem", f"{place} cannot be reached: {error}", error.advice
        )
        return
    yield CheckResult("endpoint", "ok", f"{place} answers in {reached.seconds * 1000:.0f} ms")
    yield from _clock(reached)


def _credentials(adapter: Adapter) -> CheckResult:
    retires = getattr(adapter, "retires", None)
    ends = f"; the provider ends it on {retires}" if retires else ""
    if not isinstance(adapter, NeedsCredentials):
        return CheckResult("provider", "ok", f"{adapter.name}, which needs no credentials{ends}")
    found = adapter.credentials()
    if found.found:
        return CheckResult(
            "provider", "ok", f"{adapter.name}, credentials found: {found.where}{ends}"
        )
    return CheckResult(
        "provider",
        "problem",
        f"{adapter.name}, no credentials: {found.where}",
        "Sign in as for the provider's own SDK, or set provider to another: smoothapi providers",
    )


def _clock(reached: Reached) -> Iterator[CheckResult]:
    if reached.ahead is None:
        return
    away = abs(reached.ahead)
    said = f"{away:.0f} s {'ahead of' if reached.ahead > 0 else 'behind'} the provider's"
    if away < _NOTED:
        yield CheckResult("clock", "ok", f"within {_NOTED:.0f} s of the provider's")
        return
    yield CheckResult(
        "clock",
        "problem" if away >= _REFUSED else "warning",
        said,
        "Set the clock (NTP): signed requests are refused, and budgets of a day and a month go by "
        "it.",
    )
