"""The operators' page: one HTML document that needs nothing else, made when it is asked for."""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from smoothapi.gateway.config import ACCOUNTS
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smoothapi.store import Account, Record

_LOOKED, _SHOWN, _REASONS, _LABELS = 500, 50, 12, 4


def page(
    *,
    providers: Sequence[str],
    hour: Mapping[tuple[str, str, str], int],
    latest: Sequence[Record],
    accounts: Sequence[Account],
    load: Mapping[str, int],
    now: float,
) -> tuple[bytes, str]:
    """Return the page, and its Content-Security-Policy.

    Args:
        providers: names of those that are served.
        hour: (provider, caller, outcome) -> how many pictures of the last hour.
        latest: the latest records, newest first, from which reasons are counted, too.
        accounts: how the budgets stand, the earlier periods first.
        load: "working", "waiting" and "held" (bytes).
        now: seconds since the epoch.
    """
    style = _file("page.css")
    html = _template().render(
        style=Markup(style),  # noqa: S704  our own
        now=_utc(now),
        providers=[_provider(name, hour) for name in providers],
        accounts=_accounts(accounts),
        reasons=_reasons(latest),
        looked=len(latest),
        latest=[_row(record) for record in latest[:_SHOWN]],
        **load,
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
    return html.encode(), f"{policy}; base-uri 'none'; form-action 'none'"


def most_looked_at() -> int:
    """Return how many records `page` makes use of."""
    return _LOOKED


def _provider(name: str, hour: Mapping[tuple[str, str, str], int]) -> dict[str, Any]:
    found: Counter[str] = Counter()
    for (provider, _, outcome), count in hour.items():
        if provider == name:
            known = outcome in {"certified", "abstained", "provider"}
            found[outcome if known else "other"] += count
    state = "nothing asked"
    if found["provider"]:
        state = f"failed for {found['provider']:,} of {found.total():,}"
    elif found.total():
        state = "answers"
    counts = {kind: found[kind] for kind in ("certified", "abstained", "provider", "other")}
    return {"name": name, "state": state, **counts}


def _accounts(accounts: Sequence[Account]) -> list[dict[str, Any]]:
    latest = {account.name: account for account in accounts}
    rows = []
    for account in latest.values():
        whose = account.name.removeprefix(ACCOUNTS)
        caller = whose.removeprefix("caller-")
        attempts, dollars = account.attempts_left, account.dollars_left
        rows.append(
            {
                "whose": caller if caller != whose else f"all callers of {whose}",
                "period": account.period,
                "attempts": account.attempts,
                "attempts_left": "no limit" if attempts is None else f"{attempts:,}",
                "dollars": f"${account.dollars:,.4f}",
                "dollars_left": "no limit" if dollars is None else f"${dollars:,.2f}",
            }
        )
    return rows


def _reasons(latest: Sequence[Record]) -> list[dict[str, Any]]:
    found = Counter(
        (one.outcome, printable(one.why)[:300]) for one in latest if one.outcome != "certified"
    )
    return [
        {"outcome": outcome, "why": why, "count": count}
        for (outcome, why), count in found.most_common(_REASONS)
    ]


def _row(record: Record) -> dict[str, Any]:
    kept = [label for label in record.finding.get("labels", ()) if label.get("certified")]
    names = ", ".join(printable(str(label.get("name", "")))[:60] for label in kept[:_LABELS])
    more = f" and {len(kept) - _LABELS} more" if len(kept) > _LABELS else ""
    return {
        "id": record.id,
        "at": _utc(record.at),
        "caller": record.caller,
        "provider": record.provider,
        "operation": printable(record.operation)[:80],
        "outcome": record.outcome,
        "labels": f"{names}{more}" or "none",
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_file("page.html.j2"))


@cache
def _file(name: str) -> str:
    folder = resources.files("smoothapi.gateway") / "templates"
    return (folder / name).read_text(encoding="utf-8")
