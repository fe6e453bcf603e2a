"""`smoothapi init`: a smoothapi.toml for this folder, from what is installed and signed in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo, prompt
from smoothapi.errors import UsageError
from smoothapi.files import create, replacing
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.config import Resolved
    from smoothapi.provider import ProviderInfo

_OFFLINE = "mock"
_FIRST_BUDGET = "$1"
# What needs no sign-in is no sign that it is wanted.
_NOT_CLOUD = frozenset({"mock", "torch", "http"})


@click.command("init", short_help="Write a smoothapi.toml for this folder.")
@options(
    "provider", "budget",
    provider="Provider to write; by default the one that is signed in, else the offline mock.",
    budget=f"Hard limit of a run to write; by default {_FIRST_BUDGET} where queries cost money.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a smoothapi.toml that is here.")
def init(provider: str | None, budget: str | None, force: bool) -> int:
    """Write a smoothapi.toml for this folder, from what is installed and signed in.

    On a terminal it asks which provider and which budget; on a pipe it asks nothing. No secret is
    written: they stay where the provider's SDK finds them.
    """
    from smoothapi import config  # noqa: PLC0415  keeps --help light
    from smoothapi.provider import adapter_options, choose_price, make_adapter, providers  # noqa: PLC0415
    from smoothapi.store import Budget  # noqa: PLC0415

    file = Path(config.FILE)
    if file.exists() and not force:
        raise UsageError(
            f"{config.FILE} is here already: `smoothapi config` shows what is in force. Give "
            "--force to replace it."
        )
    if budget is not None:
        Budget.parse(budget)
    resolved = config.resolve()
    asking = _on_a_terminal()
    if provider is None:
        provider = _chosen(_signed_in(providers(resolved)), asking=asking)
    adapter = make_adapter(provider, **adapter_options(provider, resolved))
    try:
        price = choose_price(resolved.settings, adapter)
        identity = dict(adapter.identity)
    finally:
        adapter.close()
    if budget is None and price.per_thousand:
        budget = _asked_budget() if asking else _FIRST_BUDGET
    text = _text(resolved, provider, budget, region=str(identity.get("region") or ""))
    if force:
        with replacing(file) as stream:
            stream.write(text)
    else:
        try:
            create(file, text.encode(), mode=0o644)
        except FileExistsError:
            raise UsageError(f"{config.FILE} has just been made by another program.") from None
        except OSError as error:
            raise UsageError(f"{config.FILE} cannot be written here: {error.strerror}.") from error
    echo(f"Wrote {config.FILE}: provider {provider}" + (f", budget {budget}." if budget else "."))
    echo("Next: smoothapi doctor, then smoothapi certify PHOTO --dry-run")
    return 0


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _signed_in(found: Sequence[ProviderInfo]) -> list[str]:
    """Return the clouds that have credentials here, by name."""
    from smoothapi.provider import NeedsCredentials  # noqa: PLC0415

    names = []
    for info in found:
        adapter = info.adapter
        if adapter is None:
            continue
        if info.name not in _NOT_CLOUD and isinstance(adapter, NeedsCredentials):
            try:
                signed_in = adapter.credentials().found
            except Exception:  # noqa: BLE001  a stranger's broken adapter is not the one that is wanted
                signed_in = False
            names += [info.name] * signed_in
        adapter.close()
    return names


def _chosen(signed_in: Sequence[str], *, asking: bool) -> str:
    """Return the provider to write.

    Raises:
        UsageError: several could be meant, and there is nobody to ask.
    """
    if asking:
        first = signed_in[0] if signed_in else _OFFLINE
        names = [*signed_in, _OFFLINE]
        said = ", ".join(map(printable, signed_in)) or "none of the clouds"
        echo(f"Signed in: {said}. {_OFFLINE} works offline, for nothing.")
        answer: str = prompt("Provider", type=click.Choice(names), default=first)
        return answer
    if len(signed_in) > 1:
        raise UsageError(
            f"Several providers are signed in: {', '.join(signed_in)}. Name one: "
            f"smoothapi init --provider {signed_in[0]}"
        )
    return signed_in[0] if signed_in else _OFFLINE


def _asked_budget() -> str:
    from smoothapi.store import Budget  # noqa: PLC0415

    def checked(text: str) -> str:
        try:
            Budget.parse(text)
        except UsageError as error:
            raise click.BadParameter(printable(str(error))) from error
        return text

    answer: str = prompt(
        "Hard limit of a run, in queries (500) or dollars ($2)",
        default=_FIRST_BUDGET,
        value_proc=checked,
    )
    return answer


def _text(resolved: Resolved, provider: str, budget: str | None, *, region: str) -> str:
    settings = resolved.settings
    radius = settings.radius if isinstance(settings.radius, float) else _quoted(settings.radius)
    limit = '# budget = "500"' if budget is None else f"budget = {_quoted(budget)}"
    rows = [
        (f"provider = {_quoted(provider)}", ""),
        (f"sigma = {settings.sigma}", "noise level: fixed for a deployment, never chosen by photo"),
        (f"radius = {radius}", "L2 radius to certify, in the working image"),
        (f"alpha = {settings.alpha}", "chance that a certificate is wrong"),
        (limit, 'hard limit of a run: "500" attempts or "$2"'),
        (f"denoiser = {_quoted(settings.denoiser)}", ""),
    ]
    lines = [
        "# Settings of smoothapi for runs in this folder; `smoothapi config` shows what counts.",
        "# Keys do not belong here; they stay where the provider's SDK finds them.",
        *(f"{setting:<22} # {why}" if why else setting for setting, why in rows),
    ]
    if region:
        lines += ["", f"[providers.{provider}]", f"region = {_quoted(region)}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)  # a basic string of TOML is one of JSON
