"""`smoothapi serve`."""

from __future__ import annotations

import json
import logging
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.group import Group
from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from smoothapi.gateway.config import GatewayConfig
    from smoothapi.gateway.records import GatewayCaller, Records
    from smoothapi.gateway.server import GatewayServer

# Named each time, also where it lies in the folder: it decides where credentials and photos go.
_TOML = click.Path(dir_okay=False, path_type=Path)
_CONFIG = click.option("--config", "file", type=_TOML, help="The gateway's configuration.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")

# What a caller's code needs, by provider. The lines are run by the tests as they stand.
_CALLERS = {
    "aws": "AWS_ENDPOINT_URL_REKOGNITION={url} AWS_ACCESS_KEY_ID=TOKEN AWS_SECRET_ACCESS_KEY=any",
    "google": 'client_options={{"api_endpoint": "{url}", "api_key": "TOKEN"}}, transport="rest"',
    "azure": 'ComputerVisionClient("{url}", CognitiveServicesCredentials("TOKEN"))',
    "azure4": 'ImageAnalysisClient("{url}", AzureKeyCredential("TOKEN"))',
    "clarifai": '{url}/v2/users/USER/apps/APP/models/MODEL/outputs, "Authorization: Key TOKEN"',
}


class _Serve(Group):
    """A group of which a provider's name is a command: the one that serves."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is None and cmd_name in _providers():
            return _of(cmd_name)
        return own

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = super().list_commands(ctx)
        return [*(name for name in _providers() if name not in own), *own]


def _providers() -> list[str]:
    """Return the providers whose protocols the gateway speaks: ours, then those of strangers."""
    from smoothapi.gateway.front import GROUP  # noqa: PLC0415
    from smoothapi.provider import registered  # noqa: PLC0415

    names = registered(GROUP)
    return [*_CALLERS, *sorted(name for name in names if name not in _CALLERS)]


@click.group(cls=_Serve, subcommand_metavar="PROVIDER... [OPTIONS] | token COMMAND")
def serve() -> None:
    """Give certified labels in the providers' own protocols.

    A gateway between callers in any language and a provider: callers change the endpoint, and get
    the provider's own responses with certified labels. `smoothapi serve aws google` serves both on
    one port; `smoothapi serve token add NAME` lets a caller in.
    """


def _of(provider: str) -> click.Command:
    """Return the command that serves a provider, and those that are named behind it."""

    @click.command(name=provider, short_help=f"Serve {provider}, and others that are named.")
    @click.argument("others", nargs=-1, type=click.Choice(_providers()), metavar="[PROVIDER]...")
    @click.option(
        "--config", "file", type=_TOML, required=True, help="The configuration, gateway.toml, say."
    )
    @click.option("--host", help="Address to listen on, instead of the configuration's.")
    @click.option("--port", type=click.IntRange(0, 65_535), help="Port; 0 takes a free one.")
    @click.option(
        "--behind-proxy",
        is_flag=True,
        help="A proxy that speaks TLS is the only way to the address.",
    )
    @options("home")
    @click.option("--check", is_flag=True, help="Check the configuration, and end.")
    @_JSON
    def command(  # noqa: PLR0917  click passes options by name
        others: tuple[str, ...],
        file: Path,
        host: str | None,
        port: int | None,
        behind_proxy: bool,
        home: str | None,
        check: bool,
        as_json: bool,
    ) -> int:
        names = tuple(dict.fromkeys((provider, *others)))
        changes: dict[str, Any] = {"host": host, "port": port}
        changes["behind_proxy"] = behind_proxy or None
        given = {name: value for name, value in changes.items() if value is not None}

        def configure() -> GatewayConfig:
            return _configured(file, names, given, home)

        return _checked(configure()) if check else _serve(configure, as_json=as_json)

    command.help = (
        "Serve the providers named, until Ctrl-C or SIGTERM; SIGHUP reads the configuration again. "
        "Calls under way are finished first."
    )
    return command


@serve.group(cls=Group)
def token() -> None:
    """Let callers in, and keep them out again."""


@token.command()
@click.argument("name")
@click.option("--budget", default="", help="Hard limit on its calls: '$50/month', '1000/day'.")
@click.option("--per-second", type=float, help="Most requests a second.")
@click.option("--operator", is_flag=True, help="It may see all callers' certificates, too.")
@_CONFIG
@options("home")
@_JSON
def add(  # noqa: PLR0917  click passes options by name
    name: str,
    budget: str,
    per_second: float | None,
    operator: bool,
    file: Path | None,
    home: str | None,
    as_json: bool,
) -> int:
    """Make a token for the caller NAME, and show it: this once, as only its hash is kept."""
    with _records(file, home) as records:
        made = records.add_token(name, budget=budget, per_second=per_second, operator=operator)
    if as_json:
        echo(json.dumps({"name": name, "token": made}))
        return 0
    echo(f"The token of {name}, which is not shown again:", err=True)
    echo(made)
    return 0


@token.command(name="list")
@_CONFIG
@options("home")
@_JSON
def list_(file: Path | None, home: str | None, as_json: bool) -> int:
    """List the callers that have a token."""
    with _records(file, home) as records:
        found = records.callers()
    if as_json:
        echo(json.dumps([_row(caller) for caller in found]))
        return 0
    for caller in found:
        facts = [_limit(caller)]
        if caller.per_second is not None:
            facts.append(f"{caller.per_second:g} a second")
        if caller.operator:
            facts.append("operator")
        made = time.strftime("%Y-%m-%d", time.gmtime(caller.made))
        echo(f"{caller.name}: {', '.join(facts)}; since {made}")
    if not found:
        echo("Nobody has a token yet: smoothapi serve token add NAME")
    return 0


@token.command()
@click.argument("name")
@_CONFIG
@options("home")
def remove(name: str, file: Path | None, home: str | None) -> int:
    """Keep the caller NAME out from now on, also from a gateway that is running."""
    with _records(file, home) as records:
        was_there = records.remove_token(name)
    if not was_there:
        raise UsageError(f"Nobody named {name!r} has a token: `smoothapi serve token list`.")
    echo(f"The token of {name} lets nobody in any longer.")
    return 0


def _configured(
    file: Path, names: tuple[str, ...], given: dict[str, Any], home: str | None
) -> GatewayConfig:
    """Read a configuration, of the providers named or of all, and put options over it."""
    from smoothapi.files import parse_toml  # noqa: PLC0415
    from smoothapi.gateway import read_config  # noqa: PLC0415

    if not file.is_file():
        raise UsageError(
            f"There is no configuration {str(file)!r}. Write one, with at least:\n\n"
            f'[providers.{(*names, "aws")[0]}]\nbudget = "$20/day"\n'
        )
    if not given and home is None:
        return read_config(file, only=names)
    try:
        tables = parse_toml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The configuration {file} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    tables["gateway"] = {**tables.get("gateway", {}), **given}
    if home is not None:
        tables["certify"] = {**tables.get("certify", {}), "home": home}
    return read_config(tables, only=names)


@contextmanager
def _records(file: Path | None, home: str | None) -> Iterator[Records]:
    """Open the records of the gateway that a configuration, or the settings, stand for."""
    from smoothapi.config import resolve  # noqa: PLC0415
    from smoothapi.gateway import Records  # noqa: PLC0415
    from smoothapi.store import kept_records, open_home  # noqa: PLC0415

    instead: Path | None = None
    if file is not None:
        config = _configured(file, (), {}, home)
        address, instead = config.settings.home, config.gateway.records
    else:
        resolved = resolve(home=home)
        resolved.require_trust(("home",))
        address = resolved.settings.home
    with closing(open_home(address)) as store, closing(kept_records(store, instead)) as kept:
        yield Records(kept)


def _server_module() -> ModuleType:
    try:
        from smoothapi.gateway import server  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            f"The gateway needs a package that is not installed ({error.name}). Install it with: "
            "pip install 'smoothapi-vision[serve]'"
        ) from error
    return server


def _checked(config: GatewayConfig) -> int:
    _server_module().check(config)
    echo("The configuration can be used.")
    return 0


def _serve(configure: Callable[[], GatewayConfig], *, as_json: bool) -> int:
    module = _server_module()
    config = configure()
    server: GatewayServer = module.GatewayServer(config, configure=configure)
    try:
        gateway = server.app.gateway
        if config.gateway.callers == "tokens" and not gateway.records.callers():
            raise UsageError(
                "Nobody has a token of this gateway, so it would let nobody in. Make one with "
                "`smoothapi serve token add NAME`; on an address of this machine you can also set "
                'callers = "anyone".'
            )
        gateway.warm_up()
        _log_access(as_json=as_json)
        server.run(lambda: _introduce(server, config, as_json=as_json))
    finally:
        server.close()
    if not as_json:
        echo(_end(server), err=True)
    return 0


def _end(server: GatewayServer) -> str:
    if not server.cut:
        return "Ended: calls under way were finished."
    calls = "1 call" if server.cut == 1 else f"{server.cut} calls"
    return f"Ended: {calls} under way could not be finished; what was sent by then is kept."


def _introduce(server: GatewayServer, config: GatewayConfig, *, as_json: bool) -> None:
    """Say how to use the gateway, and in the last line that it is ready."""
    told = {name: _CALLERS.get(name, "{url}").format(url=server.url) for name in config.providers}
    if as_json:
        echo(json.dumps({"ready": True, "url": server.url, "callers": told}))
        return
    for name, line in told.items():
        echo(f"{name}:\n    {line}")
    echo(f"Ready: {', '.join(told)} at {server.url} (Ctrl-C ends it)")


def _log_access(*, as_json: bool) -> None:
    """Write a line to stderr for each request, as text or as JSON."""
    log = logging.getLogger("smoothapi.access")
    handler = logging.StreamHandler()
    handler.setFormatter(_Access(as_json=as_json))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)


class _Access(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        [access] = record.args if isinstance(record.args, tuple) else (record.args,)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        if self._as_json:
            return json.dumps({"at": at, **asdict(access)})  # type: ignore[call-overload]
        return f"{at} {access}"


def _limit(caller: GatewayCaller) -> str:
    budget = replace(caller.budget, name="")
    limited = budget.attempts is not None or budget.dollars is not None
    return str(budget) if limited else "no budget of its own"


def _row(caller: GatewayCaller) -> dict[str, Any]:
    return {
        "name": caller.name,
        "budget": _limit(caller),
        "per_second": caller.per_second,
        "operator": caller.operator,
        "made": caller.made,
    }
