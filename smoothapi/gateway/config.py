"""The gateway's configuration: a TOML file, or the same tables from Python.

::

    [gateway]
    port = 8760

    [certify]                     # as the options of `smoothapi.wrap`
    radius = 0.25
    score = 0.8
    otherwise = "plain"

    [providers.aws]
    budget = "$100/day"

    [providers.aws.options]       # as those of the adapter
    region = "eu-west-1"
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from smoothapi.certify.targets import Scores
from smoothapi.errors import UnreachableRadiusError, UsageError
from smoothapi.files import expanded, parse_toml
from smoothapi.gateway.front import SignedBy  # noqa: TC001  pydantic reads it
from smoothapi.hosts import is_loopback
from smoothapi.options import CertifyOptions, resolve
from smoothapi.store import Budget
from smoothapi.text import printable
from smoothapi.wrapping import CallPolicy
from smoothapi.wrapping.policy import CallOptions, Otherwise, RemotePictures, Uncertified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.settings import Settings

ACCOUNTS = "gateway-"
"""What the names of a gateway's budgets begin with."""

WITHIN = 55.0
"""Seconds for a call, by default: most SDKs wait for 60, and what was asked by then is kept."""

SETTLING = 10.0
"""Seconds for calls whose grace is over to be answered: what they sent is awaited and kept."""

_POLICY = frozenset(CallOptions.__annotations__) - {"target", "attach"}
_SESSION = frozenset(CertifyOptions.__annotations__) - {"retry", "refresh"}


def _path(value: Any) -> Any:
    return expanded(value) if isinstance(value, str) else value


def _operations(value: Any) -> Any:
    named = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    if isinstance(value, bool) or named:
        return value
    raise ValueError('give a list of operations, such as ["DetectFaces"], or true or false')


_File = Annotated[Path, BeforeValidator(_path)]
Passthrough = Annotated[bool | tuple[str, ...], BeforeValidator(_operations)]


class _Table(BaseModel):
    """A table of the file: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class CertifyTable(_Table):
    """What is certified, and what a call gives; as for `wrap`, None for the default there.

    But `within` is `WITHIN` by default.
    """

    score: float | None = None
    radius: float | str | None = None
    max_votes: int | None = None
    final: bool | None = None
    classes: _File | None = None
    otherwise: Otherwise | None = None
    within: float | None = None
    uncertified: Uncertified | None = None
    remote: RemotePictures | None = None
    sigma: float | None = None
    alpha: float | None = None
    size: int | None = None
    denoiser: str | None = None
    device: str | None = None
    codec: str | None = None
    concurrency: int | None = None
    home: str | None = None
    noise_key_file: _File | None = None

    def over(self, other: CertifyTable) -> CertifyTable:
        """Return these options, and where they are None the other's."""
        return CertifyTable(**{**other.given, **self.given})

    @property
    def given(self) -> dict[str, Any]:
        """The options that are set."""
        return {name: value for name, value in self if value is not None}

    @property
    def policy(self) -> CallPolicy:
        """What each call is to give."""
        changes: Any = {name: v for name, v in self.given.items() if name in _POLICY}
        return CallPolicy(within=WITHIN).changed(**changes)

    @property
    def session(self) -> CertifyOptions:
        """How noisy copies are made and asked about."""
        options: Any = {name: v for name, v in self.given.items() if name in _SESSION}
        return cast("CertifyOptions", options)


class ProviderTable(_Table):
    """How one provider is reached, and what of it.

    Attributes:
        budget: hard limit on all that is sent to it, such as "$100/day"; "unlimited" for none.
        signed_by: "gateway" signs with credentials of its own; "caller" hands on the caller's.
        passthrough: whether operations are sent on that have nothing to certify: all, none, or
            those named. They are not counted in budgets.
        fetch: places of pictures that calls may name instead of holding them: "s3://bucket",
            "https://images.example.com".
        options: where it is and what signs; as those of its adapter.
        certify: what holds for it instead of the table [certify].
    """

    budget: str
    signed_by: SignedBy = "gateway"
    passthrough: Passthrough = False
    fetch: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    certify: CertifyTable = CertifyTable()

    def passes(self, operation: str) -> bool:
        """Whether an operation is sent on although it has nothing to certify."""
        if isinstance(self.passthrough, bool):
            return self.passthrough
        return operation in self.passthrough


class GatewayTable(_Table):
    """Where it listens, who is let in, and how much it takes at a time.

    Attributes:
        host: address to listen on.
        port: port to listen on, 0 for any that is free.
        grpc_port: port for Google's gRPC, 0 for any that is free; None for none.
        behind_proxy: whether a proxy in front of it, which alone can reach it, speaks TLS.
        tls_certificate: file of the certificate and its chain, for TLS without a proxy.
        tls_key: file of its key.
        callers: "tokens" lets in who shows a token of the gateway; "anyone" everybody, which
            only an address of this machine may.
        workers: most calls that are certified at once.
        queue: most calls that wait besides.
        waiting_bytes: most bytes of pictures that are held for them all.
        retry_after: seconds that a caller is told to wait when the queue is full.
        grace: seconds that calls under way have to end, once the gateway is asked to stop.
        keep_days: days for which certificates are kept.
        records: file of tokens and certificates; by default they are in the home.
    """

    host: str = "127.0.0.1"
    port: int = Field(8760, ge=0, le=65_535)
    grpc_port: int | None = Field(None, ge=0, le=65_535)
    behind_proxy: bool = False
    tls_certificate: _File | None = None
    tls_key: _File | None = None
    callers: Literal["tokens", "anyone"] = "tokens"
    workers: int = Field(16, ge=1, le=256)
    queue: int = Field(64, ge=0, le=10_000)
    waiting_bytes: int = Field(512 * 2**20, ge=2**20)
    retry_after: float = Field(1.0, gt=0.0, le=3600.0)
    grace: float = Field(30.0, ge=0.0, le=3600.0)
    keep_days: float = Field(30.0, gt=0.0, allow_inf_nan=False)
    records: _File | None = None


class GatewayConfig(_Table):
    """All of a gateway's configuration; read by `read_config`.

    Attributes:
        gateway: the table [gateway].
        certify: the table [certify].
        providers: the tables [providers.NAME], by name.
    """

    gateway: GatewayTable = Field(default_factory=lambda: GatewayTable.model_validate({}))
    certify: CertifyTable = CertifyTable()
    providers: dict[str, ProviderTable]

    def certified(self, provider: str) -> CertifyTable:
        """Return what holds for a provider."""
        return self.providers[provider].certify.over(self.certify)

    def budgets(self, provider: str) -> list[Budget]:
        """Return the budgets of all callers together."""
        text = self.providers[provider].budget
        return [] if text == "unlimited" else [_lasting(text, f"{ACCOUNTS}{provider}")]

    @cached_property
    def settings(self) -> Settings:
        """The settings in force for all providers: of home and noise key there is one."""
        return resolve(None, self.certify.session, given_in="[certify]").settings


def read_config(
    source: Path | str | Mapping[str, Any], *, only: tuple[str, ...] = ()
) -> GatewayConfig:
    """Read a configuration, and check all that can be without asking anybody.

    Args:
        source: a TOML file, or its tables.
        only: names of the providers that are wanted; all of them, if none is named.

    Raises:
        UsageError: it cannot be read, holds what is unknown or out of range, or would let in more
            than it says; says where and what to do.
    """
    where = "The gateway's configuration" if not isinstance(source, (str, Path)) else str(source)
    tables: Mapping[str, Any]
    if isinstance(source, (str, Path)):
        try:
            tables = parse_toml(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"The configuration {printable(where)} cannot be read: "
                f"{getattr(error, 'strerror', None) or error}."
            ) from error
    else:
        tables = source
    try:
        config = GatewayConfig.model_validate(dict(tables))
    except ValidationError as error:
        raise UsageError(_explained(error, where)) from None
    for name in only:
        if name not in config.providers:
            raise UsageError(
                f"{printable(where)} has no table [providers.{name}]. Write one, with at least a "
                'budget: budget = "$20/day".'
            )
    if only:
        kept = {name: table for name, table in config.providers.items() if name in only}
        config = config.model_copy(update={"providers": kept})
    if not config.providers:
        raise UsageError(
            f"{printable(where)} names no provider. Write a table such as [providers.aws], with "
            'budget = "$20/day".'
        )
    _check(config)
    return config


def lasting_budget(text: str, name: str) -> Budget:
    """Return the budget of one caller, "" for one without a limit that is counted all the same.

    Raises:
        UsageError: it cannot be read, or is not of a day or a month.
    """
    if not text:
        return Budget(per="month", name=name)
    return _lasting(text, name)


def _lasting(text: str, name: str) -> Budget:
    amount, _, per = text.partition("/")
    lasts = per.strip() in {"day", "month"}
    budget = Budget.parse(text if lasts else amount)
    if not lasts:
        raise UsageError(
            f"budget {text!r}: a gateway runs on and on, so its budgets are of a day or a month: "
            f'"{amount.strip()}/day".'
        )
    return Budget(budget.attempts, budget.dollars, budget.per, name)


def _check(config: GatewayConfig) -> None:
    table = config.gateway
    for name in config.providers:
        options = config.certified(name)
        where = f"[certify] or [providers.{printable(name)}.certify]"
        settings = resolve(None, options.session, given_in=where).settings
        _check_reach(name, settings, options.policy)
        config.budgets(name)
        for one in ("home", "noise_key_file"):
            if getattr(config.providers[name].certify, one) is not None:
                raise UsageError(f"{one}: a gateway has one, in the table [certify].")
    if table.grpc_port is not None and "google" not in config.providers:
        raise UsageError("grpc_port is for google, which is not among the providers served.")
    if (table.tls_certificate is None) != (table.tls_key is None):
        raise UsageError("TLS needs both tls_certificate and tls_key.")
    if is_loopback(table.host):
        return
    if table.callers == "anyone":
        raise UsageError(
            f'callers = "anyone" with host = {table.host!r} would let whoever reaches that address '
            "spend your money. Use tokens, or an address of this machine (127.0.0.1)."
        )
    if table.tls_certificate is None and not table.behind_proxy:
        raise UsageError(
            f"host = {table.host!r} can be reached from other machines, and tokens and pictures "
            "would go over the network unencrypted. Give tls_certificate and tls_key, or set "
            "behind_proxy = true (--behind-proxy) if a proxy that speaks TLS is the only way to it."
        )


def _check_reach(name: str, settings: Settings, policy: CallPolicy) -> None:
    """Refuse a radius that no photo's votes could reach, which every caller would be told."""
    if isinstance(settings.radius, str):  # what it comes to, each photo decides
        return
    try:
        Scores(("any",), policy.least(None)).start(
            sigma=settings.sigma,
            alpha=settings.alpha,
            max_votes=settings.max_votes,
            radius=settings.radius,
            final=settings.final,
        )
    except UnreachableRadiusError as error:
        raise UsageError(f"[providers.{name}] can certify nothing: {error}") from None


def _explained(error: ValidationError, where: str) -> str:
    said = []
    for one in error.errors(include_url=False, include_input=False)[:5]:
        place = ".".join(str(part) for part in one["loc"])
        what = {
            "extra_forbidden": "there is no such key",
            "missing": "it is missing",
            "tuple_type": 'give a list of texts: ["..."]',
        }.get(one["type"], one["msg"].removeprefix("Value error, "))
        said.append(f"{printable(place)}: {printable(what)}")
    return f"{printable(where)} cannot be used. {'; '.join(said)}."
